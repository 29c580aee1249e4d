"""The image of a region of a SpatialData store, among all that the store holds."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.slides.pixel_source import PixelSource
from sge2hist.data.slides.slide_image import SlideImage
from sge2hist.readers.spatialdata.elements import Elements, colour_levels, transform
from sge2hist.readers.spatialdata.positions import Matched
from sge2hist.readers.spatialdata.systems import Maps, Systems

SYSTEM_MARK = "@"  # --image NAME@SYSTEM: neither holds the sign, by the rules of spatialdata
SAME_FIELD = 0.02  # images whose corners lie within this share of the diagonal of each other show one field


@dataclass(frozen=True, kw_only=True)
class RegionImage:
    """An image that a region lies on."""

    name: str
    levels: list[PixelSource]  # largest first
    maps: Maps
    to_image: np.ndarray  # float64 [3, 3]: coordinates of the region's element -> px of the image
    system: str | None  # the shared coordinate system; None where other elements join them

    @property
    def size_px(self) -> tuple[int, int]:
        """(width, height)."""
        return self.levels[0].width_px, self.levels[0].height_px

    def slide(self, elements: Elements) -> SlideImage:
        """The pixels, read later."""
        return SlideImage(elements.path / "images" / self.name, self.levels, None)


def image_of(
    elements: Elements, systems: Systems, matched: Matched, region: str, wanted: str | None, *, one_of_several: bool
) -> RegionImage:
    """The colour image that a region lies on: the largest of one field.

    Parameters
    ----------
    wanted
        NAME or NAME@SYSTEM, as the user states it.
    one_of_several
        Whether the store holds several regions: images of different fields are then distinguished by their names.

    Raises
    ------
    InputError
        If there is none, several fit, or its coordinate systems contradict each other.
    """
    name, _, system = (wanted or "").partition(SYSTEM_MARK)
    names = sorted(elements.images)
    if name and name not in names:
        raise InputError(found=f"no image {name!r}", where=str(elements.path), expected=f"one of {', '.join(names)}")
    levels = {one: colour_levels(elements.images[one]) for one in ([name] if name else names)}
    maps = {one: elements.maps("images", one) for one in levels if levels[one]}
    by_size = sorted(maps, key=lambda one: (-levels[one][0].height_px * levels[one][0].width_px, one))
    found: list[RegionImage] = []
    for one in by_size:
        size_px = levels[one][0].width_px, levels[one][0].height_px
        if found and not one_of_several:
            break
        to_image = systems.between(
            matched.positions.maps, maps[one], size_px, f"{elements.path}: images/{one}", system or None
        )
        if to_image is not None:
            shared = system or next((key for key in matched.positions.maps if key in maps[one]), None)
            found.append(RegionImage(name=one, levels=levels[one], maps=maps[one], to_image=to_image, system=shared))
    if not found:
        raise InputError(
            found=f"no colour image in a coordinate system of {region!r} ({', '.join(matched.positions.maps)})",
            where=str(elements.path),
            expected="an 8-bit RGB image (c, y, x) registered with the shapes",
            repair=f"name one of {', '.join(names) or 'the images'} with --image, or add the H&E to the store",
        )
    return found[0] if len(found) == 1 else _by_name(found, region, str(elements.path))


def _by_name(found: list[RegionImage], region: str, where: str) -> RegionImage:
    """Of images of different fields in one coordinate system, the one named like the region (`he-a` for `cells-a`)."""
    fields: list[list[RegionImage]] = []
    for image in found:
        same = next((field for field in fields if _show_one_field(field[0], image)), None)
        if same is None:
            fields.append([image])
        else:
            same.append(image)
    likeness = [max(_shared_words(image.name, region) for image in field) for field in fields]
    best = [field for field, score in zip(fields, likeness, strict=True) if score == max(likeness)]
    if len(best) > 1:
        names = ", ".join(field[0].name for field in best)
        raise InputError(
            found=f"{len(best)} images of different fields in the coordinate system of {region!r}: {names}",
            where=where,
            expected="one, or names that end or begin like the region's",
            repair=f"--section {region} with --image NAME",
        )
    return best[0][0]


def _show_one_field(first: RegionImage, second: RegionImage) -> bool:
    """Whether two images show the same rectangle of the tissue."""
    corner = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], float) * first.size_px
    again = transform(second.to_image @ np.linalg.inv(first.to_image), corner)
    other = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], float) * second.size_px
    return float(np.abs(again - other).max()) <= SAME_FIELD * float(np.hypot(*second.size_px))


def _shared_words(first: str, second: str) -> int:
    """Words that two names begin with, and words that they end with, in common."""
    words = [re.split(r"[-_]", name) for name in (first, second)]
    count = 0
    for ours, theirs in (words, (words[0][::-1], words[1][::-1])):
        for one, other in zip(ours, theirs, strict=False):
            if one != other:
                break
            count += 1
    return count
