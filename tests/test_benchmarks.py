"""Arithmetic of the benchmarks that no library does, against simulation and closed forms."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import poisson


@pytest.fixture
def scores(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    import gene_scores

    return gene_scores


def test_expected_logarithm_of_a_negative_binomial(scores) -> None:
    mean_NG, theta_G = np.array([[0.02, 0.7, 4.0], [0.0, 12.0, 30.0]]), np.array([0.3, 1.5, 8.0])
    rng = np.random.default_rng(0)
    sampled = rng.poisson(rng.gamma(theta_G, mean_NG / theta_G, (400_000, 2, 3)))
    simulated = np.log1p(sampled)
    error = simulated.std(0) / np.sqrt(len(sampled))
    np.testing.assert_array_less(np.abs(scores.mean_log1p(mean_NG, theta_G) - simulated.mean(0)), 5 * error + 1e-12)


def test_expected_logarithm_without_dispersion_is_that_of_a_poisson(scores) -> None:
    x = np.arange(200)
    for mean in (0.1, 3.0, 20.0):
        exact = (poisson.pmf(x, mean) * np.log1p(x)).sum()
        assert scores.mean_log1p(np.array([[mean]]), np.array([1e7]))[0, 0] == pytest.approx(exact, rel=1e-4)


def test_thinned_halves_add_up_and_are_independent(scores) -> None:
    from scipy.sparse import csr_array

    counts = csr_array(np.random.default_rng(0).poisson(3.0, (2000, 20)).astype(np.float32))
    first, second = (part.toarray() for part in scores.thinned(counts))
    np.testing.assert_array_equal(first + second, counts.toarray())
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.02  # halves of Poisson counts are independent


def test_a_probe_explains_what_is_linear_and_nothing_of_noise(scores) -> None:
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(4000, 3)), rng.normal(size=(3, 2))
    signal, noise = x @ weights, rng.normal(size=(4000, 2))
    half = slice(None, 2000), slice(2000, None)
    parts = [x[part] for part in half]
    assert scores._explained(parts, [signal[part] for part in half]) > 0.999
    assert abs(scores._explained(parts, [noise[part] for part in half])) < 0.01
    mixed = signal + noise * np.sqrt(signal.var() / noise.var())  # half of the variance is noise
    assert scores._explained(parts, [mixed[part] for part in half]) == pytest.approx(0.5, abs=0.04)


def test_a_stopped_comparison_goes_on_after_the_last_method(monkeypatch, tmp_path) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    import gene_model

    fitted: list[str] = []
    stops: list[bool] = [True, False, True, False]  # whether a run is stopped at its second method
    output = tmp_path / "scores.json"

    def fit(data, method, arguments):
        if method == "pca-gmm" and stops.pop(0):
            raise KeyboardInterrupt
        fitted.append(method)
        return {"acc": [float(arguments.seeds)]}

    def compare(seeds: str) -> None:
        words = ["gene_model.py", "--sets", "toy", "--methods", "pca-leiden", "pca-gmm", "--seeds", seeds]
        monkeypatch.setattr("sys.argv", [*words, "--output", str(output)])
        gene_model.main()

    monkeypatch.setattr(gene_model, "run", fit)
    with pytest.raises(KeyboardInterrupt):
        compare("2")
    assert not output.exists()
    compare("2")
    assert fitted == ["pca-leiden", "pca-gmm"]  # the first is not fitted again
    assert json.loads(output.read_text()) == {"toy": {"pca-leiden": {"acc": [2.0]}, "pca-gmm": {"acc": [2.0]}}}

    fitted.clear()
    with pytest.raises(KeyboardInterrupt):
        compare("2")
    compare("3")  # other settings: nothing is taken over
    assert fitted == ["pca-leiden", "pca-leiden", "pca-gmm"]
    assert list(tmp_path.iterdir()) == [output]
