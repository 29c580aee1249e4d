"""Correction of decoded images: tone and fine spectrum, as those of real images.

A decoder that averages over what it cannot know gives images a little too pale, and with too little power at the highest
frequencies. Both are mended by fixed operations with few numbers, fitted once after training (`training.finetune.correction`):

- tone: the optical density of each colour, or the light of each stain, is multiplied by a factor;
- spectrum: each channel is filtered by a symmetric kernel, which scales detail that is there and moves nothing.

Shape letters: B images, C channels, H W pixels, k side of the kernel.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KERNEL_PX = 15
ABSORBED, EMITTED = "absorbed", "emitted"  # H&E by transmitted light; fluorescence
MIN_LIGHT = 1 / 255


class ImageCorrection(nn.Module):
    """Corrects images in [-1, 1]; before it is fitted, nothing changes."""

    factor_C: Tensor
    glass_C: Tensor
    kernel_C1kk: Tensor

    def __init__(self, image_channels: int, kind: str) -> None:
        super().__init__()
        if kind not in (ABSORBED, EMITTED):
            raise ValueError(f"kind must be {ABSORBED!r} or {EMITTED!r}, not {kind!r}")
        self.kind = kind
        kernel = torch.zeros(image_channels, 1, KERNEL_PX, KERNEL_PX)
        kernel[:, :, KERNEL_PX // 2, KERNEL_PX // 2] = 1.0
        self.register_buffer("factor_C", torch.ones(image_channels))
        self.register_buffer("glass_C", torch.ones(image_channels))  # light of empty glass, 0 to 1; 1 for fluorescence
        self.register_buffer("kernel_C1kk", kernel)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """The corrected images, not clamped."""
        return self.sharpen(self.tone(image_BCHW.float()))

    def tone(self, image_BCHW: Tensor) -> Tensor:
        """Optical density (Beer-Lambert: minus the log of light over that of glass) or light, times the factors."""
        light, factor = (image_BCHW + 1) / 2, self.factor_C[:, None, None]
        if self.kind == ABSORBED:
            glass = self.glass_C[:, None, None]
            light = glass * (light.clamp_min(MIN_LIGHT) / glass) ** factor
        else:
            light = light * factor
        return 2 * light - 1

    def sharpen(self, image_BCHW: Tensor) -> Tensor:
        """Each channel filtered by its kernel; the edge is continued by its own pixels."""
        margin = KERNEL_PX // 2
        padded = F.pad(image_BCHW, (margin,) * 4, mode="replicate")
        return F.conv2d(padded, self.kernel_C1kk, groups=image_BCHW.shape[1])
