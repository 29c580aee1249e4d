"""Warm start: training from the weights of a trained model, to continue its training or to fine-tune it on other slides."""

from __future__ import annotations

from dataclasses import replace

from sge2hist.data.errors import InputError
from sge2hist.data.gene_panel import GenePanel
from sge2hist.data.slides.channels import require_same_channels
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.joint_model import JointModel, ModelConfig

KEPT_STAGES = ("autoencoder", "gene", "mixture", "expression")
"""Stages that need not be repeated on the same data and genes: all but the joint one."""

KEPT_GENE_SETTINGS = ("pool_um", "free_nats", "n_components")
"""Settings of a gene model that is taken over, whatever those of the preset are."""


def warm_start_config(shape: ModelConfig, initial: ModelConfig, *, refit_genes: bool) -> ModelConfig:
    """Return the configuration of a model to be trained (`shape`), with what it takes over from that of the initial model.

    Presets change between versions: a model of the same preset keeps its image networks (a sharpened decoder its decoder
    noise), and a gene model that is taken over keeps its settings.

    Raises
    ------
    InputError
        If the images of the two have other channels.
    """
    require_same_channels(initial.channels, shape.channels, where="the model to start from")
    kept = {} if refit_genes else {name: getattr(initial.gene, name) for name in KEPT_GENE_SETTINGS}
    image = initial.image if initial.preset == shape.preset else shape.image
    own = replace(shape.image, unet=image.unet, diffusion=image.diffusion, autoencoder=image.autoencoder)
    return replace(shape, gene=replace(shape.gene, **kept), image=own)


def copy_weights(
    model: JointModel, panel: GenePanel, initial: ModelBundle, data_fingerprint: str, *, refit_genes: bool = False
) -> list[str]:
    """Copy weights of `initial` into `model`, in place, and return the stages that need not be trained any more.

    The image networks are always copied (except slide embeddings, when the slides are others); the gene model when it reads the
    same genes, unless `refit_genes`. On the same data as `initial`, only the joint stage is trained (and the stages of the
    gene model, with `refit_genes`).

    Raises
    ------
    InputError
        If the networks differ in shape, or in um per px.
    """
    ours, theirs = model.config, initial.config
    if replace(theirs.image, n_slides=ours.image.n_slides) != ours.image or theirs.um_per_px != ours.um_per_px:
        raise InputError(
            found=f"a model of preset {theirs.preset} at {theirs.um_per_px:g} um/px to start from",
            expected=f"one like that to be trained: preset {ours.preset} at {ours.um_per_px:g} um/px, cells as far apart",
        )
    same_genes = takes_gene_model(ours, panel, initial, refit_genes=refit_genes)
    own = model.state_dict()
    taken = {
        name: value
        for name, value in initial.model.state_dict().items()
        if (name.startswith("image.") and own[name].shape == value.shape) or (name.startswith("gene.") and same_genes)
    }
    model.load_state_dict(own | taken)
    same_data = initial.provenance.get("data_fingerprint") == data_fingerprint
    if not same_data:
        return []
    return list(KEPT_STAGES) if same_genes else ["autoencoder"] if refit_genes else []


def takes_gene_model(shape: ModelConfig, panel: GenePanel, initial: ModelBundle, *, refit_genes: bool) -> bool:
    """Whether a training from `initial` takes over its gene model too, which must read the same genes."""
    same_genes = list(initial.genes.ids) == list(panel.ids)
    return not refit_genes and same_genes and initial.model.config.gene == shape.gene


def steps_before(
    initial: ModelBundle | None, config: ModelConfig, panel: GenePanel, stages: tuple[str, ...], refit_genes: bool
) -> dict[str, float]:
    """Steps that the networks of each stage took before this training; infinite where a version did not record them."""
    if initial is None:
        return {}
    known = initial.provenance.get("stage_steps", {})
    kept = takes_gene_model(config, panel, initial, refit_genes=refit_genes)
    return {stage: known.get(stage, float("inf")) for stage in (stages if kept else ("autoencoder",))}
