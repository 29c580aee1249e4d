"""Is this the image that the positions were made for? Finds a wrong scale, a rotation, previews and CytAssist images."""

from __future__ import annotations

import dataclasses

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.section import Section

SIZE_TOLERANCE = 0.01  # relative difference of image size that the rounding of a preview explains
SCALE_TOLERANCE = 0.05  # relative difference between sources of um/px that is worth a warning
COARSE_UM_PER_PX = 1.0  # above this, nuclei are dots
TOO_COARSE_UM_PER_PX = 3.5  # CytAssist images have 4 to 6 um per px
MIN_INSIDE = 0.5  # share of the observations that must lie inside the image


def check_image(section: Section, *, keep_inside: bool = False) -> tuple[Section, list[str]]:
    """Check the image against the instrument's folder; rescale the positions where the image is a scaled copy.

    Returns
    -------
    The section, with positions in px of the given image and its um/px, and warnings.

    Raises
    ------
    InputError
        If the image is another one, transposed, a preview or CytAssist image too coarse to use, or if most
        observations lie outside it and `keep_inside` does not say that this is right.
    """
    warnings: list[str] = []
    section = _match_size(section, warnings)
    _check_scale(section, warnings)
    inside = share_inside(section.centre_xy_px, section.image.width_px, section.image.height_px)
    if inside == 0 or (inside < MIN_INSIDE and not keep_inside):
        raise _outside(section, inside)
    if inside < MIN_INSIDE:
        n_inside = round(inside * section.n_obs)
        warnings.append(
            f"{n_inside:,} of {section.n_obs:,} {section.observation}s ({inside:.1%}) lie on the image and are kept "
            "(--keep-inside)"
        )
    elif inside < 0.999:
        warnings.append(f"{1 - inside:.1%} of the {section.observation}s lie outside the image and are excluded")
    return section, warnings


def _match_size(section: Section, warnings: list[str]) -> Section:
    reference, image = section.reference, section.image
    if reference is None:
        return section
    if reference.cytassist_size_px is not None and _same(reference.size_px, reference.cytassist_size_px):
        raise _cytassist_run(section)
    factor_x, factor_y = image.width_px / reference.size_px[0], image.height_px / reference.size_px[1]
    if _near(factor_x, 1) and _near(factor_y, 1):
        return section
    given = f"an image of {image.width_px} x {image.height_px} px"
    expected = f"{reference.size_px[0]:.0f} x {reference.size_px[1]:.0f} px (from {reference.source})"
    where = str(image.path)
    if reference.cytassist_size_px == (image.width_px, image.height_px):
        raise InputError(
            found=f"{given}: the CytAssist image", where=where, expected=expected, repair="give the microscope H&E"
        )
    if not _near(factor_x / factor_y, 1):
        swapped = image.height_px / reference.size_px[0], image.width_px / reference.size_px[1]
        if _near(swapped[0] / swapped[1], 1):
            raise InputError(
                found=f"{given}: transposed or rotated by 90 degrees",
                where=where,
                expected=expected,
                repair="give the image exactly as it was given to Space Ranger, not rotated",
            )
        raise InputError(
            found=f"{given}, another shape: not the image that the positions were made for",
            where=where,
            expected=expected,
            repair="give the microscope image that Space Ranger was run with",
        )
    factor = float(np.sqrt(factor_x * factor_y))
    preview = [name for name, size in reference.preview_sizes_px.items() if size == (image.width_px, image.height_px)]
    what = f"Space Ranger's preview {preview[0]}" if preview else f"{given}, {factor:.4g} times the expected {expected}"
    scaled = section.um_per_px / factor
    if scaled > TOO_COARSE_UM_PER_PX:
        raise InputError(
            found=f"{what}: {scaled:.2f} um per px",
            where=where,
            expected=expected,
            repair="give the full-resolution microscope H&E",
        )
    warnings.append(f"the image is {what}: positions were scaled to it, {scaled:.4g} um/px")
    sources = {
        (name if name == "image metadata" else f"{name}, scaled"): (
            value if name == "image metadata" else value / factor
        )
        for name, value in section.um_per_px_sources.items()
    }
    section = section.moved(lambda centre_xy_px: centre_xy_px * factor)
    return dataclasses.replace(section, um_per_px=scaled, um_per_px_sources=sources, reference=None)


def _check_scale(section: Section, warnings: list[str]) -> None:
    if section.um_per_px > TOO_COARSE_UM_PER_PX:
        raise InputError(
            found=f"{section.um_per_px:.2f} um per px",
            where=str(section.image.path),
            expected=f"at most {TOO_COARSE_UM_PER_PX} um per px: a microscope image",
            repair="positions in px of the CytAssist image (4 to 6 um per px) come from a run without a microscope "
            "image: run Space Ranger again with --image",
        )
    if section.um_per_px > COARSE_UM_PER_PX:
        warnings.append(
            f"{section.um_per_px:.2g} um/px is coarse: nuclei are dots of a few pixels; if a finer H&E exists, give it"
        )
    for name, value in section.um_per_px_sources.items():
        if abs(value / section.um_per_px - 1) > SCALE_TOLERANCE:
            warnings.append(f"um/px {section.um_per_px:.4g} used, but '{name}' states {value:.4g}")


def share_inside(centre_xy_px: np.ndarray, width_px: int, height_px: int) -> float:
    """Fraction of the centres that lie inside the image."""
    if len(centre_xy_px) == 0:
        return 0.0
    return float(((centre_xy_px >= 0) & (centre_xy_px < [width_px, height_px])).all(axis=1).mean())


def _outside(section: Section, inside: float) -> InputError:
    image, centre = section.image, section.centre_xy_px
    swapped = share_inside(centre[:, ::-1], image.width_px, image.height_px)
    low, high = centre.min(axis=0), centre.max(axis=0)
    guess = "give the image that the positions were made for"
    if swapped > 0.95:
        guess = "x and y look swapped, or the image is transposed: " + guess
    elif (high > [image.width_px, image.height_px]).all() and (low >= 0).all():
        guess = "the image is smaller than the positions need (a preview or a CytAssist image?): " + guess
    if inside > 0:
        guess += "; if it shows one of several sections, --keep-inside takes the cells that lie on it"
    return InputError(
        found=f"{1 - inside:.0%} of the {section.observation}s outside the image "
        f"(x {low[0]:.0f} to {high[0]:.0f}, y {low[1]:.0f} to {high[1]:.0f})",
        where=str(image.path),
        expected=f"positions within {image.width_px} x {image.height_px} px",
        repair=guess,
    )


def _cytassist_run(section: Section) -> InputError:
    return InputError(
        found="positions in px of the CytAssist image: Space Ranger was run without a microscope image",
        where=section.name,
        expected="positions in px of a microscope H&E",
        repair="run Space Ranger again with --image and the microscope H&E",
    )


def _near(ratio: float, target: float) -> bool:
    return abs(ratio / target - 1) <= SIZE_TOLERANCE


def _same(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return _near(a[0] / b[0], 1) and _near(a[1] / b[1], 1)
