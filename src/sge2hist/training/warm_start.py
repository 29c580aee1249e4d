"""Warm start: training from the weights of a trained model, to continue its training or to fine-tune it on other slides."""

from __future__ import annotations

from dataclasses import replace

from sge2hist.data.errors import InputError
from sge2hist.data.gene_panel import GenePanel
from sge2hist.data.slides.channels import require_same_channels
from sge2hist.data.table.proteins import ProteinPanel
from sge2hist.models.bundle import GENE_KIND, ModelBundle, model_folder
from sge2hist.models.joint_model import JointModel, ModelConfig

KEPT_STAGES = ("autoencoder", "gene", "mixture", "expression")
"""Stages that need not be repeated on the same data and genes: all but the joint one."""

KEPT_GENE_SETTINGS = ("pool_um", "free_nats", "n_components", "layers")
"""Settings of a gene model that is taken over, whatever those of the preset are."""


def open_start(name: str | None) -> ModelBundle | None:
    """The model to start from, or imported weights of a gene model; None without a name."""
    return None if name is None else ModelBundle.load(model_folder(name), for_training=True)


def check_start(start: ModelBundle | None, proteins: ProteinPanel | None, *, refit_genes: bool) -> None:
    """Raise `InputError` if a gene model that would be taken over reads other proteins than the one to be trained."""
    if start is None or refit_genes or start.proteins == proteins:
        return
    theirs, ours = (
        "RNA alone" if panel is None else f"{len(panel):,} proteins" for panel in (start.proteins, proteins)
    )
    raise InputError(
        found=f"a model to start from that reads {theirs}, and one to be trained that reads {ours}",
        expected="the same --features, of the same proteins",
        repair="--refit-genes keeps the image networks and trains the gene model from scratch",
    )


def warm_start_config(shape: ModelConfig, start: ModelBundle, *, refit_genes: bool) -> ModelConfig:
    """Return the configuration of a model to be trained (`shape`), with what it takes over from that of the initial model.

    Presets change between versions: a model of the same preset keeps its image networks (a sharpened decoder its decoder
    noise), and a gene model that is taken over keeps its settings.

    Raises
    ------
    InputError
        If the images of the two have other channels, or imported weights do not fit the preset or the genes.
    """
    initial = start.config
    if start.kind == GENE_KIND:
        return _with_imported_genes(shape, initial, refit_genes=refit_genes)
    require_same_channels(initial.channels, shape.channels, where="the model to start from")
    kept = {} if refit_genes else {name: getattr(initial.gene, name) for name in KEPT_GENE_SETTINGS}
    image = initial.image if initial.preset == shape.preset else shape.image
    own = replace(shape.image, unet=image.unet, diffusion=image.diffusion, autoencoder=image.autoencoder)
    return replace(shape, gene=replace(shape.gene, **kept), image=own)


def _with_imported_genes(shape: ModelConfig, initial: ModelConfig, *, refit_genes: bool) -> ModelConfig:
    """The configuration with the gene model of imported weights, which have no image model."""
    ours, theirs = shape.gene, initial.gene
    if refit_genes or (ours.n_latent, ours.n_genes) != (theirs.n_latent, theirs.n_genes) or ours.has_neighbourhood:
        raise InputError(
            found=f"imported weights of {theirs.n_genes:,} genes and {theirs.n_latent} latent dims to start from",
            expected=f"preset paper, without --refit-genes, on the same genes (the dataset has {ours.n_genes:,})",
            repair="prepare with --min-cells 0 keeps all genes of an input",
        )
    return replace(shape, gene=theirs)


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
    if initial.kind == GENE_KIND:
        _copy_imported_genes(model, panel, initial)
        return []
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


def _copy_imported_genes(model: JointModel, panel: GenePanel, initial: ModelBundle) -> None:
    """Copy the weights of a gene model alone; the genes must be those of the import, in their order."""
    if list(initial.genes.ids) != list(panel.ids):
        raise InputError(
            found="imported weights of other genes, or of another order of genes",
            where=f"first gene {initial.genes.ids[0]}, in the dataset {panel.ids[0]}",
            expected="the genes of the dataset",
            repair="import again with --genes FILE that names the genes of the checkpoint in its order",
        )
    own = model.state_dict()
    taken = {name: value for name, value in initial.model.state_dict().items() if name.startswith("gene.")}
    model.load_state_dict(own | taken)


def takes_gene_model(shape: ModelConfig, panel: GenePanel, initial: ModelBundle, *, refit_genes: bool) -> bool:
    """Whether a training from `initial` takes over its gene model too, which must read the same genes."""
    same_genes = list(initial.genes.ids) == list(panel.ids)
    return not refit_genes and same_genes and initial.model.config.gene == shape.gene


def steps_before(
    initial: ModelBundle | None, config: ModelConfig, panel: GenePanel, stages: tuple[str, ...], refit_genes: bool
) -> dict[str, float]:
    """Steps that the networks of each stage took before this training; infinite where a version did not record them."""
    if initial is None or initial.kind == GENE_KIND:
        return {}
    known = initial.provenance.get("stage_steps", {})
    kept = takes_gene_model(config, panel, initial, refit_genes=refit_genes)
    return {stage: known.get(stage, float("inf")) for stage in (stages if kept else ("autoencoder",))}
