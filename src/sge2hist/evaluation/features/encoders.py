"""Pathology encoders by name: UNI2-h, H0-mini, Virchow2 and CONCH, each with its own resize, normalisation and embedding.

| encoder | network | embedding | repository, paper |
| --- | --- | --- | --- |
| UNI2-h | ViT-H/14, 8 registers, SwiGLU | class token, 1,536 | MahmoodLab/UNI2-h (Chen et al. 2024) |
| H0-mini | ViT-B/14, 4 registers, SwiGLU | class token, mean of patch tokens, 1,536 | bioptimus/H0-mini (Filiot et al. 2025) |
| Virchow2 | ViT-H/14, 4 registers, SwiGLU | class token, mean of patch tokens, 2,560 | paige-ai/Virchow2 (Zimmermann 2024) |
| CONCH | ViT-B/16 at 448 px | attentional pool before the contrastive projection, 512 | MahmoodLab/CONCH (Lu et al. 2024) |

The weights are not part of this package, and all four forbid commercial use. The code was checked against `timm` with
random weights of the same shapes; the published weights were not at hand.

Shape letters: B images, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from sge2hist.data.artifacts import sha256_of
from sge2hist.data.errors import InputError
from sge2hist.devices import fast_arithmetic, has_fast_bfloat16
from sge2hist.evaluation.features.extractor import Extractor, scaled_batch
from sge2hist.evaluation.features.vit import AttentionPool, VisionTransformer, ViTShape, has_prefix_positions
from sge2hist.evaluation.features.weights import fill, find_weights, read_tensors

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
OPENAI_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
H_OPTIMUS = ((0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517))
NON_COMMERCIAL = "CC BY-NC-ND 4.0 (no commercial use)"
BATCH = 16
MADE_FOR_UM_PER_PX = 0.5


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A published encoder.

    Attributes:
        repository: its repository on the hub.
        shape: sizes of its network; whether class and register tokens have positions is read from the file.
        embedding: the class token, that and the mean of the patch tokens, or an attentional pool.
        mean, std: of the colours in [0, 1].
        resize: interpolation to the side of the network.
        pool_dim, pool_heads: sizes of an attentional pool.
    """

    name: str
    repository: str
    shape: ViTShape
    embedding: Literal["class token", "class token and mean of patch tokens", "attentional pool"]
    normalisation: tuple[tuple[float, float, float], tuple[float, float, float]]
    resize: Literal["bilinear", "bicubic"] = "bicubic"
    licence: str = NON_COMMERCIAL
    pool_dim: int = 512
    pool_heads: int = 8


ENCODERS = {
    "uni2-h": Encoder(
        name="UNI2-h",
        repository="MahmoodLab/UNI2-h",
        shape=ViTShape(
            image_px=224,
            patch_px=14,
            dim=1536,
            depth=24,
            heads=24,
            hidden=8192,
            gated=True,
            registers=8,
            embeds_prefix=False,
            layer_scale=True,
        ),
        embedding="class token",
        normalisation=IMAGENET,
        resize="bilinear",
    ),
    "h0-mini": Encoder(
        name="H0-mini",
        repository="bioptimus/H0-mini",
        shape=ViTShape(
            image_px=224,
            patch_px=14,
            dim=768,
            depth=12,
            heads=12,
            hidden=4096,
            gated=True,
            registers=4,
            embeds_prefix=False,
            layer_scale=True,
        ),
        embedding="class token and mean of patch tokens",
        normalisation=H_OPTIMUS,
    ),
    "virchow2": Encoder(
        name="Virchow2",
        repository="paige-ai/Virchow2",
        shape=ViTShape(
            image_px=224,
            patch_px=14,
            dim=1280,
            depth=32,
            heads=16,
            hidden=6832,
            gated=True,
            registers=4,
            layer_scale=True,
        ),
        embedding="class token and mean of patch tokens",
        normalisation=IMAGENET,
    ),
    "conch": Encoder(
        name="CONCH",
        repository="MahmoodLab/CONCH",
        shape=ViTShape(image_px=448, patch_px=16, dim=768, depth=12, heads=12, hidden=3072),
        embedding="attentional pool",
        normalisation=OPENAI_CLIP,
    ),
}
"""Encoders by their name in lower case."""


