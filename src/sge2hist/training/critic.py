"""The critic of the image decoder: tells decoded crops from real ones, place by place. Used in training alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.2  # of leaky rectifiers below zero
DETAIL = 4.0  # how much stronger than the image its detail is shown


class Critic(nn.Module):
    """Logits "this is real" on two grids, of every 4 and every 8 px (a patch critic, Isola et al. 2017).

    What lacks in a decoded image is detail, a hundredth of an image's variance: so it is shown apart, and louder.
    """

    def __init__(self, image_channels: int, width: int = 96) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                nn.Conv2d(8 * image_channels, width, 3, padding=1),
                nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
                nn.Conv2d(2 * width, 2 * width, 3, padding=1),
                nn.Conv2d(2 * width, 3 * width, 4, stride=2, padding=1),
                nn.Conv2d(3 * width, 3 * width, 3, padding=1),
            ]
        )
        self.fine, self.coarse = nn.Conv2d(2 * width, 1, 1), nn.Conv2d(3 * width, 1, 1)
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight, a=SLOPE)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        for head in (self.fine, self.coarse):
            nn.init.normal_(head.weight, std=0.02)
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, image_BCHW: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return logits [B, 1, H/4, W/4] and [B, 1, H/8, W/8] in float32, and the features of every layer."""
        detail = image_BCHW - F.avg_pool2d(image_BCHW, 5, 1, 2, count_include_pad=False)
        h = F.pixel_unshuffle(torch.cat([image_BCHW, DETAIL * detail], 1), 2)
        h = h.contiguous(memory_format=torch.channels_last)
        features = []
        for layer in self.layers:
            h = F.leaky_relu(layer(h), SLOPE)
            features.append(h)
        return [self.fine(features[2]).float(), self.coarse(features[4]).float()], features


def says_real(logits: list[Tensor]) -> Tensor:
    """-log of the probability "real", mean over places, summed over grids (Goodfellow et al. 2014, non-saturating)."""
    return torch.stack([F.softplus(-grid).mean() for grid in logits]).sum()


def critic_loss(real: list[Tensor], decoded: list[Tensor]) -> Tensor:
    """The critic's own loss: real ones called real, decoded ones not."""
    return says_real(real) + says_real([-grid for grid in decoded])


def smoothness(real: list[Tensor], nudged: list[Tensor]) -> Tensor:
    """Squared change of the logits of real images when noise is put on them.

    For small noise of variance s^2 it is s^2 |gradient|^2: the R1 penalty (Mescheder et al. 2018) without second derivatives
    (Lin et al. 2025, "Diffusion adversarial post-training").
    """
    return torch.stack([(a - b).square().mean() for a, b in zip(real, nudged, strict=True)]).sum()


def feature_distance(decoded: list[Tensor], real: list[Tensor]) -> Tensor:
    """Mean absolute difference of the critic's features over their mean size (feature matching, Wang et al. 2018)."""
    parts = [
        (a.float() - b.float()).abs().mean() / b.float().abs().mean().clamp_min(1e-6)
        for a, b in zip(decoded, real, strict=True)
    ]
    return torch.stack(parts).mean()
