"""The frame of positions: px of the image, um, or px of a preview. What a table states, and what spacing allows.

Positions in another frame than px differ by one factor. Nothing in an array of numbers names the frame, but distances do:
cells, bins and spots have known distances to their nearest neighbours. Evidence from an image is added in
`pairing.alignment.frame`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sge2hist.data.errors import InputError

FRAMES = ("px", "um", "hires", "lowres")
POSITIONS = ("auto", *FRAMES)
SCALE_FACTORS = {"hires": "tissue_hires_scalef", "lowres": "tissue_lowres_scalef"}

CELL_UM = (3.0, 60.0)  # median distance to the nearest cell, from packed lymphocytes to sparse stroma
TYPICAL_CELL_UM = 10.0
PITCHES_UM = (2.0, 8.0, 10.0, 16.0, 20.0, 25.0, 50.0, 55.0, 100.0, 200.0)  # of bins and spots of the platforms
MIN_PITCH_UM = 0.45  # the finest array in use has 0.5 um
PITCH_TOLERANCE = 0.04  # scales are stated to a few percent
REGULAR_SPREAD = 0.04  # (90 % - 10 % quantile) / median of the nearest distances of a lattice
SPOT_PITCH_TO_DIAMETER = (1.25, 2.2)  # Visium: 100 um pitch, diameters stated as 55 to 65 um
MIN_POSITIONS = 20  # fewer have no typical distance
MAX_SAMPLE = 4000
_BIN_BARCODE = re.compile(r"s_(\d{3})um_\d+_\d+")


@dataclass(frozen=True, kw_only=True)
class FrameFacts:
    """What a table of observations states about its frames; empty where it states nothing."""

    preview_scale: dict[str, float] = field(default_factory=dict)  # hires, lowres: px of the preview per px
    spot_px: float | None = None  # diameter of a spot, or side of a bin, in px of the full-resolution image
    bin_um: float | None = None  # side of a bin
    um_per_px: float | None = None  # of the full-resolution image


def read_facts(uns: Mapping[str, Any], names: Iterable[str] = ()) -> FrameFacts:
    """The facts in `uns`: ``uns["spatial"][library]["scalefactors"]`` as Space Ranger and scanpy write them.

    Of several libraries only what all agree on counts. Values are numbers or HDF5 scalars. Of `names`, the ids of the
    observations, the first states the side of its bin if it is a barcode of Visium HD (s_016um_00012_00345-1).
    """
    spatial: Any = uns.get("spatial")
    libraries = [spatial[name] for name in spatial] if hasattr(spatial, "keys") else []
    factors = [library.get("scalefactors") for library in libraries if hasattr(library, "get")]
    tables = [{key: _number(table[key]) for key in table} for table in factors if hasattr(table, "keys")]

    def common(key: str) -> float | None:
        values = {table.get(key) for table in tables}
        return values.pop() if len(values) == 1 else None

    scales = {frame: common(key) for frame, key in SCALE_FACTORS.items()}
    barcode = _BIN_BARCODE.match(str(next(iter(names), "")))
    own: Any = uns.get("sge2hist")
    own_scale = _number(own["um_per_px"]) if hasattr(own, "keys") and "um_per_px" in own else None
    stated = _number(uns["um_per_px"]) if "um_per_px" in uns else None
    return FrameFacts(
        preview_scale={frame: scale for frame, scale in scales.items() if scale},
        spot_px=common("spot_diameter_fullres"),
        bin_um=common("bin_size_um") or (float(barcode.group(1)) if barcode else None),
        um_per_px=own_scale or stated or common("microns_per_pixel"),
    )


def _number(value: Any) -> float | None:
    try:
        number = float(np.asarray(value))
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) and number > 0 else None


def factor_to_px(frame: str, facts: FrameFacts, um_per_px: float | None, where: str) -> float:
    """px of the full-resolution image per unit of `frame`.

    Raises
    ------
    InputError
        If the scale of the frame is not known.
    """
    if frame == "px":
        return 1.0
    if frame == "um":
        if um_per_px is None:
            raise InputError(found="no um per px", where=where, repair="give --image-um-per-px")
        return 1 / um_per_px
    if frame not in facts.preview_scale:
        raise InputError(
            found=f"--positions {frame}, but no {SCALE_FACTORS[frame]}",
            where=where,
            expected=f"uns['spatial'][library]['scalefactors']['{SCALE_FACTORS[frame]}']",
            repair="store the scale factor there, or multiply the positions to px yourself (--positions px)",
        )
    return 1 / facts.preview_scale[frame]


@dataclass(frozen=True)
class Spacing:
    """Distances to the nearest neighbour, in units of the positions."""

    nearest: float  # median
    regular: bool  # all alike, as on the lattice of an array
    n: int  # distinct positions

    def scaled(self, factor: float) -> Spacing:
        """The spacing in other units."""
        return Spacing(self.nearest * factor, self.regular, self.n)


def spacing_of(xy_N2: np.ndarray) -> Spacing | None:
    """Spacing of positions, float [N, 2]; None for fewer than `MIN_POSITIONS` distinct ones."""
    from scipy.spatial import cKDTree

    positions = np.unique(xy_N2[np.isfinite(xy_N2).all(axis=1)], axis=0)  # several cells may share a spot
    if len(positions) < MIN_POSITIONS:
        return None
    sample = positions[:: max(1, len(positions) // MAX_SAMPLE)]
    distance_N2, _ = cKDTree(positions).query(sample, 2)
    low, median, high = np.quantile(np.asarray(distance_N2)[:, 1], [0.1, 0.5, 0.9])
    return Spacing(float(median), bool(high - low <= REGULAR_SPREAD * median), len(positions))


def implausible_spacing(spacing_um: Spacing | None) -> str | None:
    """Why observations cannot be so close together, or None; too far apart is never impossible (a rare type)."""
    if spacing_um is None:
        return None
    minimum = MIN_PITCH_UM if spacing_um.regular else CELL_UM[0]
    if spacing_um.nearest >= minimum:
        return None
    return f"the nearest neighbours would be {spacing_um.nearest:.2g} um apart"


def spacing_score(spacing_um: Spacing | None) -> float:
    """How well a spacing agrees with cells, bins or spots: about -1 (not at all) to 0.5 (exactly a known array)."""
    if spacing_um is None:
        return 0.0
    nearest = max(spacing_um.nearest, 1e-6)
    if spacing_um.regular:
        on_array = any(abs(nearest / pitch - 1) <= PITCH_TOLERANCE for pitch in PITCHES_UM)
        return 0.5 if on_array else (-0.2 if nearest >= MIN_PITCH_UM else -1.0)
    away = float(np.log(nearest / TYPICAL_CELL_UM) / np.log(2.5))  # 4 to 25 um within one unit
    return -min(1.0 if away < 0 else 0.3, 0.1 * away**2)  # far apart: spots, or a sample of the cells


def agrees_with_facts(spacing_px: Spacing | None, facts: FrameFacts, um_per_px: float) -> bool:
    """Whether the spacing in px is that of the stated bins or spots; False too where nothing is stated."""
    if spacing_px is None or not spacing_px.regular:
        return False
    if facts.bin_um is not None and abs(spacing_px.nearest * um_per_px / facts.bin_um - 1) <= PITCH_TOLERANCE:
        return True
    if facts.spot_px is None:
        return False
    ratio = spacing_px.nearest / facts.spot_px
    low, high = SPOT_PITCH_TO_DIAMETER if facts.bin_um is None else (1 - PITCH_TOLERANCE, 1 + PITCH_TOLERANCE)
    return low <= ratio <= high or abs(ratio - 1) <= PITCH_TOLERANCE


def positions_in_um(
    xy_N2: np.ndarray, *, positions: str, facts: FrameFacts, um_per_px: float | None, stated_px: str | None, where: str
) -> tuple[np.ndarray, list[str]]:
    """Positions without an image, in um, and warnings.

    Parameters
    ----------
    xy_N2
        float [N, 2], in the frame that `positions` states; "auto" takes um, and refuses what cannot be um.
    um_per_px
        Of the image that positions in px belong to; None: as `facts` state.
    stated_px
        What in the table shows that its positions are in px, for the message; None: nothing.

    Raises
    ------
    InputError
        With "auto" if the positions are no um; with another frame if its scale is not known.
    """
    check_positions_option(positions)
    scale = um_per_px or facts.um_per_px
    spacing = spacing_of(xy_N2)
    if positions not in ("auto", "um"):
        factor = factor_to_px(positions, facts, scale, where)
        if scale is None:
            raise InputError(
                found=f"--positions {positions} without um per px", where=where, repair="give --image-um-per-px"
            )
        xy_um_N2 = xy_N2 * (factor * scale)
        reason = implausible_spacing(None if spacing is None else spacing.scaled(factor * scale))
        return xy_um_N2, [] if reason is None else [f"--positions {positions}: {reason}"]
    reason = implausible_spacing(spacing)
    if positions == "um":
        return xy_N2, [] if reason is None else [f"--positions um: {reason}"]
    if stated_px is not None:
        raise InputError(
            found=f"positions in px, as {stated_px}",
            where=where,
            expected="positions in um",
            repair="--positions px converts them (with --image-um-per-px where the table states no um per px); a paired "
            "dataset can be given itself as --data; columns x_um and y_um of obs are taken as they are",
        )
    bin_um = facts.bin_um
    if reason is None and bin_um is not None and spacing is not None and _other_pitch(spacing, bin_um):
        reason = f"bins of {bin_um:g} um would be {spacing.nearest:.3g} um apart"
    if reason is not None:
        assert spacing is not None
        raise InputError(
            found=f"positions that are no um: {reason}" + _as_others(spacing, facts, scale),
            where=where,
            expected="positions in um: cells are some 4 to 20 apart, bins and spots as far as their pitch",
            repair="mm times 1,000 are um; --positions px --image-um-per-px S, hires or lowres states px",
        )
    if spacing is not None and not spacing.regular and spacing.nearest > CELL_UM[1]:
        raise InputError(
            found=f"positions that are no um of cells: the nearest neighbours would be {spacing.nearest:.3g} um apart"
            + _as_others(spacing, facts, scale),
            where=where,
            expected=f"{CELL_UM[0]:g} to {CELL_UM[1]:g} um between cells",
            repair="--positions px --image-um-per-px S if they are px, --positions um if the cells are so sparse",
        )
    warnings = []
    if spacing is not None and not spacing.regular and spacing.nearest > 2.5 * TYPICAL_CELL_UM:
        warnings.append(
            f"the nearest neighbours are {spacing.nearest:.3g} um apart if the positions are um: sparse for cells; "
            "--positions px --image-um-per-px S states px"
        )
    return xy_N2, warnings


def _other_pitch(spacing: Spacing, bin_um: float) -> bool:
    return spacing.regular and abs(spacing.nearest / bin_um - 1) > PITCH_TOLERANCE


def _as_others(spacing: Spacing, facts: FrameFacts, um_per_px: float | None) -> str:
    if um_per_px is None:
        return ""
    scales = {"px": um_per_px} | {name: um_per_px / scale for name, scale in facts.preview_scale.items()}
    return "; " + ", ".join(f"as {name} {spacing.nearest * scale:.3g} um" for name, scale in scales.items())


def check_positions_option(positions: str) -> None:
    """Raise `InputError` for a frame that is none."""
    if positions not in POSITIONS:
        raise InputError(found=f"--positions {positions}", expected=" | ".join(POSITIONS))
