"""Guidance distillation: one evaluation per step gives the result of two, and a requested guidance means what it did."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from safetensors.torch import load_file

from sge2hist.api import SGE2Hist
from sge2hist.data.errors import InputError
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.denoiser import Denoiser, LearntGuidance
from sge2hist.models.image.image_model import ImageModel
from sge2hist.models.image.samplers import SamplerConfig
from sge2hist.models.joint_model import JointModel
from sge2hist.training.config import TrainConfig
from sge2hist.training.finetune.consistency import DistillConfig, distill
from sge2hist.training.finetune.guidance_distillation import GuidanceDistillationConfig, distill_guidance
from sge2hist.training.train import train
from tests.training.killing import check_a_kill_changes_nothing

CONFIG = GuidanceDistillationConfig(steps=120, batch=8, learning_rate=3e-3)
GUIDED = SamplerConfig(n_steps=4, guidance=3.0, guidance_interval=(0.3, 8.0), sigma_range=(0.1, 12.0))


@pytest.fixture(scope="module")
def teacher(tiny_model):
    """A tiny model with guidance whose output depends on its cells, which that of an untrained one does not."""
    bundle = ModelBundle.load(tiny_model)
    model = JointModel(dataclasses.replace(bundle.config, sampler=GUIDED))
    model.load_state_dict(bundle.model.state_dict())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.image.unet.named_parameters():
            strength = 1.0 if ".cond_proj." in name else 0.1 if ".conv2." in name or name.startswith("head.2") else 0.0
            parameter.add_(strength * torch.randn(parameter.shape, generator=generator))
    return dataclasses.replace(bundle, model=model.eval())


@pytest.fixture(scope="module")
def student(teacher, tiny_paired, tmp_path_factory):
    output = tmp_path_factory.mktemp("guided") / "guided.model"
    distill_guidance(teacher, tiny_paired, output, CONFIG, log=lambda _: None)
    return output


def _evaluations(bundle, cells, sampler, monkeypatch) -> int:
    """Evaluations of the network while two images are generated."""
    count = 0
    plain = Denoiser.__call__

    def counted(self, *args):
        nonlocal count
        count += 1
        return plain(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Denoiser, "__call__", counted)
        SGE2Hist(bundle=bundle).generate_from_genes(cells, sampler=sampler)
    return count


def test_every_step_is_one_evaluation_unless_another_weight_is_asked_for(student, teacher, tiny_paired, monkeypatch):
    bundle, cells = ModelBundle.load(student), tiny_paired.adata()[:2].copy()
    inside = sum(0.3 <= sigma <= 8 for sigma in teacher.model.image.denoiser.sigmas(GUIDED))
    assert inside
    assert _evaluations(teacher, cells, GUIDED, monkeypatch) == 4 + inside
    assert _evaluations(bundle, cells, None, monkeypatch) == 4
    assert bundle.config.sampler == GUIDED
    plain = dataclasses.replace(GUIDED, guidance=1.0)
    assert _evaluations(bundle, cells, plain, monkeypatch) == 4 + inside
    assert _evaluations(teacher, cells, plain, monkeypatch) == 4


def test_weights_asked_for_mean_what_they_meant(teacher):
    """An exact student: its answers are guided by construction. Whatever is asked, the sampler sees the same denoiser."""

    class Exact(Denoiser):
        def __call__(self, x, sigma_B, condition):
            conditional, unconditional = (
                super(Exact, self).__call__(x, sigma_B, c) for c in (condition, null_condition)
            )
            weight = 3.0 if 0.3 <= float(sigma_B[0]) <= 8 else 1.0
            return unconditional + weight * (conditional - unconditional)

    image = teacher.model.image
    exact = ImageModel(image.config, LearntGuidance(weight=3.0, interval=(0.3, 8.0))).eval()
    exact.denoiser = Exact(exact.unet, image.config.diffusion)
    exact.load_state_dict(image.state_dict())
    from tests.models.image.test_image_model import _cells

    cells = _cells(2)
    cells = dataclasses.replace(cells, z_MZ=torch.randn(len(cells.depth_M), image.config.n_latent))
    null_condition = image.encode_cells(cells.unconditional(), (8, 8))
    for weight, interval in ((3.0, (0.3, 8.0)), (1.0, (0.3, 8.0)), (2.0, (0.3, 8.0)), (3.0, (1.0, 20.0))):
        sampler = dataclasses.replace(GUIDED, guidance=weight, guidance_interval=interval)
        expected = image.sample_latents(cells, [1, 2], (8, 8), sampler)
        assert torch.allclose(exact.sample_latents(cells, [1, 2], (8, 8), sampler), expected, atol=2e-4)


def test_it_learns_the_guided_answer_and_nothing_else_moves(student, teacher, tiny_paired):
    before, after = teacher.model.state_dict(), load_file(student / "model.safetensors")
    changed = {name.split(".")[1] for name in after if not torch.equal(before[name], after[name])}
    assert changed == {"unet", "condition"}
    cells = tiny_paired.adata()[:12].copy()
    plain = dataclasses.replace(GUIDED, guidance=1.0)
    found = SGE2Hist.from_pretrained(student).generate_from_genes(cells).astype(float)
    wanted, unguided = (
        SGE2Hist(bundle=teacher).generate_from_genes(cells, sampler=s).astype(float) for s in (GUIDED, plain)
    )
    assert abs(found - wanted).mean() < 0.75 * abs(unguided - wanted).mean()
    rows = [row.split(",") for row in (student / "training" / "log.csv").read_text().splitlines()]
    last = {name: float(value) for _, _, _, name, value in rows[1:]}
    assert last["loss"] < 0.8 * last["not_learnt"]


def test_a_killed_one_ends_with_the_same_weights(teacher, tiny_paired, tmp_path):
    check_a_kill_changes_nothing(
        lambda output, log: distill_guidance(
            teacher, tiny_paired, output, dataclasses.replace(CONFIG, batch=2, steps=8), log=log
        ),
        tmp_path,
        "resuming guidance_distillation at step 1;",
    )


def test_models_without_guidance_and_those_that_have_learnt_it_are_refused(student, tiny_model, tiny_paired, tmp_path):
    plain = ModelBundle.load(tiny_model)
    plain.model.config = dataclasses.replace(plain.config, sampler=dataclasses.replace(GUIDED, guidance=1.0))
    with pytest.raises(InputError, match="single evaluations already"):
        distill_guidance(plain, tiny_paired, tmp_path / "a.model")
    again = ModelBundle.load(student)
    again.model.config = dataclasses.replace(again.config, sampler=dataclasses.replace(GUIDED, guidance=2.0))
    with pytest.raises(InputError, match="has learnt its guidance already"):
        distill_guidance(again, tiny_paired, tmp_path / "b.model")
    assert not list(tmp_path.iterdir())


def test_a_student_of_it_in_one_jump_has_no_guidance_of_its_own(student, tiny_paired, tmp_path):
    fast = distill(
        ModelBundle.load(student),
        tiny_paired,
        tmp_path / "fast.model",
        DistillConfig(steps=2, batch=4),
        log=lambda _: None,
    )
    assert fast.config.learnt_guidance.weight == 1


def test_a_training_that_starts_from_it_learns_plain_answers(student, tiny_paired, tmp_path):
    on = TrainConfig(preset="tiny", mixed_precision="no", warm_start=str(student), steps=2)
    assert train(tiny_paired, tmp_path / "on.model", on, log=lambda _: None).config.learnt_guidance.weight == 1
