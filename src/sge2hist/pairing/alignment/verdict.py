"""The measured shift between image and counts: warn, or refuse when it is large and certain."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.section import Section
from sge2hist.pairing.alignment.image_checks import share_inside
from sge2hist.pairing.alignment.registration import Shift
from sge2hist.pairing.collect import SectionCells
from sge2hist.readers.tenx.space_ranger import is_before_shift_fix

WARN_UM = 5.0
REFUSE_UM = 50.0
VISIUM_HD = "Visium HD"


def shifted(section: Section, shift_um: tuple[float, float]) -> Section:
    """The section with its positions moved by `shift_um` (x to the right, y downwards)."""
    if shift_um == (0.0, 0.0):
        return section
    by_px = np.array(shift_um) / section.um_per_px
    return section.moved(lambda centre_xy_px: centre_xy_px + by_px)


def check_shift(
    shift: Shift | None, section: Section, applied_um: tuple[float, float], *, one_of_several: bool = False
) -> list[str]:
    """Warnings about the shift that was measured; among several slides the option that corrects it names this one.

    Raises
    ------
    InputError
        If it is 50 um or more and the confidence is high.
    """
    if shift is None:
        return ["too few observations to measure the shift between image and counts: check alignment.png"]
    total = applied_um[0] + shift.x_um, applied_um[1] + shift.y_um
    slide = f"{section.name}=" if one_of_several else ""
    option = f"--shift-um {slide}{total[0]:.0f},{total[1]:.0f}"
    if shift.confidence == "low":
        return ["the shift between image and counts could not be measured with confidence: check alignment.png"]
    if shift.length_um >= REFUSE_UM and shift.confidence == "high":
        raise InputError(
            found=f"counts shifted by {shift.length_um:.0f} um against the image "
            f"(x {shift.x_um:.0f}, y {shift.y_um:.0f}; correlation {shift.correlation_unshifted:.3f} "
            f"without, {shift.correlation:.3f} with the shift)",
            where=section.name,
            expected=f"less than {REFUSE_UM:g} um: the image that the positions were made for",
            repair=f"check the image; if it is right, {option} (or --no-check-alignment to continue without the check)",
        )
    if shift.length_um >= WARN_UM:
        return [
            f"counts look shifted by {shift.length_um:.0f} um against the image (confidence {shift.confidence}): "
            f"check alignment.png; {option} corrects it"
        ]
    return []


def version_warnings(section: Section, shift: Shift | None) -> list[str]:
    """A warning about Space Ranger before 3.1.2, with what is measured of its shift here; none for everything else."""
    if not section.technology.startswith(VISIUM_HD) or not is_before_shift_fix(section.software):
        return []
    return [
        f"{section.software}: before 3.1.2 Space Ranger places the counts of some runs 16 um off the image (CytAssist firmware). "
        f"Here: {verdict(shift)}. If alignment.png shows a shift, run a newer Space Ranger or correct it by --shift-um"
    ]


def verdict(shift: Shift | None) -> str:
    """What the measured shift says, in words: the distance within which image and counts fit, or why none can be given.

    The distance is the length of the remaining shift and half a step of the search (the measurement's resolution), in whole um.
    """
    if shift is None:
        return "not measured: too few observations. Compare contours and tissue by eye"
    if shift.confidence == "low":
        return "cannot say whether image and counts fit. Compare contours and tissue by eye"
    probably = "" if shift.confidence == "high" else "probably "
    if shift.length_um >= WARN_UM:
        return f"image and counts {probably}do not fit: shifted by {shift.length_um:.0f} um"
    within_um = max(1, math.ceil(shift.length_um + shift.step_um / 2))
    return f"image and counts {probably}fit within {within_um} um"


def alignment_record(part: SectionCells, applied_um: tuple[float, float], warnings: list[str]) -> dict[str, Any]:
    """The numbers of one section's alignment, for the manifest."""
    section = part.section
    return {
        "slide": section.name,
        "um_per_px_sources": section.um_per_px_sources,
        "inside_image": share_inside(section.centre_xy_px, section.image.width_px, section.image.height_px),
        "applied_shift_um": list(applied_um),
        "measured_shift": part.shift.summary() if part.shift is not None else None,
        "measured_on": _measured_on(section),
        "verdict": verdict(part.shift),
        "warnings": warnings,
    }


def _measured_on(section: Section) -> str:
    count_grid = section.count_grid
    if count_grid is None:
        return f"{section.observation}s"
    return f"{len(count_grid.n_counts):,} squares of {count_grid.side_um:g} um, before bins became cells"
