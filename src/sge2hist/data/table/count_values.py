"""What the values of a matrix are: raw counts, counts with fractions, normalised values, or no counts at all.

Nothing in a matrix of numbers says that it holds counts, but counts leave traces. They are whole and at least 0; where some
genes of a cell have none, others have exactly one; totals of cells vary at least as a Poisson variable does. After division
by a total (and a logarithm) all values of a cell are whole multiples of one number, that of a single count.

Shape letters: S sampled cells, G genes, V stored values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np

from sge2hist.data.errors import InputError

if TYPE_CHECKING:
    from scipy.sparse import csr_array

TOLERANCE = 1e-3  # of a whole number: counts that went through float32 arithmetic are off by less
RELATIVE_TOLERANCE = 2e-6  # the same for large counts
ZERO_TOLERANCE = 1e-6  # what is further from 0 is no count of 0: a share of a total, for instance
MAX_COUNT = 2**31 - 1

MIN_CELLS = 10  # fewer show no pattern
MIN_GENES = 5  # of a cell
MIN_EXPECTED = 20.0  # values above 1 that counts would show; none at all has a probability below e^-20
MAX_SHARE_WITHOUT_ONE = 0.5  # of cells in which most genes have no counts
MIN_DISPERSION = 0.2  # variance over mean of the totals of cells: at least 1 where molecules are counted
MIN_TOTAL = 100.0  # mean total, for that
MAX_LOG_COUNT = 16.0  # log1p of 9 million
MAX_LOGARITHM = 50.0
MULTIPLE_SHARE = 0.8  # of cells whose values are multiples of one number
MAX_MULTIPLE = 50.0  # larger multiples are not precise enough to be recognised
CONSTANT_TOTALS = 0.01  # coefficient of variation
OWN_SCALE = (1 / 3, 3.0)  # the median value of a single count, where counts were corrected but not normalised

LOGARITHMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "natural": np.expm1,
    "base 2": lambda v: np.expm1(v * np.log(2)),
    "base 10": lambda v: np.expm1(v * np.log(10)),
}


class Verdict(Enum):
    """What values can be used as."""

    COUNTS = "counts"
    DOUBTFUL = "whole numbers that are hardly counts"  # taken only if the user names their place
    FRACTIONS = "counts with fractions"  # need rounding
    NORMALISED = "normalised values"  # cannot be turned back into counts
    NO_COUNTS = "no counts"


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a matrix holds."""

    verdict: Verdict
    text: str  # for people, after "holds"
    is_empty: bool = False  # zeros only


def describe(sample_SG: csr_array, dtype: np.dtype[Any], *, stated_log: bool = False) -> Contents:
    """What a matrix holds, by a sample of its rows.

    Parameters
    ----------
    sample_SG
        Rows, values as stored (float64).
    dtype
        Type of the stored values.
    stated_log
        The table says that its values are logarithms (``uns["log1p"]``, as scanpy writes it).
    """
    values = sample_SG.data
    problem = _no_counts(values, dtype)
    if problem is not None:
        return Contents(verdict=Verdict.NO_COUNTS, text=problem)
    if not (values > ZERO_TOLERANCE).any():
        return Contents(verdict=Verdict.COUNTS, text="zeros only", is_empty=True)
    fractional = ~is_whole(values)
    if not fractional.any():
        doubt = _doubt(sample_SG, stated_log)
        text = f"whole numbers up to {values.max():,.0f}"
        if doubt is None:
            return Contents(verdict=Verdict.COUNTS, text=text)
        return Contents(verdict=Verdict.DOUBTFUL, text=f"{text}, {doubt}")
    normalised = _normalised(sample_SG)
    text = f"numbers with fractions ({_percent(fractional.mean())} of those above 0, up to {values.max():.4g})"
    if normalised is not None:
        return Contents(verdict=Verdict.NORMALISED, text=f"{text}, as after {normalised}")
    if stated_log and values.max() <= MAX_LOG_COUNT:
        return Contents(verdict=Verdict.NORMALISED, text=f"{text}, logarithms according to uns['log1p']")
    if values.max() < 1:
        return Contents(verdict=Verdict.NORMALISED, text=f"{text}, none of which reaches one count")
    return Contents(verdict=Verdict.FRACTIONS, text=text)


def is_whole(values_V: np.ndarray) -> np.ndarray:
    """Whether each value is a whole number, up to the noise of arithmetic."""
    if values_V.dtype.kind in "iub":
        return np.ones(len(values_V), bool)
    nearest = np.rint(values_V)
    off = np.abs(values_V - nearest)
    return np.where(nearest == 0, off <= ZERO_TOLERANCE, off <= np.maximum(TOLERANCE, RELATIVE_TOLERANCE * nearest))


