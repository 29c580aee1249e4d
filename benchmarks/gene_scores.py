"""Scores of the gene model benchmark."""

from __future__ import annotations

import numpy as np
from gene_methods import Fitted, log_normalised
from gene_sets import GeneSet
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.stats import nbinom
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sge2hist.models.gene.encode import component_posterior
from sge2hist.models.gene.vae import GeneVAE
from sge2hist.training.gene.data import GeneData, encode_data

PANEL_SHARES = (1.0, 0.5, 0.2, 0.1, 0.02)


def clustering(type_N: np.ndarray, cluster_N: np.ndarray) -> dict[str, float]:
    """ACC (best one-to-one matching), NMI, ARI of the labelled cells."""
    known = type_N >= 0
    label, cluster = type_N[known], cluster_N[known]
    table = np.zeros((label.max() + 1, cluster.max() + 1))
    np.add.at(table, (label, cluster), 1)
    row, column = linear_sum_assignment(-table)
    return {
        "acc": float(table[row, column].sum() / len(label)),
        "nmi": float(normalized_mutual_info_score(label, cluster)),
        "ari": float(adjusted_rand_score(label, cluster)),
    }


def deepest_quarter(test: GeneData, cluster_N: np.ndarray) -> dict[str, float]:
    """The same of the quarter of the labelled cells that have the most counts: there labels and clusters are surest."""
    depth_N = np.asarray(test.read(np.arange(test.n_cells)).sum(1)).ravel()
    deep_N = depth_N >= np.quantile(depth_N[test.type_N >= 0], 0.75)
    return {f"{name}_deepest": value for name, value in clustering(test.type_N[deep_N], cluster_N[deep_N]).items()}


def thinned(counts: csr_array, seed: int = 0) -> tuple[csr_array, csr_array]:
    """Split every count at random into two halves: one to encode, one to be predicted."""
    first, second = counts.copy(), counts.copy()
    first.data = np.random.default_rng(seed).binomial(counts.data.astype(int), 0.5).astype(np.float32)
    second.data = counts.data - first.data
    return first, second


def prediction(data: GeneSet, fitted: Fitted, max_cells: int = 3000) -> dict[str, float]:
    """Log-likelihood per held-out count (nats) and mean Pearson correlation of log expression, on thinned test cells."""
    rows = np.arange(min(max_cells, data.test.n_cells))
    seen, held_out = thinned(data.test.read(rows))
    predicted = np.clip(fitted.proportions(seen), 1e-9, None)
    predicted /= predicted.sum(1, keepdims=True)
    truth = held_out.toarray()
    scale = float(np.median(truth.sum(1)))
    measured = log_normalised(held_out, scale)
    expected = np.log1p(predicted * scale)
    if fitted.theta_G is not None:  # what a count model expects of a logarithm; others predict the logarithm itself
        expected = mean_log1p(predicted * scale, fitted.theta_G)
    if fitted.zeros is not None:
        expected = expected * (1 - fitted.zeros(seen))
    centred = [x - x.mean(1, keepdims=True) for x in (measured, expected)]
    norms = np.sqrt((centred[0] ** 2).sum(1) * (centred[1] ** 2).sum(1))
    correlation = (centred[0] * centred[1]).sum(1)[norms > 0] / norms[norms > 0]
    return {
        "log_likelihood_per_count": float((truth * np.log(predicted)).sum() / truth.sum()),
        "reconstruction_r": float(correlation.mean()),
    }


def mean_log1p(mean_NG: np.ndarray, theta_G: np.ndarray, largest: int = 100) -> np.ndarray:
    """E log(1 + x) of negative binomial x of these means and inverse dispersions, [N, G]; larger x count as `largest`."""
    success_NG = theta_G / (theta_G + mean_NG)
    steps = range(1, largest + 1)  # log(1 + x) = sum over k <= x of log(1 + 1 / k)
    return sum((nbinom.sf(k - 1, theta_G, success_NG) * np.log1p(1 / k) for k in steps), np.zeros_like(mean_NG))


def panel_robustness(data: GeneSet, model: GeneVAE, seed: int) -> dict[str, float]:
    """Type accuracy of labelled test cells with a random part of the genes; components named on train cells."""
    train_N = component_posterior(model, encode_data(model, data.train)).argmax(1)
    votes = np.zeros((model.mixture.n_components, max(1, len(data.train.type_names))))
    labelled = data.train.type_N >= 0
    np.add.at(votes, (train_N[labelled], data.train.type_N[labelled]), 1)
    known = data.test.type_N >= 0
    result = {}
    for share in PANEL_SHARES:
        observed = np.zeros(data.test.n_genes, bool)
        n_observed = max(1, round(share * data.test.n_genes))
        observed[np.random.default_rng(seed).permutation(data.test.n_genes)[:n_observed]] = True
        found = component_posterior(model, encode_data(model, data.test, observed_G=observed)).argmax(1)
        result[f"type_acc_{share:.0%}_genes"] = float((votes.argmax(1)[found] == data.test.type_N)[known].mean())
    return result


