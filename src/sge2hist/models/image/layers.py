"""Layers of the image networks. Shape letters: B images, C channels, H W pixels, E embedding."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PixelNorm(nn.Module):
    """Normalise the channels of every pixel by itself (layer normalisation), with a learned gain.

    Unlike group normalisation it reads no other pixel, so that the output at a pixel does not depend on the size of the canvas.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain_C = nn.Parameter(torch.ones(channels))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the normalised map, same shape."""
        x_BHWC = x_BCHW.permute(0, 2, 3, 1)
        return F.layer_norm(x_BHWC, (x_BHWC.shape[-1],), self.gain_C, None, 1e-6).permute(0, 3, 1, 2)


def make_norm(name: str, channels: int) -> nn.Module:
    """Return the normalisation called `name`: "pixel" or "group" (groups of at least 4 channels, at most 32)."""
    if name == "pixel":
        return PixelNorm(channels)
    if name == "group":
        return nn.GroupNorm(math.gcd(32, channels // 4), channels)
    raise ValueError(f"norm must be 'pixel' or 'group', not {name!r}")


def zeroed(layer: nn.Conv2d | nn.Linear) -> nn.Conv2d | nn.Linear:
    """Set a layer's weights to zero, so that its residual branch starts at zero, and return it."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def conv3(channels_in: int, channels_out: int) -> nn.Conv2d:
    """Return a 3x3 convolution that keeps the size."""
    return nn.Conv2d(channels_in, channels_out, 3, padding=1)


class FourierEmbedding(nn.Module):
    """Sines and cosines of a scalar, with frequencies spaced geometrically from 1 / `slowest` to 1 rad per unit."""

    freqs_F: Tensor

    def __init__(self, dim: int, slowest: float) -> None:
        super().__init__()
        exponents = torch.arange(dim // 2) / max(dim // 2 - 1, 1)
        self.register_buffer("freqs_F", slowest**-exponents, persistent=False)

    def forward(self, value_B: Tensor) -> Tensor:
        """Return the embedding [B, dim]."""
        angle_BF = value_B.float()[:, None] * self.freqs_F
        return torch.cat([angle_BF.cos(), angle_BF.sin()], dim=1)


def _silu(h: Tensor) -> Tensor:
    """SiLU of a map that nothing else reads; in place without gradients, which saves memory and time."""
    return F.silu(h, inplace=not torch.is_grad_enabled())


class ResBlock(nn.Module):
    """Two normalised convolutions beside a skip connection; the noise level scales and shifts, the condition map shifts.

    Parameters: `embedding` is the width of the vector (0: none), `cond_channels` that of the map (0: none).
    """

    def __init__(
        self, channels_in: int, channels_out: int, *, norm: str, embedding: int = 0, cond_channels: int = 0
    ) -> None:
        super().__init__()
        self.norm1 = make_norm(norm, channels_in)
        self.conv1 = conv3(channels_in, channels_out)
        self.norm2 = make_norm(norm, channels_out)
        self.conv2 = zeroed(conv3(channels_out, channels_out))
        self.modulate = zeroed(nn.Linear(embedding, 2 * channels_out)) if embedding else None
        self.cond_proj = zeroed(nn.Conv2d(cond_channels, channels_out, 1)) if cond_channels else None
        self.skip = nn.Conv2d(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()

    def forward(self, x_BCHW: Tensor, emb_BE: Tensor | None = None, cond_BCHW: Tensor | None = None) -> Tensor:
        """Return the block's output [B, channels_out, H, W]; `cond_BCHW` is `cond_proj` of the condition map."""
        h = self.conv1(_silu(self.norm1(x_BCHW)))
        if cond_BCHW is not None:
            h += cond_BCHW
        h = self.norm2(h)
        if self.modulate is not None and emb_BE is not None:
            scale, shift = self.modulate(emb_BE)[:, :, None, None].chunk(2, dim=1)
            h = torch.addcmul(shift, h, 1 + scale)
        h = self.conv2(_silu(h))
        h += self.skip(x_BCHW)
        return h


class Attention(nn.Module):
    """Self-attention over all pixels, one residual block (Ho et al. 2020)."""

    def __init__(self, channels: int, *, norm: str, head_channels: int = 64) -> None:
        super().__init__()
        self.n_heads = max(channels // head_channels, 1)
        self.norm = make_norm(norm, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the block's output, same shape."""
        B, C, H, W = x_BCHW.shape
        q, k, v = self.qkv(self.norm(x_BCHW)).reshape(B, 3, self.n_heads, C // self.n_heads, H * W).unbind(1)
        h = F.scaled_dot_product_attention(q.mT, k.mT, v.mT).mT
        return x_BCHW + self.out(h.reshape(B, C, H, W))
