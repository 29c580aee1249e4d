"""Presets: one whole object per name, in one table.

A preset is a size (columns of the table) and a method (how cells condition images, and how the two models are trained
together). `SPATIAL` is the method of this package; `PUBLISHED` is the one of the published model, for comparison.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from sge2hist.data.slides.channels import RGB, Channels
from sge2hist.models.gene.config import GeneModelConfig
from sge2hist.models.image.autoencoder import DOWNSAMPLING, AutoencoderConfig
from sge2hist.models.image.conditioning import ConditionConfig
from sge2hist.models.image.image_model import ImageModelConfig
from sge2hist.models.image.preconditioning import DiffusionConfig
from sge2hist.models.image.samplers import SamplerConfig
from sge2hist.models.image.unet import UNetConfig
from sge2hist.models.joint_model import ModelConfig
from sge2hist.training.gene.neighbour_targets import DEFAULT_NEIGHBOUR_UM
from sge2hist.training.image.stages import JointConfig

MIN_SMOOTHING_STEPS = 1000
"""Steps of an autoencoder from which on its latents are also made smooth; a shorter training is spent on detail alone."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """What presets of one method have in common, whatever their size."""

    stages: tuple[str, ...] = ("autoencoder", "gene", "mixture", "joint", "expression")  # in this order
    condition: str = "map"  # form of `ConditionConfig`
    diffusion: str = "edm"  # formulation of `DiffusionConfig`
    norm: str = "pixel"  # of the U-Net
    bottom: int = 1  # blocks of the U-Net at its coarsest resolution; 0: as many as at the others, and two more
    noise_slowest: float = 1e2  # longest period of the U-Net's noise embedding
    neighbourhood: bool = True  # z2 is inferred from the neighbours of a cell as well, and predicts them
    n_neighbour_embedding: int = 16  # dims of the neighbours' mean expression that z2 predicts
    min_composition: int = 8  # classes of the neighbours' composition that z2 predicts, at least
    n_axes: int = 32  # principal axes of expression on which z1 starts and neighbours are described
    centre_micro: bool = True  # z2 is relative to its mean among the cells of the same components
    gene_dropout: float = 0.5  # see `GeneModelConfig`
    micro_dropout: float = 0.3  # see `GeneModelConfig`
    unlabelled_factor: int = 2  # times as many components without labels, which are then grouped
    jitter_nodes: float = 1.0  # largest distance of a crop's centre from its cell, in nodes of the condition grid
    joint: JointConfig = field(default_factory=JointConfig)


SPATIAL = Method()
PUBLISHED = Method(
    stages=("gene", "mixture", "joint"),
    condition="vector",
    diffusion="ddpm",
    norm="group",
    bottom=0,
    noise_slowest=1e4,
    neighbourhood=False,
    n_axes=0,
    centre_micro=False,
    gene_dropout=0.0,
    micro_dropout=0.0,
    unlabelled_factor=1,
    jitter_nodes=0.0,
    joint=JointConfig(share_centre=0.9, share_anywhere=0.0, sample_z2=True, type_gradient=1.0, gene_until=1.0),
)

PLAIN = SamplerConfig()
GUIDED = SamplerConfig(
    n_steps=11, guidance=2.0, guidance_interval=(0.5, 4.5), eta=2.0, eta_above=1.0, sigma_range=(0.1, 12.0)
)
"""Chosen on validation cells (docs/image_model.md)."""
ANCESTRAL = SamplerConfig(sampler="ancestral", n_steps=1000)


@dataclass(frozen=True)
class Preset:
    """One row of the table."""

    genes: int  # genes that the model reads, the most informative ones; 0 = all
    hidden: tuple[int, ...]  # widths of the gene encoder
    z1: int  # dims of the cell type
    z2: int  # dims of the microenvironment
    components: int  # Gaussians of the mixture, before pruning
    likelihood: str
    latent: int  # channels of the image latent; 0 = diffusion on pixels
    ae_width: int  # channels of the autoencoder
    unet: tuple[int, ...]  # widths per resolution
    attends: int  # how many of the coarsest resolutions have self-attention
    blocks: int  # residual blocks per resolution
    batch: int  # patches per joint step
    ae_batch: int  # crops per step of the autoencoder
    ae_steps: int
    gene_steps: int
    mixture_steps: int  # gene steps with the mixture on, before the joint stage
    joint_steps: int
    learning_rate: float  # of the joint stage
    method: Method
    sampler: SamplerConfig  # defaults for generation


# fmt: off
PRESETS = {
    #               genes hidden       z1  z2   K  likel. latent ae  unet             att blocks batch  ae_b ae_st gene_st mix_st joint_st  rate   method   sampler
    "tiny":  Preset(0,    (64,),        8,   8, 12, "nb",  4,    16, (32, 48),           0, 1,     8,    8,      20,     30,    10,     20, 1e-3,   SPATIAL, PLAIN),
    "demo":  Preset(0,    (128,),       8,  16, 16, "nb",  8,    32, (64, 96),           0, 1,    32,   32,     360,   1500,   300,   1450, 1.5e-3, SPATIAL, PLAIN),
    "small": Preset(4000, (256, 128),  16,  48, 24, "nb",  8,    64, (128, 192),         0, 2,    32,   32,    4000,   2500,   500,  10000, 1e-3,   SPATIAL, GUIDED),
    "cells": Preset(0,    (256, 128),  16,  48, 24, "nb", 12,    40, (64, 192),          0, 2,    16,    8,    4000,   2500,   500,  10000, 1e-3,   SPATIAL, GUIDED),
    "base":  Preset(0,    (1024, 512), 16,  48, 32, "nb", 12,    96, (256, 384),         0, 3,   256,   32,   20000,  20000,  5000, 100000, 5e-4,   SPATIAL, GUIDED),
    "paper": Preset(0,    (2048, 512), 24, 104,  6, "mse", 0,     0, (64, 128, 256, 512), 2, 3,   64,   32,       0,  20000,  2000, 200000, 1e-4,   PUBLISHED, ANCESTRAL),
}
# fmt: on
"""tiny: tests. demo: minutes on a toy. small: bins on a CPU. cells: single cells at half a micrometre per pixel on a CPU,
with more latent channels for the detail of nuclei and a cheaper U-Net. base: a GPU. paper: the published configuration."""


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
    neighbour_um: float = DEFAULT_NEIGHBOUR_UM,
    pool_um: float = 0.0,
    labels: bool = True,
    outline_um: float = 0.0,
    n_proteins: int = 0,
) -> ModelConfig:
    """Return the configuration of preset `name` for a dataset.

    Parameters
    ----------
    cell_spacing_um
        Typical distance between neighbouring cells (the bin side, when cells are bins). The kernel that spreads a cell over
        the condition grid is as wide, so that a lattice of bins is interpolated without gaps.
    neighbour_um
        Radius of a neighbourhood, see :func:`sge2hist.training.gene.neighbour_targets.neighbourhood_radius`.
    pool_um
        Bins within this distance are assigned one type together; 0: each alone.
    labels
        Whether labelled cells supervise the mixture; without, the mixture has twice as many components, to be grouped.
    outline_um
        Radius of the largest cells whose outlines are known: cells are spread over their outlines; 0: no outlines.
    n_proteins
        Proteins that the gene model reads beside the genes.
    """
    preset = PRESETS[name]
    gene = replace(_gene_config(preset, n_genes, n_types, neighbour_um, pool_um, labels), n_proteins=n_proteins)
    return ModelConfig(
        preset=name,
        um_per_px=um_per_px,
        patch_px=patch_px,
        gene=gene,
        image=_image_config(preset, gene.n_latent, um_per_px, cell_spacing_um, n_slides, len(channels), outline_um),
        channels=channels,
        sampler=preset.sampler,
    )


def _gene_config(
    preset: Preset, n_genes: int, n_types: int, neighbour_um: float, pool_um: float, labels: bool
) -> GeneModelConfig:
    method = preset.method
    return GeneModelConfig(
        n_genes=n_genes,
        hidden=preset.hidden,
        n_type=preset.z1,
        n_micro=preset.z2,
        n_components=preset.components * (1 if labels else method.unlabelled_factor),
        likelihood=preset.likelihood,
        n_composition=max(n_types, method.min_composition) if method.neighbourhood else 0,
        n_neighbour_embedding=method.n_neighbour_embedding if method.neighbourhood else 0,
        n_axes=method.n_axes,
        centre_micro=method.centre_micro,
        neighbour_um=neighbour_um if method.neighbourhood else 0.0,
        pool_um=pool_um,
        gene_dropout=method.gene_dropout,
        micro_dropout=method.micro_dropout,
    )


def _image_config(
    preset: Preset,
    n_latent: int,
    um_per_px: float,
    cell_spacing_um: float,
    n_slides: int,
    image_channels: int,
    outline_um: float,
) -> ImageModelConfig:
    method = preset.method
    grid_um = (DOWNSAMPLING if preset.latent else 1) * um_per_px
    n_levels = len(preset.unet)
    return ImageModelConfig(
        autoencoder=_autoencoder_config(preset, image_channels) if preset.latent else None,
        condition=ConditionConfig(
            form=method.condition,
            grid_um=grid_um,
            splat_um=max(grid_um, cell_spacing_um),
            outlines=outline_um > 0 and method.condition == "map",
            outline_um=outline_um if method.condition == "map" else 0.0,
        ),
        unet=UNetConfig(
            channels=preset.unet,
            n_blocks=preset.blocks,
            attention=tuple(level >= n_levels - preset.attends for level in range(n_levels)),
            bottom=method.bottom,
            norm=method.norm,
            noise_slowest=method.noise_slowest,
        ),
        diffusion=DiffusionConfig(formulation=method.diffusion),
        image_channels=image_channels,
        n_latent=n_latent,
        n_slides=n_slides,
    )


def _autoencoder_config(preset: Preset, image_channels: int) -> AutoencoderConfig:
    config = AutoencoderConfig(image_channels=image_channels, latent_channels=preset.latent, width=preset.ae_width)
    return config if preset.ae_steps >= MIN_SMOOTHING_STEPS else replace(config, noise_std=0.1, scale_weight=0.0)
