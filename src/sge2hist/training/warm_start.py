"""Training that starts from a model trained before: more of the same training, or fine-tuning on other slides."""

from __future__ import annotations

from dataclasses import replace

from sge2hist.data.errors import InputError
from sge2hist.data.gene_panel import GenePanel
from sge2hist.data.slides.channels import require_same_channels
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.joint_model import JointModel, ModelConfig

KEPT_STAGES = ("autoencoder", "gene", "mixture", "expression")
"""Stages that a model to start from has been through: all but the joint one."""

KEPT_OF_GENES = ("pool_um", "free_nats", "n_components")
"""Settings of a gene model that is kept, whatever the preset has now."""


def warm_start_config(shape: ModelConfig, theirs: ModelConfig, *, refit_genes: bool) -> ModelConfig:
    """Return the shape of a model to be trained, with what it takes over from the model that it starts from.

    Presets change: a model of the same preset keeps the image networks that it has (a sharpened decoder its grain), and a gene
    model that is kept stays as it is.

    Raises
    ------
    InputError
        If the images of the two have other channels.
    """
    require_same_channels(theirs.channels, shape.channels, where="the model to start from")
    kept = {} if refit_genes else {name: getattr(theirs.gene, name) for name in KEPT_OF_GENES}
    image = theirs.image if theirs.preset == shape.preset else shape.image
    own = replace(shape.image, unet=image.unet, diffusion=image.diffusion, autoencoder=image.autoencoder)
    return replace(shape, gene=replace(shape.gene, **kept), image=own)


def copy_weights(
    model: JointModel, panel: GenePanel, start: ModelBundle, data_fingerprint: str, *, refit_genes: bool = False
) -> list[str]:
    """Copy weights of `start` into `model`, in place, and return the stages that need not be trained any more.

    The image networks are always taken (but for slide embeddings, when the slides are others); the gene model when it reads the
    same genes, unless `refit_genes`. On the very data that `start` was trained on, only the joint stage is left to do (and the
    stages of the gene model, when it is renewed).

    Raises
    ------
    InputError
        If the networks differ in shape, or in um per px.
    """
    ours, theirs = model.config, start.config
    if replace(theirs.image, n_slides=ours.image.n_slides) != ours.image or theirs.um_per_px != ours.um_per_px:
        raise InputError(
            found=f"a model of preset {theirs.preset} at {theirs.um_per_px:g} um/px to start from",
            expected=f"one like that to be trained: preset {ours.preset} at {ours.um_per_px:g} um/px, cells as far apart",
        )
    same_genes = not refit_genes and list(start.genes.ids) == list(panel.ids) and theirs.gene == ours.gene
    own = model.state_dict()
    taken = {
        name: value
        for name, value in start.model.state_dict().items()
        if (name.startswith("image.") and own[name].shape == value.shape) or (name.startswith("gene.") and same_genes)
    }
    model.load_state_dict(own | taken)
    same_data = start.provenance.get("data_fingerprint") == data_fingerprint
    if not same_data:
        return []
    return list(KEPT_STAGES) if same_genes else ["autoencoder"] if refit_genes else []
