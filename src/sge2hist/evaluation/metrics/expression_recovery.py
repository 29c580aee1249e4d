"""Right genes? Expression predicted from the image, compared with the measured expression of the cell.

Ridge regression from standardised image features to `log1p(counts per 10,000)`, fitted on real training patches; the
penalty and the best-predicted genes
are chosen on real validation patches. On evaluated cells, Pearson's correlation over cells between prediction and
*measured* expression,
per gene; median over the 50 and the 500 best genes; and the ratio of generated to real images.

Shape letters: N cells, D features, G genes, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import linalg
from scipy.sparse import csr_array

from sge2hist.data.errors import InputError
from sge2hist.evaluation.resampling import Estimate, Resampling, finite_median

PENALTIES = (0.1, 1.0, 10.0, 100.0, 1000.0)
BEST_GENES = (50, 500)
COUNTS_PER = 1e4
MIN_TRAIN_CELLS, MIN_VAL_CELLS = 20, 2


def log_normalised(counts_NG: csr_array, genes: np.ndarray) -> np.ndarray:
    """Return float32 [N, len(genes)]: `log1p(10^4 counts / total)`; zero for empty cells."""
    total = np.asarray(counts_NG.sum(axis=1), np.float64).ravel()
    chosen = counts_NG[:, genes].toarray().astype(np.float64)
    return np.log1p(chosen * (COUNTS_PER / np.maximum(total, 1))[:, None]).astype(np.float32)


def frequent_genes(counts_NG: csr_array, n_genes: int) -> np.ndarray:
    """Return the columns with the highest mean counts (at least one count), at most `n_genes`."""
    mean = np.asarray(counts_NG.sum(axis=0), np.float64).ravel()
    order = np.argsort(-mean, kind="stable")[:n_genes]
    return np.sort(order[mean[order] > 0])


@dataclass(frozen=True, kw_only=True)
class ExpressionHead:
    """A fitted ridge: expression = scaled features @ weights_DG + offsets_G. `order_G` ranks genes by validation
    correlation, best first.
    """

    mean_D: np.ndarray
    scale_D: np.ndarray
    weights_DG: np.ndarray
    offsets_G: np.ndarray
    order_G: np.ndarray
    penalty: float

    def predict(self, features_ND: np.ndarray) -> np.ndarray:
        """Return float32 [N, G]."""
        return ((features_ND - self.mean_D) / self.scale_D) @ self.weights_DG + self.offsets_G


def fit_expression_head(
    train_ND: np.ndarray, expression_train_NG: np.ndarray, val_ND: np.ndarray, expression_val_NG: np.ndarray
) -> ExpressionHead:
    """Return the ridge whose penalty gives the best median validation correlation over the best 500 genes.

    Raises
    ------
    InputError
        If there are fewer than 20 training or 2 validation cells.
    """
    if len(train_ND) < MIN_TRAIN_CELLS or len(val_ND) < MIN_VAL_CELLS:
        raise InputError(
            found=f"{len(train_ND)} training and {len(val_ND)} validation cells",
            where="the paired dataset",
            expected=f"at least {MIN_TRAIN_CELLS} and {MIN_VAL_CELLS}, which the reference models are fitted to and chosen on",
            repair="prepare with other --fractions or a smaller --split-block-um",
        )
    mean, scale = train_ND.mean(axis=0), train_ND.std(axis=0) + 1e-6
    scaled = ((train_ND - mean) / scale).astype(np.float64)
    offsets = expression_train_NG.mean(axis=0)
    values, vectors = linalg.eigh(scaled.T @ scaled / len(scaled))
    right = vectors.T @ (scaled.T @ (expression_train_NG - offsets) / len(scaled))
    best: tuple[float, ExpressionHead] | None = None
    for penalty in PENALTIES:
        weights = vectors @ (right / (np.maximum(values, 0) + penalty)[:, None])
        head = ExpressionHead(
            mean_D=mean,
            scale_D=scale,
            weights_DG=weights.astype(np.float32),
            offsets_G=offsets,
            order_G=np.arange(len(offsets)),
            penalty=penalty,
        )
        r = gene_correlations(head.predict(val_ND), expression_val_NG, np.ones((1, len(val_ND))))[0]
        order = np.argsort(-np.nan_to_num(r, nan=-2.0), kind="stable")
        score = float(np.nan_to_num(finite_median(r[order[: BEST_GENES[-1]]]), nan=-1.0))
        if best is None or score > best[0]:
            best = (score, ExpressionHead(**{**vars(head), "order_G": order}))
    if best is None:
        raise ValueError("no penalty was tried")
    return best[1]


def gene_correlations(predicted_NG: np.ndarray, measured_NG: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """Return [R, G] weighted Pearson correlations over cells; nan for a gene that is constant in either."""
    x, y = (values.astype(np.float64) - values.mean(axis=0, dtype=np.float64) for values in (predicted_NG, measured_NG))
    w = weights_RN / weights_RN.sum(axis=1, keepdims=True)
    mean_x, mean_y = w @ x, w @ y
    covariance = w @ (x * y) - mean_x * mean_y
    var_x, var_y = w @ x**2 - mean_x**2, w @ y**2 - mean_y**2
    tiny = 1e-12
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where((var_x > tiny) & (var_y > tiny), covariance / np.sqrt(var_x * var_y), np.nan)


def recovery_estimates(
    predicted_NG: np.ndarray, measured_NG: np.ndarray, order_G: np.ndarray, resampling: Resampling
) -> dict[int, Estimate]:
    """Return the median correlation over the 50 and the 500 best genes. A constant prediction (nan) counts as 0: it
    recovers nothing.
    """
    best = order_G[: BEST_GENES[-1]]
    predicted_NG, measured_NG = predicted_NG[:, best], measured_NG[:, best]

    def median(n_genes: int) -> Callable[[np.ndarray], np.ndarray]:
        def statistic(weights_RN: np.ndarray) -> np.ndarray:
            r = gene_correlations(predicted_NG[:, :n_genes], measured_NG[:, :n_genes], weights_RN)
            return np.median(np.nan_to_num(r, nan=0.0), axis=1)

        return statistic

    return {n: resampling.bootstrap(median(n)) for n in BEST_GENES}
