"""Checkpoints of the published code: read without running anything, and converted to a gene model for a warm start.

The published code saves the state of its modules. Two layouts exist, by the names of their tensors:

| published | shape | here |
| --- | --- | --- |
| `encoder.hidden_layers.0`, `.1` | 2,048 x genes, 512 x 2,048 | `gene.encoder.trunk.0`, `.2` |
| `encoder.fc_mean`, `encoder.fc_logvar` | 128 x 512 each | `gene.encoder.head`, first and second half |
| `decoder.hidden_layers.0`, `.1` | 512 x 128, 2,048 x 512 | `gene.decoder.trunk.0`, `.2` |
| `decoder.fc_output` | genes x 2,048 | `gene.decoder.weight`, `bias_G` |
| `pi`, `mu`, `logvar` | 6, 6 x 24, 6 x 24 | `gene.mixture` |
| `nn_model.*` and seven schedules of 1,001 numbers | | not converted |

The autoencoder alone has the first four; the whole model has them under `vae.`, and the rest. The encoder is converted exactly:
it reads raw counts through linear layers and ReLU (`layers="plain"`), so its means and log-variances are those of the published
code (which adds 1e-6 to the counts), the latter clamped to [-10, 4]. Its
image network has other layers than ours and is not converted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import sge2hist
from sge2hist.data.artifacts import atomic_directory, sha256_of
from sge2hist.data.errors import InputError
from sge2hist.data.gene_panel import GenePanel
from sge2hist.models.bundle import GENE_KIND, ModelBundle
from sge2hist.models.gene.cell_types import TypeRow, TypeTable
from sge2hist.models.gene.config import GeneModelConfig
from sge2hist.models.image.conditioning import ConditionConfig
from sge2hist.models.image.image_model import ImageModelConfig
from sge2hist.models.image.unet import UNetConfig
from sge2hist.models.joint_model import JointModel, ModelConfig
from sge2hist.training.presets import PRESETS

LAYERS = tuple(
    f"{name}.{part}"
    for name in (
        *("encoder.hidden_layers.0", "encoder.hidden_layers.1", "encoder.fc_mean", "encoder.fc_logvar"),
        *("decoder.hidden_layers.0", "decoder.hidden_layers.1", "decoder.fc_output"),
    )
    for part in ("weight", "bias")
)
MIXTURE = ("pi", "mu", "logvar")
WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts put the state of a model."""


@dataclass(frozen=True, kw_only=True)
class PublishedWeights:
    """The tensors of a checkpoint, by the names of the autoencoder alone."""

    path: Path
    is_whole: bool  # the whole model, with a mixture and an image network
    layers: dict[str, Tensor]
    mixture: dict[str, Tensor] | None
    n_image: int  # tensors of the image network

    @property
    def n_genes(self) -> int:
        """Genes that the encoder reads."""
        return self.layers["encoder.hidden_layers.0.weight"].shape[1]

    @property
    def n_latent(self) -> int:
        """Dims of z."""
        return self.layers["encoder.fc_mean.weight"].shape[0]

    @property
    def has_mixture(self) -> bool:
        """Whether the mixture was ever fitted: the code starts it with weights of zero, whose logarithm it then takes."""
        return self.mixture is not None and bool((self.mixture["pi"] > 0).all())


def read_published(path: str | Path) -> PublishedWeights:
    """Read a checkpoint: tensors in plain containers alone, by PyTorch's restricted unpickler.

    Raises
    ------
    InputError
        If it holds anything else, is damaged, or has neither layout.
    """
    path = Path(path)
    state = _tensors(_loaded(path), path)
    is_whole = any(name.startswith("vae.") for name in state)
    layers = {name: state[f"vae.{name}" if is_whole else name] for name in LAYERS if _has(state, name, is_whole)}
    missing = [name for name in LAYERS if name not in layers]
    if is_whole:
        missing += [name for name in MIXTURE if name not in state]
    if missing:
        raise InputError(
            found=f"no tensor {', '.join(missing[:4])}{' ...' * (len(missing) > 4)}; there are {', '.join([*state][:4])}",
            where=str(path),
            expected="the state of the published autoencoder (encoder., decoder.) or whole model (vae., pi, mu, logvar)",
        )
    mixture = {name: state[name] for name in MIXTURE} if is_whole else None
    weights = PublishedWeights(
        path=path,
        is_whole=is_whole,
        layers=layers,
        mixture=mixture,
        n_image=sum(name.startswith("nn_model.") for name in state),
    )
    _require_fit(weights)
    return weights