class EncoderNetwork(nn.Module):
    """Tokens of a vision transformer, then the embedding that its authors use. Input: float [B, 3, P, P], normalised."""

    def __init__(self, encoder: Encoder, shape: ViTShape) -> None:
        super().__init__()
        self.embedding = encoder.embedding
        self.trunk = VisionTransformer(shape)
        if self.embedding == "attentional pool":
            self.pool = AttentionPool(shape.dim, encoder.pool_dim, encoder.pool_heads)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return [B, D]."""
        tokens_BTD = self.trunk(x_BCHW)
        if self.embedding == "attentional pool":
            return self.pool(tokens_BTD)
        if self.embedding == "class token":
            return tokens_BTD[:, 0]
        patches_BTD = tokens_BTD[:, self.trunk.shape.n_prefix :]
        return torch.cat([tokens_BTD[:, 0], patches_BTD.mean(dim=1)], dim=-1)


def encoder_extractor(encoder: Encoder, weights: str | None = None, input_px: int | None = None) -> Extractor:
    """Return an encoder as extractor.

    Parameters
    ----------
    weights
        File of its weights; None: from the hub, downloaded once.
    input_px
        None, or the side that the network takes; no other.
    """
    if input_px not in (None, encoder.shape.image_px):
        raise InputError(
            found=f"an extractor input of {input_px} px",
            where=f"--extractor {encoder.name}",
            expected=f"{encoder.shape.image_px} px, which its network takes",
            repair="evaluate without --extractor-px",
        )
    path = find_weights(encoder.name, encoder.repository, weights)
    model = load_encoder(encoder, path)
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in encoder.normalisation)
    device = torch.device("cpu")

    def compute(image_NHWC: np.ndarray) -> np.ndarray:
        batch = (scaled_batch(image_NHWC, encoder.shape.image_px, encoder.resize) - mean) / std
        with torch.inference_mode(), fast_arithmetic(device):
            return model(batch).float().numpy()

    details = {
        "input_px": encoder.shape.image_px,
        "weights": encoder.repository if weights is None else path.name,
        "sha256": sha256_of(path),
        "licence": encoder.licence,
        "scaling": f"{encoder.resize}, mean {encoder.normalisation[0]}, SD {encoder.normalisation[1]}",
        "embedding": encoder.embedding,
        "made_for_um_per_px": MADE_FOR_UM_PER_PX,
        "precision": "bfloat16" if has_fast_bfloat16(device) else "float32",
    }
    return Extractor(name=encoder.name, compute=compute, details=details, is_torch=True, batch=BATCH)


def load_encoder(encoder: Encoder, path: Path) -> nn.Module:
    """Return the network of an encoder with the weights of a file."""
    weights = network_names(encoder, read_tensors(path))
    trunk = {key.removeprefix("trunk."): tensor for key, tensor in weights.items()}
    shape = replace(encoder.shape, embeds_prefix=has_prefix_positions(trunk, encoder.shape))
    with torch.device("meta"):
        network = EncoderNetwork(encoder, shape)
    return fill(network, weights, path, encoder.name)


def network_names(encoder: Encoder, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a published file by the names of `EncoderNetwork`.

    The file of CONCH also holds its text encoder and its caption decoder, which are not needed.
    """
    if encoder.embedding != "attentional pool":
        return {f"trunk.{key}": tensor for key, tensor in weights.items()}
    found = {}
    for key, tensor in weights.items():
        part = key.removeprefix("visual.")
        if part.startswith("trunk."):
            found[part] = tensor
        elif part.startswith(("attn_pool_contrast.", "ln_contrast.")):
            found[f"pool.{part}"] = tensor
    return found
