"""The map between the H&E and the DAPI image of a Xenium run: found beside the H&E, read in any form."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.readers.alignment_file import read_alignment_file

IDENTITY = "identity"


@dataclass(frozen=True, kw_only=True)
class XeniumAlignment:
    """`he_to_dapi` maps (x, y, 1) in px of the H&E to (x, y, 1) in px of the DAPI image."""

    he_to_dapi: np.ndarray  # float64 [3, 3]
    description: str

    @property
    def scale(self) -> float:
        """DAPI px per H&E px."""
        return float(np.sqrt(abs(np.linalg.det(self.he_to_dapi[:2, :2]))))

    def to_he(self, dapi_xy_px: np.ndarray) -> np.ndarray:
        """DAPI px [N, 2] -> H&E px [N, 2]."""
        return _apply(np.linalg.inv(self.he_to_dapi), dapi_xy_px)

    def from_he(self, he_xy_px: np.ndarray) -> np.ndarray:
        """H&E px [N, 2] -> DAPI px [N, 2]."""
        return _apply(self.he_to_dapi, he_xy_px)


def _apply(matrix: np.ndarray, xy: np.ndarray) -> np.ndarray:
    return xy @ matrix[:2, :2].T + matrix[:2, 2]


def find_alignment(folder: Path, image: Path) -> Path:
    """The alignment csv of an H&E: beside it, or in the folder of the run.

    Raises
    ------
    InputError
        If there is none, or several that fit equally well.
    """
    stem = image.name.split(".")[0]
    beside = sorted({*image.parent.glob("*.csv"), *folder.glob("*.csv")})
    named = [path for path in beside if path.name.startswith(stem) and "alignment" in path.name.lower()]
    named = named or [path for path in beside if "alignment" in path.name.lower() or "keypoint" in path.name.lower()]
    if len(named) == 1:
        return named[0]
    raise InputError(
        found=f"{len(named)} alignment files for {image.name} ({', '.join(path.name for path in named) or 'none'})",
        where=str(image.parent),
        expected=f"{stem}alignment.csv (3x3, H&E px -> DAPI px) or keypoints, as Xenium Explorer exports them",
        repair="give --alignment FILE, --alignment auto to find the map, or --alignment identity if the H&E is already "
        "in px of the DAPI image",
    )


def read_alignment(path: str | Path) -> XeniumAlignment:
    """Read any form of `readers.alignment_file`, or the word "identity".

    Raises
    ------
    InputError
        If the file is none of these, is not invertible, or keypoints contradict each other.
    """
    if str(path) == IDENTITY:
        return XeniumAlignment(he_to_dapi=np.eye(3), description="no alignment (identity)")
    found = read_alignment_file(path)
    return XeniumAlignment(he_to_dapi=found.image_to_cells, description=found.description)