def whole_counts(values_V: np.ndarray, where: str) -> np.ndarray:
    """Stored values as int32.

    Raises
    ------
    InputError
        If some are negative, missing, out of range, or have fractions.
    """
    problem = _no_counts(values_V, values_V.dtype)
    if problem is None and not (whole := is_whole(values_V)).all():
        wrong = values_V[~whole]
        problem = f"numbers with fractions in places ({len(wrong):,}, such as {wrong[0]:.4g})"
    if problem is not None:
        raise InputError(
            found=problem,
            where=where,
            expected="whole numbers >= 0 throughout",
            repair="name another layer with --layer; or round at random with --round-counts if these are counts "
            "that were corrected",
        )
    return np.rint(values_V).astype(np.int32) if values_V.dtype.kind == "f" else values_V.astype(np.int32)


def check_range(values_V: np.ndarray, where: str) -> None:
    """Raise `InputError` for values that are negative, missing or out of range."""
    problem = _no_counts(values_V, values_V.dtype)
    if problem is not None:
        raise InputError(found=problem, where=where, expected="numbers >= 0")


def _no_counts(values_V: np.ndarray, dtype: np.dtype[Any]) -> str | None:
    if dtype.kind not in "iufb":
        return f"values of type {dtype}"
    if len(values_V) == 0:
        return None
    if dtype.kind == "f" and (missing := ~np.isfinite(values_V)).any():
        return f"missing or infinite values ({missing.sum():,})"
    if values_V.min() < -ZERO_TOLERANCE:
        return f"negative values (down to {values_V.min():.4g}), as after scaling"
    if values_V.max() > MAX_COUNT:
        return f"values up to {values_V.max():.4g}, above {MAX_COUNT:,}"
    return None


def _doubt(sample_SG: csr_array, stated_log: bool) -> str | None:
    """Why whole numbers are hardly counts, or None."""
    values = np.rint(sample_SG.data)
    n_cells, n_genes = sample_SG.shape
    density = len(values) / max(1, n_cells * n_genes)
    if values.max() == 1 and len(values) * density / 2 > MIN_EXPECTED:
        return "zeros and ones: presence, without numbers of molecules"
    if stated_log and values.max() <= MAX_LOG_COUNT:
        return "rounded logarithms according to uns['log1p']"
    n_each = np.diff(sample_SG.indptr)
    sparse_cells = np.flatnonzero((n_each >= MIN_GENES) & (n_each <= n_genes / 2))
    if len(sparse_cells) >= MIN_CELLS:
        without = np.mean([values[sample_SG.indptr[i] : sample_SG.indptr[i + 1]].min() > 1 for i in sparse_cells])
        if without > MAX_SHARE_WITHOUT_ONE:
            return f"never 1 in {_percent(without)} of the cells: multiples, or rounded normalised values"
    totals = np.bincount(np.repeat(np.arange(n_cells), n_each), weights=values, minlength=n_cells)
    if n_cells >= 5 * MIN_CELLS and totals.mean() >= MIN_TOTAL:
        variance = float(totals.var())
        if 0 < variance < MIN_DISPERSION * totals.mean():
            return f"with nearly the same total in every cell ({totals.mean():,.0f}): normalised and rounded"
    return None


def _normalised(sample_SG: csr_array) -> str | None:
    """Which normalisation made the values, or None."""
    values = sample_SG.data
    units = _unit_of_each_cell(sample_SG, values)
    if units is not None:
        totals = np.add.reduceat(values, sample_SG.indptr[:-1][np.diff(sample_SG.indptr) > 0])
        constant = totals.std() <= CONSTANT_TOTALS * totals.mean()
        if constant or not OWN_SCALE[0] <= float(np.median(units)) <= OWN_SCALE[1]:
            return "division of the counts of each cell by their total"
        return None  # a factor near 1 per cell: destriped bins, for instance
    if values.max() <= MAX_LOGARITHM:
        for name, inverse in LOGARITHMS.items():
            if _unit_of_each_cell(sample_SG, inverse(values)) is not None:
                return f"a logarithm ({name}) of counts or normalised counts"
    return None


def _unit_of_each_cell(sample_SG: csr_array, values_V: np.ndarray) -> np.ndarray | None:
    """The number of which all values of a cell are whole multiples, of each cell that has one; None if most cells have none.

    Values that are whole already show nothing.
    """
    starts, ends = sample_SG.indptr[:-1], sample_SG.indptr[1:]
    eligible, units = 0, []
    for start, end in zip(starts, ends, strict=True):
        cell = values_V[start:end]
        cell = cell[cell > 0]
        if len(cell) < MIN_GENES or len(np.unique(np.round(cell, 6))) < 2:
            continue
        eligible += 1
        multiples = cell / cell.min()
        multiples = multiples[multiples <= MAX_MULTIPLE]
        off = np.abs(multiples - np.rint(multiples))
        if (off <= 0.002 * multiples).mean() >= 0.98:
            units.append(cell.min())
    return np.array(units) if eligible >= MIN_CELLS and len(units) >= MULTIPLE_SHARE * eligible else None


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else f"{100 * share:.2g} %"
