"""What small changes of real patches cost in the distances of an extractor: the scale on which to read a distance.

The changes are ones that no reader of slides would call wrong: a shift by one pixel, JPEG at quality 80, and both stains
5 % denser.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from sge2hist.data.he_stain import optical_density
from sge2hist.data.slides.channels import is_rgb
from sge2hist.evaluation.features.descriptors import to_rgb
from sge2hist.evaluation.features.extractor import jpeg_compressed
from sge2hist.evaluation.metrics.frechet import frechet_of
from sge2hist.evaluation.reference import MIN_COMPARISON, Reference
from sge2hist.evaluation.resampling import finite

JPEG_QUALITY = 80
DENSER = 1.05

ReadChanged = Callable[[Reference, np.ndarray], np.ndarray]


def sensitivity(reference: Reference) -> list[dict[str, Any]]:
    """Return one row per small change of real patches: its distance from the comparison patches, that over the floor, and
    the distance from the same patches unchanged.

    Real patches against real patches: the evaluated cells' own, at most `config.sensitivity_cells` of those with a
    comparison patch. Nothing when they are fewer than 20.
    """
    matched = reference.matched
    n = min(len(matched), reference.config.sensitivity_cells)
    if n < MIN_COMPARISON:
        return []
    chosen = np.unique(np.linspace(0, len(matched) - 1, n).astype(np.int64))
    rows = reference.cells.rows_N[matched[chosen]]
    compared, unchanged = reference.comparison.features_ND[chosen], reference.real.features_ND[matched[chosen]]
    floor = frechet_of(compared, unchanged)
    found = [row("none (floor)", len(chosen), floor, floor, 0.0)]
    for name, read in changes(reference).items():
        features = reference.extractor(read(reference, rows))
        found.append(row(name, len(chosen), frechet_of(compared, features), floor, frechet_of(unchanged, features)))
    return found


def row(change: str, n: int, distance: float, floor: float, from_unchanged: float) -> dict[str, Any]:
    """Return one row of the table."""
    return {
        "change": change,
        "n": n,
        "frechet": finite(distance),
        "over_floor": finite(distance / floor) if floor else None,
        "frechet_from_unchanged": finite(from_unchanged),
    }


def changes(reference: Reference) -> dict[str, ReadChanged]:
    """Return the changes by name; stains are those of H&E."""
    found: dict[str, ReadChanged] = {
        "shift by 1 px": shifted_patches,
        f"JPEG quality {JPEG_QUALITY}": lambda r, rows: jpeg_compressed(plain_patches(r, rows), JPEG_QUALITY),
    }
    if is_rgb(reference.data.channels):
        found["stains 5 % denser"] = lambda r, rows: denser(plain_patches(r, rows), DENSER)
    return found


def plain_patches(reference: Reference, rows: np.ndarray) -> np.ndarray:
    """Return the patches of cells as the extractor is shown them."""
    return to_rgb(reference.patches(rows), reference.data.channels, reference.extractor)


def shifted_patches(reference: Reference, rows: np.ndarray) -> np.ndarray:
    """Return the patches one pixel to the right, read from the slide, not filled in."""
    px = reference.geometry.patch_px
    side_um = reference.geometry.patch_um * (px + 2) / px
    wide = reference.data.patches(rows, side_um=side_um, out_px=px + 2)
    return to_rgb(wide[:, 1:-1, 2:], reference.data.channels, reference.extractor)


def denser(image_NHWC: np.ndarray, factor: float) -> np.ndarray:
    """Return the images with the optical density of every pixel times a factor, uint8."""
    levels = np.arange(256, dtype=np.uint8)
    table = 256 * np.exp(-factor * optical_density(levels).astype(np.float64)) - 1
    return np.clip(np.rint(table), 0, 255).astype(np.uint8)[image_NHWC]
