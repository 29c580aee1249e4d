"""Several sections in one table of observations: found by their columns, libraries or barcodes, and chosen by name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sge2hist.data.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

SLIDE_COLUMNS = ("slide", "library_id", "slide_id")  # name the slide: several values are several slides
SECTION_COLUMNS = (
    "section",
    "section_id",
    "sample",
    "sample_id",
    "batch",
    "fov",
    "capture_area",
    "orig.ident",
    "region",
)
"""May name the slide, or a part of one slide: several values are several sections where their positions overlap."""
MIN_SHARED = 0.5  # share of the smaller section's area that both occupy; neighbouring fields of view share a border
BLOCKS_ACROSS = 40  # of the extent of all positions, at most
BLOCK_SPACINGS = 3.0  # a block holds some 9 positions of a section
MAX_NAMES = 200  # more are no sections
_BARCODE = re.compile(r"^[ACGT]{10,}(-.+)$|^s_\d{3}um_\d+_\d+(-.+)$")


@dataclass(frozen=True, kw_only=True)
class TableSections:
    """Names of the sections of a table with N rows."""

    names: list[str]
    section_of_row: np.ndarray  # int64 [N]: position in `names`, -1 = none
    origin: str  # what names them, for messages
    selector: str  # Python that selects one, with NAME for the name

    def rows(self, name: str, where: str) -> np.ndarray:
        """Rows of one section, int64; raises `InputError` for a name that is none."""
        if name not in self.names:
            raise InputError(found=f"--section {name}", where=where, expected=f"one of {_listed(self.names)}")
        return np.flatnonzero(self.section_of_row == self.names.index(name))


def find_sections(obs: pd.DataFrame, xy_N2: np.ndarray, libraries: Sequence[str] = ()) -> TableSections | None:
    """The sections of a table, or None where it holds one.

    Parameters
    ----------
    obs
        The table, N rows.
    xy_N2
        Positions in any one unit, float [N, 2].
    libraries
        Keys of ``uns["spatial"]``.

    Raises
    ------
    InputError
        If several libraries are stated and nothing says which row belongs to which.
    """
    for column in SLIDE_COLUMNS:
        found = _by_column(obs, column)
        if found is not None:
            return found
    candidates = [found for column in SECTION_COLUMNS if (found := _by_column(obs, column)) is not None]
    candidates += [found for found in [_by_barcode(obs)] if found is not None]
    for found in candidates:
        if set(found.names) == set(libraries) or sections_overlap(found, xy_N2):
            return found
    if len(libraries) > 1:
        for column in obs.columns:
            found = _by_column(obs, str(column))
            if found is not None and set(found.names) <= set(libraries):
                return found
        raise InputError(
            found=f"{len(libraries)} libraries in uns['spatial'] ({_listed(list(libraries))})",
            expected="a column of obs that names the library of each row, or one library",
            repair="add the column library_id; or delete the libraries that are not of this image from uns['spatial']",
        )
    return None


def choose_section(
    obs: pd.DataFrame, xy_N2: np.ndarray, libraries: Sequence[str], section: str | None, where: str
) -> np.ndarray | None:
    """Rows of the section to take (int64), None for all.

    Raises
    ------
    InputError
        If there are several and `section` is None, or names none of them.
    """
    if section is not None:
        for column in (*SLIDE_COLUMNS, *SECTION_COLUMNS):
            found = _by_column(obs, column, minimum=1)
            if found is not None and section in found.names:
                return found.rows(section, where)
    try:
        sections = find_sections(obs, xy_N2, libraries)
    except InputError as error:
        raise InputError(found=error.found, where=where, expected=error.expected, repair=error.repair) from None
    if section is not None:
        if sections is None:
            raise InputError(
                found=f"--section {section}, but one section", where=where, expected="no --section", repair="omit it"
            )
        return sections.rows(section, where)
    if sections is None:
        return None
    raise InputError(
        found=f"{len(sections.names)} slides in one file ({sections.origin}: {_listed(sections.names)})",
        where=where,
        expected="one slide, since one image is given",
        repair=f"--section {sections.names[0]} takes one; or save {sections.selector} to one file per slide and give "
        "them together, each with its image",
    )


def sections_overlap(sections: TableSections, xy_N2: np.ndarray) -> bool:
    """Whether two of the sections occupy the same area; parts of one slide lie beside each other."""
    low, high = xy_N2.min(axis=0), xy_N2.max(axis=0)
    rows_each = len(xy_N2) / len(sections.names)
    across = max(2.0, min(BLOCKS_ACROSS, np.sqrt(rows_each) / BLOCK_SPACINGS))
    side = max(float((high - low).max()) / across, 1e-9)
    block = ((xy_N2 - low) / side).astype(np.int64)
    key = block[:, 1] * (BLOCKS_ACROSS + 2) + block[:, 0]
    occupied = [np.unique(key[sections.section_of_row == number]) for number in range(len(sections.names))]
    n_here = np.bincount(np.concatenate(occupied))
    return any(len(blocks) > 0 and float((n_here[blocks] > 1).mean()) >= MIN_SHARED for blocks in occupied)


def _by_column(obs: pd.DataFrame, column: str, minimum: int = 2) -> TableSections | None:
    import pandas as pd

    if column not in obs.columns:
        return None
    codes, values = pd.factorize(obs[column].astype(str).where(obs[column].notna()))
    if not minimum <= len(values) <= MAX_NAMES:
        return None
    return TableSections(
        names=[str(value) for value in values],
        section_of_row=codes.astype(np.int64),
        origin=column,
        selector=f"adata[adata.obs[{column!r}] == ...]",
    )


def _by_barcode(obs: pd.DataFrame) -> TableSections | None:
    """Barcodes of joined runs end in -1, -2, ...; those of `anndata.concat` in -NAME."""
    import pandas as pd

    found = [_BARCODE.match(str(name)) for name in obs.index[:1]]
    if len(obs) < 2 or found[0] is None:
        return None
    codes, endings = pd.factorize(pd.Index(obs.index.astype(str)).str.extract(r"(-.+)$", expand=False))
    if not 2 <= len(endings) <= MAX_NAMES:
        return None
    return TableSections(
        names=[str(ending) for ending in endings],
        section_of_row=codes.astype(np.int64),
        origin="barcodes that end in",
        selector="adata[adata.obs_names.str.endswith(...)]",
    )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
