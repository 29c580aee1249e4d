"""Coordinate systems of a SpatialData store: the map from one element to another, and which lengths are in um.

Two elements that share a system are joined by it. Else other elements join them: a labels image that lies in both "global" and
"um", for example. The format states no unit of a system; a few names and elements have a known one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.readers.spatialdata.elements import Elements, length_scale, transform

Maps = dict[str, np.ndarray]
SAME_PX, SAME_SHARE = 1.0, 1e-3  # maps that differ by less, in px of the image or of its diagonal, are one
UM_SYSTEMS = ("microns", "micron", "micrometers", "micrometer", "um", "µm")
UM_ELEMENTS = {
    "xenium": ("cell_circles", "cell_boundaries", "nucleus_boundaries", "transcripts"),
    "merscope": ("_polygons", "_transcripts"),
}
"""Endings of names of vector elements whose own coordinates are um, as the readers of spatialdata-io name and write them."""


class Systems:
    """The coordinate systems of a store."""

    def __init__(self, elements: Elements) -> None:
        self._elements = elements
        self._all: dict[tuple[str, str], Maps] | None = None

    def between(
        self, source: Maps, target: Maps, size_px: tuple[int, int], where: str, system: str | None = None
    ) -> np.ndarray | None:
        """The 3x3 map from one element to an image, given their maps to systems; None where nothing joins them.

        Parameters
        ----------
        size_px
            (width, height) of the image.
        system
            The shared system to use.

        Raises
        ------
        InputError
            If they share several systems that say different things, or not the one that is named.
        """
        shared = {name: np.linalg.inv(target[name]) @ source[name] for name in source if name in target}
        if system is not None:
            if system not in shared:
                known = ", ".join(shared) or "none"
                raise InputError(found=f"no shared system {system!r}", where=where, expected=f"one of {known}")
            return shared[system]
        if not shared:
            return self._joined(source, target)
        first, *others = shared
        differing = [name for name in others if not _same(shared[first], shared[name], size_px)]
        if differing:
            raise InputError(
                found=f"coordinate systems that put the cells at different places of the image: {', '.join(shared)}",
                where=where,
                expected="one map between cells and image",
                repair=f"name the right one: --image {where.rpartition('/')[2]}@{differing[-1]}",
            )
        return shared[first]

    def um_maps(self, vendor: str) -> Iterator[tuple[str, Maps]]:
        """Names and maps of what is in um, to systems: elements of known readers, then systems that are named so."""
        for (group, name), maps in self._every().items():
            if group in ("shapes", "points") and name.rsplit("-", 1)[0].endswith(UM_ELEMENTS.get(vendor, ())):
                yield f"{name} in um", maps
        for name in UM_SYSTEMS:
            if any(name in maps for maps in self._every().values()):
                yield f"coordinate system {name}", {name: np.eye(3)}

    def _every(self) -> dict[tuple[str, str], Maps]:
        if self._all is None:
            self._all = {}
            for group in ("images", "labels", "shapes", "points"):
                for name in self._elements.names(group):
                    try:
                        self._all[group, name] = self._elements.maps(group, name)
                    except (InputError, KeyError):  # a damaged element that nobody asked for
                        continue
        return self._all

    def _joined(self, source: Maps, target: Maps) -> np.ndarray | None:
        """The map along the shortest chain of elements and systems; breadth first, so that ties fall to the order of names."""
        queue = deque(source.items())
        seen = set(source)
        while queue:
            system, matrix = queue.popleft()
            if system in target:
                return np.linalg.inv(target[system]) @ matrix
            for maps in self._every().values():
                if system in maps:
                    for name in maps.keys() - seen:
                        seen.add(name)
                        queue.append((name, maps[name] @ np.linalg.inv(maps[system]) @ matrix))
        return None

    def um_per_px(
        self, image: Maps, size_px: tuple[int, int], vendor: str, where: str, system: str | None
    ) -> dict[str, float]:
        """Side of a pixel by everything that is in um and joined to the image, through `system` where that is shared."""
        found = {}
        for name, maps in self.um_maps(vendor):
            to_image = self.between(maps, image, size_px, where, system if system in maps else None)
            if to_image is not None:
                found[name] = 1 / length_scale(to_image)
        return found


def _same(first: np.ndarray, second: np.ndarray, size_px: tuple[int, int]) -> bool:
    """Whether two maps to the image agree on what lies at its corners."""
    width, height = size_px
    corner = np.array([[0, 0], [width, 0], [0, height], [width, height]], float)
    again = transform(second @ np.linalg.inv(first), corner)
    return float(np.abs(again - corner).max()) <= max(SAME_PX, SAME_SHARE * float(np.hypot(width, height)))
