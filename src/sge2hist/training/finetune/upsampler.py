"""`PairedDataset` -> upsampler folder: learns the detail that a coarse image lacks, from the pixels of the slides alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sge2hist.data.artifacts import MANIFEST_NAME
from sge2hist.data.errors import InputError, refuse_wrong_types
from sge2hist.data.output_lock import locks_output
from sge2hist.data.paired import PairedDataset
from sge2hist.data.spatial_index import CellIndex
from sge2hist.data.virtual_he import MANIFEST_KEY
from sge2hist.devices import make_accelerator
from sge2hist.models.image.upsampler import EXPECTED_DETAIL, Upsampler, UpsamplerConfig
from sge2hist.models.upsampler_bundle import UpsamplerBundle
from sge2hist.training.budget import Clock, TimeBudget
from sge2hist.training.config import check_at_least_one, check_one_budget, check_rate_and_seed
from sge2hist.training.finetune.base import WRITE_S
from sge2hist.training.image.exclusion_mask import ExclusionMask, read_exclusion_mask
from sge2hist.training.loop import (
    UNLIMITED_STEPS,
    Stage,
    StagePlan,
    finish_stage,
    run_stage,
    stage_generator,
    stage_rng,
)
from sge2hist.training.run import log_end, open_run
from sge2hist.training.sufficiency import USEFUL_SHARE, undertrained

NAME = "upsampler"
STEPS = 4000
POOL = 192  # crops of the slides that are in memory at one time
POOL_SIDES = 2  # side of a crop of the pool, in sides of a training image
REFRESH = 200  # steps with one pool
MAX_COARSENESS = 1.5  # um per px of the slides over those of training: interpolated pixels hold no more detail


@dataclass(frozen=True, kw_only=True)
class UpsamplerTrainConfig:
    """Settings of the training of an upsampler."""

    um_per_px: float  # of the fine images
    factor: int = 4  # how many times finer than its input, along each side
    hours: float | None = None  # time budget
    steps: int | None = None  # None: 4000, or as many as the time allows
    batch: int = 16  # images per step
    crop_px: int = 128  # side of a training image, fine pixels
    widths: tuple[int, ...] = (64, 96)  # of the U-Net, per resolution
    learning_rate: float = 1e-3
    evaluations: int = 1  # of the network per image, the default of the upsampler
    seed: int = 0
    exclude: str | None = None  # GeoJSON of areas of the slides from which no image is taken

    @refuse_wrong_types
    def __post_init__(self) -> None:
        check_one_budget(self.hours, self.steps)
        check_at_least_one(steps=self.steps, batch=self.batch, evaluations=self.evaluations)
        if not 0 < self.um_per_px < math.inf or self.factor < 2:
            raise InputError(
                found=f"um_per_px = {self.um_per_px}, factor = {self.factor}",
                expected="um/px above 0, a factor of 2 or more",
            )
        check_rate_and_seed(self.learning_rate, self.seed)
        if self.crop_px % (self.factor * 2 ** (len(self.widths) - 1)):
            raise InputError(
                found=f"crops of {self.crop_px} px",
                expected=f"a multiple of {self.factor * 2 ** (len(self.widths) - 1)} px",
            )


class FineCrops:
    """Squares of the slides at a given resolution, around training cells, clear of the patches of held-out ones."""

    def __init__(
        self, dataset: PairedDataset, um_per_px: float, side_px: int, excluded: ExclusionMask | None = None
    ) -> None:
        self.dataset, self.um_per_px, self.side_px = dataset, um_per_px, side_px
        self.side_um = side_px * um_per_px
        centre_um = dataset.centre_xy_px * dataset.um_per_px
        held_out = np.flatnonzero(np.isin(dataset.obs["split"].astype(str).to_numpy(), ["val", "test"]))
        index = CellIndex(centre_um[held_out], dataset.slide_of_cell[held_out])
        rows = dataset.rows("train")
        room = (dataset.patch_um + self.side_um) / 2 + um_per_px
        clear = index.distance_um(centre_um[rows], dataset.slide_of_cell[rows]) >= room
        if excluded is not None:
            clear &= ~excluded.touches(centre_um[rows], dataset.slide_of_cell[rows], self.side_um + 2 * um_per_px)
        self.rows = rows[clear]
        if not len(self.rows):
            raise InputError(
                found=f"no training cell with {self.side_um:g} um around it clear of held-out patches and excluded areas",
                where=str(dataset.path),
                repair="smaller crops (--crop-px), or larger blocks when the data are split",
            )

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Read `n` of them: uint8 [n, side, side, C]."""
        data = self.dataset
        out = np.empty((n, self.side_px, self.side_px, len(data.channels)), np.uint8)
        for i, row in enumerate(np.sort(rng.choice(self.rows, n))):  # in order: a file is read forward
            slide = data.slides[data.slide_of_cell[row]]
            out[i] = slide.read_patch(data.centre_xy_px[row], self.side_um, self.side_px, data.um_per_px)
        return out


