"""Consistency loss: its levels by the formula, its value by hand, and its minimum where the exact jump lies."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from sge2hist.models.image.denoiser import Denoiser
from sge2hist.models.image.preconditioning import DiffusionConfig, expand
from sge2hist.training.finetune.consistency import HUBER, consistency_loss, lower_level


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
