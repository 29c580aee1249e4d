"""What happens to real and to generated images on their way to an extractor, in words, and whether it is the same."""

from __future__ import annotations

from typing import Any

from sge2hist.evaluation.images import ImageSet
from sge2hist.evaluation.reference import Reference

LOSSY = {".jpg", ".jpeg"}


def preprocessing(reference: Reference, sets: list[ImageSet]) -> dict[str, Any]:
    """Return the report's entry: the steps of real patches, of each set, and of both; and a warning where sides differ.

    Returns
    -------
    dict
        ``real`` and ``both`` (text), ``sets`` (name -> text), ``problem`` (text, "" when both sides are treated alike).
    """
    geometry, quality = reference.geometry, reference.config.jpeg_quality
    source = reference.data.um_per_px
    exact = abs(geometry.um_per_px / source - 1) < 1e-6
    cut = "cut as they are" if exact else f"resampled from {source:g} um/px"
    both = "none" if quality is None else f"JPEG quality {quality}"
    lossy = [images.name for images in sets if any(path.suffix.lower() in LOSSY for path in images.files_M)]
    problem = ""
    if lossy and quality is None:
        problem = (
            f"Images of {', '.join(lossy)} are JPEG files and real patches are not: compression alone moves distances "
            "(see what a small change costs). Evaluate with --jpeg 80 to compress both sides alike."
        )
    return {
        "real": f"patches of {geometry.patch_px} px at {geometry.um_per_px:g} um/px, {cut} from a slide stored without loss",
        "sets": {images.name: f"{images.image_px} px, {source_of(images)}, not resampled" for images in sets},
        "both": f"compression before the extractor: {both}; then the extractor's own resize and scaling",
        "problem": problem,
    }


def source_of(images: ImageSet) -> str:
    """Return how the images of a set are stored."""
    if images.read is not None:
        return "windows of a slide stored without loss"
    kinds = sorted({path.suffix.lower().removeprefix(".").upper() or "no suffix" for path in images.files_M})
    return " and ".join(kinds) + " files"
