"""Consistency tuning: its loss by hand, and a tiny model that generates in few evaluations and resumes exactly."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sge2hist.api import SGE2Hist
from sge2hist.data.errors import InputError
from sge2hist.data.gene_panel import GenePanel
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.denoiser import Denoiser
from sge2hist.models.image.preconditioning import DiffusionConfig, expand
from sge2hist.training.finetune.base import check_tunable
from sge2hist.training.finetune.consistency import HUBER, DistillConfig, consistency_loss, distill, lower_level
from tests.training.killing import check_a_kill_changes_nothing


def test_lower_level_starts_at_zero_and_rises_towards_t():
    t = torch.tensor([0.02, 0.5, 2.0, 40.0])
    ratios = torch.stack([lower_level(t, share) / t for share in (0.0, 0.3, 0.6, 0.999, 1.0)])
    assert torch.equal(ratios[0], torch.zeros(4))
    assert (ratios.diff(dim=0) >= 0).all()
    assert (ratios < 1).all()
    assert float(ratios[-1, 3]) == pytest.approx(1 - 2**-7, abs=1e-6)
    assert float(ratios[-1, 1]) == pytest.approx(1 - 2**-7 * (1 + 8 / (1 + math.exp(0.5))), abs=1e-6)


class Jump(Denoiser):
    """The exact jump of data N(0, 1) from level t, x / sqrt(1 + t^2), which `gain` other than 1 spoils."""

    def __init__(self, gain: nn.Parameter) -> None:
        super().__init__(nn.Identity(), DiffusionConfig())
        self.gain = gain

    def __call__(self, x: Tensor, t_B: Tensor, condition: object) -> Tensor:
        exact = x / (1 + expand(t_B).square()).sqrt()
        return exact + (self.gain - 1) * expand(t_B) / (1 + expand(t_B)) * exact


class Scaled(nn.Module):
    """A model that denoises by `Jump`."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))
        self.denoiser = Jump(self.gain)

    def encode_cells(self, cells: object, latent_hw: tuple[int, int]) -> None:
        return None


def test_the_gradient_leads_to_the_exact_jump_from_both_sides():
    latent = torch.randn(8192, 2, 4, 4, generator=torch.Generator().manual_seed(0))

    def gradient(gain: float) -> float:
        model = Scaled(gain)
        consistency_loss(model, latent, None, torch.Generator().manual_seed(1), 1.0).mean().backward()
        return float(model.gain.grad)

    below, at, above = gradient(0.6), gradient(1.0), gradient(1.4)
    assert below < 0 < above
    assert abs(at) < 0.5 * min(-below, above)


def test_at_the_start_the_target_is_the_image_and_only_the_student_learns():
    generator = torch.Generator().manual_seed(1)
    normal = torch.randn(256, generator=generator)
    latent = torch.randn(256, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    t = (-0.4 + 2.0 * normal).exp().clamp(0.01, 80.0)
    noise = torch.randn(latent.shape, generator=generator)
    jump = (latent + expand(t) * noise) / (1 + expand(t).square()).sqrt()
    loss = consistency_loss(Scaled(1.0), latent, None, torch.Generator().manual_seed(1), 0.0)
    by_hand = (((jump - latent).square().mean((1, 2, 3)) + HUBER**2).sqrt() - HUBER) / t
    assert torch.allclose(loss, by_hand, rtol=1e-5)
    model = Scaled(1.1)
    consistency_loss(model, latent, None, torch.Generator().manual_seed(1), 0.5).mean().backward()
    assert model.gain.grad is not None
    assert torch.isfinite(model.gain.grad)


CONFIG = DistillConfig(steps=16, batch=4, learning_rate=1e-3)


@pytest.fixture(scope="module")
def student(tiny_paired, tiny_model, tmp_path_factory):
    output = tmp_path_factory.mktemp("distilled") / "fast.model"
    distill(ModelBundle.load(tiny_model), tiny_paired, output, CONFIG, log=lambda _: None)
    return output


def test_the_student_generates_in_one_evaluation_and_keeps_what_is_not_tuned(student, tiny_model, tiny_paired):
    model = SGE2Hist.from_pretrained(student)
    assert (model.bundle.config.sampler.sampler, model.bundle.config.sampler.n_steps) == ("consistency", 1)
    images = model.generate_from_genes(tiny_paired.adata()[:3].copy())
    assert images.shape == (3, 1, 32, 32, 3)
    before, after = (load_file(path / "model.safetensors") for path in (tiny_model, student))
    changed = {name.split(".")[1] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"unet", "condition"}
    assert model.bundle.provenance["teacher"] == ModelBundle.load(tiny_model).fingerprint


def test_guidance_that_is_asked_of_a_student_acts_on_its_one_jump(student, tiny_paired):
    model, cells = SGE2Hist.from_pretrained(student), tiny_paired.adata()[:3].copy()
    settings = [dataclasses.replace(model.bundle.config.sampler, guidance=weight) for weight in (1.0, 3.0)]
    plain, guided = (model.generate_from_genes(cells, sampler=sampler) for sampler in settings)
    assert (plain != guided).any()


def test_a_killed_distillation_ends_with_the_same_weights(tiny_model, tiny_paired, tmp_path):
    teacher, longer = ModelBundle.load(tiny_model), dataclasses.replace(CONFIG, steps=8)
    check_a_kill_changes_nothing(
        lambda output, log: distill(teacher, tiny_paired, output, longer, log=log),
        tmp_path,
        "resuming distill at step 1;",
    )


def test_refuses_a_published_model_and_foreign_genes(tiny_model, tiny_paired, monkeypatch):
    teacher = ModelBundle.load(tiny_model)
    vector = dataclasses.replace(teacher.config.image.condition, form="vector")
    image = dataclasses.replace(teacher.config.image, condition=vector)
    published = dataclasses.replace(teacher)
    published.model = ModelBundle.load(tiny_model).model
    published.model.config = dataclasses.replace(teacher.config, image=image)
    with pytest.raises(InputError, match="map of cells"):
        check_tunable(published, tiny_paired)
    teacher.genes = GenePanel(["ENSG_NONE", *teacher.genes.ids[1:]])
    with pytest.raises(InputError, match="ENSG_NONE"):
        check_tunable(teacher, tiny_paired)
    with pytest.raises(InputError, match="of at least 1"):
        DistillConfig(steps=0)
