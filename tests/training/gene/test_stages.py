"""The gene stage: same step, same batch and loss; each cell once per epoch; a run finds types without collapse."""

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import adjusted_rand_score

from sge2hist.data.errors import InputError
from sge2hist.models.gene.encode import assign_components, dense_counts
from sge2hist.models.gene.vae import GeneModelConfig
from sge2hist.training.gene.data import encode_data, with_neighbours
from sge2hist.training.gene.mixture_em import refit_mixture
from sge2hist.training.gene.stages import GeneStage, GeneStageConfig, build_gene_model, calibrate_novelty, decoder_alone
from tests.training.gene.fixtures import descend, make_cells, train_gene_model

SHAPE = {"n_genes": 60, "hidden": (8,), "n_type": 2, "n_micro": 2, "n_components": 2}


def make_stage(**changes: object) -> GeneStage:
    data = make_cells(100)
    model = build_gene_model(GeneModelConfig(**SHAPE, **changes), data, seed=1)  # type: ignore[arg-type]
    return GeneStage(model, data, GeneStageConfig(batch_size=30, seed=3, warmup_steps=10))


def test_a_step_does_not_depend_on_what_ran_before() -> None:
    first, second = make_stage(dropout=0.0), make_stage(dropout=0.0)
    for step in (0, 1, 2):
        first.loss(step)
    assert torch.equal(first.loss(5)["loss"], second.loss(5)["loss"])
    assert not torch.equal(first.loss(5)["loss"], second.loss(6)["loss"])


def test_an_epoch_visits_cells_once_and_epochs_differ() -> None:
    stage = make_stage()
    epoch = np.concatenate([stage.rows(step) for step in range(3)])
    assert len(set(epoch.tolist())) == 90
    assert set(epoch.tolist()) != set(np.concatenate([stage.rows(step) for step in range(3, 6)]).tolist())
    assert stage.rows(1).tolist() == make_stage().rows(1).tolist()


def test_a_batch_larger_than_the_data_takes_all() -> None:
    data = make_cells(10)
    stage = GeneStage(build_gene_model(GeneModelConfig(**SHAPE), data), data, GeneStageConfig(batch_size=64))
    assert sorted(stage.rows(4).tolist()) == list(range(10))


def test_warmup_rises_to_one() -> None:
    stage = make_stage()
    assert [stage.kl_weight(step) for step in (0, 4, 9, 500)] == [0.1, 0.5, 1.0, 1.0]


def test_building_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    make_stage()
    assert torch.equal(torch.rand(1), expected)


def test_config_ranges() -> None:
    with pytest.raises(ValueError, match="batch_size"):
        GeneStageConfig(batch_size=0)


@pytest.mark.parametrize("positions", [True, False])
def test_types_are_found_without_labels(positions: bool) -> None:
    train, test = make_cells(600, positions=positions), make_cells(300, positions=positions, seed=1)
    model = train_gene_model(train)
    encoded = encode_data(model, test)
    component_N = assign_components(model, encoded).argmax(1)
    majority = np.array([np.bincount(train_types, minlength=3).argmax() for train_types in _types_of(model, train)])
    assert adjusted_rand_score(test.type_N, majority[component_N]) > 0.9
    assert (encoded.z1.var(0) > 0.01).all()


def _types_of(model: object, data: object) -> list[np.ndarray]:
    component_N = assign_components(model, encode_data(model, data)).argmax(1)  # type: ignore[arg-type]
    return [data.type_N[component_N == k] for k in range(model.mixture.n_components)]  # type: ignore[attr-defined]


