"""Applicability: whether cells are such as a model was trained on, checked before anything is generated from them.

A model generates convincing images of its own tissue from any counts. Each :class:`Figure` compares up to 2,000 random cells with
the training cells, with two thresholds: the first gives a warning, the second a refusal (unless forced). The thresholds were
chosen on real sections (docs/concepts/applicability.md has the measurements).

Shape letters: N sampled cells, G genes of the model.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.gene_panel import GenePanel, PanelMatch, letter_case, species_of
from sge2hist.data.generated import applicability_headline
from sge2hist.data.paired import PairedDataset
from sge2hist.data.spatial_index import CellIndex
from sge2hist.data.table.cell_table import CellTable
from sge2hist.generation.embed import embed_counts
from sge2hist.generation.encode import ProteinReader, protein_reader
from sge2hist.generation.figure import Figure, above, apart, below, level_of, percent
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.gene.novelty import FLAG_BELOW

if TYPE_CHECKING:
    import anndata
    from scipy.sparse import csr_array

MAX_CELLS = 2000
SAMPLE_SEED = 31
VERDICTS = ("known", "doubtful", "unknown")  # no figure beyond a threshold; one beyond the first; one beyond the second
TRAINING_NOVEL_SHARE = 2 * FLAG_BELOW  # of the training cells, at most: either of two scores is below this quantile

# (warning, refusal) of each figure
NOVEL_SHARE = (0.05, 0.25)  # above: the lower 95 % limit of the share of novel cells
PROFILE_CORRELATION = (0.55, 0.30)  # below
DEPTH_RATIO = (3.0, 20.0)  # factor, up or down; the image model knows depths up to a factor of e^3 = 20
GENE_SHARE = (0.20, 0.02)  # below; gene dropout in training leaves at least 2 % of the genes
NAME_SHARE = (0.50, 0.10)  # below
CASE_SHARE = (0.05, 0.50)  # above
PROTEIN_SHARE = (0.5, -1.0)  # below; in training 30 % of the cells have none
SPACING_RATIO = (1.5, 3.0)  # factor, up or down

MIN_PROFILE_GENES, MIN_PROFILE_CELLS = 20, 50
UNIT_SQUARE = 1.96**2  # of the normal quantile of a 95 % interval

Warn = Callable[[str], None]


class ApplicabilityWarning(UserWarning):
    """The cells differ from those that the model was trained on."""


def warn_user(message: str) -> None:
    """Warn through Python's `warnings`."""
    warnings.warn(message, ApplicabilityWarning, stacklevel=2)


