"""Statistics of z2 per component: running centres against a weighted mean, samples against their moments, pruned models."""

import pytest
import torch

from sge2hist.models.gene.micro_statistics import BATCH_WEIGHT, MicroStatistics


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_centres_are_the_weighted_mean_of_the_batches() -> None:
    statistics = MicroStatistics(3, 2)
    batches = [noise(20, 2, seed=s) + torch.tensor([1.0, -2.0]) for s in range(4)]
    gamma = torch.eye(3)[torch.arange(20) % 2]  # no cell of the last component
    for z2 in batches:
        statistics.follow_centres(z2, gamma)
    weights = torch.tensor([BATCH_WEIGHT * (1 - BATCH_WEIGHT) ** (3 - b) for b in range(4)])
    means = torch.stack([torch.stack([z2[k::2].mean(0) for k in range(2)]) for z2 in batches])
    expected = (weights[:, None, None] * means).sum(0) / weights.sum()
    torch.testing.assert_close(statistics.centres_KM[:2], expected)
    assert statistics.centres_KM[2].tolist() == [0, 0]
    torch.testing.assert_close(statistics.centre_mass_K, torch.tensor([0.5, 0.5, 0.0]) * weights.sum())


def test_samples_have_the_moments_of_their_component_and_follow_the_seed() -> None:
    statistics = MicroStatistics(3, 2)
    statistics.means_KM.copy_(noise(3, 2))
    statistics.vars_KM.copy_(noise(3, 2, seed=1).square() + 0.1)
    component = torch.full((20_000,), 1)
    z2 = statistics.sample(component, torch.Generator().manual_seed(0))
    torch.testing.assert_close(z2.mean(0), statistics.means_KM[1], atol=0.05, rtol=0)
    torch.testing.assert_close(z2.var(0), statistics.vars_KM[1], atol=0.05, rtol=0.05)
    assert torch.equal(z2, statistics.sample(component, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("k", [2, 7])
def test_statistics_of_a_pruned_model_are_loaded_into_one_of_another_size(k: int) -> None:
    source, target = MicroStatistics(k, 2), MicroStatistics(5, 2)
    source.means_KM.copy_(noise(k, 2))
    target.load_state_dict(source.state_dict())
    assert torch.equal(target.means_KM, source.means_KM)
    assert target.centre_mass_K.shape == (k,)
    target.reset(4)
    assert target.means_KM.shape == (4, 2)
    assert (target.vars_KM == 1).all()
