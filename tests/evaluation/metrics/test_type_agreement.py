"""Macro-F1 against scikit-learn, and the classifier on separable types."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from sge2hist.evaluation.metrics import type_agreement as agreement


def test_macro_f1_equals_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 4, 300), rng.integers(0, 4, 300)
    ours = agreement.macro_f1(truth, predicted, np.ones((1, 300)))[0]
    assert ours == pytest.approx(f1_score(truth, predicted, average="macro"))


def test_weights_count_like_repeated_cells() -> None:
    rng = np.random.default_rng(1)
    truth, predicted, weights = rng.integers(0, 3, 50), rng.integers(0, 3, 50), rng.integers(1, 4, 50)
    again = f1_score(np.repeat(truth, weights), np.repeat(predicted, weights), average="macro")
    assert agreement.macro_f1(truth, predicted, weights[None].astype(float))[0] == pytest.approx(again)


def test_cells_of_unknown_type_do_not_count() -> None:
    truth, predicted = np.array([0, 0, 1, 1, -1, -1]), np.array([0, 0, 1, 1, 0, 1])
    assert agreement.macro_f1(truth, predicted, np.ones((1, 6)))[0] == 1.0


@pytest.mark.parametrize("n_types", [2, 4])
def test_classifier_learns_separable_types(n_types: int) -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, n_types, 300)
    features = (np.eye(n_types)[labels] * 6 + rng.normal(size=(300, n_types))).astype(np.float32)
    model = agreement.fit_type_classifier(features[:200], labels[:200], features[200:], labels[200:])
    assert model is not None
    assert (model.predict(features[200:]) == labels[200:]).mean() > 0.97


def test_one_type_gives_no_classifier() -> None:
    assert agreement.fit_type_classifier(np.zeros((9, 2)), np.zeros(9, int), np.zeros((2, 2)), np.zeros(2, int)) is None