def import_weights(
    path: str | Path, output: str | Path, *, genes: str | Path | None = None, log: Callable[[str], None] = print
) -> Path:
    """Convert a checkpoint of the published code to the folder `output`, from which `train --warm-start` starts.

    Parameters
    ----------
    genes
        csv `gene_id,symbol` of the genes in the order of the training; None: gene_00000 and so on, as for published pickles.
    log
        Called with each line of what fits, what was converted and what is missing.

    Raises
    ------
    InputError
        If the checkpoint cannot be used, or the genes are of another number.
    """
    weights = read_published(path)
    panel = _panel(genes, weights.n_genes)
    with atomic_directory(output) as folder:
        bundle = _bundle(weights, panel)
        bundle.save(folder)
    what = "whole model" if weights.is_whole else "autoencoder alone"
    log(f"layout: {what}; {weights.n_genes:,} genes, 2,048-512, {weights.n_latent} latent dims")
    log(f"fits --preset paper: encoder, decoder{', mixture' if weights.has_mixture else ''}; converted, float32")
    for line in _missing(weights, genes):
        log(f"missing: {line}")
    log(f"wrote {output}\nnext: sge2hist train X.paired -o X.model --preset paper --warm-start {output}")
    return Path(output)


def _missing(weights: PublishedWeights, genes: str | Path | None) -> list[str]:
    split = f"{_n_type(weights)} + {weights.n_latent - _n_type(weights)}"
    lines = ["the image network, which is trained from scratch"]
    if weights.n_image:
        lines = [f"the image network ({weights.n_image} tensors): its layers are not ours; it is trained from scratch"]
    if not weights.has_mixture:
        lines.append(f"the mixture ({'never fitted' if weights.is_whole else 'not in this layout'}): training fits it")
    if not weights.is_whole:
        lines.append(f"the split of the latent: taken as {split} dims")
    if genes is None:
        lines.append("names of the genes: gene_00000 and so on; --genes gives them")
    lines.append("names of the cell types")
    lines.append(
        "the scale of the decoder: it predicts raw counts, and ours log1p of counts per 10,000; training adapts it"
    )
    return lines


