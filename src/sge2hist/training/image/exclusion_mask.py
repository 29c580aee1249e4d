"""Areas of the slides that the image model does not learn from: pen marks, folds, bubbles, deposits, outlined by hand."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sge2hist.data.annotations import read_annotations
from sge2hist.data.errors import Problems
from sge2hist.data.paired import PairedDataset

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry


class ExclusionMask:
    """Excluded areas by slide, in um; without any, nothing is excluded."""

    def __init__(self, area_of_slide: dict[int, BaseGeometry] | None = None) -> None:
        self._area_of_slide = area_of_slide or {}

    def touches(self, centre_um_B2: np.ndarray, slide_B: np.ndarray, side_um: float) -> np.ndarray:
        """bool [B]: which squares of side `side_um` share a point with an area of their slide."""
        out = np.zeros(len(centre_um_B2), bool)
        for slide, area in self._area_of_slide.items():
            import shapely

            own = np.flatnonzero(slide_B == slide)
            low, high = centre_um_B2[own] - side_um / 2, centre_um_B2[own] + side_um / 2
            out[own] = shapely.intersects(area, shapely.box(low[:, 0], low[:, 1], high[:, 0], high[:, 1]))
        return out

    @property
    def fingerprint(self) -> str | None:
        """A hash of the areas; None without any."""
        if not self._area_of_slide:
            return None
        parts = [b"%d" % slide + area.wkb for slide, area in sorted(self._area_of_slide.items())]
        return hashlib.blake2b(b"".join(parts), digest_size=8).hexdigest()


def read_exclusion_mask(path: str | Path | None, dataset: PairedDataset) -> ExclusionMask:
    """Read the polygons of a GeoJSON file, in px of the slides stored in the dataset; None: nothing is excluded.

    With several slides each feature names its own: `{"properties": {"slide": "..."}}`.

    Raises
    ------
    InputError
        If the file cannot be read, holds no polygon, or a feature has no area, no slide, or lies beside its slide; all at once.
    """
    if path is None:
        return ExclusionMask()
    import shapely

    problems = Problems()
    areas: dict[int, list[BaseGeometry]] = {}
    for number, feature in enumerate(read_annotations(path)):
        try:
            slide, area = _area(feature, dataset)
        except (ValueError, TypeError, KeyError, AttributeError, shapely.errors.ShapelyError) as error:
            problems.add(
                found=f"feature {number} that cannot be used ({error})",
                where=str(path),
                expected="a polygon in px of the dataset's stored slide",
            )
        else:
            areas.setdefault(slide, []).append(area)
    problems.raise_if_any()
    united = {slide: shapely.union_all(parts) for slide, parts in areas.items()}
    for area in united.values():
        shapely.prepare(area)
    return ExclusionMask(united)


def _area(feature: dict[str, Any], dataset: PairedDataset) -> tuple[int, BaseGeometry]:
    """Slide and area (um) of a feature."""
    import shapely
    from shapely import affinity
    from shapely.geometry import shape

    ids = dataset.slide_ids
    name = (feature.get("properties") or {}).get("slide", ids[0] if len(ids) == 1 else None)
    if name not in ids:
        raise ValueError(f"its property slide is {name!r}, not one of {', '.join(ids)}")
    slide = ids.index(name)
    area_px = shapely.make_valid(shape(feature["geometry"]))
    if area_px.area <= 0:
        raise ValueError("it has no area")
    stored = dataset.manifest["slides"][slide]
    if not area_px.intersects(shapely.box(0, 0, stored["width_px"], stored["height_px"])):
        raise ValueError(f"it lies beside the slide of {stored['width_px']} x {stored['height_px']} px")
    return slide, affinity.scale(area_px, dataset.um_per_px, dataset.um_per_px, origin=(0, 0))
