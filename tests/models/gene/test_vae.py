"""The gene model: shapes, masks, extremes, terms, determinism, and that learning works without collapse."""

import pytest
import torch

from sge2hist.models.gene.auxiliary_losses import Neighbourhood
from sge2hist.models.gene.vae import GeneModelConfig, GeneStatistics, GeneVAE

TINY = {"hidden": (16,), "n_type": 3, "n_micro": 5, "n_components": 4}


def make_model(n_genes: int = 20, **changes: object) -> GeneVAE:
    torch.manual_seed(0)
    return GeneVAE(GeneModelConfig(n_genes=n_genes, **{**TINY, **changes}))


def make_counts(n: int = 12, g: int = 20, seed: int = 0) -> torch.Tensor:
    return torch.poisson(2 * torch.rand(n, g, generator=torch.Generator().manual_seed(seed)))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("likelihood", ["nb", "mse"])
def test_encode_decode_and_loss(likelihood: str) -> None:
    model, counts = make_model(likelihood=likelihood), make_counts()
    posterior = model.encode(counts)
    assert posterior.z1.shape == (12, 3)
    assert posterior.z2.shape == (12, 5)
    proportions = model.decode(posterior.sample(generator()))
    torch.testing.assert_close(proportions.sum(1), torch.ones(12))
    terms = model.training_pass(counts, kl_weight=0.5, generator=generator()).terms
    terms["loss"].backward()
    assert all(value.ndim == 0 and torch.isfinite(value) for value in terms.values())
    assert {"reconstruction", "kl_type", "kl_micro", "independence", "neighbourhood"} <= set(terms)


def test_loss_is_the_weighted_sum_of_its_terms() -> None:
    model = make_model(independence_weight=3.0, kl_micro_weight=2.0)
    terms = model.training_pass(make_counts(), kl_weight=0.25, generator=generator()).terms
    expected = terms["reconstruction"] + 0.25 * (terms["kl_type"] + 2 * terms["kl_micro"])
    torch.testing.assert_close(terms["loss"] - 0.25 * 3 * terms["independence"], expected)


