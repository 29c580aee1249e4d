"""The network inside the denoiser: a small U-Net that reads a condition map. It knows no file, gene name or device.

Shape letters: B images, C channels, H W pixels of the space that the diffusion runs in, D condition channels.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sge2hist.models.image.layers import Attention, FourierEmbedding, ResBlock, conv3, make_norm, zeroed


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """Shape of the U-Net."""

    channels: tuple[int, ...] = (128, 192)  # width at each resolution, finest first; each next one is half as fine
    n_blocks: int = 2  # residual blocks on the way down, per resolution; one more on the way up
    bottom: int = 0  # blocks of the coarsest resolution, without skips; 0: as many as at the others, and two more
    attention: tuple[bool, ...] = (False, False)  # self-attention at each resolution
    norm: str = "pixel"  # "pixel" (of the channels of each pixel) or "group"
    embedding: int = 256  # width of the noise-level embedding
    noise_slowest: float = 1e2  # longest period of the noise embedding, in units of c_noise (divided by 2 pi)

    def __post_init__(self) -> None:
        if len(self.attention) != len(self.channels):
            raise ValueError(f"{len(self.channels)} channels and {len(self.attention)} attention flags must be as many")
        if self.n_blocks < 1 or self.bottom < 0 or any(c < 8 or c % 8 for c in self.channels):
            raise ValueError("n_blocks >= 1, bottom >= 0 and channels in multiples of 8 are needed")

    @property
    def shrinking(self) -> int:
        """Pixels along the side of one pixel of the coarsest resolution."""
        return 2 ** (len(self.channels) - 1)

    def blocks_down(self, level: int) -> int:
        """Blocks of a level on the way down, each with a skip to the way up; 0: the level has no way up."""
        return 0 if self.bottom and level == len(self.channels) - 1 else self.n_blocks


class UNet(nn.Module):
    """`net(x_BCHW, c_noise_B, net.read_map(cond_map_BDHW), cond_vector_BE) -> [B, C, H, W]`.

    The features of the map are the same at every noise level: a sampler computes them once, by `read_map`.
    Parameters: `image_channels` C; `map_channels` D, 0 when the condition is a vector alone; `vector_dim`, the width of
    `cond_vector`, which is added to the noise embedding. H and W must be divisible by 2^(resolutions - 1).
    """

    def __init__(self, config: UNetConfig, *, image_channels: int, map_channels: int, vector_dim: int) -> None:
        super().__init__()
        widths, emb = config.channels, config.embedding
        self.n_levels = len(widths)
        self.embed_noise = nn.Sequential(
            FourierEmbedding(emb, config.noise_slowest), nn.Linear(emb, emb), nn.SiLU(), nn.Linear(emb, emb)
        )
        self.embed_vector = nn.Linear(vector_dim, emb) if vector_dim else None
        self.stem = conv3(image_channels + map_channels, widths[0])

        def block(channels_in: int, level: int) -> nn.ModuleList:
            res = ResBlock(channels_in, widths[level], norm=config.norm, embedding=emb, cond_channels=map_channels)
            return nn.ModuleList(
                [res, Attention(widths[level], norm=config.norm) if config.attention[level] else nn.Identity()]
            )

        self.down = nn.ModuleList()
        self.shrink = nn.ModuleList()
        skips = [widths[0]]
        width = widths[0]
        for level in range(self.n_levels):
            n_down = config.blocks_down(level)
            if level:
                self.shrink.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
                skips += [width] if n_down else []
            blocks = nn.ModuleList()
            for _ in range(n_down):
                blocks.append(block(width, level))
                width = widths[level]
                skips.append(width)
            self.down.append(blocks)
        self.middle = nn.ModuleList()
        for _ in range(config.bottom or 2):
            self.middle.append(block(width, self.n_levels - 1))
            width = widths[-1]
        self.up = nn.ModuleList()
        self.grow = nn.ModuleList()
        for level in reversed(range(self.n_levels)):
            blocks = nn.ModuleList()
            n_down = config.blocks_down(level)
            for _ in range(n_down + 1 if n_down else 0):
                blocks.append(block(width + skips.pop(), level))
                width = widths[level]
            self.up.append(blocks)
            if level:
                self.grow.append(conv3(width, width))
        self.head = nn.Sequential(make_norm(config.norm, width), nn.SiLU(), zeroed(conv3(width, image_channels)))

    def read_map(self, cond_map_BDHW: Tensor) -> list[Tensor]:
        """Features of the map for the stem and each residual block, in the order of their use; each [B, width, h, w]."""
        maps = [cond_map_BDHW.contiguous(memory_format=torch.channels_last)]
        for _ in range(self.n_levels - 1):
            maps.append(F.avg_pool2d(maps[-1], 2))
        weight_ODhw = self.stem.weight[:, -cond_map_BDHW.shape[1] :]
        read = [F.conv2d(maps[0], weight_ODhw, padding=1)]
        for level, blocks in [*enumerate(self.down), (self.n_levels - 1, self.middle)]:
            read += [res.cond_proj(maps[level]) for res, _ in blocks]  # type: ignore[attr-defined]
        for i, blocks in enumerate(self.up):
            read += [res.cond_proj(maps[self.n_levels - 1 - i]) for res, _ in blocks]  # type: ignore[attr-defined]
        return read

    def forward(
        self, x_BCHW: Tensor, c_noise_B: Tensor, read_map: list[Tensor] | None, cond_vector_BE: Tensor | None
    ) -> Tensor:
        """Return the raw network output, which the preconditioning interprets."""
        features = itertools.repeat(None) if read_map is None else iter(read_map)
        emb_BE = self._embedding(c_noise_B, cond_vector_BE)
        h, skips = self._way_down(x_BCHW, emb_BE, features)
        for i, blocks in enumerate(self.up):
            for res, attend in blocks:  # type: ignore[attr-defined]
                h = attend(res(torch.cat([h, skips.pop()], dim=1), emb_BE, next(features)))
            if i < self.n_levels - 1:
                h = self.grow[i](F.interpolate(h, scale_factor=2.0, mode="nearest"))
        return self.head(h)

    def features(
        self, x_BCHW: Tensor, c_noise_B: Tensor, read_map: list[Tensor] | None, cond_vector_BE: Tensor | None
    ) -> list[Tensor]:
        """Features on the way down to the coarsest resolution, finest first: a quarter of the cost of `forward`."""
        features = itertools.repeat(None) if read_map is None else iter(read_map)
        h, skips = self._way_down(x_BCHW, self._embedding(c_noise_B, cond_vector_BE), features)
        return [*skips[1:], h]

    def _embedding(self, c_noise_B: Tensor, cond_vector_BE: Tensor | None) -> Tensor:
        emb_BE = self.embed_noise(c_noise_B)
        if self.embed_vector is not None and cond_vector_BE is not None:
            emb_BE = emb_BE + self.embed_vector(cond_vector_BE)
        return F.silu(emb_BE)

    def _way_down(
        self, x_BCHW: Tensor, emb_BE: Tensor, features: Iterator[Tensor | None]
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the features of the coarsest resolution, and those that the way up reads; `features` of the map are used up."""
        x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)
        h = F.conv2d(x_BCHW, self.stem.weight[:, : x_BCHW.shape[1]], self.stem.bias, padding=1)
        stem_features = next(features)
        h = h if stem_features is None else h + stem_features
        skips = [h]
        for level, blocks in enumerate(self.down):
            if level:
                h = self.shrink[level - 1](h)
                skips += [h] if len(blocks) else []  # type: ignore[arg-type]
            for res, attend in blocks:  # type: ignore[attr-defined]
                h = attend(res(h, emb_BE, next(features)))
                skips.append(h)
        for res, attend in self.middle:  # type: ignore[misc]
            h = attend(res(h, emb_BE, next(features)))
        return h, skips
