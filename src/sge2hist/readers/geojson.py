"""Polygons of a GeoJSON file as flat arrays: no geometry objects, no data frame.

Space Ranger 4 writes one Polygon per cell, `properties.cell_id` an integer from 1, corners in px of the H&E given to it
(staircase outlines of 2 um bins). Annotated files add `properties.classification {"name": "Cluster-3", "color": ...}`.
Files of other programs: see `geojson_objects`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sge2hist.data.annotations import EXPECTED
from sge2hist.data.errors import InputError
from sge2hist.readers.geojson_features import features_of
from sge2hist.readers.geojson_objects import Objects, choose_ids, choose_objects, counted, objects_of
from sge2hist.readers.tables import damaged

MIN_HELD = 3  # outlines whose centres a region holds
_MIN_REGION_AREA = 3.0  # times the median area of the outlines: smaller ones hold no three others
_REGIONS_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class Polygons:
    """P polygons of R rings in all; exterior rings count positive, holes negative."""

    ids: list[str]  # [P] as written
    classes: list[str | None]  # [P] name of the classification
    polygon_of_ring: np.ndarray  # int64 [R]
    is_hole: np.ndarray  # bool [R]
    ring_start: np.ndarray  # int64 [R + 1] into `corner_xy_px`
    corner_xy_px: np.ndarray  # float64 [V, 2]; a ring's last corner repeats its first
    nuclei: Polygons | None = None  # nuclei that the file has beside its cells, under the ids of their cells
    notes: list[str] = field(default_factory=list)  # what was ignored or interpreted, for people

    def __len__(self) -> int:
        return len(self.ids)

    def scaled(self, factor: float) -> Polygons:
        """The same polygons with all coordinates times `factor`."""
        nuclei = self.nuclei.scaled(factor) if self.nuclei is not None else None
        return replace(self, corner_xy_px=self.corner_xy_px * factor, nuclei=nuclei)

    def take(self, keep: np.ndarray) -> Polygons:
        """The polygons that `keep`, bool [P], marks, and their nuclei."""
        kept_ring = keep[self.polygon_of_ring]
        length = np.diff(self.ring_start)
        nuclei = self.nuclei
        if nuclei is not None:
            ids = {self.ids[index] for index in np.flatnonzero(keep)}
            kept_nuclei = np.array([name in ids for name in nuclei.ids], bool)
            nuclei = nuclei.take(kept_nuclei) if kept_nuclei.any() else None
        return Polygons(
            ids=[self.ids[index] for index in np.flatnonzero(keep)],
            classes=[self.classes[index] for index in np.flatnonzero(keep)],
            polygon_of_ring=(np.cumsum(keep) - 1)[self.polygon_of_ring[kept_ring]],
            is_hole=self.is_hole[kept_ring],
            ring_start=np.concatenate([[0], np.cumsum(length[kept_ring])]),
            corner_xy_px=self.corner_xy_px[np.repeat(kept_ring, length)],
            nuclei=nuclei,
            notes=self.notes,
        )

    def area_px2_and_centroid(self) -> tuple[np.ndarray, np.ndarray]:
        """Area [P] and centroid [P, 2] by the shoelace formula; a polygon without area gets the mean of its corners."""
        start = self.ring_start[:-1]
        # Relative to its first corner, a small ring far from the origin loses no digits.
        origin = np.repeat(self.corner_xy_px[start], np.diff(self.ring_start), axis=0)
        x, y = (self.corner_xy_px - origin).T
        cross = np.zeros(len(x))
        cross[:-1] = x[:-1] * y[1:] - x[1:] * y[:-1]
        cross[self.ring_start[1:] - 1] = 0  # no edge between rings
        double = np.add.reduceat(cross, start)
        moments = []
        for value in (x, y):
            pair = np.zeros(len(value))
            pair[:-1] = (value[:-1] + value[1:]) * cross[:-1]
            moments.append(np.add.reduceat(pair, start) / 6)
        orientation = np.where(double < 0, -1.0, 1.0) * np.where(self.is_hole, -1.0, 1.0)
        ring_area = double / 2 * orientation
        ring_moment = np.stack(moments, axis=1) * orientation[:, None] + ring_area[:, None] * self.corner_xy_px[start]
        area = np.bincount(self.polygon_of_ring, ring_area, len(self))
        moment = np.stack(
            [np.bincount(self.polygon_of_ring, ring_moment[:, axis], len(self)) for axis in (0, 1)], axis=1
        )
        mean = np.stack([self._mean_corner(axis) for axis in (0, 1)], axis=1)
        flat = area <= 1e-9
        centroid = np.where(flat[:, None], mean, moment / np.where(flat, 1, area)[:, None])
        return np.where(flat, 0.0, area), centroid

    def _mean_corner(self, axis: int) -> np.ndarray:
        polygon = np.repeat(self.polygon_of_ring, np.diff(self.ring_start))
        count = np.bincount(polygon, minlength=len(self))
        return np.bincount(polygon, self.corner_xy_px[:, axis], len(self)) / np.maximum(count, 1)


def read_geojson(path: str | Path) -> Polygons:
    """Read the outlines of cells of a GeoJSON file, plain, gzipped or zipped; `notes` says what was ignored.

    Which features are cells, and when a MultiPolygon is several, is defined in `geojson_objects`. Beside that an outline that
    holds the centres of `MIN_HELD` others or more is a region, not a cell, unless it has a `cell_id` or is called a cell or
    detection.

    Raises
    ------
    InputError
        If the file is damaged, is no FeatureCollection of polygons, has none, or repeats a `cell_id`.
    """
    path = Path(path)
    try:
        objects = objects_of(features_of(path))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise damaged(path, "GeoJSON file", error) from error
    if not len(objects):
        found = counted(objects.ignored) or "no features"
        raise InputError(found=found, where=str(path), expected=EXPECTED)
    keep, notes = choose_objects(objects)
    if objects.ignored:
        notes.insert(0, f"{counted(objects.ignored)} ignored: only polygons are outlines")
    if not keep.any():
        raise InputError(found="; ".join(notes), where=str(path), expected="outlines of cells")
    _refuse_repeated_ids(objects, keep, path)
    ids, key = choose_ids(objects, keep)
    if key is None and any(value for values in objects.id_of.values() for value in values):
        notes.append("no id that every cell has and none shares: cells are numbered by their place in the file")
    polygons = _polygons(objects, keep, ids, notes)
    named = key == "cell_id" or any(
        objects.object_type[index] in ("cell", "detection") for index in np.flatnonzero(keep)
    )
    return polygons if named else _without_regions(polygons)


def _refuse_repeated_ids(objects: Objects, keep: np.ndarray, path: Path) -> None:
    stated = Counter(objects.id_of["cell_id"][index] for index in np.flatnonzero(keep))
    repeated = [name for name, number in stated.items() if name is not None and number > 1]
    if repeated:
        raise InputError(
            found=f"repeated cell ids ({len(repeated):,}, e.g. {repeated[0]})",
            where=str(path),
            expected="one feature per cell_id",
            repair="make one MultiPolygon of the pieces of a cell, or remove cell_id",
        )


def _polygons(objects: Objects, keep: np.ndarray, ids: list[str], notes: list[str]) -> Polygons:
    feature_of_part = np.array(objects.feature_of_part, np.int64)
    one_cell = np.array(objects.is_one_cell, bool)
    kept_part = keep[feature_of_part]
    is_new = np.append(True, feature_of_part[1:] != feature_of_part[:-1]) | ~one_cell[feature_of_part]
    polygon_of_part = np.cumsum(is_new & kept_part) - 1
    feature = feature_of_part[is_new & kept_part]
    n_of_feature = np.bincount(feature, minlength=len(keep))
    number = np.arange(len(feature)) - np.searchsorted(feature, feature)
    names = [
        ids[index] if n_of_feature[index] == 1 else f"{ids[index]}_{n + 1}"
        for index, n in zip(feature, number, strict=True)
    ]
    if len(set(names)) < len(names):  # an id that looks like that of a part
        names = [str(index + 1) for index in range(len(names))]
    n_split = int((n_of_feature > 1).sum())
    if n_split:
        whole = int(n_of_feature[n_of_feature > 1].sum())
        notes.append(
            f"{n_split:,} MultiPolygon{'s' if n_split > 1 else ''} without a cell's id read as one cell per part: "
            f"{whole:,} cells (cell_id says that the parts are one)"
        )
    name_of_feature = dict(zip(feature.tolist(), names, strict=True))
    return Polygons(
        ids=names,
        classes=[objects.class_of[index] for index in feature],
        **_rings_of(objects, kept_part, polygon_of_part),
        nuclei=_nuclei(objects.nuclei, name_of_feature, one_cell),
        notes=notes,
    )


def _rings_of(objects: Objects, kept_part: np.ndarray, polygon_of_part: np.ndarray) -> dict[str, Any]:
    """Arrays of the rings of the kept parts."""
    part = np.array(objects.part_of_ring, np.int64)
    kept = np.flatnonzero(kept_part[part])
    corners = [objects.corners[index] for index in kept]
    return {
        "polygon_of_ring": polygon_of_part[part[kept]],
        "is_hole": np.array(objects.is_hole, bool)[kept],
        "ring_start": np.concatenate([[0], np.cumsum([len(ring) for ring in corners])]).astype(np.int64),
        "corner_xy_px": np.concatenate(corners),
    }


def _nuclei(nuclei: Objects | None, name_of_feature: dict[int, str], one_cell: np.ndarray) -> Polygons | None:
    """Nuclei of the kept features that are one cell, one polygon each."""
    if nuclei is None:
        return None
    feature = np.array(nuclei.feature_of_part, np.int64)
    kept = np.array([one_cell[index] and index in name_of_feature for index in feature], bool)
    if not kept.any():
        return None
    owners, polygon = np.unique(feature[kept], return_inverse=True)
    polygon_of_part = np.full(len(feature), -1, np.int64)
    polygon_of_part[kept] = polygon
    names = [name_of_feature[int(index)] for index in owners]
    return Polygons(ids=names, classes=[None] * len(names), **_rings_of(nuclei, kept, polygon_of_part))


def _without_regions(polygons: Polygons) -> Polygons:
    area, centroid = polygons.area_px2_and_centroid()
    candidates = np.flatnonzero(area > _MIN_REGION_AREA * np.median(area))
    if len(polygons) <= MIN_HELD or not len(candidates):
        return polygons
    import shapely

    tree = shapely.STRtree(shapely.points(centroid))
    n_held = np.zeros(len(polygons), np.int64)
    for first in range(0, len(candidates), _REGIONS_AT_ONCE):
        chosen = candidates[first : first + _REGIONS_AT_ONCE]
        shapes = shapely.make_valid([_shape(polygons, int(index)) for index in chosen])
        held = np.bincount(tree.query(shapes, predicate="contains")[0], minlength=len(chosen))
        own = shapely.contains_xy(shapes, *centroid[chosen].T)
        n_held[chosen] = held - own
    keep = n_held < MIN_HELD
    if keep.all():
        return polygons
    n_regions, most = int((~keep).sum()), int(n_held.max())
    note = (
        f"1 outline ignored: it holds the centres of {most:,} others, a region and no cell"
        if n_regions == 1
        else f"{n_regions:,} outlines ignored: they hold the centres of up to {most:,} others, regions and no cells"
    )
    return replace(polygons.take(keep), notes=[*polygons.notes, note])


def _shape(polygons: Polygons, index: int) -> object:
    """One polygon for shapely, by the even-odd rule."""
    import shapely

    first, last = np.searchsorted(polygons.polygon_of_ring, [index, index + 1])
    start = polygons.ring_start
    rings = [polygons.corner_xy_px[start[ring] : start[ring + 1]] for ring in range(first, last)]
    outer = [shapely.Polygon(ring) for ring, hole in zip(rings, polygons.is_hole[first:last], strict=True) if not hole]
    holes = [shapely.Polygon(ring) for ring, hole in zip(rings, polygons.is_hole[first:last], strict=True) if hole]
    return shapely.union_all(shapely.make_valid(outer)).difference(shapely.union_all(shapely.make_valid(holes)))
