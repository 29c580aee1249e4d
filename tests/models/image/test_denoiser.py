"""Guidance: where it acts, what it costs, and that learnt guidance is not applied twice."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sge2hist.models.image.denoiser import GuidedDenoiser, LearntGuidance, guide, in_interval
from sge2hist.models.image.image_model import ImageModel
from sge2hist.models.image.samplers import SamplerConfig
from tests.models.image.test_image_model import TINY


def test_guidance_acts_inside_its_interval_only():
    calls = []

    def weak(x: Tensor, sigma: float) -> Tensor:
        calls.append(sigma)
        return torch.zeros_like(x)

    def strong(x: Tensor, sigma: float) -> Tensor:
        return torch.ones_like(x)

    denoise = GuidedDenoiser(strong, weak, in_interval(2.0, (0.5, 2.0)))
    x = torch.zeros(1, 1, 1, 1)
    assert [float(denoise(x, sigma)) for sigma in (0.4, 1.0, 3.0)] == [1.0, 2.0, 1.0]
    assert calls == [1.0]
    assert float(GuidedDenoiser(strong, weak, in_interval(1.0, (0.0, 9.0)))(x, 1.0)) == 1.0
    assert calls == [1.0]


@pytest.mark.parametrize("asked", [1.0, 2.0, 3.0])
def test_the_weight_for_a_network_with_learnt_guidance_gives_the_guidance_asked_for(asked):
    model = ImageModel(TINY, LearntGuidance(weight=2.0, interval=(0.5, 4.0)))
    weight = model.guidance_weight(SamplerConfig(guidance=asked, guidance_interval=(0.5, 4.0)))
    conditional, unconditional = torch.tensor([3.0, -1.0]), torch.tensor([1.0, 2.0])
    output = guide(conditional, unconditional, 2.0)  # of the network inside the interval
    torch.testing.assert_close(guide(output, unconditional, weight(1.0)), guide(conditional, unconditional, asked))
    assert weight(5.0) == 1
