"""Streamed encoding: chunks do not matter, nor does the training mode; the depth of a cell on part of the panel."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_array

from sge2hist.models.gene.config import GeneModelConfig
from sge2hist.models.gene.encode import CellChunk, dense_counts, encode_chunks, log_depth, stream_posteriors
from sge2hist.models.gene.vae import GeneVAE

COUNTS = csr_array(np.random.default_rng(0).poisson(1.0, (37, 20)).astype(np.int32))


def _model() -> GeneVAE:
    torch.manual_seed(0)
    model = GeneVAE(GeneModelConfig(n_genes=20, hidden=(16,), n_type=3, n_micro=4, n_components=2))
    model.encoder.scale.fill_(18.0)
    model.encoder.mean_proportion_G.fill_(1 / 20)
    return model


def _chunks(size: int):
    for start in range(0, COUNTS.shape[0], size):
        yield CellChunk(COUNTS[start : start + size])


def test_chunks_and_training_mode_do_not_matter():
    model = _model().train()
    seen: list[int] = []
    found = encode_chunks(model, _chunks(10), 37, progress=seen.append)
    assert model.training
    assert seen == [10, 10, 10, 7]
    with torch.no_grad():
        expected = model.eval().encode(dense_counts(COUNTS))
    np.testing.assert_allclose(found.mean_NZ, expected.mean_NZ.numpy(), atol=1e-6)
    np.testing.assert_allclose(found.z1_log_var, expected.log_var_NZ[:, :3].numpy(), atol=1e-6)
    np.testing.assert_array_equal(found.library_N, COUNTS.toarray().sum(1))


def test_a_stream_that_is_not_read_to_its_end_restores_the_mode():
    model = _model().train()
    stream = stream_posteriors(model, _chunks(10))
    counts_NG, posterior = next(stream)
    assert not model.training
    assert not posterior.mean_NZ.requires_grad
    assert torch.equal(counts_NG, dense_counts(COUNTS[:10]))
    stream.close()
    assert model.training


def test_half_of_the_genes_give_a_cell_of_the_same_depth():
    model, observed = _model(), np.arange(20) < 10
    whole, half = log_depth(model, np.array([18.0, 0.0, 1e9])), log_depth(model, np.array([9.0]), observed)
    np.testing.assert_allclose(whole[:2], [0.0, np.log(1 / 19)], atol=1e-6)
    assert whole[2] == 3.0
    np.testing.assert_allclose(half, [0.0], atol=1e-6)


def test_no_cells_give_empty_arrays():
    found = encode_chunks(_model(), [], 0)
    assert found.mean_NZ.shape == (0, 7)
    assert found.library_N.shape == (0,)


def test_a_cell_without_counts_has_the_prior():
    """Zeros are not an expression: the posterior is the whole mixture, by moments of samples, and N(0, I) for z2."""
    model = _model()
    model.mixture.initialise(
        torch.tensor([0.3, 0.7]),
        torch.tensor([[-2.0, 0.0, 1.0], [1.0, 0.5, 1.0]]),
        torch.tensor([[0.5] * 3, [2.0] * 3]),
    )
    counts = COUNTS[:5].toarray()
    counts[[1, 4]] = 0
    found = encode_chunks(model, [CellChunk(csr_array(counts))], 5)
    others = encode_chunks(model, [CellChunk(csr_array(counts[[0, 2, 3]]))], 3)
    component = torch.from_numpy((np.random.default_rng(0).random(200_000) < 0.7).astype(np.int64))
    samples = model.mixture.sample(component, torch.Generator().manual_seed(0)).numpy()
    for row in (1, 4):
        np.testing.assert_allclose(found.z1[row], samples.mean(0), atol=0.02)
        np.testing.assert_allclose(np.exp(found.z1_log_var[row]), samples.var(0), rtol=0.02)
        assert np.array_equal(found.z2[row], np.zeros(4, np.float32))
        assert np.array_equal(found.log_var_NZ[row, 3:], np.zeros(4, np.float32))
    np.testing.assert_allclose(found.mean_NZ[[0, 2, 3]], others.mean_NZ, atol=1e-6)
    assert np.isfinite(log_depth(model, found.library_N)).all()
    assert log_depth(model, found.library_N)[1] == np.float32(-np.log(19.0))