def _loaded(path: Path) -> object:
    if not path.is_file():
        raise InputError(
            found="no such file", where=str(path), expected="a checkpoint (.pt, .pth) of the published code"
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile pickle can end in any of them
        raise InputError(
            found=f"a file that is not tensors in plain containers ({' '.join(str(error).split())[:160]})",
            where=str(path),
            expected="the state of a model, written by torch.save(model.state_dict(), ...)",
            repair="do not open it elsewhere: a pickle can run any program",
        ) from None


def _tensors(content: object, path: Path) -> dict[str, Tensor]:
    """Named tensors of a checkpoint, without the prefix of parallel training; each no larger than the file."""
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    n_bytes = path.stat().st_size
    if not isinstance(content, dict) or not content:
        raise InputError(found=f"a {type(content).__name__}, or nothing", where=str(path), expected="named tensors")
    state = {}
    for name, value in content.items():
        dense = isinstance(value, Tensor) and value.layout == torch.strided and value.is_floating_point()
        if not isinstance(name, str) or not dense or value.numel() * value.element_size() > n_bytes:
            raise InputError(
                found=f"{str(name)[:80]!r} of type {type(value).__name__}",
                where=str(path),
                expected="dense tensors of numbers with a fraction, under their names",
            )
        state[name.removeprefix("module.")] = value.detach().float()
    return state


def _has(state: dict[str, Tensor], name: str, is_whole: bool) -> bool:
    return (f"vae.{name}" if is_whole else name) in state


def _n_type(weights: PublishedWeights) -> int:
    return PRESETS["paper"].z1 if weights.mixture is None else weights.mixture["mu"].shape[-1]


def _require_fit(weights: PublishedWeights) -> None:
    """Raise `InputError` unless the shapes are those of preset paper and all numbers are finite."""
    preset, layers = PRESETS["paper"], weights.layers
    (wide, narrow), n_latent, n_genes = preset.hidden, preset.z1 + preset.z2, layers["decoder.fc_output.bias"].numel()
    expected: dict[str, tuple[int, ...]] = {
        "encoder.hidden_layers.0": (wide, n_genes),
        "encoder.hidden_layers.1": (narrow, wide),
        "encoder.fc_mean": (n_latent, narrow),
        "encoder.fc_logvar": (n_latent, narrow),
        "decoder.hidden_layers.0": (narrow, n_latent),
        "decoder.hidden_layers.1": (wide, narrow),
        "decoder.fc_output": (n_genes, wide),
    }
    shapes = {f"{name}.weight": shape for name, shape in expected.items()}
    shapes |= {f"{name}.bias": shape[:1] for name, shape in expected.items()}
    found = {name: (tuple(layers[name].shape), shape) for name, shape in shapes.items()}
    if weights.mixture is not None:
        k, n_type = preset.components, _n_type(weights)
        for name, shape in {"pi": (k,), "mu": (k, n_type), "logvar": (k, n_type)}.items():
            found[name] = (tuple(weights.mixture[name].shape), shape)
        if not 0 < n_type < n_latent:
            found["mu"] = (tuple(weights.mixture["mu"].shape), (k, preset.z1))
    wrong = [f"{name} of shape {has}, expected {wants}" for name, (has, wants) in found.items() if has != wants]
    for name, value in {**layers, **(weights.mixture or {})}.items():
        if not torch.isfinite(value).all():
            wrong.append(f"{name} with numbers that are not finite")
    if wrong:
        raise InputError(
            found="; ".join(wrong[:5]), where=str(weights.path), expected="what fits --preset paper (2,048-512, 128, 6)"
        )


def _panel(genes: str | Path | None, n_genes: int) -> GenePanel:
    if genes is None:
        return GenePanel([f"gene_{index:05d}" for index in range(n_genes)])
    panel = GenePanel.from_csv(genes)
    if len(panel) != n_genes:
        raise InputError(
            found=f"{len(panel):,} genes",
            where=str(genes),
            expected=f"the {n_genes:,} genes of the checkpoint, in its order",
        )
    return panel


def _bundle(weights: PublishedWeights, panel: GenePanel) -> ModelBundle:
    """The gene model of preset paper with the converted weights, and an image model of placeholder size."""
    preset = PRESETS["paper"]
    n_type = _n_type(weights)
    gene = GeneModelConfig(
        n_genes=weights.n_genes,
        hidden=preset.hidden,
        n_type=n_type,
        n_micro=weights.n_latent - n_type,
        n_components=preset.components,
        likelihood=preset.likelihood,
        gene_dropout=preset.method.gene_dropout,
        micro_dropout=preset.method.micro_dropout,
        layers="plain",
    )
    image = ImageModelConfig(
        autoencoder=None,
        condition=ConditionConfig(form="vector"),
        unet=UNetConfig(channels=(8,), n_blocks=1, attention=(False,)),
        n_latent=weights.n_latent,
    )
    model = JointModel(ModelConfig(preset="imported", um_per_px=1.0, patch_px=64, gene=gene, image=image))
    own = model.state_dict()
    model.load_state_dict(own | converted(weights, own))
    if weights.has_mixture and weights.mixture is not None:
        mixture = weights.mixture
        model.gene.initialise_mixture(mixture["pi"], mixture["mu"], mixture["logvar"].exp())
    rows = [
        TypeRow(
            component=c, name=f"type {c}", n_cells=0, n_labelled=0, purity=float("nan"), weight=float(pi), markers=()
        )
        for c, pi in enumerate(model.gene.mixture.logits_K.detach().softmax(0))
    ]
    provenance = {
        "sge2hist_version": sge2hist.__version__,
        "imported_from": weights.path.name,
        "imported_sha256": sha256_of(weights.path),
        "layout": "whole model" if weights.is_whole else "autoencoder alone",
    }
    return ModelBundle(model=model, genes=panel, types=TypeTable(rows), provenance=provenance, kind=GENE_KIND)


def converted(weights: PublishedWeights, own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The published tensors under our names; columns of inputs that the published encoder does not have are zero."""
    first = torch.zeros_like(own["gene.encoder.trunk.0.weight"])
    first[:, : weights.n_genes] = weights.layers["encoder.hidden_layers.0.weight"]
    state = {"gene.encoder.trunk.0.weight": first}
    state["gene.encoder.trunk.0.bias"] = weights.layers["encoder.hidden_layers.0.bias"]
    for part in ("weight", "bias"):
        state[f"gene.encoder.trunk.2.{part}"] = weights.layers[f"encoder.hidden_layers.1.{part}"]
        halves = [weights.layers[f"encoder.fc_{name}.{part}"] for name in ("mean", "logvar")]
        state[f"gene.encoder.head.{part}"] = torch.cat(halves)
        state[f"gene.decoder.trunk.0.{part}"] = weights.layers[f"decoder.hidden_layers.0.{part}"]
        state[f"gene.decoder.trunk.2.{part}"] = weights.layers[f"decoder.hidden_layers.1.{part}"]
    state["gene.decoder.weight.weight"] = weights.layers["decoder.fc_output.weight"]
    state["gene.decoder.bias_G"] = weights.layers["decoder.fc_output.bias"]
    return state