class UpsamplerStage(Stage):
    """Random parts of a pool of crops, in random orientation."""

    def __init__(self, model: Upsampler, crops: FineCrops, config: UpsamplerTrainConfig, device: str) -> None:
        super().__init__()
        self.model, self._crops, self._config, self._device = model, crops, config, device

    def refresh(self, step: int) -> None:
        """Read a new pool."""
        self._pool = self._crops.sample(POOL, stage_rng(self._config.seed, f"{NAME}/pool", step))

    def images(self, rng: np.random.Generator) -> Tensor:
        """Return a batch [B, C, H, W] in [-1, 1]."""
        side, room = self._config.crop_px, self._crops.side_px - self._config.crop_px
        out = []
        for i in rng.integers(len(self._pool), size=self._config.batch):
            top, left = rng.integers(room + 1, size=2)
            crop = self._pool[i, top : top + side, left : left + side]
            out.append(np.rot90(crop[:, ::-1] if rng.random() < 0.5 else crop, int(rng.integers(4))))
        return torch.from_numpy(np.stack(out)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1).to(self._device)

    def forward(self, step: int) -> dict[str, Tensor]:
        """Return the loss of a step."""
        images = self.images(stage_rng(self._config.seed, NAME, step))
        return {"loss": self.model.loss(images, stage_generator(self._config.seed, f"{NAME}/noise", step)).mean()}


@locks_output()
def train_upsampler(
    dataset: PairedDataset,
    output: str | Path,
    config: UpsamplerTrainConfig,
    *,
    overwrite: bool = False,
    log: Callable[[str], None] = print,
    clock: Clock | None = None,
) -> UpsamplerBundle:
    """Train an upsampler on the slides of a dataset and write it to the folder `output`; the same call resumes a run.

    `clock` counts the seconds that a time budget has used; default: from now on.

    Raises
    ------
    InputError
        If the slides are coarser than `config.um_per_px` asks, if no crop is clear of held-out patches, or if `output` holds
        something else.
    """
    output = Path(output)
    budget = TimeBudget(total_s=None if config.hours is None else config.hours * 3600, clock=clock or Clock())
    _check_resolution(dataset, config.um_per_px)
    excluded = read_exclusion_mask(config.exclude, dataset)
    crops = FineCrops(dataset, config.um_per_px, POOL_SIDES * config.crop_px, excluded)
    accelerator = make_accelerator("auto")
    settings = asdict(config) | {"widths": list(config.widths)}  # as JSON gives it back
    identity = {
        "config": {name: value for name, value in settings.items() if name != "hours"},  # a resumed run may have more
        "data": dataset.fingerprint,
        "excluded": excluded.fingerprint,
    }
    run = open_run(output, identity, accelerator, seed=config.seed, overwrite=overwrite, log=log, budget=budget)
    if (output / MANIFEST_NAME).is_file():
        run.log(f"{output} is trained already; --overwrite trains it again")
        return UpsamplerBundle.load(output)
    shape = UpsamplerConfig(
        um_per_px=config.um_per_px * config.factor,
        factor=config.factor,
        image_channels=len(dataset.channels),
        widths=config.widths,
        sampler=replace(EXPECTED_DETAIL, n_steps=config.evaluations),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = Upsampler(shape)
    device = str(accelerator.device)
    stage = UpsamplerStage(model, crops, config, device)
    stage.refresh(0)
    model.to(device).set_statistics(stage.images(stage_rng(config.seed, f"{NAME}/statistics", 0)))
    run.resume()
    run.restore_module(model)
    n_steps = config.steps or STEPS
    budget.expect({"write/model": WRITE_S})
    plan = StagePlan(
        name=NAME,
        n_steps=n_steps if budget.total_s is None else UNLIMITED_STEPS,
        learning_rate=config.learning_rate,
        items_per_step=config.batch,
        useful_steps=round(USEFUL_SHARE * STEPS),
        refresh_every=min(REFRESH, n_steps),
        ema=True,
    )
    with run.recording():
        run_stage(stage, plan, run, model)
    finish_stage(run, model, NAME)
    shortfall = undertrained(run.steps_done, {NAME: plan.useful_steps})
    bundle = UpsamplerBundle(
        model=model.cpu().eval(),
        channels=tuple(dataset.channels),
        provenance={
            "data_fingerprint": dataset.fingerprint,
            "toy": bool(dataset.manifest.get("toy")),
            **({MANIFEST_KEY: True} if dataset.is_virtual_he else {}),
            "slides": list(dataset.slide_ids),
            "training": asdict(config),
            "stage_seconds": run.stages_done,
            "stage_steps": run.steps_done,
            "undertrained": shortfall,
        },
    )
    if accelerator.is_main_process:
        bundle.save(output)
        run.log(f"wrote {output}")
        log_end(run, shortfall)
    accelerator.wait_for_everyone()
    return UpsamplerBundle.load(output)


def _check_resolution(dataset: PairedDataset, um_per_px: float) -> None:
    """Detail that the slides do not have cannot be learnt from them."""
    own = dataset.um_per_px
    if own > MAX_COARSENESS * um_per_px:
        raise InputError(
            found=f"slides of {own:g} um/px",
            where=str(dataset.path),
            expected=f"{um_per_px:g} um/px, as asked, or finer",
            repair=f"ask for at least {own:g} um/px, or prepare the data with a finer image",
        )
