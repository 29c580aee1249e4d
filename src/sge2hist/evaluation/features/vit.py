"""Vision transformer in the layout and with the parameter names of `timm` (Wightman 2019), in which pathology encoders are
published; written here because `timm` needs torchvision.

Dosovitskiy et al. 2021, with what the encoders add: register tokens (Darcet et al. 2024), gated feed-forward layers
(SwiGLU, Shazeer 2020) and layer scale (Touvron et al. 2021). The attentional pool is that of CoCa (Yu et al. 2022).

Shape letters: B images, C channels, H x W pixels, T tokens (class, registers, patches), D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

EPSILON = 1e-6  # of timm's layer norms


@dataclass(frozen=True, kw_only=True)
class ViTShape:
    """Sizes of a vision transformer.

    Attributes:
        image_px: side of the image; patch_px: side of a patch.
        dim: width; depth: number of blocks; heads: attention heads.
        hidden: outputs of the first feed-forward layer, both halves of a gated one.
        gated: whether the feed-forward layer is SwiGLU; else GELU.
        registers: number of register tokens.
        embeds_prefix: whether class and register tokens have positions too.
        layer_scale: whether the branches are scaled channel by channel.
    """

    image_px: int
    patch_px: int
    dim: int
    depth: int
    heads: int
    hidden: int
    gated: bool = False
    registers: int = 0
    embeds_prefix: bool = True
    layer_scale: bool = False

    @property
    def n_patches(self) -> int:
        """Number of patches of an image."""
        return (self.image_px // self.patch_px) ** 2

    @property
    def n_prefix(self) -> int:
        """Number of tokens before those of the patches."""
        return 1 + self.registers


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return [B, T, D]."""
        batch, tokens, dim = x_BTD.shape
        qkv = self.qkv(x_BTD).reshape(batch, tokens, 3, self.heads, dim // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).reshape(batch, tokens, dim))


class FeedForward(nn.Module):
    """`fc2(gelu(fc1(x)))`, or `fc2(silu(a) * b)` of the halves a, b of `fc1(x)`."""

    def __init__(self, dim: int, hidden: int, gated: bool) -> None:
        super().__init__()
        self.gated = gated
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden // 2 if gated else hidden, dim)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return [B, T, D]."""
        x = self.fc1(x_BTD)
        if self.gated:
            first, second = x.chunk(2, dim=-1)
            return self.fc2(functional.silu(first) * second)
        return self.fc2(functional.gelu(x))


class LayerScale(nn.Module):
    """One factor per channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), 1e-5))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return [B, T, D]."""
        return x_BTD * self.gamma


class Block(nn.Module):
    """`x + attention(norm(x))`, then `x + feed_forward(norm(x))`."""

    def __init__(self, shape: ViTShape) -> None:
        super().__init__()

        def scale() -> nn.Module:
            return LayerScale(shape.dim) if shape.layer_scale else nn.Identity()

        self.norm1 = nn.LayerNorm(shape.dim, eps=EPSILON)
        self.attn = Attention(shape.dim, shape.heads)
        self.ls1 = scale()
        self.norm2 = nn.LayerNorm(shape.dim, eps=EPSILON)
        self.mlp = FeedForward(shape.dim, shape.hidden, shape.gated)
        self.ls2 = scale()

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return [B, T, D]."""
        x = x_BTD + self.ls1(self.attn(self.norm1(x_BTD)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class PatchEmbedding(nn.Module):
    """One token per square of pixels."""

    def __init__(self, shape: ViTShape) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, shape.dim, shape.patch_px, stride=shape.patch_px)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return [B, patches, D], row by row."""
        return self.proj(x_BCHW).flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """Input: float [B, 3, image_px, image_px]. Output: tokens [B, T, D] after the last norm: class, registers, patches."""

    def __init__(self, shape: ViTShape) -> None:
        super().__init__()
        self.shape = shape
        self.patch_embed = PatchEmbedding(shape)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, shape.dim))
        if shape.registers:
            self.reg_token = nn.Parameter(torch.zeros(1, shape.registers, shape.dim))
        positions = shape.n_patches + (shape.n_prefix if shape.embeds_prefix else 0)
        self.pos_embed = nn.Parameter(torch.zeros(1, positions, shape.dim))
        self.blocks = nn.Sequential(*(Block(shape) for _ in range(shape.depth)))
        self.norm = nn.LayerNorm(shape.dim, eps=EPSILON)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return [B, T, D]."""
        patches = self.patch_embed(x_BCHW)
        prefix = [self.cls_token.expand(len(patches), -1, -1)]
        if self.shape.registers:
            prefix.append(self.reg_token.expand(len(patches), -1, -1))
        if self.shape.embeds_prefix:
            x = torch.cat([*prefix, patches], dim=1) + self.pos_embed
        else:
            x = torch.cat([*prefix, patches + self.pos_embed], dim=1)
        return self.norm(self.blocks(x))


class AttentionPool(nn.Module):
    """One learnt query that attends to all tokens, normalised: [B, T, D] -> [B, out]."""

    def __init__(self, dim: int, out: int, heads: int) -> None:
        super().__init__()
        self.attn_pool_contrast = QueryAttention(dim, out, heads)
        self.ln_contrast = nn.LayerNorm(out)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return [B, out]."""
        return self.ln_contrast(self.attn_pool_contrast(x_BTD)[:, 0])


class QueryAttention(nn.Module):
    """Attention of one learnt query to the tokens."""

    def __init__(self, dim: int, out: int, heads: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(1, out))
        self.attn = nn.MultiheadAttention(out, heads, kdim=dim, vdim=dim, batch_first=True)
        self.ln_q = nn.LayerNorm(out)
        self.ln_k = nn.LayerNorm(dim)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return [B, 1, out]."""
        tokens = self.ln_k(x_BTD)
        query = self.ln_q(self.query).expand(len(tokens), -1, -1)
        return self.attn(query, tokens, tokens, need_weights=False)[0]


def has_prefix_positions(weights: Mapping[str, Tensor], shape: ViTShape) -> bool:
    """Return whether the positions in a file include the class and register tokens."""
    positions = weights.get("pos_embed")
    return positions is not None and positions.shape[1] == shape.n_patches + shape.n_prefix
