"""Presets, in one table: the published configuration repaired, one for a CPU, one for a GPU,
one for minutes on a toy, one for tests."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from sge2hist.data.slides.channels import RGB, Channels
from sge2hist.models.gene.config import GeneModelConfig
from sge2hist.models.image.autoencoder import DOWNSAMPLING, AutoencoderConfig
from sge2hist.models.image.conditioning import ConditionConfig
from sge2hist.models.image.image_model import ImageModelConfig, SamplerConfig
from sge2hist.models.image.preconditioning import DiffusionConfig
from sge2hist.models.image.unet import UNetConfig
from sge2hist.models.joint_model import ModelConfig
from sge2hist.training.gene.neighbour_targets import DEFAULT_AROUND_UM


class Preset(NamedTuple):
    """One row of the table."""

    genes: int  # genes that the model reads, the most informative ones; 0 = all
    hidden: tuple[int, ...]  # widths of the gene encoder
    z1: int  # dims of the cell type
    z2: int  # dims of the microenvironment
    components: int  # Gaussians of the mixture, before pruning
    likelihood: str
    latent: int  # channels of the image latent; 0 = diffusion on pixels
    ae_width: int
    unet: tuple[int, ...]  # widths per resolution
    attends: int  # how many of the coarsest resolutions have self-attention
    blocks: int
    batch: int  # patches per joint step
    ae_steps: int
    gene_steps: int
    mixture_steps: int  # gene steps with the mixture on, before the joint stage
    joint_steps: int
    learning_rate: float  # of the joint stage


# fmt: off
PRESETS = {
    #               genes hidden       z1  z2   K  likel. latent ae  unet             att blocks batch  ae_st gene_st mix_st joint_st  rate
    "tiny":  Preset(0,    (64,),        8,   8, 12, "nb",  4,    16, (32, 48),           0, 1,     8,      20,     30,    10,     20, 1e-3),
    "demo":  Preset(0,    (128,),       8,  16, 16, "nb",  8,    32, (64, 96),           0, 1,    32,     360,   1500,   300,   1450, 1.5e-3),
    "small": Preset(4000, (256, 128),  16,  48, 24, "nb",  8,    64, (128, 192),         0, 2,    32,    4000,   2500,   500,  10000, 1e-3),
    "base":  Preset(0,    (1024, 512), 16,  48, 32, "nb",  8,    96, (256, 384),         0, 3,   256,   20000,  20000,  5000, 100000, 5e-4),
    "paper": Preset(0,    (2048, 512), 24, 104,  6, "mse", 0,     0, (64, 128, 256, 512), 2, 3,   64,       0,  20000,  2000, 200000, 1e-4),
}
# fmt: on
IS_PAPER = {"paper"}
CHOSEN = SamplerConfig(
    n_steps=11, guidance=2.0, guidance_interval=(0.5, 4.5), eta=2.0, eta_above=1.0, sigma_range=(0.1, 12.0)
)
SAMPLING = {"small": CHOSEN, "base": CHOSEN, "paper": SamplerConfig(sampler="ancestral", n_steps=1000)}
"""How models of a preset draw unless told otherwise; `CHOSEN` on validation cells (docs/image_model.md)."""


AXES = 32
"""Principal axes of expression on which z1 starts, and on which surroundings are told."""
LONG_ENOUGH = 1000
"""Steps of an autoencoder that leave time for more than detail."""


def _autoencoder(p: Preset, image_channels: int) -> AutoencoderConfig:
    """Smooth latents pay off in a long training; a few hundred steps are all needed for detail."""
    shape = AutoencoderConfig(image_channels=image_channels, latent_channels=p.latent, width=p.ae_width)
    return shape if p.ae_steps >= LONG_ENOUGH else replace(shape, noise_std=0.1, scale_weight=0.0)


def model_config(
    name: str,
    *,
    n_genes: int,
    n_types: int,
    um_per_px: float,
    patch_px: int,
    cell_spacing_um: float,
    n_slides: int,
    channels: Channels = RGB,
    neighbour_um: float = DEFAULT_AROUND_UM,
    pool_um: float = 0.0,
    labels: bool = True,
) -> ModelConfig:
    """Return the configuration of preset `name` for a dataset.

    `cell_spacing_um`: typical distance between neighbouring cells (the bin side, when cells are bins); the kernel that
    spreads a cell over the condition grid is as wide, so that a lattice of bins is interpolated without gaps.
    `neighbour_um`: how far cells are around each other, see :func:`sge2hist.training.gene.neighbour_targets.neighbourhood_radius`.
    `pool_um`: bins within this distance are told one type from together; 0: none.
    `labels`: whether types are told; without, the mixture has twice as many components, to be grouped.
    """
    p = PRESETS[name]
    paper = name in IS_PAPER
    gene = GeneModelConfig(
        n_genes=n_genes,
        hidden=p.hidden,
        n_type=p.z1,
        n_micro=p.z2,
        n_components=p.components if labels or paper else 2 * p.components,
        likelihood=p.likelihood,
        n_composition=0 if paper else max(n_types, 8),
        n_neighbour_embedding=0 if paper else 16,
        n_axes=0 if paper else AXES,
        centre_micro=not paper,
        neighbour_um=0.0 if paper else neighbour_um,
        pool_um=pool_um,
        gene_dropout=0.0 if paper else 0.5,
        micro_dropout=0.0 if paper else 0.3,
    )
    grid_um = (DOWNSAMPLING if p.latent else 1) * um_per_px
    image = ImageModelConfig(
        autoencoder=_autoencoder(p, len(channels)) if p.latent else None,
        condition=ConditionConfig(
            form="vector" if paper else "map", grid_um=grid_um, splat_um=max(grid_um, cell_spacing_um)
        ),
        unet=UNetConfig(
            channels=p.unet,
            n_blocks=p.blocks,
            attention=tuple(level >= len(p.unet) - p.attends for level in range(len(p.unet))),
            bottom=0 if paper else 1,
            norm="group" if paper else "pixel",
            noise_slowest=1e4 if paper else 1e2,
        ),
        diffusion=DiffusionConfig(formulation="ddpm" if paper else "edm"),
        image_channels=len(channels),
        n_latent=gene.n_latent,
        n_slides=n_slides,
    )
    return ModelConfig(
        preset=name,
        um_per_px=um_per_px,
        patch_px=patch_px,
        gene=gene,
        image=image,
        channels=channels,
        sampler=SAMPLING.get(name, SamplerConfig()),
    )
