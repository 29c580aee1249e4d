"""Presets, in one table: the published configuration repaired, one for a CPU, one for a GPU, one for a toy."""

from __future__ import annotations

from dataclasses import dataclass

from sge2hist.models.autoencoder import DOWNSAMPLING, AutoencoderConfig
from sge2hist.models.diffusion import DiffusionConfig
from sge2hist.models.gene_config import GeneModelConfig
from sge2hist.models.image_model import ImageModelConfig, SamplerConfig
from sge2hist.models.joint_model import ModelConfig
from sge2hist.models.placed_cells import ConditionConfig
from sge2hist.models.unet import UNetConfig


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One row of the table."""

    genes: int  # genes that the model reads, the most informative ones; 0 = all
    hidden: tuple[int, ...]  # widths of the gene encoder
    n_type: int  # dims of z1
    n_micro: int  # dims of z2
    components: int  # Gaussians of the mixture, before pruning
    likelihood: str
    latent: int  # channels of the image latent; 0 = diffusion on pixels
    ae_width: int
    unet: tuple[int, ...]  # widths per resolution
    blocks: int
    attention: tuple[bool, ...]
    batch: int  # patches per joint step
    ae_steps: int
    gene_steps: int
    mixture_steps: int  # gene steps with the mixture on, before the joint stage
    joint_steps: int
    learning_rate: float  # of the joint stage


# fmt: off
PRESETS = {
    #                genes  hidden             z1  z2   K   lik.   latent ae  unet                   blocks attention                     batch ae     gene   mixture joint    lr
    "tiny":  Preset(genes=0, hidden=(64,), n_type=8, n_micro=8, components=12, likelihood="nb", latent=4, ae_width=16, unet=(32, 48), blocks=1, attention=(False, False), batch=8, ae_steps=20, gene_steps=30, mixture_steps=10, joint_steps=20, learning_rate=1e-3),
    "small": Preset(genes=4000, hidden=(256, 128), n_type=16, n_micro=48, components=24, likelihood="nb", latent=8, ae_width=64, unet=(128, 192), blocks=2, attention=(False, False), batch=64, ae_steps=1500, gene_steps=2500, mixture_steps=500, joint_steps=6000, learning_rate=6e-4),
    "base":  Preset(genes=0, hidden=(1024, 512), n_type=16, n_micro=48, components=32, likelihood="nb", latent=8, ae_width=96, unet=(256, 384), blocks=3, attention=(False, False), batch=256, ae_steps=20000, gene_steps=20000, mixture_steps=5000, joint_steps=100000, learning_rate=5e-4),
    "paper": Preset(genes=0, hidden=(2048, 512), n_type=24, n_micro=104, components=6, likelihood="mse", latent=0, ae_width=0, unet=(64, 128, 256, 512), blocks=3, attention=(False, False, True, True), batch=64, ae_steps=0, gene_steps=20000, mixture_steps=2000, joint_steps=200000, learning_rate=1e-4),
}
# fmt: on
IS_PAPER = {"paper"}


def model_config(
    name: str,
    *,
    n_genes: int,
    n_types: int,
    um_per_px: float,
    patch_px: int,
    cell_spacing_um: float,
    n_slides: int,
    has_positions: bool = True,
) -> ModelConfig:
    """Return the configuration of preset `name` for a dataset.

    `cell_spacing_um`: typical distance between neighbouring cells (the bin side, when cells are bins); the kernel that
    spreads a cell over the condition grid is as wide, so that a lattice of bins is interpolated without gaps.
    """
    p = PRESETS[name]
    paper = name in IS_PAPER
    gene = GeneModelConfig(
        n_genes=n_genes, hidden=p.hidden, n_type=p.n_type, n_micro=p.n_micro, n_components=p.components,
        likelihood=p.likelihood,
        n_composition=0 if paper or not has_positions else max(n_types, 8),
        n_neighbour_embedding=0 if paper or not has_positions else 16,
        gene_dropout=0.0 if paper else 0.5,
        micro_dropout=0.0 if paper else 0.3,
    )  # fmt: skip
    grid_um = (DOWNSAMPLING if p.latent else 1) * um_per_px
    image = ImageModelConfig(
        autoencoder=AutoencoderConfig(latent_channels=p.latent, width=p.ae_width) if p.latent else None,
        condition=ConditionConfig(
            kind="vector" if paper else "map", grid_um=grid_um, splat_um=max(grid_um, cell_spacing_um)
        ),
        unet=UNetConfig(
            channels=p.unet, n_blocks=p.blocks, attention=p.attention,
            norm="group" if paper else "pixel", noise_slowest=1e4 if paper else 1e2,
        ),
        diffusion=DiffusionConfig(kind="ddpm" if paper else "edm"),
        n_latent=gene.n_latent,
        n_slides=n_slides,
    )  # fmt: skip
    return ModelConfig(
        preset=name,
        um_per_px=um_per_px,
        patch_px=patch_px,
        gene=gene,
        image=image,
        sampler=SamplerConfig(sampler="ancestral", n_steps=1000) if paper else SamplerConfig(),
    )
