"""Outlines of cells: Space Ranger's segmentation, nuclei found in the H&E, or labels of the user."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sge2hist.data.annotations import SUFFIXES
from sge2hist.data.errors import InputError
from sge2hist.data.packed_text import unpacked_name
from sge2hist.data.position_frame import FrameFacts
from sge2hist.data.section import Section
from sge2hist.pairing.alignment.frame import choose_factor
from sge2hist.pairing.alignment.tissue import tissue_of
from sge2hist.pairing.segmentation.bins_to_cells import BinCells
from sge2hist.pairing.segmentation.label_rle import LabelRuns, read_label_image
from sge2hist.pairing.segmentation.polygons import polygon_at
from sge2hist.pairing.segmentation.segmenters import choose_segmenter
from sge2hist.pairing.segmentation.tiles import Progress, TilingConfig, segment_slide
from sge2hist.readers.geojson import Polygons, read_geojson
from sge2hist.readers.tenx import barcode_mappings, space_ranger

NUCLEUS_EXPANSION_UM = 8.0  # Space Ranger 4: 4 bins
POLYGON_FILES = (
    "cell_segmentations.geojson",
    "graphclust_annotated_cell_segmentations.geojson",
    "nucleus_segmentations.geojson",
    "graphclust_annotated_nucleus_segmentations.geojson",
)


@dataclass(frozen=True, kw_only=True)
class OutlinedBins:
    """Bins inside outlines. N bins, P outlines."""

    group_of_obs: np.ndarray  # int64 [N]: outline that holds the bin, -1 = none
    ids: list[str]  # [P]
    source: str  # file or segmenter, for messages
    nuclei: bool  # the outlines are those of nuclei
    expand_um: float  # growth unless the user says otherwise
    one_piece: bool  # only the largest 8-connected piece of bins counts
    in_nucleus: np.ndarray | None = None  # bool [N], where known without outlines of nuclei
    centroid_xy_px: np.ndarray | None = None  # float64 [P, 2]
    area_um2: np.ndarray | None = None  # float64 [P]
    clusters: list[str | None] | None = None  # [P]

    def as_cells(self) -> BinCells:
        """One cell for each outline that holds a bin, without growth."""
        has_bin = self.group_of_obs >= 0
        present, group = np.unique(self.group_of_obs[has_bin], return_inverse=True)
        group_of_obs = np.full(len(self.group_of_obs), -1, np.int64)
        group_of_obs[has_bin] = group
        in_nucleus = has_bin & self.nuclei if self.in_nucleus is None else has_bin & self.in_nucleus
        return BinCells(group_of_obs=group_of_obs, in_nucleus=in_nucleus, nucleus_of_cell=present)


def find_segmentation(folder: Path) -> Path | None:
    """Space Ranger 4's barcode mappings, else its polygons (cells before nuclei), in `folder` or the run it is part of."""
    folders = [folder, folder / "outs"] if folder.is_dir() else []
    folder = folder.resolve()
    while folders and (folder.name.startswith("square_") or folder.name.endswith("binned_outputs")):
        folder = folder.parent  # no further than the run's own folder: the folder above holds other runs
        folders.append(folder)
    for pattern in (barcode_mappings.FILE, *POLYGON_FILES):
        for candidate in folders:
            globs = (pattern, f"*_{pattern}", f"*segmented_outputs/{pattern}")
            found = [path for glob in globs for path in candidate.glob(glob)]
            if found:
                return found[0]
    return None


def from_segmentation(
    section: Section, folder: Path | None, warn: Callable[[str], None] = lambda warning: None
) -> OutlinedBins:
    """Space Ranger's own cells."""
    path = find_segmentation(folder) if folder is not None else None
    if path is None:
        raise InputError(
            found=f"no {barcode_mappings.FILE} and no {POLYGON_FILES[0]}",
            where=str(folder or section.name),
            expected="outs/ of Space Ranger 4 or later",
            repair="--cells nuclei finds nuclei in the H&E; --cells labels --labels FILE takes your own outlines",
        )
    if path.name.endswith(barcode_mappings.FILE):
        return _from_mappings(section, path)
    nuclei = "nucleus_seg" in path.name
    return _from_polygons(section, _read_polygons(path, warn), path.name, nuclei=nuclei)


def from_labels(
    section: Section, path: Path, *, positions: str = "auto", warn: Callable[[str], None] = lambda warning: None
) -> OutlinedBins:
    """Outlines of the user: polygons (.geojson, .json, also packed as .gz or .zip) in px of the slide or um, or a label image
    of the slide's px.

    Raises
    ------
    InputError
        With `positions` "auto" if polygons fit the image better in um, or a file cannot be used.
    """
    if path.suffix.lower() == ".zip" or unpacked_name(path).lower().endswith(SUFFIXES):
        polygons = _in_px(section, _read_polygons(path, warn), path, positions, warn)
        return _from_polygons(section, polygons, path.name, nuclei=False)
    if positions not in ("auto", "px"):
        raise InputError(
            found=f"--positions {positions} with a label image", where=str(path), expected="px", repair="omit it"
        )
    runs, ids = read_label_image(path, width_px=section.image.width_px, height_px=section.image.height_px)
    return _from_runs(section, runs, ids, path.name, nuclei=False)


