"""Axes of expression: against scikit-learn on dense counts, sparse against dense, parts of the panel, neighbours."""

import numpy as np
import torch
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA

from sge2hist.data.spatial_index import CellIndex
from sge2hist.models.gene.neighbours import neighbour_features
from sge2hist.models.gene.vae import GeneModelConfig, GeneVAE
from sge2hist.training.gene.data import GeneData, with_neighbours
from sge2hist.training.gene.stages import build_gene_model
from tests.training.gene.fixtures import make_cells


def built(data: GeneData, **changes: object) -> GeneVAE:
    shape = {"hidden": (8,), "n_type": 3, "n_micro": 4, "n_components": 3, "n_axes": 5, "neighbour_um": 50.0}
    return build_gene_model(GeneModelConfig(n_genes=data.n_genes, **(shape | changes)), data).eval()  # type: ignore[arg-type]


def test_axes_are_the_principal_components_of_log_normalised_counts() -> None:
    data = make_cells()
    model = built(data)
    x = data.read(np.arange(400)).toarray().astype(np.float64)
    library = x.sum(1, keepdims=True)
    pca = PCA(5, svd_solver="full").fit(np.log1p(x / library * np.median(library)))
    assert model.encoder.axes is not None
    cosines = np.abs(np.sum(pca.components_ * model.encoder.axes.weight_GE.numpy().T, axis=1))
    np.testing.assert_allclose(cosines[:3], 1, atol=1e-3)  # types and the gradient; the others are noise
    np.testing.assert_allclose(model.encoder.axes.spread_E.numpy()[:3], np.sqrt(pca.explained_variance_[:3]), rtol=1e-3)


def test_sparse_and_dense_coordinates_agree_also_on_a_part_of_the_genes() -> None:
    data = make_cells(60)
    encoder = built(data).encoder
    assert encoder.axes is not None
    counts = data.read(np.arange(60))
    for observed in (np.ones(60, bool), np.arange(60) % 3 > 0):
        part = counts.copy()
        part.data = part.data * observed[part.indices]
        mask = torch.from_numpy(observed)
        inputs = encoder.inputs(torch.from_numpy(counts.toarray()), None if observed.all() else mask)
        dense = encoder.axes(inputs[:, :-2], None if observed.all() else mask)
        np.testing.assert_allclose(encoder.coordinates(part, observed), dense, atol=2e-4)


def test_a_third_of_the_genes_gives_nearly_the_same_leading_coordinates() -> None:
    data = make_cells(300, depth=3000.0)
    encoder = built(data).encoder
    counts = data.read(np.arange(300))
    whole = encoder.coordinates(counts)
    observed = np.arange(60) % 2 == 0
    counts.data = counts.data * observed[counts.indices]
    part = encoder.coordinates(counts, observed)
    for axis in range(3):
        assert np.corrcoef(whole[:, axis], part[:, axis])[0, 1] > 0.95
        assert 0.7 < part[:, axis].std() / whole[:, axis].std() < 1.3  # scaled up, not shrunk towards the mean cell


def test_z1_starts_on_the_axes() -> None:
    data = make_cells()
    model = built(data)
    coordinate = model.encoder.coordinates(data.read(np.arange(400)))
    z1 = model.encode(torch.from_numpy(data.read(np.arange(400)).toarray())).z1.detach().numpy()
    assert abs(np.corrcoef(coordinate[:, 0], z1[:, 0])[0, 1]) > 0.9


def test_neighbour_features_are_the_mean_of_the_neighbours_whatever_other_cells_are_in_the_call() -> None:
    data = make_cells(120)
    model = built(data)
    assert data.centre_um_N2 is not None
    near = (cdist(data.centre_um_N2, data.centre_um_N2) <= 50) & ~np.eye(120, dtype=bool)
    mean = near / near.sum(1, keepdims=True).clip(1) @ model.encoder.coordinates(data.read(np.arange(120)))
    index = CellIndex(data.centre_um_N2, np.zeros(120, int))
    found = neighbour_features(model.encoder, data.read, index.neighbour_weights(np.arange(120), 50.0))
    np.testing.assert_allclose(found[:, :-1], mean, atol=1e-4)
    np.testing.assert_array_equal(found[:, -1], near.any(1))
    some = np.array([4, 90, 11])
    np.testing.assert_array_equal(
        neighbour_features(model.encoder, data.read, index.neighbour_weights(some, 50.0)), found[some]
    )


def test_neighbours_move_z2_alone_and_only_where_known() -> None:
    data = make_cells(50)
    model = built(data)
    informed = with_neighbours(data, model)
    counts = torch.from_numpy(data.read(np.arange(50)).toarray())
    alone, among = model.encode(counts), model.encode(counts, neighbour_NA=informed.neighbour_features(np.arange(50)))
    torch.testing.assert_close(alone.z1, among.z1)
    known = informed.neighbour_NA[:, -1] == 1  # type: ignore[index]
    assert not torch.allclose(alone.z2[known], among.z2[known])
    torch.testing.assert_close(alone.z2[~known], among.z2[~known])


def test_cells_of_other_groups_are_no_neighbours() -> None:
    data = make_cells(80)
    model = built(data)
    half = (np.arange(80) < 40).astype(int)
    informed = with_neighbours(data, model, half)
    own = GeneData.from_counts(data.read(np.arange(40)), centre_um_N2=data.centre_um_N2[:40])  # type: ignore[index]
    np.testing.assert_allclose(informed.neighbour_NA[:40], with_neighbours(own, model).neighbour_NA, atol=1e-6)  # type: ignore[index]
