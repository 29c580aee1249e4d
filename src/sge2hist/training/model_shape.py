"""What a model for a dataset looks like: preset, resolution and patch as asked or as prepared, spacing of the cells."""

from __future__ import annotations

from sge2hist.data.errors import InputError
from sge2hist.data.paired import PairedDataset
from sge2hist.models.joint_model import ModelConfig
from sge2hist.training.config import TrainConfig
from sge2hist.training.neighbourhood import neighbourhood_radius
from sge2hist.training.presets import model_config


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
            around_um=neighbourhood_radius(dataset),
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
