import numpy as np
import pytest
import torch

from sge2hist.evaluation.metrics.kid import EXACT_UP_TO, kernel_sums, kid_estimate, kid_of
from sge2hist.evaluation.resampling import make_resampling


def slow_kid(a: np.ndarray, b: np.ndarray) -> float:
    def k(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / len(x) + 1) ** 3)

    aa = sum(k(a[i], a[j]) for i in range(len(a)) for j in range(len(a)) if i != j) / len(a) / (len(a) - 1)
    bb = sum(k(b[i], b[j]) for i in range(len(b)) for j in range(len(b)) if i != j) / len(b) / (len(b) - 1)
    ab = sum(k(x, y) for x in a for y in b) / len(a) / len(b)
    return aa + bb - 2 * ab


def test_equals_the_double_sum() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(30, 5)), rng.normal(0.4, 1.2, size=(25, 5))
    assert kid_of(a, b) == pytest.approx(slow_kid(a, b), rel=1e-10)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance` will save:UserWarning")
def test_equals_torchmetrics() -> None:
    from torchmetrics.image.kid import KernelInceptionDistance

    class Passed(torch.nn.Module):
        num_features = 16

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(len(x), -1)

    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(60, 16)), rng.normal(0.5, 1, size=(60, 16))
    metric = KernelInceptionDistance(feature=Passed(), subsets=1, subset_size=60, normalize=True)
    metric.update(torch.from_numpy(a).reshape(-1, 1, 4, 4), real=True)
    metric.update(torch.from_numpy(b).reshape(-1, 1, 4, 4), real=False)
    assert kid_of(a, b) == pytest.approx(float(metric.compute()[0]), rel=1e-5)


def test_is_unbiased() -> None:
    """The mean over many pairs of samples of one distribution is zero within its error."""
    rng = np.random.default_rng(2)
    values = [kid_of(rng.normal(size=(20, 4)), rng.normal(size=(20, 4))) for _ in range(400)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values))


def test_groups_give_the_same_jackknife_values_as_recomputation() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(50, 4)), rng.normal(0.3, 1, size=(50, 4))
    resampling = make_resampling(np.arange(50), n_replicates=3, n_groups=5, rng=rng)
    found = kid_estimate(a, b, resampling)
    again = [kid_of(a[resampling.group_N != g], b[resampling.group_N != g]) for g in range(5)]
    np.testing.assert_allclose(found.replicates, again, rtol=1e-9)
    assert found.value == pytest.approx(kid_of(a, b), rel=1e-10)


def test_single_precision_above_the_limit_agrees() -> None:
    rng = np.random.default_rng(4)
    n = EXACT_UP_TO + 1
    a, b = rng.normal(size=(n, 8)).astype(np.float32), rng.normal(0.2, 1, size=(30, 8)).astype(np.float32)
    exact = ((a.astype(np.float64) @ b.astype(np.float64).T / 8 + 1) ** 3).sum()
    found = kernel_sums(a, b, np.zeros(n, np.int64), np.zeros(30, np.int64), 1)[0, 0]
    assert found == pytest.approx(exact, rel=1e-5)
