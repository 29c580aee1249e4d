"""``feature_slice.h5`` of Visium HD: the homography from the 2 um array to the microscope image.

The attribute ``metadata_json`` holds ``nrows, ncols, spot_pitch`` and ``transform_matrices``, among them
``spot_colrow_to_microscope_colrow`` (3 x 3). An integer (column, row) is the **centre** of a bin, image coordinates are
corner-based: ``(x, y, w) = H (column, row, 1)``, divided by w. The layout may be turned, mirrored or seen in perspective.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.readers.hdf5_probe import probe_hdf5
from sge2hist.readers.tenx.tenx_matrix import hdf5_errors
from sge2hist.readers.tenx.visium_hd_folder import one_file
from sge2hist.readers.tenx.visium_hd_grid import MAX_INDEX, GridPositions

FILE = "feature_slice.h5"
TO_MICROSCOPE = "spot_colrow_to_microscope_colrow"


@dataclass(frozen=True, kw_only=True)
class SpotLayout:
    """The array and where the microscope image shows it."""

    n_rows: int
    n_columns: int
    pitch_um: float
    homography: np.ndarray  # float64 [3, 3]: (column, row, 1) of a bin centre -> (x, y, w) in px
    path: Path

    def centre_xy_px(self, row: np.ndarray, column: np.ndarray, bin_um: int) -> np.ndarray:
        """Centres of bins of `bin_um` at indices of their own array: float64 [N, 2]."""
        k = bin_um / self.pitch_um
        index = np.column_stack([column * k + (k - 1) / 2, row * k + (k - 1) / 2])
        mapped = index @ self.homography[:, :2].T + self.homography[:, 2]
        return mapped[:, :2] / mapped[:, 2:]

    def grid(self, bin_um: int) -> GridPositions:
        """All bins of `bin_um` of the array; each counts as tissue, since the file does not state it."""
        k = round(bin_um / self.pitch_um)
        row, column = (index.ravel() for index in np.indices((-(-self.n_rows // k), -(-self.n_columns // k)), np.int32))
        centre = self.centre_xy_px(row, column, bin_um)
        return GridPositions(
            row=row, column=column, centre_xy_px=centre, in_tissue=np.ones(len(row), bool), path=self.path
        )


def find_feature_slice(square: Path) -> Path | None:
    """The file of the run that a ``square_*um`` folder belongs to, or None."""
    above = [square.parent.parent] if square.parent.name.endswith("binned_outputs") else []
    for folder in (square, square.parent, *above):
        if (found := one_file(folder, FILE)) is not None:
            return found
    return None


def read_feature_slice(path: Path) -> SpotLayout | None:
    """The layout; None when the run had no microscope image and states no homography to one.

    Raises
    ------
    InputError
        If the file is damaged, or its numbers make no array.
    """
    probe_hdf5(path, root_only=True)  # it holds a group for each of 19,000 genes
    with hdf5_errors(path), h5py.File(path, "r") as file:
        metadata = json.loads(file.attrs["metadata_json"])
        stated = (metadata.get("transform_matrices") or {}).get(TO_MICROSCOPE)
        if stated is None:
            return None
        homography = np.array(stated, np.float64)
        n_rows, n_columns = int(metadata["nrows"]), int(metadata["ncols"])
        pitch_um = float(metadata["spot_pitch"])
    sane = 0 < min(n_rows, n_columns) <= max(n_rows, n_columns) <= MAX_INDEX and 0 < pitch_um < 100
    if not sane or homography.shape != (3, 3) or not np.isfinite(homography).all():
        raise InputError(
            found=f"{n_rows} x {n_columns} bins of {pitch_um:g} um and a matrix of shape {homography.shape}",
            where=str(path),
            expected=f"an array, and {TO_MICROSCOPE} as 3 x 3 numbers",
            repair="copy it again",
        )
    corners = np.array([[0, 0, 1], [n_columns, 0, 1], [0, n_rows, 1], [n_columns, n_rows, 1]])
    depth = corners @ homography[2]
    if not ((depth > 0).all() or (depth < 0).all()) or np.linalg.det(homography) == 0:
        raise InputError(
            found=f"a {TO_MICROSCOPE} that folds the array",
            where=str(path),
            expected="a homography",
            repair="copy it again",
        )
    return SpotLayout(n_rows=n_rows, n_columns=n_columns, pitch_um=pitch_um, homography=homography, path=path)
