"""A section of 2 um bins -> a section of cells, inside outlines of Space Ranger, of the user, or of nuclei in the H&E."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.section import CountGrid, Proteins, Section
from sge2hist.data.slides.channels import describe_channels, is_rgb
from sge2hist.pairing.config import CellsConfig
from sge2hist.pairing.quality import NUCLEUS_AREA
from sge2hist.pairing.segmentation.bins_to_cells import BinCells, bins_to_cells, destriped_totals
from sge2hist.pairing.segmentation.outlines import (
    OutlinedBins,
    find_segmentation,
    from_labels,
    from_nuclei,
    from_segmentation,
)
from sge2hist.pairing.segmentation.segmenters import MAX_UM_PER_PX
from sge2hist.pairing.segmentation.tiles import Progress
from sge2hist.readers.count_rows import regrouped

COUNT_GRID_UM = 8.0  # side of the squares of a count grid: 2 um bins hold too few UMI, cells are about this large
_BINS_AT_ONCE = 400_000  # bounds the memory of `bin_totals`
MIN_OUTLINES = 20  # fewer say nothing about their frame
MIN_MATCHED, WARN_MATCHED = 0.1, 0.5  # shares of the outlines that hold a bin
MAX_BIN_UM = 4.0  # a nucleus of 8 um is two such bins across: coarser bins do not resolve nuclei


def choose_method(section: Section, folder: Path | None, config: CellsConfig) -> str:
    """The method of `CellsConfig` for a section that was read from `folder`; "bins" where no cells are to be made."""
    if config.method != "auto":
        return config.method
    if section.observation != "bin":
        return "bins"
    if config.labels is not None:
        return "labels"
    if (section.observation_um or 0) > MAX_BIN_UM:
        return "bins"
    if folder is not None and find_segmentation(folder) is not None:
        return "segmentation"
    return "nuclei" if section.um_per_px <= MAX_UM_PER_PX and is_rgb(section.image.channels) else "bins"


def cells_of_section(
    section: Section,
    *,
    config: CellsConfig | None = None,
    method: str | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
    positions: str = "auto",
    warn: Callable[[str], None] = lambda warning: None,
) -> Section:
    """Turn a section of bins into a section of cells; where no cells are to be made, return the section unchanged.

    Parameters
    ----------
    section
        2 um bins with `array_row` and `array_col` in `obs`, as the Visium HD reader returns them. For ``nuclei`` and
        ``labels`` the positions must match the image: after `check_image` and the correction of a shift.
    config
        See `CellsConfig`.
    method
        What `choose_method` returned; None calls it.
    folder
        What the section was read from: Space Ranger's segmentation is looked for there.
    progress
        Called with (tiles done, tiles in all) while nuclei are segmented.
    positions
        Unit of polygons of the user: px, um, or auto (px, unless um fit the image better).
    warn
        Called with each warning.

    Returns
    -------
    Section
        `observation` is "cell"; `obs` has n_bins, n_nucleus_bins, area_um2 and, where outlines are known,
        nucleus_area_um2; counts are the exact sums over the bins of each cell. `centre_xy_px` is the centre of mass
        of the outline.

    Raises
    ------
    InputError
        Bins too coarse, outlines that are missing or damaged, an image too coarse for nuclei, or no cell with a bin.
    """
    config = config or CellsConfig()
    method = method or choose_method(section, folder, config)
    if method == "bins" or (method == "segmentation" and section.observation == "cell"):
        _refuse_unused(config, section)
        return section
    _require_fine_bins(section, method)
    if method == "segmentation":
        outlines = from_segmentation(section, folder, warn)
    elif method == "labels":
        assert config.labels is not None
        outlines = from_labels(section, Path(config.labels), positions=positions, warn=warn)
    else:
        if not is_rgb(section.image.channels):
            raise InputError(
                found=f"--cells nuclei with an image of {describe_channels(section.image.channels)}",
                where=section.name,
                expected="an H&E: the segmenters know no other stain",
                repair="segment it yourself and give --cells labels --labels FILE, or --cells bins",
            )
        outlines = from_nuclei(section, config.segmenter, config.processes, progress)
    if method == "labels":
        _check_matched(section, outlines, warn)
    return _cell_section(section, outlines, _grown(section, outlines, config), config)


def _check_matched(section: Section, outlined: OutlinedBins, warn: Callable[[str], None]) -> None:
    """Outlines of the user must hold bins: warn when most do not, refuse when almost none on the array do."""
    n_outlines, holding = len(outlined.ids), np.unique(outlined.group_of_obs)
    n_holding = int((holding >= 0).sum())
    if n_holding == 0 or n_outlines == 0:
        return  # `_cell_section` says so
    on_array = n_outlines
    if outlined.centroid_xy_px is not None:
        low, high = section.centre_xy_px.min(axis=0), section.centre_xy_px.max(axis=0)
        on_array = int(((outlined.centroid_xy_px >= low) & (outlined.centroid_xy_px <= high)).all(axis=1).sum())
    found = f"{n_holding:,} of {n_outlines:,} outlines hold a bin ({on_array:,} lie within the array)"
    if n_outlines >= MIN_OUTLINES and n_holding < MIN_MATCHED * on_array:
        raise InputError(
            found=found,
            where=f"{section.name}, {outlined.source}",
            expected="outlines in px of the image, where the bins are",
            repair="check that the outlines were made on this image; --positions um states um",
        )
    if n_holding < WARN_MATCHED * n_outlines:
        warn(f"{found}: check alignment.png; --positions um states outlines in um")


def _refuse_unused(config: CellsConfig, section: Section) -> None:
    """Options that apply to cells made of bins only must not be ignored in silence."""
    options = {
        "--labels": config.labels is not None,
        "--expand-um": config.expand_um is not None,
        "--volume-ratio": config.volume_ratio is not None,
        "--destripe": config.destripe,
    }
    given = [name for name, is_given in options.items() if is_given]
    if given:
        raise InputError(
            found=f"{' and '.join(given)} with {section.observation}s that stay {section.observation}s",
            where=section.name,
            expected="cells made of 2 um bins (--cells segmentation, nuclei or labels)",
            repair="omit it",
        )


def _require_fine_bins(section: Section, method: str) -> None:
    bin_um = section.observation_um or 0.0
    if section.observation != "bin" or bin_um > MAX_BIN_UM or "array_row" not in section.obs.columns:
        raise InputError(
            found=f"{bin_um:g} um {section.observation}s",
            where=section.name,
            expected=f"bins of at most {MAX_BIN_UM:g} um on an array for --cells {method}",
            repair="--bin-um 2 with binned_outputs/square_002um, or --cells bins",
        )


def _grown(section: Section, outlined: OutlinedBins, config: CellsConfig) -> BinCells:
    expansion = config.expansion(outlined.expand_um)
    whole = expansion.distance_um == 0 and expansion.volume_ratio is None
    if whole and not outlined.one_piece:
        return outlined.as_cells()
    return bins_to_cells(
        outlined.group_of_obs,
        section.obs["array_row"].to_numpy(),
        section.obs["array_col"].to_numpy(),
        bin_um=float(section.observation_um or 2.0),
        expansion=expansion,
    )


def _cell_section(section: Section, outlined: OutlinedBins, cells: BinCells, config: CellsConfig) -> Section:
    import pandas as pd

    if not len(cells):
        raise InputError(
            found="no bin inside any outline",
            where=f"{section.name}, {outlined.source}",
            expected="outlines in px of the image, where the bins are",
            repair="check that the outlines were made on this image, or --cells bins",
        )
    n_bins, kept = cells.n_bins(), cells.nucleus_of_cell
    table: dict[str, object] = {
        "n_bins": n_bins,
        "n_nucleus_bins": cells.n_nucleus_bins(),
        "area_um2": n_bins * float(section.observation_um or 2.0) ** 2,
    }
    if outlined.area_um2 is not None:
        table[NUCLEUS_AREA if outlined.nuclei else "outline_area_um2"] = outlined.area_um2[kept]
    if outlined.clusters is not None:
        table["cluster"] = [outlined.clusters[index] for index in kept]
    totals = bin_totals(section)
    if config.destripe:
        table["n_counts_destriped"] = destriped_totals(section, totals, cells.group_of_obs, len(cells))
    index = pd.Index([outlined.ids[number] for number in kept], name="cell_id")
    return dataclasses.replace(
        section,
        observation="cell",
        observation_um=None,
        obs=pd.DataFrame(table, index=index),
        centre_xy_px=_centres(section, outlined, cells),
        read_counts=regrouped(section.read_counts, cells.group_of_obs, len(cells)),
        read_totals=None,
        proteins=None if section.proteins is None else _summed(section.proteins, cells),
        count_grid=count_grid_of_bins(section, totals),
        notes=[*section.notes, _note(outlined, cells, section.n_obs)],
    )


def _summed(proteins: Proteins, cells: BinCells) -> Proteins:
    """Proteins of cells, from those of their bins."""

    def read(group_of_cell: np.ndarray | None = None, n_groups: int | None = None) -> np.ndarray:
        if group_of_cell is None:
            return proteins.read(cells.group_of_obs, len(cells))
        n_groups = int(group_of_cell.max(initial=-1)) + 1 if n_groups is None else n_groups
        return proteins.read(np.append(group_of_cell, -1)[cells.group_of_obs], n_groups)  # index -1 stays -1

    return dataclasses.replace(proteins, read=read)


def _centres(section: Section, outlined: OutlinedBins, cells: BinCells) -> np.ndarray:
    """Centre of mass of the outline, else the mean of the bins of the nucleus, else of all bins: float64 [C, 2]."""
    if outlined.centroid_xy_px is not None:
        return outlined.centroid_xy_px[cells.nucleus_of_cell]
    n_cells, group = len(cells), cells.group_of_obs
    nuclear = cells.in_nucleus & (group >= 0)
    has_nucleus = np.bincount(group[nuclear], minlength=n_cells) > 0
    use = (group >= 0) & (nuclear | ~np.append(has_nucleus, False)[group])
    n_used = np.bincount(group[use], minlength=n_cells)[:, None]
    sums = [np.bincount(group[use], section.centre_xy_px[use, axis], n_cells) for axis in (0, 1)]
    return np.stack(sums, 1) / n_used


def _note(outlined: OutlinedBins, cells: BinCells, n_bins: int) -> str:
    share = float((cells.group_of_obs >= 0).mean())
    return (
        f"cells from {outlined.source}: {len(outlined.ids):,} outlines, {len(cells):,} with bins; "
        f"{share:.0%} of {n_bins:,} bins belong to a cell"
    )


def bin_totals(section: Section) -> np.ndarray:
    """UMI of each observation: int64 [N]; read in pieces where the reader offers no shorter way."""
    if section.read_totals is not None:
        return section.read_totals()
    totals = np.zeros(section.n_obs, np.int64)
    for first in range(0, section.n_obs, _BINS_AT_ONCE):
        last = min(first + _BINS_AT_ONCE, section.n_obs)
        group = np.full(section.n_obs, -1, np.int64)
        group[first:last] = np.arange(last - first)
        totals[first:last] = np.asarray(section.read_counts(group, last - first).sum(axis=1)).ravel()
    return totals


def count_grid_of_bins(section: Section, totals: np.ndarray) -> CountGrid:
    """Squares of about 8 um made of the section's bins.

    Parameters
    ----------
    section
        Bins with `array_row` and `array_col` in `obs`.
    totals
        UMI of each bin, [N]. A square at the edge of the tissue, with bins missing, is scaled to a full one.
    """
    bin_um = float(section.observation_um or COUNT_GRID_UM)
    k = max(1, round(COUNT_GRID_UM / bin_um))
    row, column = (section.obs[name].to_numpy(np.int64) // k for name in ("array_row", "array_col"))
    square = (row - row.min()) * (int(column.max() - column.min()) + 1) + column - column.min()
    n_bins = np.bincount(square)
    present = np.flatnonzero(n_bins)
    share = 1 / n_bins[present]
    centre = [np.bincount(square, section.centre_xy_px[:, axis])[present] * share for axis in (0, 1)]
    n_counts = np.bincount(square, totals)[present] * share * k**2
    return CountGrid(centre_xy_px=np.column_stack(centre), n_counts=n_counts, side_um=k * bin_um)