@dataclass(frozen=True, kw_only=True)
class Applicability:
    """All figures about the cells of a source, and the verdict."""

    figures: tuple[Figure, ...]
    n_cells: int  # sampled
    forced: bool = False

    @property
    def level(self) -> int:
        """The highest level of a figure: 0 to 2."""
        return max((figure.level for figure in self.figures), default=0)

    @property
    def verdict(self) -> str:
        """One of `VERDICTS`."""
        return VERDICTS[self.level]

    def reasons(self, level: int) -> list[str]:
        """Texts of the figures of at least this level, the worst first."""
        found = [figure for figure in self.figures if figure.level >= level]
        return [figure.text for figure in sorted(found, key=lambda figure: -figure.level)]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a manifest."""
        return {
            "verdict": self.verdict,
            "forced": self.forced,
            "n_cells": self.n_cells,
            "figures": [asdict(figure) for figure in self.figures],
        }


# --- checks of a source ---------------------------------------------------------------------------------------------


def check_dataset(
    bundle: ModelBundle, dataset: PairedDataset, *, force: bool = False, warn: Warn = warn_user
) -> Applicability:
    """:func:`check_cells` of a paired dataset."""
    return check_cells(
        bundle,
        dataset.counts,
        dataset.genes,
        len(dataset),
        centre_rows=dataset.rows("all"),
        xy_um_N2=dataset.centre_xy_px * dataset.um_per_px,
        slide_of_cell=dataset.slide_of_cell,
        proteins=protein_reader(bundle, dataset),
        where=str(dataset.path),
        force=force,
        warn=warn,
    )


def check_adata(
    bundle: ModelBundle,
    cells: anndata.AnnData | CellTable,
    *,
    layer: str | None = None,
    force: bool = False,
    warn: Warn = warn_user,
) -> Applicability:
    """:func:`check_cells` of an AnnData of raw counts; positions are not compared."""
    table = CellTable.of(cells, layer=layer)
    options: dict[str, Any] = {"where": table.where, "force": force, "warn": warn}
    return check_cells(bundle, table.rows, table.genes, table.n_obs, proteins=protein_reader(bundle, table), **options)


def check_cells(
    bundle: ModelBundle,
    read_counts: Callable[[np.ndarray], csr_array] | None,
    panel: GenePanel,
    n_cells: int,
    *,
    centre_rows: np.ndarray | None = None,
    xy_um_N2: np.ndarray | None = None,
    slide_of_cell: np.ndarray | None = None,
    proteins: ProteinReader | None = None,
    where: str = "",
    force: bool = False,
    warn: Warn = warn_user,
) -> Applicability:
    """Compare the cells of a source with the training cells; warn of differences.

    Parameters
    ----------
    read_counts, panel, n_cells
        Rising rows -> raw counts, CSR [n, genes of `panel`] (None: nothing was measured, and positions alone are compared);
        number of cells of the source.
    centre_rows
        Rows whose expression is compared; None: all. Cells that are only placed may have too few counts.
    xy_um_N2, slide_of_cell
        Positions in um of all cells, where images are conditioned on them, and the slide of each (None: one slide).
    proteins
        Of the cells, if any were measured and the model reads them.
    where
        The source, for messages.
    force
        Warn where cells would be refused.
    warn
        Called once with all reasons, if there are any.

    Raises
    ------
    InputError
        If a figure is beyond its second threshold and `force` is false, or no gene is shared.
    """
    others: dict[str, Any] = {"xy_um_N2": xy_um_N2, "slide_of_cell": slide_of_cell, "proteins": proteins}
    found = assess_cells(bundle, read_counts, panel, n_cells, centre_rows=centre_rows, **others)
    if found.level == 2 and not force:
        raise InputError(
            found=f"cells that this model does not know: {'; '.join(found.reasons(2))}",
            where=where,
            expected=f"cells such as it was trained on ({_training_cells(bundle)})",
            repair="use a model that was trained on such cells, or train one (`sge2hist train`); --force (in Python "
            "force=True) generates all the same, and marks the images",
        )
    if found.level:
        headline = applicability_headline(found.as_dict()) or ""
        warn(f"{where}: {headline}" if where else headline)
    return Applicability(figures=found.figures, n_cells=found.n_cells, forced=found.level == 2)


def assess_cells(
    bundle: ModelBundle,
    read_counts: Callable[[np.ndarray], csr_array] | None,
    panel: GenePanel,
    n_cells: int,
    *,
    centre_rows: np.ndarray | None = None,
    xy_um_N2: np.ndarray | None = None,
    slide_of_cell: np.ndarray | None = None,
    proteins: ProteinReader | None = None,
) -> Applicability:
    """All figures of :func:`check_cells`, without a refusal."""
    pool = np.arange(n_cells) if centre_rows is None else centre_rows
    rows = np.sort(pool[np.random.default_rng(SAMPLE_SEED).permutation(len(pool))[:MAX_CELLS]])
    figures: list[Figure] = []
    if read_counts is not None:
        match = bundle.genes.align(panel)
        figures += [gene_share(bundle, match), name_share(bundle, panel, match), species(bundle, panel, match)]
    if len(rows) and read_counts is not None:
        counts_NG, observed_G = bundle.genes.gather(read_counts(rows), match)
        figures += [
            depth_ratio(bundle, counts_NG, observed_G),
            profile_correlation(bundle, counts_NG, observed_G),
            novel_share(bundle, counts_NG, observed_G, None if proteins is None else proteins(rows)),
        ]
        if bundle.proteins is not None:
            figures.append(protein_share(None if proteins is None else proteins(rows)))
    if xy_um_N2 is not None and n_cells > 1:
        slides = np.zeros(n_cells, np.int64) if slide_of_cell is None else slide_of_cell
        figures.append(spacing_ratio(bundle, CellIndex(xy_um_N2, slides).spacing_um()))
    return Applicability(figures=tuple(figures), n_cells=len(rows))


# --- genes ----------------------------------------------------------------------------------------------------------


def gene_share(bundle: ModelBundle, alignment: PanelMatch) -> Figure:
    """Share of the model's genes that the cells have counts of."""
    share = alignment.n_shared / len(bundle.genes)
    text = f"{alignment.n_shared:,} of the model's {len(bundle.genes):,} genes were measured ({percent(share)})"
    return below("gene_share", share, 1.0, GENE_SHARE, text)