def test_same_generator_same_loss() -> None:
    model, counts = make_model(dropout=0.0), make_counts()
    first, again, other = (model.training_pass(counts, generator=generator(seed)).terms["loss"] for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize("likelihood", ["nb", "mse"])
@pytest.mark.parametrize("case", ["zeros", "one gene", "million", "one cell"])
def test_extreme_inputs_give_finite_gradients(case: str, likelihood: str) -> None:
    n_genes = 1 if case == "one gene" else 20
    counts = make_counts(1 if case == "one cell" else 12, n_genes)
    counts = {"zeros": 0 * counts, "million": 1e6 * counts}.get(case, counts)
    model = make_model(n_genes, likelihood=likelihood)
    model.initialise_mixture(torch.ones(2), torch.tensor([[5.0] * 3, [-5.0] * 3]), torch.full((2, 3), 1e-3))
    model.training_pass(counts, generator=generator()).terms["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_an_empty_cell_has_no_reconstruction_term() -> None:
    model = make_model()
    assert model.log_likelihood(torch.zeros(2, 20), torch.zeros(2, 8)).tolist() == [0.0, 0.0]


def test_missing_genes_are_masked_not_read_as_zero() -> None:
    model = make_model().eval()
    counts, observed = make_counts(), torch.arange(20) < 12
    changed = counts.clone()
    changed[:, ~observed] = 99.0
    torch.testing.assert_close(model.encode(counts, observed).mean_NZ, model.encode(changed, observed).mean_NZ)
    zeroed = counts * observed
    assert not torch.allclose(model.encode(counts, observed).mean_NZ, model.encode(zeroed).mean_NZ)
    everything = torch.ones(20, dtype=torch.bool)
    torch.testing.assert_close(model.encode(counts, everything).mean_NZ, model.encode(counts).mean_NZ)


def test_input_of_a_gene_does_not_depend_on_the_panel_for_a_mean_cell() -> None:
    """Ten mean cells on half of the panel enter as on the whole panel: at the training mean, zero."""
    proportion = torch.softmax(torch.randn(20, generator=generator()), 0)
    model = make_model()
    scaled = torch.log1p(proportion * 500.0)
    model.set_statistics(
        GeneStatistics(median_library=500.0, mean_proportion_G=proportion, mean_input_G=scaled, mean_log1p_G=scaled)
    )
    observed = torch.arange(20) % 2 == 0
    inputs = model.encoder.inputs(700 * proportion[None], observed)
    torch.testing.assert_close(inputs[:, :20], torch.zeros(1, 20), atol=1e-5, rtol=0)
    assert model.decode(torch.zeros(1, 8)).shape == (1, 20)


def test_partial_likelihood_is_that_of_the_sub_panel() -> None:
    model, counts, z = make_model().eval(), make_counts(), torch.zeros(12, 8)
    observed = torch.arange(20) < 7
    changed = counts.clone()
    changed[:, 7:] = 5.0
    torch.testing.assert_close(model.log_likelihood(counts, z, observed), model.log_likelihood(changed, z, observed))


def test_labels_pull_cells_to_their_component() -> None:
    model = make_model().eval()
    model.initialise_mixture(
        torch.ones(2), torch.tensor([[3.0] * 3, [-3.0] * 3]), torch.ones(2, 3), torch.tensor([0, 1])
    )
    counts, type_N = make_counts(), torch.tensor([0, 1, -1] * 4)
    labelled = model.training_pass(counts, type_N=type_N, generator=generator()).terms
    unlabelled = model.training_pass(counts, type_N=torch.full((12,), -1), generator=generator()).terms
    assert labelled["labels"] > 0
    assert unlabelled["labels"] == 0
    assert labelled["kl_type"] >= unlabelled["kl_type"]
    torch.testing.assert_close(unlabelled["loss"], model.training_pass(counts, generator=generator()).terms["loss"])


def test_neighbourhood_heads_ignore_cells_of_weight_zero() -> None:
    model = make_model(n_composition=3, n_neighbour_embedding=2)
    composition = torch.softmax(torch.randn(6, 3, generator=generator()), 1)
    target = Neighbourhood(composition, torch.randn(6, 2, generator=generator()), torch.tensor([1.0, 1, 1, 0, 0, 0]))
    gamma = torch.softmax(torch.randn(6, 2, generator=generator()), 1).requires_grad_()  # two of four components kept
    z2 = torch.randn(6, 5, requires_grad=True)
    assert model.heads is not None
    model.heads.loss(gamma, z2, target).backward()
    assert gamma.grad is None
    assert (z2.grad[:3] != 0).any()
    assert (z2.grad[3:] == 0).all()
    without_neighbours = target._replace(weight_N=torch.zeros(6))
    assert model.heads.loss(gamma, z2, without_neighbours) == 0


@pytest.mark.parametrize(
    "wrong", [{"n_type": 0}, {"likelihood": "poisson"}, {"dropout": 1.5}, {"n_composition": 3}, {"hidden": ()}]
)
def test_config_names_what_is_out_of_range(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        GeneModelConfig(n_genes=5, **wrong)


def test_training_recovers_two_programs_without_collapse() -> None:
    gen = generator(5)
    type_N = torch.arange(200) % 2
    rate = torch.where(type_N[:, None] == (torch.arange(20) < 10)[None].long(), 6.0, 1.0)
    counts = torch.poisson(rate, generator=gen)
    model = make_model(dropout=0.0)
    optimiser = torch.optim.AdamW(model.parameters(), 5e-3)
    for step in range(150):
        optimiser.zero_grad()
        terms = model.training_pass(counts, kl_weight=min(1, step / 50), generator=generator(step)).terms
        terms["loss"].backward()
        optimiser.step()
    z1 = model.eval().encode(counts).z1
    separation = (z1[type_N == 0].mean(0) - z1[type_N == 1].mean(0)).norm()
    assert separation > 2 * z1[type_N == 0].std(0).mean()
    assert terms["active_units_z1"] >= 1
