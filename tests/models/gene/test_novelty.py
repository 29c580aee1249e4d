"""Novelty scores: calibrated on counts of the model itself at any depth and panel, quantiles against numpy."""

import math

import numpy as np
import pytest
import torch

from sge2hist.models.gene.novelty import NoveltyReference, fit_score, latent_score


@pytest.mark.parametrize("depth", [50, 5000])
@pytest.mark.parametrize("n_genes", [20, 400])
def test_counts_drawn_from_the_model_score_like_a_standard_normal(depth: int, n_genes: int) -> None:
    rng = np.random.default_rng(0)
    proportion = rng.dirichlet(np.full(n_genes, 0.5))
    counts = torch.from_numpy(rng.multinomial(depth, proportion, size=2000)).float()
    score = fit_score(counts, torch.from_numpy(np.tile(proportion, (2000, 1))).float())
    assert float(score.mean()) == pytest.approx(0.0, abs=0.1)
    assert float(score.std()) == pytest.approx(1.0, abs=0.1)


def test_counts_of_rare_genes_score_low_and_empty_cells_zero() -> None:
    proportion = torch.tensor([[0.9, 0.09, 0.01]])
    assert float(fit_score(torch.tensor([[0.0, 0.0, 100.0]]), proportion)) < -10
    assert float(fit_score(torch.zeros(1, 3), proportion)) == 0.0


def test_quantiles_are_shares_of_the_reference() -> None:
    reference = NoveltyReference()
    values = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    assert torch.isnan(reference.quantiles(values, values)[0]).all()
    reference.calibrate(values, 10 * values)
    probe = torch.tensor([-10.0, -1.0, 0.0, 10.0])
    fit, latent = reference.quantiles(probe, 10 * probe)
    expected = [(values.numpy() < p).mean() for p in probe.tolist()]
    np.testing.assert_allclose(fit.numpy(), expected, atol=2e-3)
    np.testing.assert_allclose(latent.numpy(), expected, atol=2e-3)
    copy = NoveltyReference()
    copy.load_state_dict(reference.state_dict())
    assert torch.equal(copy.quantiles(probe, probe)[0], fit)


def test_latent_score_is_the_log_density() -> None:
    z2 = torch.tensor([[1.0, -2.0]])
    assert float(latent_score(torch.tensor([-3.0]), z2)) == pytest.approx(-3 - 2.5 - math.log(2 * math.pi))
