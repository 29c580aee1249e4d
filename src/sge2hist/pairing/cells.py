"""A section of 2 um bins -> a section of cells, by the outlines that there are or that the H&E shows.

Ways (`CellsConfig.method`): ``segmentation`` (Space Ranger 4's own: barcode mappings, else polygons), ``nuclei``
(found in the H&E), ``labels`` (a label image or polygons that the user gives), ``bins`` (no cells: each bin stays an
observation), ``auto``.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.section import Section
from sge2hist.data.slides.channels import describe_channels, is_rgb
from sge2hist.pairing.alignment.image_checks import check_image
from sge2hist.pairing.alignment.verdict import shifted
from sge2hist.pairing.cell_sources import Outlined, find_segmentation, from_labels, from_nuclei, from_segmentation
from sge2hist.pairing.count_matrix import bin_totals, count_places
from sge2hist.pairing.segmentation.bins_to_cells import BinCells, ExpansionConfig, bins_to_cells
from sge2hist.pairing.segmentation.segmenters import COARSEST_UM_PER_PX, SEGMENTERS
from sge2hist.pairing.segmentation.tiles import Progress
from sge2hist.readers.count_rows import regrouped

METHODS = ("auto", "segmentation", "nuclei", "labels", "bins")
COARSEST_BIN_UM = 4.0  # a nucleus of 8 um is two such bins across: coarser ones cannot be told apart


@dataclass(frozen=True, kw_only=True)
class CellsConfig:
    """How bins become cells."""

    method: str = "auto"  # segmentation | nuclei | labels | bins; auto takes what is there
    labels: Path | None = None  # label image or GeoJSON of the user
    segmenter: str = "auto"  # network | classical | stardist; auto: StarDist when installed, else the network
    expand_um: float | None = (
        None  # growth beyond the outline; None: 8 um around nuclei, 0 around outlines of cells or labels
    )
    volume_ratio: float | None = None  # grow each nucleus to this volume ratio instead of by a distance
    processes: int = 0  # for finding nuclei; 0 = one for each core
    destripe: bool = False  # also report the counts of each cell after destriping of the 2 um array

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(found=f"--cells {self.method}", expected=" | ".join(METHODS))
        if self.segmenter not in SEGMENTERS:
            raise InputError(found=f"--segmenter {self.segmenter}", expected=" | ".join(SEGMENTERS))
        if self.method == "labels" and self.labels is None:
            raise InputError(found="--cells labels without labels", repair="--labels FILE (label image or GeoJSON)")
        if self.labels is not None and self.method not in ("auto", "labels"):
            raise InputError(found=f"--labels with --cells {self.method}", repair="--cells labels")
        self.expansion(0.0)  # checks the ranges now, not after minutes of segmentation

    def expansion(self, default_um: float) -> ExpansionConfig:
        """Growth for outlines that grow by `default_um` unless the user says otherwise."""
        distance_um = default_um if self.expand_um is None else self.expand_um
        return ExpansionConfig(distance_um=distance_um, volume_ratio=self.volume_ratio)


def choose_method(section: Section, folder: Path | None, config: CellsConfig) -> str:
    """What `auto` means for a section that was read from `folder`."""
    if config.method != "auto":
        return config.method
    if config.labels is not None:
        return "labels"
    if section.observation != "bin" or (section.observation_um or 0) > COARSEST_BIN_UM:
        return "bins"
    if folder is not None and find_segmentation(folder) is not None:
        return "segmentation"
    return "nuclei" if section.um_per_px <= COARSEST_UM_PER_PX and is_rgb(section.image.channels) else "bins"


def cells_of_section(
    section: Section,
    *,
    config: CellsConfig | None = None,
    folder: Path | None = None,
    shift_um: tuple[float, float] = (0.0, 0.0),
    progress: Progress | None = None,
) -> Section:
    """Turn a section of bins into a section of cells; a section of cells or spots comes back as it is.

    Parameters
    ----------
    section
        2 um bins with `array_row` and `array_col` in `obs`, as the Visium HD reader returns them.
    config
        The way, see `CellsConfig`.
    folder
        What the section was read from: Space Ranger's segmentation is looked for there.
    shift_um
        Correction of the registration that `prepare` applies to positions (x to the right, y downwards): bins are
        moved by it before they are looked up in outlines on the image, and the centres of the cells are moved back by
        as much.
    progress
        Called with (tiles done, tiles in all) while nuclei are searched.

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
    method = choose_method(section, folder, config)
    segmented = method == "segmentation" and section.observation == "cell"
    if method == "bins" or segmented or (section.observation != "bin" and config.method == "auto"):
        _refuse_unused(config, section)
        return section
    _require_fine_bins(section, method)
    if method == "segmentation":
        outlined = from_segmentation(section, folder)
    elif method == "labels":
        assert config.labels is not None
        section = check_image(section)[0]
        outlined = from_labels(shifted(section, shift_um), config.labels)
    else:
        if not is_rgb(section.image.channels):
            raise InputError(
                found=f"--cells nuclei with an image of {describe_channels(section.image.channels)}",
                where=section.name,
                expected="an H&E: the segmenters know no other stain",
                repair="segment it yourself and give --cells labels --labels FILE, or --cells bins",
            )
        section = check_image(section)[0]
        outlined = from_nuclei(shifted(section, shift_um), config.segmenter, config.processes, progress)
    cells = _grown(section, outlined, config)
    return _cell_section(section, outlined, cells, config, shift_um if outlined.on_image else (0.0, 0.0))


