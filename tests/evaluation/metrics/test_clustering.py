import numpy as np
import pytest
from scipy.sparse import csr_array

from sge2hist.evaluation.metrics import clustering as latent


def test_accuracy_under_the_best_matching() -> None:
    truth = np.array([0, 0, 0, 1, 1, 2])
    assert latent.matched_accuracy(truth, np.array([7, 7, 7, 3, 3, 5])) == 1.0
    assert latent.matched_accuracy(truth, np.array([1, 1, 0, 0, 0, 0])) == pytest.approx(4 / 6)
    assert latent.matched_accuracy(truth, np.zeros(6)) == pytest.approx(3 / 6)


def test_more_clusters_than_types_cannot_all_count() -> None:
    assert latent.matched_accuracy(np.zeros(10), np.arange(10)) == pytest.approx(0.1)


def test_agreement_is_one_for_renamed_clusters_and_nought_for_chance() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 2000)
    assert latent.agreement(truth, (truth + 1) % 4) == {"acc": 1.0, "nmi": pytest.approx(1.0), "ari": 1.0}
    chance = latent.agreement(truth, rng.integers(0, 4, 2000))
    assert abs(chance["ari"]) < 0.01
    assert chance["nmi"] < 0.01


def test_active_units_count_dimensions_that_vary() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(size=(500, 6)) * np.array([1, 0.5, 0.2, 0.05, 0.01, 0])
    assert latent.active_units(values) == 3


def test_probes_tell_informative_from_empty_latents() -> None:
    rng = np.random.default_rng(3)
    types = rng.integers(0, 3, 300)
    informative, empty = np.eye(3)[types] + 0.1 * rng.normal(size=(300, 3)), rng.normal(size=(300, 3))
    folds = latent.cross_validation_folds(np.arange(300) // 10, rng)
    assert latent.type_probe(informative, types, folds) > 0.95
    assert latent.type_probe(empty, types, folds) == pytest.approx(1 / 3, abs=0.12)
    assert latent.neighbourhood_probe(informative, np.eye(3)[types], folds) > 0.8
    assert latent.neighbourhood_probe(empty, np.eye(3)[types], folds) < 0.05


def test_neighbourhoods_exclude_the_cell_itself_and_other_slides() -> None:
    centre = np.array([[0.0, 0], [1, 0], [2, 0], [0.5, 0]])
    slide, types = np.array([0, 0, 0, 1]), np.array([0, 1, 1, 2])
    found = latent.neighbourhood_composition(np.array([0, 1]), centre, slide, types, 3, k=1)
    assert found[0].tolist() == [0, 1, 0]
    found = latent.neighbourhood_composition(np.array([1]), centre, slide, types, 3, k=2)
    assert found[0].tolist() == [0.5, 0.5, 0]


def test_report_and_its_refusal() -> None:
    rng = np.random.default_rng(4)
    types = rng.integers(0, 3, 200)
    counts = csr_array(rng.poisson(np.where(np.arange(12)[None] % 3 == types[:, None], 20, 2)).astype(np.int32))
    z1, composition = np.eye(3)[types] * 3 + 0.3 * rng.normal(size=(200, 3)), np.eye(3)[types]
    names = np.array(["a", "b", "a or c"], object)[types]  # as good as the types, by other names
    found = latent.latent_report(z1, None, names, counts, types, composition, np.arange(200) // 20, rng)
    assert found["z1"]["clustering"]["acc"]["value"] > 0.95
    assert len(found["z1"]["clustering"]["ari"]["seeds"]) == 5
    assert found["leiden_on_pca"]["nmi"]["value"] > 0.5
    assert found["mixture"]["acc"]["value"] == found["mixture"]["nmi"]["value"] == 1.0
    assert "z2" not in found
    unknown = latent.latent_report(z1, None, None, counts, np.full(200, -1), composition, np.arange(200), rng)
    assert "0 cells of known type" in unknown["skipped"]
