"""A trained model -> one that draws in one or two evaluations (consistency tuning of the image network)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sge2hist.data.channels import require_same_channels
from sge2hist.data.errors import InputError
from sge2hist.data.files import atomic_path
from sge2hist.data.paired import PairedDataset
from sge2hist.models.bundle import CONFIG_NAME, ModelBundle
from sge2hist.models.consistency import consistency_loss
from sge2hist.models.image_model import SamplerConfig
from sge2hist.models.joint_model import JointModel
from sge2hist.models.placed_cells import MODE_ALL, MODE_CENTRE, MODE_NONE, PlacedCells
from sge2hist.training.accelerate import make_accelerator
from sge2hist.training.card import model_card
from sge2hist.training.gene_data import GeneData, split_groups, with_surroundings
from sge2hist.training.gene_encoding import encode_all
from sge2hist.training.image_stages import SHARE_ANYWHERE, SHARE_CENTRE, cell_depths, lone_latents
from sge2hist.training.left_out import read_left_out
from sge2hist.training.loop import Run, Stage, StagePlan, finish_stage, run_stage
from sge2hist.training.patches import PatchSource
from sge2hist.training.randomness import stage_generator, stage_rng
from sge2hist.training.run_folder import open_run


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """One distillation."""

    steps: int = 2000
    evaluations: int = 2  # of the network per image, the default of the new model
    learning_rate: float = 1e-4
    batch: int = 64
    seed: int = 0
    share_centre: float = SHARE_CENTRE  # patches told their centre cell alone
    share_none: float = 0.05
    leave_out: str | None = None  # GeoJSON of parts of the slides that no image is taken from

    def __post_init__(self) -> None:
        if min(self.steps, self.evaluations, self.batch) < 1:
            raise InputError(found="a distillation of no length", expected="steps, evaluations and batch of 1 or more")


class Distillation(Stage):
    """Consistency tuning of the image network; gene model, condition grid and autoencoder stay as they are."""

    def __init__(
        self,
        model: JointModel,
        source: PatchSource,
        cells: GeneData,
        config: DistillConfig,
        device: str,
        n_processes: int = 1,
    ) -> None:
        """`cells`: every cell of the dataset on the model's panel; each process takes its own steps."""
        super().__init__()
        self.model, self._source, self._config, self._device = model, source, config, device
        self._n_steps = config.steps * n_processes
        encoded = encode_all(model.gene, cells, device=device)
        self._mean_NZ = torch.from_numpy(encoded.mean_NZ)
        self._std_NZ = torch.from_numpy(encoded.log_var_NZ).mul(0.5).exp()
        self._depth_N = torch.from_numpy(cell_depths(cells, float(model.gene.encoder.scale)))

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the network and the condition encoder."""
        image = self.model.image
        return [{"params": [*image.unet.parameters(), *image.condition.parameters()], "scale": 1.0}]

    def forward(self, step: int) -> dict[str, Tensor]:
        """Return the loss of a step."""
        config = self._config
        rng = stage_rng(config.seed, "distill", step)
        crops = self._source.batch(config.batch, rng, share_anywhere=SHARE_ANYWHERE)
        shares = [config.share_none, config.share_centre, 1 - config.share_none - config.share_centre]
        mode_B = rng.choice([MODE_NONE, MODE_CENTRE, MODE_ALL], size=config.batch, p=shares)
        mode_M = mode_B[crops.crop_M]
        kept = np.flatnonzero((mode_M == MODE_ALL) | ((mode_M == MODE_CENTRE) & crops.is_centre_M))
        row_M = torch.from_numpy(crops.row_M[kept])
        generator = stage_generator(config.seed, "distill/noise", step)
        mean_MZ = self._mean_NZ[row_M]
        sample_MZ = mean_MZ + self._std_NZ[row_M] * torch.randn(mean_MZ.shape, generator=generator)
        alone_M = torch.from_numpy(mode_M[kept] == MODE_CENTRE)
        cells = PlacedCells(
            z_MZ=lone_latents(sample_MZ, mean_MZ, alone_M, self.model.gene.config.n_type),
            depth_M=self._depth_N[row_M],
            xy_um_M2=torch.from_numpy(crops.xy_um_M2[kept]),
            image_M=torch.from_numpy(crops.crop_M[kept]),
            mode_B=torch.from_numpy(mode_B),
            slide_B=torch.from_numpy(np.where(rng.random(config.batch) < 0.5, crops.slide_B + 1, 0)),
        ).to(self._device)
        with torch.no_grad():
            latent = self.model.image.to_latent(crops.image_BCHW.to(self._device))
        loss = consistency_loss(self.model.image, latent, cells, generator, step / self._n_steps).mean()
        return {"loss": loss}


def distill(
    teacher: ModelBundle,
    dataset: PairedDataset,
    output: str | Path,
    config: DistillConfig | None = None,
    *,
    overwrite: bool = False,
    say: Callable[[str], None] = print,
) -> ModelBundle:
    """Tune a copy of `teacher` to few evaluations on the training cells of `dataset`, and write it to the folder `output`.

    The same call resumes a run that was stopped.

    Raises
    ------
    InputError
        If `output` holds something else, if the model is one of the published kind, if the dataset lacks genes of it.
    """
    config = config or DistillConfig()
    output = Path(output)
    check_distillable(teacher, dataset)
    left_out = read_left_out(config.leave_out, dataset)
    accelerator = make_accelerator("auto")
    device = str(accelerator.device)
    asked = {
        "config": asdict(config), "data": dataset.fingerprint, "teacher": teacher.fingerprint,
        "left_out": left_out.fingerprint,
    }  # fmt: skip
    if accelerator.is_main_process:
        open_run(output, asked, overwrite=overwrite)
    accelerator.wait_for_everyone()
    if (output / CONFIG_NAME).is_file():
        say(f"{output} is distilled already; --overwrite does it again")
        return ModelBundle.load(output)
    run = Run(
        directory=output / "training",
        accelerator=accelerator,
        seed=config.seed,
        say=say if accelerator.is_main_process else lambda _: None,
    )
    model = copy.deepcopy(teacher.model).to(device)
    model.requires_grad_(False)
    model.image.unet.requires_grad_(True)
    model.image.condition.requires_grad_(True)
    run.resume()
    run.restore_module(model)
    shape = model.config
    source = PatchSource(
        dataset, patch_px=shape.patch_px, um_per_px=shape.um_per_px, reach_um=shape.reach_um,
        jitter_um=shape.image.condition.grid_um, left_out=left_out,
    )  # fmt: skip
    column = {gene: i for i, gene in enumerate(dataset.genes.ids)}
    columns = np.array([column[gene] for gene in teacher.genes.ids])
    cells = GeneData.from_paired(dataset, dataset.rows("all"), columns)
    cells = with_surroundings(cells, model.gene, split_groups(dataset))
    stage = Distillation(model, source, cells, config, device, accelerator.num_processes)
    plan = StagePlan(
        name="distill", n_steps=config.steps, learning_rate=config.learning_rate, items_per_step=config.batch, ema=True,
        refresh_every=min(100, config.steps),
    )  # fmt: skip
    run_stage(stage, plan, run, model)
    finish_stage(run, model, "distill")
    model.config = replace(shape, sampler=SamplerConfig(sampler="consistency", n_steps=config.evaluations))
    student = ModelBundle(
        model=model.cpu().eval(),
        genes=teacher.genes,
        types=teacher.types,
        z2_range=teacher.z2_range,
        provenance=teacher.provenance
        | {
            "teacher": teacher.fingerprint,
            "distillation": asdict(config),
            "stage_seconds": teacher.provenance.get("stage_seconds", {}) | run.stages_done,
        },
    )
    if accelerator.is_main_process:
        with atomic_path(output / "README.md") as partial:
            partial.write_text(model_card(student), encoding="utf-8")
        student.save(output)
        say(f"wrote {output}")
    accelerator.wait_for_everyone()
    return ModelBundle.load(output)


def check_distillable(teacher: ModelBundle, dataset: PairedDataset) -> None:
    """Raise `InputError` unless the teacher's images and genes can be learnt from this dataset."""
    if teacher.config.image.diffusion.kind != "edm" or teacher.config.image.condition.kind != "map":
        raise InputError(found=f"a model of preset {teacher.config.preset}", expected="a model of placed cells")
    require_same_channels(dataset.channels, teacher.config.channels, where=str(dataset.path))
    dataset.rows("train")  # an empty split is an error before any work
    known = set(dataset.genes.ids)
    missing = [gene for gene in teacher.genes.ids if gene not in known]
    if missing:
        raise InputError(
            found=f"{len(missing):,} of the model's {len(teacher.genes):,} genes are not in the data, e.g. {missing[0]}",
            where=str(dataset.path),
            expected="the dataset that the model was trained on",
        )