def probes(data: GeneSet, model: GeneVAE, max_cells: int = 5000, seed: int = 0) -> dict[str, float]:
    """Linear probes: type (balanced accuracy) and neighbourhood composition (R2, raw and within type) from z1 and z2.

    Two references without a latent: the neighbourhood itself (mean expression of the neighbours, as z2 reads it),
    which predicts a part of the type in any tissue that is not mixed at random, and the type, which predicts a part of the
    composition.
    """
    train, test = encode_data(model, data.train), encode_data(model, data.test)
    fit_on = np.random.default_rng(seed).permutation(np.flatnonzero(data.train.type_N >= 0))[:max_cells]
    known = np.flatnonzero(data.test.type_N >= 0)
    read = {block: (getattr(train, block)[fit_on], getattr(test, block)[known]) for block in ("z1", "z2")}
    if data.train.neighbour_NA is not None and data.test.neighbour_NA is not None:
        read["neighbourhood"] = data.train.neighbour_NA[fit_on], data.test.neighbour_NA[known]
    result = {"type_chance": 1.0 / data.n_types}
    types = data.train.type_N[fit_on], data.test.type_N[known]
    for source, inputs in read.items():
        result[f"type_from_{source}"] = _told_class(inputs, types)
    own = [component_posterior(model, found).argmax(1) for part, found in ((data.train, train), (data.test, test))]
    result["components_used"] = float(len(np.unique(own[0])))
    if result["components_used"] > 1:  # else the mixture has collapsed, and there is nothing to score
        result["component_from_z2"] = _told_class(read["z2"], (own[0][fit_on], own[1][known]))
        result["component_chance"] = 1.0 / model.mixture.n_components
    if data.train.centre_um_N2 is None:
        return result
    n_types = len(data.train.type_names)
    read["z1_and_z2"] = train.mean_NZ[fit_on], test.mean_NZ[known]
    read["type"] = np.eye(n_types)[types[0]], np.eye(n_types)[types[1]]
    around = [composition(part, n_types) for part in (data.train, data.test)]
    means = np.stack([around[0][data.train.type_N == k].mean(0) for k in range(n_types)])
    inside = [a - means[part.type_N] for a, part in zip(around, (data.train, data.test), strict=True)]
    for name, (fit_target, target) in {"composition": around, "composition_within_type": inside}.items():
        for source, inputs in read.items():
            result[f"{name}_from_{source}"] = _explained(inputs, (fit_target[fit_on], target[known]))
    return result


def _told_class(inputs: tuple[np.ndarray, np.ndarray], classes: tuple[np.ndarray, np.ndarray]) -> float:
    """Balanced accuracy on test cells of a logistic regression fitted on train cells; (train, test) each."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, class_weight="balanced"))
    return balanced_accuracy(classes[1], probe.fit(inputs[0], classes[0]).predict(inputs[1]))


def _explained(inputs: tuple[np.ndarray, np.ndarray], targets: tuple[np.ndarray, np.ndarray]) -> float:
    """R2 on test cells, of all columns together, of a ridge regression fitted on train cells; (train, test) each."""
    guess = make_pipeline(StandardScaler(), Ridge(10.0)).fit(inputs[0], targets[0]).predict(inputs[1])
    return float(1 - ((guess - targets[1]) ** 2).sum() / ((targets[1] - targets[1].mean(0)) ** 2).sum())


def balanced_accuracy(truth_N: np.ndarray, guess_N: np.ndarray) -> float:
    """Mean over classes of the share of their cells that are found."""
    return float(np.mean([(guess_N[truth_N == k] == k).mean() for k in np.unique(truth_N)]))


def composition(data: GeneData, n_types: int, radius_um: float = 50.0) -> np.ndarray:
    """Share of each type among the labelled neighbours, [N, n_types]."""
    index = data.index
    if index is None:
        raise ValueError("positions are needed")
    one_hot = np.zeros((data.n_cells, n_types))
    known = np.flatnonzero(data.type_N >= 0)
    one_hot[known, data.type_N[known]] = 1
    share = index.neighbour_weights(np.arange(data.n_cells), radius_um) @ one_hot
    return share / np.maximum(share.sum(1, keepdims=True), 1e-9)