def _read_polygons(path: Path, warn: Callable[[str], None]) -> Polygons:
    """Polygons of a file; what was ignored or split becomes warnings."""
    polygons = read_geojson(path)
    for note in polygons.notes:
        warn(f"{path.name}: {note}")
    return polygons


def _in_px(section: Section, polygons: Polygons, path: Path, positions: str, warn: Callable[[str], None]) -> Polygons:
    """Polygons in px of the slide; see `pairing.alignment.frame`."""
    factor, warnings = choose_factor(
        polygons.area_px2_and_centroid()[1],
        tissue_of(section),
        facts=FrameFacts(),
        um_per_px=section.um_per_px,
        size_px=(section.image.width_px, section.image.height_px),
        positions=positions,
        what="outlines",
        where=str(path),
    )
    for warning in warnings:
        warn(warning)
    return polygons if factor == 1 else polygons.scaled(factor)


def from_nuclei(section: Section, segmenter: str, processes: int, progress: Progress | None) -> OutlinedBins:
    """Nuclei that a segmenter finds in the H&E."""
    name, find = choose_segmenter(segmenter, section.image, section.um_per_px)
    runs = segment_slide(
        section.image, section.um_per_px, find, config=TilingConfig(processes=processes), progress=progress
    )
    ids = [f"nucleus_{number:08d}" for number in range(1, runs.n_labels + 1)]
    return _from_runs(section, runs, ids, f"nuclei found in the H&E ({name})", nuclei=True)


def _from_runs(section: Section, runs: LabelRuns, ids: list[str], source: str, *, nuclei: bool) -> OutlinedBins:
    return OutlinedBins(
        group_of_obs=runs.at(section.centre_xy_px),
        ids=ids,
        source=source,
        nuclei=nuclei,
        expand_um=NUCLEUS_EXPANSION_UM if nuclei else 0.0,
        one_piece=nuclei,
        centroid_xy_px=runs.centroid_xy_px(),
        area_um2=runs.area_px() * (runs.image_px * section.um_per_px) ** 2,
    )


def _from_polygons(section: Section, polygons: Polygons, source: str, *, nuclei: bool) -> OutlinedBins:
    area_px2, centroid_xy_px = polygons.area_px2_and_centroid()
    group_of_obs = polygon_at(polygons, section.centre_xy_px)
    return OutlinedBins(
        group_of_obs=group_of_obs,
        ids=[f"cellid_{int(name):09d}-1" if name.isdecimal() else name for name in polygons.ids],
        source=source,
        nuclei=nuclei,
        expand_um=NUCLEUS_EXPANSION_UM if nuclei else 0.0,
        one_piece=nuclei,
        in_nucleus=_in_own_nucleus(polygons, section.centre_xy_px, group_of_obs),
        centroid_xy_px=centroid_xy_px,
        area_um2=area_px2 * section.um_per_px**2,
        clusters=[name.replace("-", " ") if name else None for name in polygons.classes]
        if any(polygons.classes)
        else None,
    )


def _in_own_nucleus(cells: Polygons, xy_px: np.ndarray, cell_of_obs: np.ndarray) -> np.ndarray | None:
    """Bins inside the nucleus of the cell that holds them, bool [N]; None where the file has no nuclei."""
    if cells.nuclei is None:
        return None
    number = {name: index for index, name in enumerate(cells.ids)}
    cell_of_nucleus = np.array([*(number[name] for name in cells.nuclei.ids), -2], np.int64)
    return cell_of_nucleus[polygon_at(cells.nuclei, xy_px)] == cell_of_obs


def _from_mappings(section: Section, path: Path) -> OutlinedBins:
    if section.observation_um != 2.0:
        raise InputError(
            found=f"{section.observation_um:g} um bins", where=str(path), expected="2 um bins", repair="--bin-um 2"
        )
    mappings = barcode_mappings.read_barcode_mappings(path)
    row, column = section.obs["array_row"].to_numpy(np.int64), section.obs["array_col"].to_numpy(np.int64)
    width = int(max(column.max(initial=0), mappings.column.max())) + 1
    height = int(max(row.max(initial=0), mappings.row.max())) + 1
    index_of_bin, index = row * width + column, mappings.row * width + mappings.column
    cell_at = np.full(height * width, -1, np.int32)
    cell_at[index] = mappings.cell
    nuclear_at = np.zeros(height * width, bool)
    nuclear_at[index] = mappings.in_nucleus
    clusters = _clusters(path.parent, mappings.cell_ids)
    return OutlinedBins(
        group_of_obs=cell_at[index_of_bin].astype(np.int64),
        ids=mappings.cell_ids,
        source=path.name,
        nuclei=False,
        expand_um=0.0,
        one_piece=False,
        in_nucleus=nuclear_at[index_of_bin],
        clusters=clusters,
    )


def _clusters(outs: Path, cell_ids: list[str]) -> list[str | None] | None:
    """Space Ranger's graph clusters of its cells, where the folder has them."""
    for folder in sorted(outs.glob("*segmented_outputs")):
        clusters = space_ranger.clusters_of(folder, cell_ids, [])  # cells that its filter excluded have none
        if clusters is not None:
            return clusters
    return None
