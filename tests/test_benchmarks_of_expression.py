"""Statistics of the benchmarks that ask whether images follow expression: against slow references and planted truths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.stats import ks_2samp

from sge2hist.data.errors import InputError
from sge2hist.evaluation.resampling import make_resampling


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")


@pytest.fixture
def resampling():
    return make_resampling(np.arange(200) // 4, n_replicates=300, n_groups=10, rng=np.random.default_rng(0))


def test_calibration_is_the_least_squares_line_of_repeated_cells() -> None:
    from expression_judge import calibration

    rng = np.random.default_rng(0)
    predicted = rng.normal(size=(60, 2))
    measured = predicted * [0.5, 2.0] + [1.0, -3.0] + 0.1 * rng.normal(size=(60, 2))
    times = rng.integers(0, 4, 60)
    slope, intercept = calibration(predicted, measured, times[None].astype(float))
    for gene in range(2):
        line = np.polyfit(np.repeat(predicted[:, gene], times), np.repeat(measured[:, gene], times), 1)
        np.testing.assert_allclose([slope[0, gene], intercept[0, gene]], line, rtol=1e-8)


def test_ks_distance_of_weights_is_that_of_repeated_cells() -> None:
    from expression_judge import ks_distance

    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 9, (50, 2)).astype(float), rng.integers(2, 12, (50, 2)).astype(float)  # many ties
    times = rng.integers(0, 4, 50)
    found = ks_distance(a, b, times[None].astype(float))[0]
    for gene in range(2):
        slow = ks_2samp(np.repeat(a[:, gene], times), np.repeat(b[:, gene], times), method="asymp").statistic
        assert found[gene] == pytest.approx(slow)
    np.testing.assert_allclose(ks_distance(a, a, np.ones((1, 50))), 0, atol=1e-12)


def test_dealt_patches_never_stay_with_their_cell() -> None:
    from expression_judge import deals

    for dealt in deals(17, 30, np.random.default_rng(0)):
        np.testing.assert_array_equal(np.sort(dealt), np.arange(17))
        assert (dealt != np.arange(17)).all()
    with pytest.raises(InputError, match="at least 2"):
        deals(1, 1, np.random.default_rng(0))


def test_scores_of_a_perfect_a_halved_and_a_foreign_prediction(resampling) -> None:
    from expression_judge import Scores, median_of

    rng = np.random.default_rng(2)
    measured = rng.normal(size=(200, 3))
    scores = Scores(measured, {"real": measured, "generated": measured / 2}, resampling, seed=0)
    r = {column: median_of(scores.per_gene(scores.r(column))) for column in ("real", "generated", "shuffled")}
    assert r["real"].value == pytest.approx(1)
    assert r["generated"].value == pytest.approx(1)
    assert abs(r["shuffled"].value) < 0.05
    assert r["generated"].minus(r["shuffled"]).interval()[0] > 0.8
    slope = median_of(scores.per_gene(scores.line("generated", 0)))
    assert slope.value == pytest.approx(2)  # half the spread: measured rises twice as fast
    assert 0.1 < median_of(scores.per_gene(scores.likeness)).value < 0.9


def test_no_patch_of_a_fold_shares_a_pixel_with_a_training_patch() -> None:
    from expression_network import fold_rows

    grid = np.stack(np.meshgrid(np.arange(0, 4096, 64.0), np.arange(0, 2048, 64.0)), -1).reshape(-1, 2)
    centre_um, slide = np.concatenate([grid, grid]), np.repeat([0, 1], len(grid))
    held_of_all = []
    for train, held in fold_rows(centre_um, slide, 128.0, 3, np.random.default_rng(0)):
        apart = np.abs(centre_um[train][:, None] - centre_um[held][None]).max(-1)
        assert apart[slide[train][:, None] == slide[held][None]].min() >= 128
        held_of_all.append(held)
    np.testing.assert_array_equal(np.sort(np.concatenate(held_of_all)), np.arange(len(centre_um)))


def test_pooled_expression_adds_the_counts_of_near_cells(tiny_paired) -> None:
    from expression_network import pooled_expression

    rows, genes = tiny_paired.rows("train")[:5], np.array([0, 3, 7])
    centre_um = tiny_paired.centre_xy_px * tiny_paired.um_per_px
    found = pooled_expression(tiny_paired, rows, genes, 40.0)
    counts = tiny_paired.counts(np.arange(len(tiny_paired))).toarray().astype(float)
    for row, values in zip(rows, found, strict=True):
        near = (np.linalg.norm(centre_um - centre_um[row], axis=1) <= 40) & (
            tiny_paired.slide_of_cell == tiny_paired.slide_of_cell[row]
        )
        pooled = counts[near].sum(0)
        np.testing.assert_allclose(values, np.log1p(pooled[genes] * 1e4 / pooled.sum()), rtol=1e-5)
    own = counts[rows]
    np.testing.assert_allclose(
        pooled_expression(tiny_paired, rows, genes, 0.0),
        np.log1p(own[:, genes] * 1e4 / np.maximum(own.sum(1, keepdims=True), 1)),
        rtol=1e-5,
    )


def test_the_network_learns_a_gene_of_the_centre_and_no_noise() -> None:
    from expression_network import Ensemble, train_network

    rng = np.random.default_rng(0)
    level, noise = rng.uniform(-1, 1, 300), rng.normal(size=300)
    images = rng.integers(150, 220, (300, 32, 32, 3)).astype(np.uint8)
    images[:, 8:24, 8:24, 0] = (150 + 70 * level).astype(np.uint8)[:, None, None]
    truth = np.stack([level / level.std(), noise], 1).astype(np.float32)
    types = (level > 0).astype(np.int64)
    network = train_network(images[:200], truth[:200], types[:200], 2, steps=40, seed=0)
    one = {"genes": np.arange(2), "gene_type": np.arange(2), "held_out_r_G": np.array([0.9, 0.0])}
    fitted = Ensemble(networks=[network], mean_G=np.zeros(2), sd_G=np.ones(2), pool_um=0, fingerprint="", **one)
    expression, probability = fitted.predict(images[200:])
    assert np.corrcoef(expression[:, 0], level[200:])[0, 1] > 0.8
    assert abs(np.corrcoef(expression[:, 1], noise[200:])[0, 1]) < 0.35
    assert (probability.argmax(1) == types[200:]).mean() > 0.7
    np.testing.assert_array_equal(fitted.best_genes(2), [0])
    again = train_network(images[:200], truth[:200], types[:200], 2, steps=2, seed=5)
    same = train_network(images[:200], truth[:200], types[:200], 2, steps=2, seed=5)
    assert all((a == b).all() for a, b in zip(again.state_dict().values(), same.state_dict().values(), strict=True))


def test_random_sets_match_the_expression_of_the_signature_and_hold_no_marker() -> None:
    from edit_controls import matched_sets

    mean = np.exp(np.random.default_rng(0).normal(-3, 1.5, 4000))
    genes, excluded = np.arange(0, 300, 10), np.arange(0, 500)
    sets = matched_sets(mean, genes, excluded, 10, np.random.default_rng(1))
    assert sets.shape == (10, 30)
    assert not np.isin(sets, excluded).any()
    assert all(len(np.unique(one)) == 30 for one in sets)
    assert len(np.unique(sets)) > 100  # different sets
    ordinary = mean[genes] < np.quantile(mean, 0.95)
    np.testing.assert_allclose(
        np.log(mean[sets])[:, ordinary], np.log(mean[genes])[None, ordinary].repeat(10, 0), atol=0.3
    )
    with pytest.raises(InputError, match="fewer --genes"):
        matched_sets(mean[:520], genes, excluded, 10, np.random.default_rng(1))


def test_an_edit_counts_only_where_it_beats_every_control(resampling) -> None:
    from edit_controls import beyond_other, beyond_random, verdict_of

    rng = np.random.default_rng(3)

    def verdict(effect: float, random: float, other: float, reverse: float):
        noise = rng.normal(0, 0.3, (13, 200))
        own, sets = effect + noise[0], random + 0.1 * rng.normal(size=(10, 1)) + noise[1:11]
        others = {"weak": noise[11] - 1, "strong": other + noise[11]}
        return verdict_of(
            resampling.mean(own),
            sets.mean(1),
            beyond_random(own, sets, resampling, np.random.default_rng(0)),
            beyond_other(own, others, resampling),
            resampling.mean(reverse + noise[12]),
        )

    good = verdict(1.0, 0.2, 0.3, -0.5)
    assert good.text == "**yes**"
    assert good.other[0] == "strong"
    assert good.beyond_random.value == pytest.approx(0.8, abs=0.15)
    low, high = good.beyond_random.interval()
    assert low < 0.8 + 0.15
    assert high - low > 0.05  # sets add to the width
    assert verdict(1.0, 1.0, 0.3, -0.5).lost_to == ("random sets",)
    assert verdict(1.0, 0.2, 1.2, -0.5).lost_to == ("other signature",)
    assert verdict(1.0, 0.2, 0.3, 0.0).lost_to == ("reverse",)
    assert verdict(0.0, 0.0, 0.3, 0.2).lost_to == ("random sets", "other signature", "reverse")


def test_control_sets_get_the_counts_of_the_signature() -> None:
    from edits import Signature, addition, removal

    low, high = np.array([1.0, 0.0, 2.0, 0.0, 0.0, 5.0]), np.array([1.0, 3.0, 2.0, 1.0, 0.0, 0.0])
    signature = Signature.of(low, high, 2)
    assert set(signature.genes) == {1, 3}
    np.testing.assert_allclose(sorted(signature.rate_S), [1, 3])
    counts = csr_array(np.random.default_rng(0).poisson(1.0, (50, 6)).astype(np.float32))
    own = addition(signature.genes, signature.rate_S)(counts).toarray() - counts.toarray()
    other = addition(np.array([4, 5]), signature.rate_S)(counts).toarray() - counts.toarray()
    np.testing.assert_array_equal(own[:, signature.genes], other[:, [4, 5]])
    assert own[:, 1].mean() == pytest.approx(3, abs=0.8)
    assert own[:, [0, 2, 4, 5]].sum() == 0
    removed = removal(signature.genes)(counts).toarray()
    assert removed[:, [1, 3]].sum() == 0
    np.testing.assert_array_equal(removed[:, [0, 2, 4, 5]], counts.toarray()[:, [0, 2, 4, 5]])


def test_only_the_cells_of_a_mask_are_edited_and_get_the_same_counts() -> None:
    from edits import addition, removal

    inside, genes, rate = np.arange(50) % 3 == 0, np.array([1, 3]), np.array([3.0, 1.0])
    counts = csr_array(np.random.default_rng(0).poisson(1.0, (50, 6)).astype(np.float32))
    every, some = (addition(genes, rate, mask)(counts).toarray() for mask in (None, inside))
    np.testing.assert_array_equal(some[inside], every[inside])
    np.testing.assert_array_equal(some[~inside], counts.toarray()[~inside])
    removed = removal(genes, inside)(counts).toarray()
    assert removed[inside][:, genes].sum() == 0
    np.testing.assert_array_equal(removed[~inside], counts.toarray()[~inside])


def test_unit_of_an_edit_is_unknown_where_real_cells_hardly_differ() -> None:
    from cell_edits import step_of

    rng = np.random.default_rng(0)
    start = rng.normal(size=(400, 2))
    target = rng.normal([2.0, 0.1], size=(300, 2))
    step = step_of(target, start)
    assert step[0] == pytest.approx(2.0, abs=0.25)
    assert np.isnan(step[1])
    assert np.isnan(step_of(start, target)).all()  # less of it in the target: no way to go


def test_useful_generated_patches_help_few_real_ones_and_mislabelled_ones_do_not(resampling) -> None:
    from utility import Labelled, Trials

    rng = np.random.default_rng(0)
    weights = rng.normal(size=(12, 3))

    def patches(n: int, mislabelled: bool = False) -> Labelled:
        features, truth = rng.normal(size=(n, 12)).astype(np.float32), None
        truth = features @ weights + 0.5 * rng.normal(size=(n, 3))
        order = rng.permutation(n) if mislabelled else np.arange(n)
        return Labelled(features_CND=features[None], expression_NG=truth[order], type_N=truth.argmax(1)[order])

    real, val, test = patches(500), patches(200), patches(200)
    good = Trials(real, patches(400), val, test, resampling, 3)
    bad = Trials(real, patches(400, mislabelled=True), val, test, resampling, 3)
    assert good.n_of(0.01) == 5
    assert good.n_of(1.0) == 400
    few, all_real = good.score(0.01, False, False), good.score(1.0, False, False)
    helped, alone, spoilt = good.score(0.01, True, False), good.score(0.0, True, False), bad.score(0.0, True, False)
    for i in range(2):
        assert all_real[i].minus(few[i]).interval()[0] > 0
        assert helped[i].minus(few[i]).interval()[0] > 0
        assert alone[i].value == pytest.approx(all_real[i].value, abs=0.05)
        assert spoilt[i].interval()[1] < alone[i].interval()[0]


def test_seeds_widen_the_interval(resampling) -> None:
    from utility import over_seeds

    replicates = np.zeros((4, 300))
    same = over_seeds(np.zeros(4), replicates, resampling)
    assert same.interval() == (0, 0)
    offsets = np.array([-1.0, 1.0, -1.0, 1.0])
    low, high = over_seeds(offsets, replicates + offsets[:, None], resampling).interval()
    assert low < -0.4
    assert high > 0.4
