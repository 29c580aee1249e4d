"""What a user decides about a training run."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from sge2hist.data.errors import InputError
from sge2hist.data.paired import PairedDataset
from sge2hist.models.joint_model import ModelConfig
from sge2hist.training.gene.neighbour_targets import neighbourhood_radius
from sge2hist.training.presets import PRESETS, model_config

MIN_PATCH_PX = 8
STAGE_SHARES = {"autoencoder": 0.14, "gene": 0.08, "mixture": 0.02, "joint": 0.75, "expression": 0.01}
"""How a time budget is divided over the stages."""


def check_rate_and_seed(learning_rate: float | None, seed: int) -> None:
    """Raise `InputError` for numbers that no training can take."""
    if learning_rate is not None and not 0 < learning_rate < math.inf:
        raise InputError(found=f"--learning-rate {learning_rate:g}", expected="a positive number")
    if seed < 0:
        raise InputError(found=f"--seed {seed}", expected="0 or more")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run."""

    preset: str = "small"  # a row of the preset table
    hours: float | None = None  # time budget over all stages; None: the preset's steps
    steps: int | None = None  # joint steps; the other stages keep the preset's; None: the preset's
    seed: int = 0  # of weights, batches and noise
    patch_px: int | None = None  # side of a patch; None: the dataset's
    um_per_px: float | None = None  # resolution; None: the dataset's patch_um / patch_px
    learning_rate: float | None = None  # of the joint stage; None: the preset's
    batch: int | None = None  # patches per joint step; None: the preset's
    start: str | None = None  # a trained model to start from: its folder or name; None: random weights
    renew_genes: bool = False  # with start: train the gene model anew, and keep the image networks
    leave_out: str | None = None  # GeoJSON of parts of the slides that no image is taken from
    use_labels: bool = True  # labelled cells inform the mixture
    pool_um: float = 0.0  # types are fitted to and told from bins within this distance together; 0: each alone
    checkpoint_every_s: float = 120.0
    preview_every_s: float = 600.0
    mixed_precision: str = "auto"  # "auto", "bf16" or "no"

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise InputError(found=f"--preset {self.preset}", expected=f"one of {', '.join(PRESETS)}")
        check_rate_and_seed(self.learning_rate, self.seed)
        for name in ("hours", "steps", "patch_px", "um_per_px", "batch"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(found=f"--{name.replace('_', '-')} {value}", expected="a positive number")
        if self.patch_px is not None and self.patch_px < MIN_PATCH_PX:
            raise InputError(found=f"--patch-px {self.patch_px}", expected=f"{MIN_PATCH_PX} or more")
        if self.hours is not None and self.steps is not None:
            raise InputError(found="--hours and --steps", expected="one of the two")
        if self.renew_genes and self.start is None:
            raise InputError(
                found="--renew-genes without --start", expected="--start MODEL, whose image networks are kept"
            )
        if not 0 <= self.pool_um < math.inf:
            raise InputError(found=f"--pool-um {self.pool_um:g}", expected="a distance in um, or 0")
        if self.pool_um and self.start is not None and not self.renew_genes:
            raise InputError(
                found="--pool-um with --start, which keeps the gene model as it is",
                expected="--renew-genes as well, or neither",
            )
        if self.mixed_precision not in ("auto", "bf16", "no"):
            raise InputError(found=f"--mixed-precision {self.mixed_precision}", expected="auto, bf16 or no")

    def identity(self) -> dict[str, Any]:
        """What must be equal for a run to go on where another stopped."""
        values = asdict(self)
        for name in ("checkpoint_every_s", "preview_every_s", "hours"):
            del values[name]
        return values

    def budget_s(self, stage: str, skipped: Collection[str] = ()) -> float | None:
        """Seconds for a stage, or None; stages that are skipped leave their share to the others."""
        if self.hours is None:
            return None
        return self.hours * 3600 * STAGE_SHARES[stage] / sum(v for k, v in STAGE_SHARES.items() if k not in skipped)


def model_shape(dataset: PairedDataset, config: TrainConfig, *, n_genes: int) -> ModelConfig:
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
        )
    except ValueError as error:
        raise InputError(
            found=f"no model of preset {config.preset} for patches of {config.patch_px or dataset.patch_px} px ({error})",
            expected="another --patch-px, or --preset",
        ) from error
