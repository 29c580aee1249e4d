"""The picture that `sge2hist generate` puts beside its images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sge2hist.data.generated import GeneratedSet


def write_contact_sheet(generated: GeneratedSet) -> Path:
    """Write a picture of up to 64 images, spread over the set, into its folder; returns its path."""
    import numpy as np

    from sge2hist.data.generated import APPLICABILITY
    from sge2hist.data.virtual_he import mark_of
    from sge2hist.display import MAX_IMAGES, SHEET_NAME, contact_sheet

    shown = np.unique(np.linspace(0, len(generated) - 1, MAX_IMAGES).round().astype(int))
    heading = "synthetic images" + (" of toy tissue" if generated.manifest.get("toy") else "")
    mark = mark_of(generated.manifest)
    heading += f", {mark}" if mark else ""
    if (generated.manifest.get(APPLICABILITY) or {}).get("verdict") == "unknown":
        heading += " of cells that the model does not know"
    obs = generated.obs.iloc[shown]
    if "factor" in obs:
        titles = [f"{gene} x {factor:.3g}" for gene, factor in zip(obs["gene"], obs["factor"], strict=True)]
    else:
        titles = [str(name) for name in obs["cell_id"]]
    images = np.stack([generated.image(i) for i in shown])
    sheet = contact_sheet(images, titles, heading=heading, channels=generated.channels)
    return sheet.save(generated.path / SHEET_NAME)
