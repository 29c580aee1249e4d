"""Right type? A classifier trained on real training patches predicts the type of each generated patch.

Multinomial logistic regression on standardised features, classes weighted to equal total weight, penalty chosen on
validation cells. Macro-F1 over the types that occur among the evaluated cells; `normalised = (F1_generated - chance) /
(F1_real - chance)`, where chance is the macro-F1 of the same predictions on real patches with the cells' labels
permuted.

Shape letters: N cells, D features, R resamples, T types.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sge2hist.evaluation.resampling import Estimate, Resampling

STRENGTHS = (0.00001, 0.0001, 0.001, 0.01)


@dataclass(frozen=True, kw_only=True)
class TypeClassifier:
    """A fitted linear classifier: weights [D, T], offsets [T] on features scaled by mean and SD [D] of the training
    patches.
    """

    mean_D: np.ndarray
    scale_D: np.ndarray
    weights_DT: np.ndarray
    offsets_T: np.ndarray
    classes_T: np.ndarray

    def predict(self, features_ND: np.ndarray) -> np.ndarray:
        """Return the type index of each image, int64 [N]."""
        scores = ((features_ND - self.mean_D) / self.scale_D) @ self.weights_DT + self.offsets_T
        return self.classes_T[np.argmax(scores, axis=1)]


def fit_type_classifier(
    train_ND: np.ndarray, type_train_N: np.ndarray, val_ND: np.ndarray, type_val_N: np.ndarray, seed: int = 0
) -> TypeClassifier | None:
    """Return the classifier with the best macro-F1 on validation cells; None with fewer than two types (cells of
    unknown type, -1, are ignored).
    """
    from sklearn.linear_model import LogisticRegression

    known = type_train_N >= 0
    features, labels = train_ND[known], type_train_N[known]
    if len(np.unique(labels)) < 2:
        return None
    mean, scale = features.mean(axis=0), features.std(axis=0) + 1e-6
    scaled = (features - mean) / scale
    best: tuple[float, TypeClassifier] | None = None
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, class_weight="balanced", max_iter=300, tol=1e-3, random_state=seed)
        # Iterations are capped: a slightly unconverged classifier is still one fixed classifier for all sets.
        fit_quietly(model, scaled, labels)
        weights, offsets = one_row_per_class(model.coef_, model.intercept_)
        fitted = TypeClassifier(
            mean_D=mean,
            scale_D=scale,
            weights_DT=weights.T.astype(np.float32),
            offsets_T=offsets.astype(np.float32),
            classes_T=model.classes_,
        )
        score = macro_f1(type_val_N, fitted.predict(val_ND), np.ones((1, len(val_ND))))[0] if len(val_ND) else 0.0
        if best is None or score > best[0]:
            best = (score, fitted)
    return None if best is None else best[1]


def fit_quietly(model: object, features_ND: np.ndarray, labels_N: np.ndarray) -> None:
    """Fit a scikit-learn model without its warning about the cap on iterations."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features_ND, labels_N)  # type: ignore[attr-defined]


def one_row_per_class(coefficients: np.ndarray, intercepts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return one row per class (scikit-learn keeps a single row for two classes)."""
    if len(coefficients) > 1:
        return coefficients, intercepts
    return np.vstack([-coefficients, coefficients]) / 2, np.concatenate([-intercepts, intercepts]) / 2


def macro_f1(truth_N: np.ndarray, predicted_N: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """Return [R] macro-F1 over the types that occur in the truth; cells of unknown type (-1) are ignored."""
    per_type = f1_per_type(truth_N, predicted_N, weights_RN)
    with np.errstate(invalid="ignore"):
        return np.nansum(per_type, axis=1) / np.maximum(np.isfinite(per_type).sum(axis=1), 1)


def f1_per_type(truth_N: np.ndarray, predicted_N: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """Return [R, T] F1 = 2 TP / (2 TP + FP + FN) of each type in the truth; nan where the resample holds none."""
    types = np.unique(truth_N[truth_N >= 0])
    known = truth_N >= 0
    actual = ((truth_N[:, None] == types) & known[:, None]).astype(np.float64)
    predicted = ((predicted_N[:, None] == types) & known[:, None]).astype(np.float64)
    hit, real, n_predicted = weights_RN @ (actual * predicted), weights_RN @ actual, weights_RN @ predicted
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(real > 0, 2 * hit / (real + n_predicted), np.nan)


def f1_estimate(truth_N: np.ndarray, predicted_N: np.ndarray, resampling: Resampling) -> Estimate:
    """Return macro-F1 with a block-bootstrap interval."""
    return resampling.bootstrap(
        lambda weights_RN: macro_f1(truth_N, predicted_N, weights_RN), int((truth_N >= 0).sum())
    )


def normalised(generated: Estimate, real: Estimate, chance: Estimate) -> Estimate:
    """Return `(F1_generated - chance) / (F1_real - chance)`: 0 is chance, 1 is what real patches reach."""
    return generated.minus(chance).combined(real.minus(chance), safe_ratio)


def safe_ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Return the ratio; nan where the denominator is not positive."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(below > 1e-9, above / below, np.nan)