def _refuse_unused(config: CellsConfig, section: Section) -> None:
    """What only cells made of bins can have must not be ignored in silence."""
    options = {
        "--expand-um": config.expand_um is not None,
        "--volume-ratio": config.volume_ratio is not None,
        "--destripe": config.destripe,
    }
    given = [name for name, is_given in options.items() if is_given]
    if given:
        raise InputError(
            found=f"{' and '.join(given)} with {section.observation}s as they are",
            where=section.name,
            expected="cells made of 2 um bins (--cells segmentation, nuclei or labels)",
            repair="leave it out",
        )


def _require_fine_bins(section: Section, method: str) -> None:
    bin_um = section.observation_um or 0.0
    if section.observation != "bin" or bin_um > COARSEST_BIN_UM or "array_row" not in section.obs.columns:
        raise InputError(
            found=f"{bin_um:g} um {section.observation}s",
            where=section.name,
            expected=f"bins of at most {COARSEST_BIN_UM:g} um on an array for --cells {method}",
            repair="--bin-um 2 with binned_outputs/square_002um, or --cells bins",
        )


def _grown(section: Section, outlined: Outlined, config: CellsConfig) -> BinCells:
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


def _cell_section(
    section: Section, outlined: Outlined, cells: BinCells, config: CellsConfig, shift_um: tuple[float, float]
) -> Section:
    import pandas as pd

    if not len(cells):
        raise InputError(
            found="no bin inside any outline",
            where=f"{section.name}, {outlined.source}",
            expected="outlines in px of the image, where the bins are",
            repair="look whether the outlines were made on this image, or --cells bins",
        )
    n_bins, kept = cells.n_bins(), cells.nucleus_of_cell
    table: dict[str, object] = {
        "n_bins": n_bins,
        "n_nucleus_bins": cells.n_nucleus_bins(),
        "area_um2": n_bins * float(section.observation_um or 2.0) ** 2,
    }
    if outlined.area_um2 is not None:
        table["nucleus_area_um2" if outlined.nuclei else "outline_area_um2"] = outlined.area_um2[kept]
    if outlined.clusters is not None:
        table["cluster"] = [outlined.clusters[index] for index in kept]
    totals = bin_totals(section)
    if config.destripe:
        from sge2hist.pairing.segmentation.bins_to_cells import destriped_totals

        table["n_counts_destriped"] = destriped_totals(section, totals, cells.group_of_obs, len(cells))
    index = pd.Index([outlined.ids[number] for number in kept], name="cell_id")
    back_px = np.array(shift_um) / section.um_per_px
    return dataclasses.replace(
        section,
        observation="cell",
        observation_um=None,
        obs=pd.DataFrame(table, index=index),
        centre_xy_px=_centres(section, outlined, cells) - back_px,
        read_counts=regrouped(section.read_counts, cells.group_of_obs, len(cells)),
        read_totals=None,
        caught=count_places(section, totals),
        notes=[*section.notes, _note(outlined, cells, section.n_obs)],
    )


def _centres(section: Section, outlined: Outlined, cells: BinCells) -> np.ndarray:
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


def _note(outlined: Outlined, cells: BinCells, n_bins: int) -> str:
    share = float((cells.group_of_obs >= 0).mean())
    return (
        f"cells from {outlined.source}: {len(outlined.ids):,} outlines, {len(cells):,} with bins; "
        f"{share:.0%} of {n_bins:,} bins belong to a cell"
    )