def name_share(bundle: ModelBundle, panel: GenePanel, alignment: PanelMatch) -> Figure:
    """Share of the genes that could be common to both which are: low for other names, another species, other panels."""
    smaller = min(len(bundle.genes), len(panel))
    share = alignment.n_shared / smaller
    text = (
        f"{alignment.n_shared:,} genes are common to the {len(panel):,} of the cells and the {len(bundle.genes):,} of the "
        f"model, of {smaller:,} possible: other names or another panel"
    )
    return below("common_gene_names", share, 1.0, NAME_SHARE, text)


def species(bundle: ModelBundle, panel: GenePanel, alignment: PanelMatch) -> Figure:
    """Share of the common genes whose symbols differ in letter case (Umod is a gene of the mouse, UMOD of man); 1 where
    Ensembl ids name two species.
    """
    own, theirs = species_of(bundle.genes), species_of(panel)
    share = alignment.n_ignoring_case / alignment.n_shared
    text = f"{percent(share)} of the common genes are found only when the case of their symbols is ignored"
    if own and theirs and not (own in theirs or theirs in own):  # mouse is compatible with "mouse or rat"
        share = 1.0
        text = f"genes of {theirs}, and a model of {own}"
    elif share >= CASE_SHARE[1] and letter_case(panel) == "lower":
        # not the symbols of any other species for certain: some files are written in lower case throughout
        return Figure(
            name="other_species",
            value=share,
            reference=0.0,
            warning=CASE_SHARE[0],
            refusal=CASE_SHARE[1],
            level=1,
            text=f"{text}: lower case, as in some species and some exports",
        )
    elif share >= CASE_SHARE[0]:
        text += ": genes of another species"
    return above("other_species", share, 0.0, CASE_SHARE, text)


# --- counts ---------------------------------------------------------------------------------------------------------


def depth_ratio(bundle: ModelBundle, counts_NG: csr_array, observed_G: np.ndarray) -> Figure:
    """Median counts per cell over that of the training cells, on the genes that were measured."""
    gene = bundle.model.gene
    share = float(gene.encoder.mean_proportion_G.detach().cpu().numpy()[observed_G].sum())
    reference = float(gene.encoder.scale) * max(share, 1e-6)
    library_N = np.asarray(counts_NG.sum(1)).ravel()
    filled = library_N > 0  # as for the median of the training cells
    median = float(np.median(library_N[filled])) if filled.any() else 0.0
    ratio = median / reference
    size = " (more: spots or larger bins; fewer: single cells, smaller bins or shallow sequencing)"
    text = f"a cell has {median:,.0f} counts on the model's genes, a training cell {reference:,.0f}{size}"
    return apart("counts_per_cell", ratio, DEPTH_RATIO, text)


def profile_correlation(bundle: ModelBundle, counts_NG: csr_array, observed_G: np.ndarray) -> Figure:
    """Correlation of the square roots of the mean expression of the genes, with that of the training cells.

    Not measured with fewer than 20 common genes, 50 cells, or counts than genes: noise, or a single type, would lower it.
    """
    total_G = np.asarray(counts_NG.sum(0)).ravel()[observed_G].astype(np.float64)
    known_G = bundle.model.gene.encoder.mean_proportion_G.detach().cpu().numpy()[observed_G].astype(np.float64)
    value = None
    enough = len(total_G) >= MIN_PROFILE_GENES and counts_NG.shape[0] >= MIN_PROFILE_CELLS
    if enough and total_G.sum() >= len(total_G) and min(total_G.std(), known_G.std()) > 0:
        value = float(np.corrcoef(np.sqrt(total_G), np.sqrt(known_G))[0, 1])
    shown = "not measured: too few genes, cells or counts" if value is None else f"{value:.2f}"
    text = f"the mean expression of the genes correlates with that of the training cells by {shown}"
    return below("expression_profile", value, 1.0, PROFILE_CORRELATION, text)


