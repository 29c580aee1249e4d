"""What the training section has around cells of each type: random examples for the model folder (`models.niches`)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from sge2hist.data.paired import PairedDataset
from sge2hist.data.spatial_index import CellIndex
from sge2hist.models.gene.encode import component_posterior, log_depth
from sge2hist.models.joint_model import JointModel
from sge2hist.models.niches import POSITION_UM, Niches, neighbour_shares, outline_steps
from sge2hist.training.gene.data import GeneData, encode_data

PER_COMPONENT = 48  # examples, at most
MAX_BYTES = 1_500_000  # of all examples, before compression: fewer per component where they would be more
BYTES_PER_PLACE = 5
MAX_FITTED = 30_000  # cells whose z1 the expected z1 is fitted to
RIDGE = 5.0  # added to the squares of the shares, in cells
MIN_FITTED = 30  # cells of a component; with fewer its mean alone is known
TINY_VARIANCE = 1e-6  # added to the covariance, which may have a direction without any


def model_niches(model: JointModel, dataset: PairedDataset, all_cells: GeneData, *, seed: int) -> Niches | None:
    """Examples for a trained model, from every cell of its dataset; None for a model that is conditioned on one cell."""
    shape = model.config
    if shape.image.condition.form != "map":
        return None
    encoded = encode_data(model.gene, all_cells)
    posterior_NK = component_posterior(model.gene, encoded)
    component_N = posterior_NK.argmax(1)
    niches = find_niches(
        dataset,
        component_N,
        log_depth(model.gene, encoded.library_N),
        n_components=model.gene.mixture.n_components,
        half_um=max(shape.patch_um, dataset.patch_um) / 2 + shape.receptive_radius_um,  # for larger patches as well
        seed=seed,
        centre_component_N=own_component(
            posterior_NK, dataset.type_of_cell, model.gene.mixture.type_of_component_K.cpu().numpy()
        ),
    )
    fitted: dict[str, Any] = fit_z1(dataset, component_N, encoded.z1, model.gene.mixture.n_components, seed=seed)
    return replace(niches, **fitted)


def own_component(posterior_NK: np.ndarray, type_N: np.ndarray, type_of_component_K: np.ndarray) -> np.ndarray:
    """The most probable component of each cell's own type, int64 [N]; -1 for a cell without a type. Without named components: the
    most probable one.

    A type is what its labelled cells are. Cells whose most probable component carries its name are a purer choice, and what lies
    around them exaggerates the type.
    """
    if (type_of_component_K < 0).all():
        return posterior_NK.argmax(1)
    own_NK = type_N[:, None] == type_of_component_K
    component_N = np.where(own_NK, posterior_NK, -1.0).argmax(1)
    return np.where(own_NK.any(1) & (type_N >= 0), component_N, -1)


def find_niches(
    dataset: PairedDataset,
    component_N: np.ndarray,
    depth_N: np.ndarray,
    *,
    n_components: int,
    half_um: float,
    seed: int,
    centre_component_N: np.ndarray | None = None,
) -> Niches:
    """Examples of the cells around training cells of each component.

    Parameters
    ----------
    component_N, depth_N
        Component and log depth of every cell of the dataset.
    half_um
        Cells so far away in x and in y are listed.
    seed
        Of the choice. Held-out cells are in no example.
    centre_component_N
        Component as whose example each cell may serve, -1 for none (:func:`own_component`); None: its own.
    """
    if centre_component_N is None:
        centre_component_N = component_N
    train = dataset.rows("train")
    split = dataset.obs["split"].astype(str).to_numpy()
    xy_um_N2 = dataset.centre_xy_px * dataset.um_per_px
    rng = np.random.default_rng(seed)
    known = np.flatnonzero(~np.isin(split, ["val", "test"]))
    index = CellIndex(xy_um_N2[known], dataset.slide_of_cell[known])
    held_out = np.setdiff1d(np.arange(len(dataset)), known)
    if len(held_out):  # a neighbourhood that reaches into held-out tissue would have a hole
        distance = CellIndex(xy_um_N2[held_out], dataset.slide_of_cell[held_out]).distance_um(
            xy_um_N2[train], dataset.slide_of_cell[train]
        )
        clear = train[distance > half_um * np.sqrt(2)]
        train = clear if len(clear) else train
    some = rng.choice(train, min(len(train), 256), replace=False)
    places_each = len(index.within(dataset.slide_of_cell[some], xy_um_N2[some], half_um)[0]) / max(len(some), 1)
    n_vertices = 0 if dataset.outline_um is None else 2 * dataset.outline_um.shape[1]
    bytes_each = max(places_each, 1) * (BYTES_PER_PLACE + n_vertices)
    per_component = int(np.clip(MAX_BYTES / (n_components * bytes_each), 1, PER_COMPONENT))
    centres = [_sample(train[centre_component_N[train] == k], per_component, rng) for k in range(n_components)]
    rows = np.concatenate([np.zeros(0, np.int64), *centres])
    row_M, example_M = index.within(dataset.slide_of_cell[rows], xy_um_N2[rows], half_um)
    row_M = known[row_M]
    order = np.lexsort((row_M, row_M != rows[example_M], example_M))  # the cell of an example comes first
    row_M, example_M = row_M[order], example_M[order]
    count_S = np.bincount(example_M, minlength=len(rows))
    start_S1 = np.concatenate([[0], np.cumsum(count_S)]).astype(np.int64)
    component_M = component_N[row_M].astype(np.uint8 if n_components <= 256 else np.uint16)
    component_M[start_S1[:-1]] = centre_component_N[rows]
    offset_M2 = (xy_um_N2[row_M] - xy_um_N2[rows][example_M]) / POSITION_UM
    depth_K2 = np.zeros((n_components, 2), np.float32)
    for k in range(n_components):
        own = depth_N[train[component_N[train] == k]]
        if len(own):
            depth_K2[k] = own.mean(), own.std()
    return Niches(
        start_S1=start_S1,
        xy_M2=np.round(offset_M2).astype(np.int16),
        component_M=component_M,
        outline_MV2=None if dataset.outline_um is None else outline_steps(dataset.outline_um[row_M]),
        depth_K2=depth_K2,
        half_um=float(half_um),
    )


def fit_z1(
    dataset: PairedDataset, component_N: np.ndarray, z1_NT: np.ndarray, n_components: int, *, seed: int
) -> dict[str, np.ndarray]:
    """Ridge of z1 on the components around, for each component over cells that are not held out (`Niches.sample_z1`).

    Returns the fields of `Niches`, float32: mean z1 [K, T], mean shares [K, C], slopes [K, C, T], and the Cholesky factor of the
    covariance of the residuals [K, T, T]; zeros for a component without cells.
    """
    split = dataset.obs["split"].astype(str).to_numpy()
    known = np.flatnonzero(~np.isin(split, ["val", "test"]))
    rng = np.random.default_rng(seed)
    index = CellIndex(dataset.centre_xy_px[known] * dataset.um_per_px, dataset.slide_of_cell[known])
    some = np.sort(rng.choice(len(known), min(len(known), MAX_FITTED), replace=False))
    shares_NC = neighbour_shares(index, some, component_N[known], n_components)
    z1_NT, component_N = z1_NT[known[some]], component_N[known[some]]
    n_shares, n_latent = shares_NC.shape[1], z1_NT.shape[1]
    mean, shares = np.zeros((n_components, n_latent)), np.zeros((n_components, n_shares))
    slope, residual = np.zeros((n_components, n_shares, n_latent)), np.zeros((n_components, n_latent, n_latent))
    for k in np.unique(component_N):
        own = component_N == k
        mean[k], shares[k] = z1_NT[own].mean(0), shares_NC[own].mean(0)
        if own.sum() >= MIN_FITTED:
            x = shares_NC[own] - shares[k]
            slope[k] = np.linalg.solve(x.T @ x + RIDGE * np.eye(n_shares), x.T @ (z1_NT[own] - mean[k]))
            left = z1_NT[own] - mean[k] - x @ slope[k]
            residual[k] = np.linalg.cholesky(left.T @ left / len(left) + TINY_VARIANCE * np.eye(n_latent))
    arrays = {"z1_mean_KT": mean, "z1_shares_KC": shares, "z1_slope_KCT": slope, "z1_residual_KTT": residual}
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def _sample(rows: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    return np.sort(rng.choice(rows, min(n, len(rows)), replace=False)) if len(rows) else rows
