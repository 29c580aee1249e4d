"""What a user decides about a training run."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sge2hist.data.errors import InputError, refuse_wrong_types
from sge2hist.data.paired import PairedDataset
from sge2hist.data.table.proteins import ProteinPanel, require_proteins
from sge2hist.models.joint_model import ModelConfig
from sge2hist.training.gene.neighbour_targets import neighbourhood_radius
from sge2hist.training.presets import PRESETS, model_config
from sge2hist.training.sufficiency import USEFUL_SHARE

MIN_PATCH_PX = 8
RNA, RNA_AND_PROTEIN = "rna", "rna,protein"
STAGE_SHARES = {"autoencoder": 0.14, "gene": 0.08, "mixture": 0.02, "joint": 0.75, "expression": 0.01}
"""How the time for steps is divided over the stages."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of one training run.

    Parameters
    ----------
    preset
        A name of :data:`sge2hist.training.presets.PRESETS`.
    hours
        Time budget over everything from reading to writing, instead of the numbers of steps of the preset.
    steps
        Steps of the joint stage; default: those of the preset. The other stages keep theirs.
    seed
        Of weights, batches and noise.
    patch_px
        Side of a generated patch, in pixels; default: that of the dataset.
    um_per_px
        Resolution of generated images; default: `patch_um / patch_px` of the dataset.
    learning_rate
        Of the joint stage; default: that of the preset.
    batch
        Patches per joint step; default: that of the preset.
    warm_start
        A trained model whose weights the training starts from: its folder or name; default: random weights.
    refit_genes
        With `warm_start`: train the gene model from scratch and take over the image networks alone.
    exclude
        GeoJSON file of areas of the slides from which no image is taken.
    use_labels
        Use cell-type labels as supervision for the mixture.
    pool_um
        Pool the posteriors of bins within this radius (um) when fitting and assigning types; 0: each bin alone.
    features
        What of a cell the gene model reads: "rna", or "rna,protein" for the proteins of the dataset as well.
    checkpoint_every_s
        Seconds between two checkpoints; more where writing one takes long.
    preview_every_s
        Seconds between two preview pictures.
    mixed_precision
        "auto" (bfloat16 where the device is fast at it), "bf16" or "no".
    """

    preset: str = "small"
    hours: float | None = None
    steps: int | None = None
    seed: int = 0
    patch_px: int | None = None
    um_per_px: float | None = None
    learning_rate: float | None = None
    batch: int | None = None
    warm_start: str | None = None
    refit_genes: bool = False
    exclude: str | None = None
    use_labels: bool = True
    pool_um: float = 0.0
    features: str = RNA
    checkpoint_every_s: float = 60.0
    preview_every_s: float = 600.0
    mixed_precision: str = "auto"

    @refuse_wrong_types
    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise InputError(found=f"--preset {self.preset}", expected=f"one of {', '.join(PRESETS)}")
        check_rate_and_seed(self.learning_rate, self.seed)
        for name in ("hours", "steps", "patch_px", "um_per_px", "batch"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(found=f"--{name.replace('_', '-')} {value}", expected="a positive number")
        for name in ("checkpoint_every_s", "preview_every_s"):
            if not getattr(self, name) >= 0:
                raise InputError(found=f"{name} = {getattr(self, name)}", expected="seconds, 0 or more")
        if self.patch_px is not None and self.patch_px < MIN_PATCH_PX:
            raise InputError(found=f"--patch-px {self.patch_px}", expected=f"{MIN_PATCH_PX} or more")
        check_one_budget(self.hours, self.steps)
        if self.refit_genes and self.warm_start is None:
            raise InputError(
                found="--refit-genes without --warm-start",
                expected="--warm-start MODEL, whose image networks are kept",
            )
        if not 0 <= self.pool_um < math.inf:
            raise InputError(found=f"--pool-um {self.pool_um:g}", expected="a distance in um, or 0")
        if self.pool_um and self.warm_start is not None and not self.refit_genes:
            raise InputError(
                found="--pool-um with --warm-start, which keeps the gene model",
                expected="--refit-genes as well, or neither",
            )
        if self.features not in (RNA, RNA_AND_PROTEIN):
            raise InputError(
                found=f"--features {self.features}",
                expected=f"{RNA} or {RNA_AND_PROTEIN}",
                repair="proteins are read beside the genes, not instead of them" if "protein" in self.features else "",
            )
        if self.mixed_precision not in ("auto", "bf16", "no"):
            raise InputError(found=f"--mixed-precision {self.mixed_precision}", expected="auto, bf16 or no")

    def identity(self) -> dict[str, Any]:
        """What must be equal for a run to resume another that was stopped."""
        values = asdict(self)
        for name in ("checkpoint_every_s", "preview_every_s", "hours"):
            del values[name]
        if self.features == RNA:
            del values["features"]  # runs that older versions began have no such setting
        return values

    @property
    def budget_s(self) -> float | None:
        """The time budget in seconds; None: none."""
        return None if self.hours is None else self.hours * 3600

    def shares(self, done: Collection[str] = ()) -> dict[str, float]:
        """Relative shares of the time for steps, of the stages of this preset that are not done."""
        return {name: STAGE_SHARES[name] for name in PRESETS[self.preset].method.stages if name not in done}

    def useful_steps(self, max_gene_steps: int) -> dict[str, int]:
        """Steps per stage from which on a model is of use; `max_gene_steps`: that the number of cells allows."""
        preset = PRESETS[self.preset]
        full = {
            "autoencoder": preset.ae_steps,
            "gene": min(preset.gene_steps, max_gene_steps),
            "mixture": min(preset.mixture_steps, max_gene_steps),
            "joint": preset.joint_steps * preset.batch / (self.batch or preset.batch),
            "expression": min(preset.mixture_steps, max_gene_steps),
        }
        return {stage: max(1, round(USEFUL_SHARE * full[stage])) for stage in preset.method.stages}


def check_rate_and_seed(learning_rate: float | None, seed: int) -> None:
    """Raise `InputError` for numbers that no training can take."""
    if learning_rate is not None and not 0 < learning_rate < math.inf:
        raise InputError(found=f"--learning-rate {learning_rate:g}", expected="a positive number")
    if seed < 0:
        raise InputError(found=f"--seed {seed}", expected="0 or more")


def check_at_least_one(**values: float | None) -> None:
    """Raise `InputError` naming every value below 1 (None: not given), or that is no number."""
    wrong = [f"{name} = {value}" for name, value in values.items() if value is not None and not 1 <= value < math.inf]
    if wrong:
        raise InputError(found=", ".join(wrong), expected=f"{', '.join(values)} of at least 1")


def check_one_budget(hours: float | None, steps: int | None) -> None:
    """Raise `InputError` unless a training has one of a time budget and a number of steps, or neither."""
    if hours is not None and not 0 < hours < math.inf:
        raise InputError(found=f"--hours {hours}", expected="a positive number")
    if hours is not None and steps is not None:
        raise InputError(found="--hours and --steps", expected="one of the two")


def max_radius_um(outline_um_NV2: np.ndarray | None) -> float:
    """Distance from the centre that all but one in a thousand outlines stay within, rounded up to um; 0 without outlines."""
    if outline_um_NV2 is None or not np.isfinite(outline_um_NV2).any():
        return 0.0
    radius_N = np.linalg.norm(outline_um_NV2, axis=2).max(1)
    return float(np.ceil(np.quantile(radius_N[np.isfinite(radius_N)], 0.999)))


def proteins_to_read(dataset: PairedDataset, config: TrainConfig) -> ProteinPanel | None:
    """The proteins that a model of this run reads; raises `InputError` where it is to read some and there are none."""
    if config.features == RNA:
        return None
    return require_proteins(dataset.proteins, dataset.rows("train"), str(dataset.path))


def model_shape(
    dataset: PairedDataset, config: TrainConfig, *, n_genes: int, proteins: ProteinPanel | None = None
) -> ModelConfig:
    """Return the configuration of a model of `n_genes` genes for this run; raises `InputError` where there can be none."""
    try:
        return model_config(
            config.preset,
            n_genes=n_genes,
            n_types=len(dataset.types),
            um_per_px=config.um_per_px or dataset.patch_um / dataset.patch_px,
            patch_px=config.patch_px or dataset.patch_px,
            cell_spacing_um=float(dataset.manifest.get("observation_um") or 0.0),
            neighbour_um=neighbourhood_radius(dataset),
            pool_um=config.pool_um,
            labels=config.use_labels and bool(dataset.types),
            n_slides=len(dataset.slide_ids),
            channels=dataset.channels,
            outline_um=max_radius_um(dataset.outline_um),
            n_proteins=0 if proteins is None else len(proteins),
        )
    except ValueError as error:
        raise InputError(
            found=f"no model of preset {config.preset} for patches of {config.patch_px or dataset.patch_px} px ({error})",
            expected="another --patch-px, or --preset",
        ) from error
