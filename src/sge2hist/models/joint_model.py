"""Gene model and image model together, and their configuration."""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from sge2hist.models.gene.config import GeneModelConfig
from sge2hist.models.gene.vae import GeneVAE
from sge2hist.models.image.conditioning import HALO_NODES
from sge2hist.models.image.denoiser import LearntGuidance
from sge2hist.models.image.image_model import ImageModel, ImageModelConfig
from sge2hist.models.image.samplers import SamplerConfig
from sge2hist.models.version_0_1 import OLD_FIELDS, current_config


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The whole model. Written to ``config.json``."""

    preset: str  # name of the training preset
    um_per_px: float  # resolution of its images
    patch_px: int  # side of a patch
    gene: GeneModelConfig
    image: ImageModelConfig
    channels: tuple[str, ...] = ("red", "green", "blue")  # names of the image channels; absent in the oldest models
    sampler: SamplerConfig = field(default_factory=SamplerConfig)  # defaults for generation
    learnt_guidance: LearntGuidance = field(default_factory=LearntGuidance)  # in the weights, under any sampler

    def __post_init__(self) -> None:
        if self.um_per_px <= 0 or self.patch_px < 8:
            raise ValueError("um_per_px must be positive and patch_px at least 8")
        if self.gene.n_latent != self.image.n_latent:
            raise ValueError(f"the image model reads {self.image.n_latent} dims and z has {self.gene.n_latent}")
        generated = self.image.autoencoder.image_channels if self.image.autoencoder else self.image.image_channels
        if not len(self.channels) == self.image.image_channels == generated:
            raise ValueError(
                f"{len(self.channels)} channels, but networks for {generated} of {self.image.image_channels}"
            )
        coarsest = (4 if self.image.autoencoder else 1) * self.image.unet.shrinking
        if self.patch_px % coarsest:
            raise ValueError(f"patch_px must be a multiple of {coarsest}, not {self.patch_px}")

    @property
    def patch_um(self) -> float:
        """Side of a patch in um."""
        return self.patch_px * self.um_per_px

    @property
    def receptive_radius_um(self) -> float:
        """Distance from the edge of a canvas within which cells outside it still enter its condition."""
        condition = self.image.condition
        if condition.form == "vector":
            return 0.0
        reach_um = (HALO_NODES - 0.5) * condition.grid_um + condition.splat_um
        return max(reach_um, HALO_NODES * condition.grid_um + condition.outline_um) if condition.outlines else reach_um

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """Rebuild from :meth:`to_dict`'s output; raises TypeError or ValueError when it does not fit."""
        return from_plain(cls, current_config(values))


def from_plain(annotation: Any, values: Any) -> Any:
    """Rebuild nested dataclasses and tuples from plain containers; field names of version 0.1 are accepted."""
    if isinstance(annotation, types.UnionType):
        inner = next(part for part in typing.get_args(annotation) if part is not type(None))
        return None if values is None else from_plain(inner, values)
    if dataclasses.is_dataclass(annotation):
        hints, old = typing.get_type_hints(annotation), OLD_FIELDS.get(annotation, {})  # type: ignore[arg-type]
        named = {old.get(name, name): value for name, value in values.items()}
        return annotation(**{name: from_plain(hints[name], value) for name, value in named.items()})  # type: ignore[operator]
    return tuple(values) if typing.get_origin(annotation) is tuple else values


class JointModel(nn.Module):
    """Gene model and image model."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.gene = GeneVAE(config.gene)
        self.image = ImageModel(config.image, config.learnt_guidance)
