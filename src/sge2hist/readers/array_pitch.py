"""um per px from a printed array: positions in px against array indices whose spacing in um is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sge2hist.data.errors import InputError

LARGEST_MISFIT_PITCHES = 0.5  # a file with rows mixed up misses by whole pitches; printed spots by a few percent


@dataclass(frozen=True, kw_only=True)
class ArrayFit:
    """The least-squares affine map from um on the array to px of the image."""

    um_per_px: float
    rms_um: float  # root mean square distance of the spots from the fitted array
    turn_degrees: float  # direction of the array's x axis in the image
    mirrored: bool
    anisotropy: float  # larger over smaller scale of the map; 1 for square pixels and an unstretched image


def fit_array(array_xy_um: np.ndarray, centre_xy_px: np.ndarray, *, pitch_um: float, where: str) -> ArrayFit:
    """Fit px = A (x, y) + b and take the scale from the determinant of A, which a turn or a mirror leaves alone.

    Parameters
    ----------
    array_xy_um, centre_xy_px
        float64 [N, 2].
    pitch_um
        Distance of neighbouring spots, for the check of the misfit.

    Raises
    ------
    InputError
        If fewer than three spots, all on one line, or positions that do not follow the array.
    """
    design = np.column_stack([array_xy_um, np.ones(len(array_xy_um))])
    if len(array_xy_um) < 3 or np.linalg.matrix_rank(design - design.mean(axis=0) * [1, 1, 0]) < 3:
        raise InputError(
            found=f"{len(array_xy_um)} spots, all on one line",
            where=where,
            expected="at least three spots off one line, to find um per px from their pitch",
            repair="give --image-um-per-px",
        )
    solution = np.linalg.lstsq(design, centre_xy_px, rcond=None)[0]
    linear = solution[:2].T
    scale = np.linalg.svd(linear, compute_uv=False)
    determinant = np.linalg.det(linear)
    if not np.isfinite(scale).all() or scale[1] <= 0 or determinant == 0:
        raise InputError(found="spot positions that do not spread over the image", where=where)
    um_per_px = float(1 / np.sqrt(abs(determinant)))
    rms_um = float(np.sqrt(((centre_xy_px - design @ solution) ** 2).sum(axis=1).mean()) * um_per_px)
    if rms_um > LARGEST_MISFIT_PITCHES * pitch_um:
        raise InputError(
            found=f"spot positions {rms_um:.0f} um away from their array on average",
            where=where,
            expected=f"px positions that follow the array indices (pitch {pitch_um:g} um)",
            repair="check that the positions and the array indices belong to the same rows",
        )
    return ArrayFit(
        um_per_px=um_per_px,
        rms_um=rms_um,
        turn_degrees=float(np.degrees(np.arctan2(linear[1, 0], linear[0, 0]))),
        mirrored=bool(determinant < 0),
        anisotropy=float(scale[0] / scale[1]),
    )
