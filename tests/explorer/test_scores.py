"""Scores that colour cells: against the encoder itself, cell by cell, and complete however they are asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sge2hist.explorer import scores

WHOLE = {"x": 0, "y": 0, "width": 1e5, "height": 1e5, "limit": 20_000}


def posterior_sd(server, counts_NG: np.ndarray) -> np.ndarray:
    """Mean standard deviation of the posteriors, each cell encoded by itself without the code of the explorer."""
    bundle, match = server.answers.tissue.bundle, server.answers.tissue.match
    out = []
    for counts_G in counts_NG:
        on_panel = np.where(match.columns >= 0, counts_G[match.columns], 0).astype(np.float32)
        with torch.no_grad():
            found = bundle.model.gene.encode(torch.from_numpy(on_panel)[None], None, None)
        out.append(float((0.5 * found.log_var_NZ).exp().mean()))
    return np.array(out)


def asked_until_complete(client, session, colour, most):
    """Values by cell id, and the numbers of cells that were pending at each answer."""
    pending = []
    for _ in range(most):
        found = client("GET", f"{session}/cells", params=WHOLE | {"colour": colour})
        pending.append(found["pending"])
        assert found["pending"] == sum(value is None for value in found["value"])
        if not found["pending"]:
            return dict(zip(found["id"], found["value"], strict=True)), pending
    raise AssertionError(f"still {pending[-1]} pending")


def test_the_posterior_is_that_of_the_encoder(client, server, tiny_paired):
    values, _ = asked_until_complete(client, client.session(), "posterior", 9)
    at = np.arange(0, len(tiny_paired), 37)
    counts = tiny_paired.counts(at).toarray()
    assert (counts.sum(1) > 0).all()
    ids = tiny_paired.obs.index[at]
    np.testing.assert_allclose([values[cell] for cell in ids], posterior_sd(server, counts), atol=2e-4)
    assert np.std(list(values.values())) > 1e-3  # a score that says something


def test_a_slide_of_many_cells_is_completed_in_parts(client, server, tiny_paired, monkeypatch):
    monkeypatch.setattr(scores, "MAX_NEW_SCORES", 100)
    monkeypatch.setattr(server.answers, "scores", scores.CellScores(server.answers.tissue))
    n = len(tiny_paired)
    values, pending = asked_until_complete(client, client.session(), "novelty", n // 100 + 2)
    assert pending == [max(0, n - 100 * (i + 1)) for i in range(len(pending))]
    assert len(values) == n


@pytest.mark.parametrize("colour", scores.SCORES)
def test_edited_cells_have_the_score_of_their_new_counts(client, server, tiny_paired, gene, monkeypatch, colour):
    """Also where more cells are edited than one request scores: none keeps the score of its old counts."""
    session = client.session()
    before, _ = asked_until_complete(client, session, colour, 9)
    monkeypatch.setattr(scores, "MAX_NEW_SCORES", 200)
    counts = 60 + scores.SCORES.index(colour)  # the server keeps the cells of the last lists of edits, and their scores
    edit = {"scope": {"everywhere": True}, "action": {"gene": gene, "counts": counts}}
    client("POST", f"{session}/edits", edit)
    first = client("GET", f"{session}/cells", params=WHOLE | {"colour": colour})
    assert first["pending"] == len(tiny_paired) - 200
    after, _ = asked_until_complete(client, session, colour, len(tiny_paired) // 200 + 2)
    at = np.arange(5, len(tiny_paired), 41)
    ids = tiny_paired.obs.index[at]
    if colour == "posterior":
        edited = tiny_paired.counts(at).toarray()
        edited[:, tiny_paired.genes.columns_called(gene)[0]] = counts
        np.testing.assert_allclose([after[cell] for cell in ids], posterior_sd(server, edited), atol=2e-4)
    assert np.mean([after[cell] != before[cell] for cell in ids]) > 0.9
    client("PUT", f"{session}/edits", {"edits": []})
    again, pending = asked_until_complete(client, session, colour, 1)
    assert again == before  # of the unedited cells nothing is computed twice
    assert pending == [0]


def test_the_scale_does_not_depend_on_the_view(client):
    session = client.session()
    small = {"x": 100, "y": 120, "width": 60, "height": 60, "colour": "posterior"}
    scale = client("GET", f"{session}/cells", params=small)["scale"]
    assert scale == client("GET", f"{session}/cells", params=WHOLE | {"colour": "posterior"})["scale"]
    assert scale["low"] <= scale["quantiles"][0] < scale["quantiles"][4] <= scale["high"] + 1e-4
