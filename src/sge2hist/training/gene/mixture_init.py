"""Start of the mixture prior: mixtures fitted to the pre-trained posteriors of z1, the best on held-out cells, pruned."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch

from sge2hist.data.errors import InputError
from sge2hist.models.gene.encode import EncodedCells, type_posterior
from sge2hist.models.gene.vae import GeneVAE
from sge2hist.training.gene.data import GeneData, encode_data
from sge2hist.training.gene.mixture_em import PosteriorMixture, fit_mixture, maximise

MAX_FIT_CELLS = 20_000
CELLS_PER_COMPONENT = 20  # at least, on average: components of a handful of cells come and go with the start
MIN_LABELLED = 0.1  # share of labelled cells from which on labels start the mixture
MIN_STARTS, MAX_STARTS, STARTED_CELLS = 5, 60, 30_000
"""Starts of a mixture, and cells of all starts together: few cells need more starts, and cost less."""


class CollapseError(InputError):
    """The latent space holds nothing a mixture could be fitted to."""


@dataclass(frozen=True, kw_only=True)
class MixtureReport:
    """What the initialisation found."""

    n_fitted: int  # components fitted
    n_kept: int  # components left after pruning
    held_out_bound: float  # -KL(q(z1, c) || p(z1, c)) of held-out cells, nats per cell, best restart
    restarts: tuple[float, ...]  # the same of every restart
    occupancy_K: np.ndarray  # share of cells per kept component, decreasing
    active_units_z1: int
    active_units_z2: int


def init_mixture(
    model: GeneVAE,
    data: GeneData,
    seed: int,
    *,
    n_restarts: int | None = None,
    min_occupancy: float = 0.005,
    use_labels: bool = True,
) -> MixtureReport:
    """Fit the mixture to z1 of the training cells and copy it into ``model.mixture``.

    Labels, when at least one cell in ten carries one, give each type its own components (several for a large type), which
    its labelled cells alone may take, besides spare ones for what is not labelled; otherwise several k-means starts
    compete by their bound on held-out cells. Components with fewer than `min_occupancy` of the cells are dropped.
    Bins that the model pools (`pool_um`) are grouped by their pooled posteriors; each component then has the mean and the
    variance of the single bins of its group.

    Raises
    ------
    CollapseError
        If fewer than two dims of z1 vary between cells; the message names what to change.
    """
    rng = np.random.default_rng([seed, 11])
    rows = np.sort(rng.permutation(data.n_cells)[:MAX_FIT_CELLS])
    pooled = bool(model.config.pool_um) and data.centre_um_N2 is not None
    encoded, cells = _posteriors(model, data, rows, pooled)
    check_collapse(encoded)
    type_N = data.type_N[rows]
    labelled = use_labels and (type_N >= 0).mean() >= MIN_LABELLED
    n_components = min(model.config.n_components, max(1, len(rows) // CELLS_PER_COMPONENT))
    owner_K, allowed_NK = np.full(n_components, -1), None
    if labelled:
        start_KT, owner_K = _label_starts(encoded.z1, type_N, n_components, rng)
        own_NK = type_N[:, None] == owner_K
        allowed_NK = own_NK | (type_N < 0)[:, None] | ~own_NK.any(1, keepdims=True)
        mixture = fit_mixture(*cells, start_KT, allowed_NK=allowed_NK)
        bounds = [mixture.bound(*cells, allowed_NK)]
    else:
        n_starts = n_restarts or int(np.clip(STARTED_CELLS // len(rows), MIN_STARTS, MAX_STARTS))
        starts = [_kmeans_starts(encoded.z1, n_components, rng) for _ in range(n_starts)]
        mixture, bounds = _best_of(cells, starts, rng.random(len(rows)) < 0.2)
    gamma_NK = mixture.responsibilities(*cells, allowed_NK)
    if pooled:
        mixture = maximise(encoded.z1.astype(np.float64), np.exp(encoded.z1_log_var.astype(np.float64)), gamma_NK)
    component_N = gamma_NK.argmax(1)
    occupancy_K = np.bincount(component_N, minlength=n_components) / len(rows)
    kept = np.flatnonzero(occupancy_K >= min_occupancy)
    kept = kept[np.argsort(-occupancy_K[kept], kind="stable")]
    owner_K = owner_K[kept]
    parts = (mixture.weights_K[kept], mixture.means_KT[kept], mixture.vars_KT[kept], owner_K)
    model.initialise_mixture(*(torch.from_numpy(part) for part in parts))
    active_z1, active_z2 = active_units(encoded)
    return MixtureReport(
        n_fitted=n_components,
        n_kept=len(kept),
        held_out_bound=max(bounds),
        restarts=tuple(bounds),
        occupancy_K=occupancy_K[kept],
        active_units_z1=active_z1,
        active_units_z2=active_z2,
    )


def _posteriors(
    model: GeneVAE, data: GeneData, rows: np.ndarray, pooled: bool
) -> tuple[EncodedCells, tuple[np.ndarray, np.ndarray]]:
    """Cells `rows` encoded, and the mean and variance of z1, float64 [n, T], that they are grouped by."""
    if not pooled:
        encoded = encode_data(model, data, rows)
        return encoded, (encoded.z1.astype(np.float64), np.exp(encoded.z1_log_var.astype(np.float64)))
    every = encode_data(model, data)
    mean_NT, log_var_NT = type_posterior(every, data.pooled(model.config.pool_um))
    encoded = EncodedCells(
        mean_NZ=every.mean_NZ[rows],
        log_var_NZ=every.log_var_NZ[rows],
        library_N=every.library_N[rows],
        n_type=every.n_type,
    )
    return encoded, (mean_NT[rows].astype(np.float64), np.exp(log_var_NT[rows].astype(np.float64)))


def active_units(encoded: EncodedCells) -> tuple[int, int]:
    """Dims of z1 and of z2 whose posterior mean varies between cells by a variance above 0.01."""
    active_Z = encoded.mean_NZ.var(0) > 0.01
    return int(active_Z[: encoded.n_type].sum()), int(active_Z[encoded.n_type :].sum())


def check_collapse(encoded: EncodedCells) -> None:
    """Raise CollapseError when z1 is (nearly) constant; warn when z2 is."""
    active_z1, active_z2 = active_units(encoded)
    advice = (
        "train the gene stage longer, lengthen its KL warm-up, raise free_nats, or check that the counts are raw and "
        "the cells deep enough (>= 20 counts on the panel)"
    )
    if active_z1 < min(2, encoded.n_type):
        raise CollapseError(
            found=f"posterior collapse: {active_z1} of {encoded.n_type} dims of z1 vary between cells",
            where="gene stage",
            expected="most dims of z1 active (variance of the posterior mean above 0.01)",
            repair=advice,
        )
    n_micro = encoded.mean_NZ.shape[1] - encoded.n_type
    if active_z2 < max(1, n_micro // 8):
        warnings.warn(f"only {active_z2} of {n_micro} dims of z2 vary between cells; {advice}", stacklevel=2)


def check_occupancy(responsibilities_NK: np.ndarray) -> float:
    """Effective number of components exp(entropy of the mean responsibilities); warns when all cells share one."""
    occupancy_K = responsibilities_NK.mean(0)
    effective = float(np.exp(-(occupancy_K * np.log(np.maximum(occupancy_K, 1e-12))).sum()))
    if len(occupancy_K) > 1 and effective < 1.2:
        warnings.warn(
            f"mixture collapse: {effective:.2f} of {len(occupancy_K)} components are in use; pre-train longer before "
            "the mixture is fitted, or lower kl_type_weight",
            stacklevel=2,
        )
    return effective


def _best_of(
    cells: tuple[np.ndarray, np.ndarray], starts: list[np.ndarray], held_out: np.ndarray
) -> tuple[PosteriorMixture, list[float]]:
    """Mixture from the start with the best bound on held-out cells, then fitted to all cells; and every start's bound."""
    mean_NT, var_NT = cells
    bounds: list[float] = []
    if len(starts) > 1 and held_out.any() and not held_out.all():
        for start in starts:
            mixture = fit_mixture(mean_NT[~held_out], var_NT[~held_out], start)
            bounds.append(mixture.bound(mean_NT[held_out], var_NT[held_out]))
    mixture = fit_mixture(mean_NT, var_NT, starts[int(np.argmax(bounds)) if bounds else 0])
    return mixture, bounds or [mixture.bound(mean_NT, var_NT)]


