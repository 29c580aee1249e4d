"""Proteins as inputs of the encoder: their scale, their mask, and what a latent learns of one that no gene follows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sge2hist.models.gene.config import GeneModelConfig
from sge2hist.models.gene.proteins import RESIDUAL_SD, ProteinInput, hide_proteins, protein_loss
from sge2hist.models.gene.vae import GeneVAE
from sge2hist.training.gene.data import encode_data, gene_statistics
from tests.training.gene.fixtures import N_GENES, make_cells, train_gene_model

NAN = float("nan")


def _vae(n_proteins: int, **changes: object) -> GeneVAE:
    torch.manual_seed(0)
    shape = {"hidden": (16,), "n_type": 3, "n_micro": 4, "n_components": 2}
    return GeneVAE(GeneModelConfig(n_genes=20, n_proteins=n_proteins, **(shape | changes)))


def test_values_are_standardised_logarithms_and_nan_is_masked():
    layer = ProteinInput(2, 5)
    layer.mean_P.copy_(torch.tensor([1.0, 2.0]))
    layer.sd_P.copy_(torch.tensor([0.5, 4.0]))
    value, measured = layer.standardised(torch.tensor([[np.e - 1, NAN], [0.0, np.e**6 - 1]]))
    torch.testing.assert_close(value, torch.tensor([[0.0, 0.0], [-2.0, 1.0]]), atol=1e-5, rtol=0)
    assert measured.tolist() == [[True, False], [True, True]]


def test_an_encoder_starts_as_one_of_genes_alone():
    model, counts = _vae(2).eval(), torch.poisson(torch.full((6, 20), 2.0))
    with torch.no_grad():
        plain = model.encode(counts).mean_NZ
        assert torch.equal(model.encode(counts, protein_NP=torch.ones(6, 2)).mean_NZ, plain)
        torch.nn.init.normal_(model.encoder.from_proteins.layer.weight)
        assert not torch.allclose(model.encode(counts, protein_NP=torch.ones(6, 2)).mean_NZ, plain)
        assert torch.equal(model.encode(counts, protein_NP=torch.full((6, 2), NAN)).mean_NZ, plain)


def test_the_loss_is_that_of_a_normal_over_what_was_measured():
    predicted, value = torch.tensor([[1.0, 5.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [3.0, 1.0]])
    measured = torch.tensor([[True, False], [True, True]])
    normal = torch.distributions.Normal(predicted, RESIDUAL_SD)
    constant = torch.distributions.Normal(0.0, RESIDUAL_SD).log_prob(torch.tensor(0.0))
    expected = (-(normal.log_prob(value) - constant) * measured).sum() / 2
    torch.testing.assert_close(protein_loss(predicted, value, measured), expected)


def test_all_proteins_of_a_cell_are_hidden_together():
    hidden = hide_proteins(torch.ones(4000, 3), 0.3, torch.Generator().manual_seed(0)).isnan()
    assert (hidden.all(1) == hidden.any(1)).all()
    assert hidden.all(1).float().mean() == pytest.approx(0.3, abs=0.03)


def test_statistics_of_what_was_measured():
    data = make_cells(40)
    protein = np.random.default_rng(0).poisson(9, (40, 3)).astype(np.float32)
    protein[:30, 1], protein[:, 2] = np.nan, 7.0
    found = gene_statistics(replace(data, protein_NP=protein))
    np.testing.assert_allclose(found.mean_protein_P[1], np.log1p(protein[30:, 1]).mean(), rtol=1e-5)
    np.testing.assert_allclose(found.sd_protein_P[0], np.log1p(protein[:, 0]).std(), rtol=1e-5)
    assert found.sd_protein_P[2] == 1.0  # it does not vary


def test_a_model_of_genes_alone_has_no_new_weights():
    assert not [name for name in _vae(0).state_dict() if "protein" in name]
    with pytest.raises(ValueError, match="n_proteins=-1"):
        GeneModelConfig(n_genes=3, n_proteins=-1)


def test_the_latent_holds_what_no_gene_follows():
    """Truth: a number that is random in each cell, of which a protein counts 20 exp(number). Held-out cells."""
    train, test = make_cells(500), make_cells(400, seed=5)
    rng = np.random.default_rng(1)
    truth = {name: rng.uniform(-1, 1, data.n_cells) for name, data in (("train", train), ("test", test))}
    protein = {name: rng.poisson(20 * np.exp(of))[:, None].astype(np.float32) for name, of in truth.items()}

    model = train_gene_model(replace(train, protein_NP=protein["train"]), n_steps=300, n_proteins=1)
    shown = _explained(model, replace(test, protein_NP=protein["test"]), truth["test"])
    hidden = _explained(model, test, truth["test"])
    assert shown > 0.6
    assert hidden < 0.1
    with torch.no_grad():
        z_NZ = torch.from_numpy(encode_data(model, test).mean_NZ)
        kept = model.decode(z_NZ).numpy()
    expected = np.stack([test.read(np.arange(400)).toarray()[test.type_N == t].mean(0) for t in range(3)])
    found = np.stack([kept[test.type_N == t].mean(0) for t in range(3)])
    for own, wanted in zip(found, expected, strict=True):  # without proteins the expression is still that of the type
        assert np.corrcoef(own[:N_GENES], wanted)[0, 1] > 0.9


def _explained(model: GeneVAE, data, truth_N: np.ndarray) -> float:
    """Share of the variance of a number that a linear function of z gives, on the second half of the cells."""
    z_NZ = encode_data(model, data).mean_NZ
    x_NZ = np.column_stack([z_NZ, np.ones(len(z_NZ))])
    half = len(z_NZ) // 2
    weights = np.linalg.lstsq(x_NZ[:half], truth_N[:half], rcond=None)[0]
    rest = truth_N[half:] - x_NZ[half:] @ weights
    return 1 - rest.var() / truth_N[half:].var()