def test_z2_tells_the_surroundings_and_not_the_type() -> None:
    """In the fixture the neighbourhood varies along x: z2 follows it through the neighbour features, z1 never does."""
    train, test = make_cells(1200), make_cells(1200, seed=1)
    model = train_gene_model(train, n_steps=300, use_labels=True, centre_micro=True)
    train, test = with_neighbours(train, model), with_neighbours(test, model)
    refit_mixture(model, train)
    seen, asked = encode_data(model, train), encode_data(model, test)
    assert train.centre_um_N2 is not None
    assert test.centre_um_N2 is not None
    place = LinearRegression().fit(seen.z2, train.centre_um_N2[:, 0])
    assert place.score(asked.z2, test.centre_um_N2[:, 0]) > 0.7
    type_of_z2 = LogisticRegression().fit(seen.z2, train.type_N).score(asked.z2, test.type_N)
    assert type_of_z2 < 0.45  # chance is a third
    assert LogisticRegression().fit(seen.z1, train.type_N).score(asked.z1, test.type_N) > 0.9
    alone = encode_data(model, make_cells(1200, seed=1))
    np.testing.assert_allclose(alone.z1, asked.z1, atol=1e-5)
    assert place.score(alone.z2, test.centre_um_N2[:, 0]) < place.score(asked.z2, test.centre_um_N2[:, 0]) - 0.1


def test_centres_are_the_means_of_the_components() -> None:
    data = make_cells(300)
    model = train_gene_model(data, n_steps=60, use_labels=True, centre_micro=True)
    data = with_neighbours(data, model)
    refit_mixture(model, data)
    encoded = encode_data(model, data)
    gamma = assign_components(model, encoded)
    means = gamma.T @ encoded.z2 / gamma.sum(0)[:, None]
    np.testing.assert_allclose(means, 0, atol=1e-4)


def test_a_third_of_the_genes_is_enough_and_strange_cells_are_flagged() -> None:
    train, test = make_cells(600), make_cells(300, seed=1)
    model = train_gene_model(train, use_labels=True)
    calibrate_novelty(model, make_cells(400, seed=2))
    observed = np.arange(60) % 3 == 0
    encoded = encode_data(model, test, observed_G=observed)
    owner = model.mixture.type_of_component_K.numpy()
    assert (owner[assign_components(model, encoded).argmax(1)] == test.type_N).mean() > 0.9
    counts = torch.from_numpy(test.read(np.arange(300)).toarray())
    strange = torch.poisson(torch.full((300, 60), 0.2) + 20 * (torch.arange(60) >= 56))
    fits = [model.novelty.quantiles(*model.novelty_scores(x, model.encode(x)))[0] for x in (counts, strange)]
    assert (fits[0] < 0.001).float().mean() < 0.05
    assert (fits[1] < 0.001).float().mean() > 0.9


def test_encoding_is_the_same_for_any_batch_size() -> None:
    stage = make_stage()
    whole = encode_data(stage.model, stage.data)
    parts = encode_data(stage.model, stage.data, np.arange(100), batch_size=7)
    np.testing.assert_allclose(whole.mean_NZ, parts.mean_NZ, atol=1e-5)
    assert stage.model.training


def test_a_decoder_that_learns_on_leaves_latents_alone_and_tells_unseen_cells_better() -> None:
    data, unseen = make_cells(), make_cells(seed=1)
    model = train_gene_model(data, n_steps=30)
    trained = [name for name, value in model.named_parameters() if value.requires_grad]
    counts = dense_counts(unseen.read(np.arange(unseen.n_cells)))

    def look() -> tuple[np.ndarray, float]:
        with torch.no_grad():
            posterior = model.eval().encode(counts)
            return posterior.mean_NZ.numpy(), float(model.log_likelihood(counts, posterior.mean_NZ).mean())

    stage = GeneStage(model, data, GeneStageConfig(batch_size=64, warmup_steps=0, use_labels=False), name="expression")
    centres = model.micro.centres_KM.clone()
    before, likelihood = look()
    with decoder_alone(model):
        descend(stage, range(60), lr=2e-3)
    model.micro.centres_KM.copy_(
        centres
    )  # batches move them in training mode; they are computed again at the end of a training
    after, better = look()
    np.testing.assert_array_equal(before, after)
    assert better > likelihood + 0.1
    assert [name for name, value in model.named_parameters() if value.requires_grad] == trained


def test_novelty_needs_cells_with_counts() -> None:
    model, cells = train_gene_model(make_cells(300), use_labels=True), make_cells(30)
    empty = dataclasses.replace(cells, read=lambda rows: cells.read(rows) * 0)
    with pytest.raises(InputError, match="no counts in 30 reference cells"):
        calibrate_novelty(model, empty)
