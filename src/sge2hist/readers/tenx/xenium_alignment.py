"""The map between the H&E and the DAPI image of a Xenium run, as a 3x3 csv or as keypoints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.readers.tables import as_float, damaged, read_delimited

KEYPOINT_COLUMNS = ("fixedX", "fixedY", "alignmentX", "alignmentY")
MAX_KEYPOINT_MISFIT_PX = 100.0  # DAPI px, 21 um: landmarks set by hand are better than that
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
        repair="give --alignment FILE, or --alignment identity if the H&E is already in px of the DAPI image",
    )


def read_alignment(path: str | Path) -> XeniumAlignment:
    """Read a headerless 3x3 csv, or keypoints with the header fixedX,fixedY,alignmentX,alignmentY.

    Keypoints are fitted by one affine map, alignment -> fixed, in the least-squares sense over all points.

    Raises
    ------
    InputError
        If the file is neither, is not invertible, or keypoints contradict each other.
    """
    if str(path) == IDENTITY:
        return XeniumAlignment(he_to_dapi=np.eye(3), description="no alignment (identity)")
    path = Path(path)
    if "fixedX" in _first_line(path):
        matrix, misfit = _fit_keypoints(path)
        description = f"{path.name} (keypoints, {misfit:.1f} DAPI px off on average)"
    else:
        table = read_delimited(path, separator=",", header=None).to_numpy()
        if table.shape != (3, 3):
            raise InputError(
                found=f"a table of shape {table.shape}", where=str(path), expected="3 x 3 numbers, no header"
            )
        matrix, description = as_float(table, "an entry", path), f"{path.name} (3x3)"
    if np.isfinite(matrix).all() and not np.allclose(matrix[2], [0, 0, 1]):
        raise InputError(found=f"a last row {matrix[2].tolist()}", where=str(path), expected="0,0,1 (an affine map)")
    if (
        not np.isfinite(matrix).all()
        or abs(np.linalg.det(matrix)) < 1e-12
        or abs(np.linalg.det(matrix[:2, :2])) < 1e-12
    ):
        raise InputError(found="a matrix without an inverse", where=str(path), expected="H&E px -> DAPI px")
    return XeniumAlignment(he_to_dapi=matrix, description=description)


def _first_line(path: Path) -> str:
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.readline()
    except FileNotFoundError:
        raise InputError(found="no such file", where=str(path), expected="an alignment csv") from None
    except (OSError, UnicodeDecodeError) as error:
        raise damaged(path, "alignment csv", error) from error


def _fit_keypoints(path: Path) -> tuple[np.ndarray, float]:
    table = read_delimited(path, separator=",", encoding="utf-8-sig")
    missing = [name for name in KEYPOINT_COLUMNS if name not in table.columns]
    if missing:
        raise InputError(found=f"no column {', '.join(missing)}", where=str(path), expected=",".join(KEYPOINT_COLUMNS))
    points = np.stack([as_float(table[name].to_numpy(), name, path) for name in KEYPOINT_COLUMNS], axis=1)
    if not np.isfinite(points).all():
        raise InputError(found="an empty keypoint", where=str(path), expected="four numbers per line")
    fixed, moving = points[:, :2], np.column_stack([points[:, 2:], np.ones(len(points))])
    if len(points) < 3 or np.linalg.matrix_rank(moving - moving.mean(axis=0) * [1, 1, 0]) < 3:
        raise InputError(
            found=f"{len(points)} keypoints on one line", where=str(path), expected="at least 3, off one line"
        )
    solution = np.linalg.lstsq(moving, fixed, rcond=None)[0]
    misfit = float(np.linalg.norm(moving @ solution - fixed, axis=1).mean())
    if misfit > MAX_KEYPOINT_MISFIT_PX:
        raise InputError(
            found=f"keypoints that miss each other by {misfit:.0f} DAPI px on average",
            where=str(path),
            expected=f"less than {MAX_KEYPOINT_MISFIT_PX:g} px",
            repair="set the landmarks again in Xenium Explorer",
        )
    return np.vstack([solution.T, [0, 0, 1]]), misfit
