"""Components are grouped by the cells they share: against a slow grouping written out; rare and far kinds stay."""

import numpy as np
import pytest
import torch

from sge2hist.models.mixture import MixturePrior
from sge2hist.models.type_kinds import kinds_of_components


def slow_kinds(shared: np.ndarray, n: int) -> list[list[int]]:
    """Join the two groups whose least alike members are most alike, until n are left."""
    mass = shared.sum(1)
    dice = 2 * shared / (mass[:, None] + mass)
    groups = [[k] for k in range(len(shared))]
    while len(groups) > n:
        pairs = [(i, j) for i in range(len(groups)) for j in range(i)]
        least = [min(dice[a, b] for a in groups[i] for b in groups[j]) for i, j in pairs]
        i, j = pairs[int(np.argmax(least))]
        groups = [group for k, group in enumerate(groups) if k not in (i, j)] + [groups[i] + groups[j]]
    return sorted(sorted(group) for group in groups)


@pytest.mark.parametrize("n_kinds", [1, 2, 3, 7, 12])
def test_as_complete_linkage_of_shared_cells_written_out(n_kinds: int) -> None:
    told = np.random.default_rng(n_kinds).dirichlet(np.full(12, 0.2), 500)
    shared, n_cells = told.T @ told, np.bincount(told.argmax(1), minlength=12)
    kind = kinds_of_components(np.log(shared), n_cells, n_kinds)
    found = sorted(np.flatnonzero(kind == k).tolist() for k in range(n_kinds))
    assert found == slow_kinds(shared, n_kinds)


def mixture_at(means: list[float], variances: list[float]) -> MixturePrior:
    mixture = MixturePrior(len(means), 1)
    mixture.initialise(torch.ones(len(means)), torch.tensor(means)[:, None], torch.tensor(variances)[:, None])
    return mixture


def drawn(means: list[float], variances: list[float], n_cells: list[int], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [rng.normal(m, v**0.5, n) for m, v, n in zip(means, variances, n_cells, strict=True)]
    ).astype(np.float32)[:, None]


def test_a_wide_kind_stays_one_where_distances_would_cut_it() -> None:
    means, variances, n_cells = [0.0, 6.0, 9.5, 11.0], [9.0, 9.0, 0.04, 0.04], [4000, 4000, 300, 300]
    mixture, z1 = mixture_at(means, variances), drawn(means, variances, n_cells)
    kind = kinds_of_components(mixture.log_shared(z1).numpy(), np.array(n_cells), 3)
    assert kind[0] == kind[1]  # 6 apart and sharing cells; the narrow ones are 1.5 apart and share none
    assert len(set(kind)) == 3


def test_kinds_of_components_that_share_next_to_nothing_follow_how_little() -> None:
    means, variances, n_cells = [0.0, 40.0, 100.0, 141.0], [1.0] * 4, [50] * 4
    log_shared = mixture_at(means, variances).log_shared(drawn(means, variances, n_cells)).numpy()
    assert np.exp(log_shared[0, 2]) == 0  # in ordinary numbers all pairs would be alike
    kind = kinds_of_components(log_shared, np.array(n_cells), 2)
    assert kind[0] == kind[1] != kind[2] == kind[3]
    assert kinds_of_components(log_shared, np.array(n_cells), 3).tolist()[:2] == [0, 0]


def test_components_without_cells_go_with_whom_they_share_most() -> None:
    means, variances = [0.0, 9.0, 8.0], [1.0] * 3
    log_shared = mixture_at(means, variances).log_shared(drawn(means, variances, [50, 50, 1])).numpy()
    kind = kinds_of_components(log_shared, np.array([50, 50, 0]), 2)
    assert kind[2] == kind[1] != kind[0]
    assert kinds_of_components(log_shared, np.array([0, 4, 0]), 1).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="2 components with cells"):
        kinds_of_components(log_shared, np.array([50, 50, 0]), 3)


def test_shares_that_were_never_counted_are_refused() -> None:
    with pytest.raises(ValueError, match="were not counted"):
        kinds_of_components(np.full((2, 2), -np.inf), np.array([1, 1]), 1)
