"""Coarse generated images -> fine ones, by an upsampler."""

from __future__ import annotations

import numpy as np
import torch

from sge2hist.data.errors import InputError
from sge2hist.data.slides.channels import require_same_channels
from sge2hist.devices import fast_arithmetic
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.upsampler_bundle import UpsamplerBundle

DETAIL_STREAM = 7
"""Separates the noise of the upsampler from that of the image, which has the same seed."""
MAX_RESOLUTION_DIFFERENCE = 0.05  # relative, between um/px of the model and of the upsampler's input


def check_upsampler(upsampler: UpsamplerBundle, bundle: ModelBundle) -> None:
    """Raise `InputError` unless the input of the upsampler is what the model generates."""
    require_same_channels(upsampler.channels, bundle.config.channels, where="the upsampler")
    own, expected = bundle.config.um_per_px, upsampler.config.um_per_px
    if abs(own - expected) > MAX_RESOLUTION_DIFFERENCE * own:
        fine = own / upsampler.config.factor
        raise InputError(
            found=f"an upsampler from {expected:g} um/px, and a model that generates at {own:g}",
            expected="the same um/px",
            repair=f"train one with `sge2hist train-upsampler X.paired --um-per-px {fine:g} -o X.upsampler`",
        )
    multiple = 2 ** (len(upsampler.config.widths) - 1)
    if bundle.config.patch_px % multiple:
        raise InputError(found=f"patches of {bundle.config.patch_px} px", expected=f"a multiple of {multiple}")


@torch.no_grad()
def upsample_images(upsampler: UpsamplerBundle, images_BHWC: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Sample the fine image of each coarse one, uint8 [B, f H, f W, C]; image i depends on coarse image i and seeds[i] alone."""
    model = upsampler.model
    device = next(model.parameters()).device
    coarse = torch.from_numpy(images_BHWC).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
    own = [int(np.random.SeedSequence([int(s), DETAIL_STREAM]).generate_state(1, np.uint64)[0] >> 2) for s in seeds]
    with fast_arithmetic(device):
        fine = model.sample(coarse, own)
    return ((fine + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