def _kmeans_starts(z1_NT: np.ndarray, n_components: int, rng: np.random.Generator) -> np.ndarray:
    from sklearn.cluster import KMeans

    seed = int(rng.integers(2**31))
    return KMeans(n_components, n_init=1, random_state=seed).fit(z1_NT).cluster_centers_.astype(np.float64)


def _label_starts(
    z1_NT: np.ndarray, type_N: np.ndarray, n_components: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """First means and the type that owns each (-1: none): k-means inside each type (more components for more cells), and
    spare ones on cells without label, if there are any.
    """
    from sklearn.cluster import KMeans

    types, counts = np.unique(type_N[type_N >= 0], return_counts=True)
    n_spare = max(1, n_components // 6) if (type_N < 0).any() else 0
    n_owned = max(n_components - n_spare, min(len(types), n_components))
    largest = np.argsort(-counts)[:n_owned]
    share = np.ones(len(largest), int)
    while share.sum() < n_owned:  # next component to the type with most cells per component; sqrt favours rare types
        share[np.argmax(np.sqrt(counts[largest]) / share)] += 1
    means, owners = [], []
    for type_index, n_own in zip(types[largest], share, strict=True):
        own = z1_NT[type_N == type_index]
        n_own = min(n_own, len(own))
        means.append(KMeans(n_own, n_init=2, random_state=int(rng.integers(2**31))).fit(own).cluster_centers_)
        owners += [int(type_index)] * n_own
    found = np.concatenate(means)
    unlabelled = z1_NT[type_N < 0] if (type_N < 0).any() else z1_NT
    spare = unlabelled[rng.integers(0, len(unlabelled), n_components - len(found))]
    owner_K = np.array(owners + [-1] * len(spare), np.int64)
    return np.concatenate([found, spare]).astype(np.float64), owner_K