def novel_share(
    bundle: ModelBundle, counts_NG: csr_array, observed_G: np.ndarray, protein_NP: np.ndarray | None = None
) -> Figure:
    """Share of novel cells (`sge2hist.models.gene.novelty`) among those with counts; thresholds apply to its lower 95 % limit."""
    gene = bundle.model.gene
    some = np.flatnonzero(np.asarray(counts_NG.sum(1)).ravel() > 0)
    n, value, low = len(some), None, None
    if n and bool(gene.novelty.calibrated):
        of_some = None if protein_NP is None else protein_NP[some]
        flagged = embed_counts(gene, bundle.types, counts_NG[some], observed_G, protein_NP=of_some).is_novel_N
        value = float(flagged.mean())
        low = lower_limit(value, n)
    shown = "not measured" if value is None else percent(value)
    text = f"{shown} of {n:,} cells are novel to the model, {percent(TRAINING_NOVEL_SHARE)} of the training cells"
    level = 0 if low is None else level_of(low >= NOVEL_SHARE[0], low >= NOVEL_SHARE[1])
    warning, refusal = NOVEL_SHARE
    return Figure(
        name="novel_cells",
        value=value,
        reference=TRAINING_NOVEL_SHARE,
        warning=warning,
        refusal=refusal,
        level=level,
        text=text,
    )


def protein_share(protein_NP: np.ndarray | None) -> Figure:
    """Share of the model's proteins that were measured, over cells; without any, RNA alone conditions the images."""
    share = 0.0 if protein_NP is None else float(np.isfinite(protein_NP).mean())
    text = f"the model reads proteins, of which {percent(share)} of the values were measured: RNA alone conditions the rest"
    if share == 0:
        text = "the model reads proteins, and none was measured: RNA alone conditions these images"
    return below("protein_share", share, 1.0, PROTEIN_SHARE, text)


def lower_limit(share: float, n: int) -> float:
    """Lower limit of the 95 % interval of a share among n (Wilson score).

    >>> round(lower_limit(1.0, 1), 2), round(lower_limit(0.5, 1000), 2)
    (0.21, 0.47)
    """
    centre = share + UNIT_SQUARE / (2 * n)
    half = np.sqrt(UNIT_SQUARE * (share * (1 - share) / n + UNIT_SQUARE / (4 * n**2)))
    return float((centre - half) / (1 + UNIT_SQUARE / n))


# --- positions ------------------------------------------------------------------------------------------------------


def spacing_ratio(bundle: ModelBundle, spacing_um: float) -> Figure:
    """Median distance to the nearest cell over that of the training cells."""
    reference = training_spacing_um(bundle)
    ratio = spacing_um / reference if reference and spacing_um else None
    known = "unknown for the training cells" if reference is None else f"{reference:.3g} um among the training cells"
    text = f"the nearest cell is {spacing_um:.3g} um away, {known} (another size of cell, or positions not in um)"
    return apart("cell_spacing", ratio, SPACING_RATIO, text)


def training_spacing_um(bundle: ModelBundle) -> float | None:
    """Median distance to the nearest training cell; None if the model does not say."""
    known = bundle.provenance.get("cell_spacing_um")
    if known:
        return float(known)
    # models of version 0.1 state it for bins alone: the kernel of a cell is as wide as a bin
    of_bins = bundle.provenance.get("technology") == "Visium HD" and bundle.config.image.condition.form == "map"
    return float(bundle.config.image.condition.splat_um) if of_bins else None


def _training_cells(bundle: ModelBundle) -> str:
    facts = bundle.provenance
    known = [str(facts.get("technology") or ""), ", ".join(map(str, facts.get("slides", [])))]
    return "; ".join(part for part in [*known, f"types such as {', '.join(bundle.types.names[:3])}"] if part)
