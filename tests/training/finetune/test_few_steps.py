"""Few guided steps: the discriminator's loss by hand, a sampler that learns a distribution, a model that resumes exactly."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from safetensors.torch import load_file

from sge2hist.data.errors import InputError
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.conditioning import MODE_ALL, PlacedCells
from sge2hist.models.image.samplers import SamplerConfig
from sge2hist.models.joint_model import JointModel
from sge2hist.training.finetune.few_steps import (
    FewStepsConfig,
    LatentDiscriminator,
    distill_few_steps,
    hinge,
    of_next_crop,
    short_sampler,
)
from tests.training.killing import check_a_kill_changes_nothing

CONFIG = FewStepsConfig(evaluations=3, guidance_steps=4, steps=12, batch=4)
GUIDED = SamplerConfig(n_steps=5, guidance=3.0, guidance_interval=(0.3, 8.0), sigma_range=(0.1, 12.0), eta=2.0)


@pytest.fixture(scope="module")
def teacher(tiny_model):
    """A tiny model with guidance."""
    bundle = ModelBundle.load(tiny_model)
    model = JointModel(dataclasses.replace(bundle.config, sampler=GUIDED))
    model.load_state_dict(bundle.model.state_dict())
    return dataclasses.replace(bundle, model=model.eval())


def test_the_short_sampler_is_the_ode_over_the_same_levels():
    short = short_sampler(GUIDED, 3)
    assert (short.n_steps, short.eta, short.sampler) == (3, 0.0, "dpmpp-2m")
    assert short.sigma_range == (0.45, 12.0)
    assert (short.guidance, short.guidance_interval) == (3.0, (0.3, 8.0))


def test_hinge_of_logits_by_hand():
    grids = [torch.tensor([[2.0, 0.5]]), torch.tensor([[-1.0]])]
    assert float(hinge(grids, 1.0)) == pytest.approx(((0 + 0.5) / 2 + 2) / 2)
    assert float(hinge(grids, -1.0)) == pytest.approx(((3 + 1.5) / 2 + 0) / 2)


def test_the_discriminator_sees_features_in_units_of_real_ones():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(64, 5, 4, 4, generator=generator)
    plain = LatentDiscriminator([torch.zeros(5)], [torch.ones(5)])
    scaled = LatentDiscriminator([torch.full((5,), 7.0)], [torch.full((5,), 3.0)])
    scaled.load_state_dict(plain.state_dict() | {"mean_0": torch.full((5,), 7.0), "std_0": torch.full((5,), 3.0)})
    for one, other in zip(plain([features]), scaled([3 * features + 7]), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_cells_of_the_next_crop_keep_their_places():
    cells = PlacedCells(
        z_MZ=torch.arange(5.0)[:, None],
        depth_M=torch.arange(5.0),
        xy_um_M2=torch.arange(10.0).reshape(5, 2),
        image_M=torch.tensor([0, 0, 1, 2, 2]),
        mode_B=torch.tensor([MODE_ALL, 7, 8]),
        slide_B=torch.tensor([0, 1, 2]),
    )
    moved = of_next_crop(cells)
    assert moved.image_M.tolist() == [0, 0, 1, 1, 2]
    assert moved.z_MZ[:, 0].tolist() == [3.0, 4.0, 0.0, 1.0, 2.0]
    assert moved.xy_um_M2[0].tolist() == [6.0, 7.0]
    assert moved.mode_B.tolist() == [8, MODE_ALL, 7]
    assert moved.slide_B.tolist() == [2, 0, 1]


def test_a_model_of_few_steps(teacher, tiny_paired, tmp_path):
    found = distill_few_steps(teacher, tiny_paired, tmp_path / "few.model", CONFIG, log=lambda _: None)
    assert found.config.sampler == short_sampler(GUIDED, 3)
    assert found.config.learnt_guidance.weight == 3.0
    weight = found.model.image.guidance_weight(found.config.sampler)
    evaluations = found.model.image.denoiser.evaluations(found.config.sampler)
    assert [weight(step.sigma) for step in evaluations] == [1.0] * 3  # single evaluations
    assert found.provenance["stage_steps"]["guidance_distillation"] == 4
    assert found.provenance["stage_steps"]["few_steps"] == 12
    before, after = teacher.model.state_dict(), load_file(tmp_path / "few.model" / "model.safetensors")
    changed = {name.split(".")[1] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"unet", "condition"}  # latents and images mean what they meant
    with pytest.raises(InputError, match="learnt its guidance already"):
        distill_few_steps(found, tiny_paired, tmp_path / "again.model", CONFIG)


def test_a_killed_run_goes_on(teacher, tiny_paired, tmp_path):
    check_a_kill_changes_nothing(
        lambda output, log: distill_few_steps(teacher, tiny_paired, output, CONFIG, log=log), tmp_path, "resuming"
    )


def test_settings_that_cannot_work_are_refused():
    with pytest.raises(InputError, match="batch = 1"):
        FewStepsConfig(batch=1)
    with pytest.raises(InputError, match="evaluations"):
        FewStepsConfig(evaluations=0)
