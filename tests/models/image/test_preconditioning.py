"""Noise models against the published formulas and a direct simulation of DDPM."""

from __future__ import annotations

import math

import pytest
import torch

from sge2hist.models.image.preconditioning import DiffusionConfig, NoiseModel, ddpm_sigmas, edm_scalings


def test_edm_scalings_give_unit_variance_in_and_out():
    generator = torch.Generator().manual_seed(0)
    sigma_data, n = 0.7, 400_000
    for sigma in (0.05, 0.7, 10.0):
        x0 = sigma_data * torch.randn(n, generator=generator)
        x = x0 + sigma * torch.randn(n, generator=generator)
        c = edm_scalings(torch.tensor(sigma), sigma_data)
        assert float((c.c_in_B * x).std()) == pytest.approx(1, abs=0.01)
        assert float(((x0 - c.c_skip_B * x) / c.c_out_B).std()) == pytest.approx(1, abs=0.01)
        assert float(c.c_noise_B) == pytest.approx(math.log(sigma) / 4)


def test_ddpm_sigmas_match_the_forward_process():
    config = DiffusionConfig(formulation="ddpm", n_steps=1000)
    mean, var = 1.0, 0.0
    for t in range(1000):
        beta = 1e-4 + (0.02 - 1e-4) * t / 999
        mean, var = mean * math.sqrt(1 - beta), var * (1 - beta) + beta
    assert float(ddpm_sigmas(config)[-1]) == pytest.approx(math.sqrt(var) / mean, rel=1e-9)
    assert float(ddpm_sigmas(config)[0]) == pytest.approx(math.sqrt(1e-4 / (1 - 1e-4)), rel=1e-9)


def test_ddpm_scalings_find_the_step_number():
    model = NoiseModel(DiffusionConfig(formulation="ddpm"))
    t = torch.tensor([0, 1, 500, 998, 999])
    c = model.scalings(model.sigmas_T[t].float())
    assert torch.allclose(c.c_noise_B, t.float(), atol=0.02)
    assert torch.equal(c.c_out_B, -model.sigmas_T[t].float())


def test_training_noise_is_log_normal_and_stratified():
    model = NoiseModel(DiffusionConfig(sigma_log_mean=-0.4, sigma_log_std=1.1))
    log_sigma = model.sample_sigmas(4096, torch.Generator().manual_seed(0)).log()
    assert float(log_sigma.mean()) == pytest.approx(-0.4, abs=0.005)  # 3 times tighter than independent samples
    assert float(log_sigma.std()) == pytest.approx(1.1, abs=0.02)


@pytest.mark.parametrize("wrong", [{"formulation": "flow"}, {"sigma_min": 0.0}, {"sigma_min": 90.0}])
def test_config_refuses_what_cannot_work(wrong):
    with pytest.raises(ValueError, match=r"formulation|sigma"):
        DiffusionConfig(**wrong)
