"""Training on datasets at the edge: hardly any validation cells, empty ones, cells that are all alike."""

from __future__ import annotations

import anndata
import numpy as np
import pytest
from scipy.sparse import csr_matrix

from sge2hist.data.errors import InputError
from sge2hist.data.paired import PairedDataset
from sge2hist.generation.applicability import assess_cells
from sge2hist.training.config import TrainConfig
from sge2hist.training.train import train
from tests.fixtures.paired import write_tiny_paired


def three_validation_cells(cells: anndata.AnnData) -> anndata.AnnData:
    held_out = np.flatnonzero(cells.obs["split"] == "val")
    return cells[np.setdiff1d(np.arange(cells.n_obs), held_out[3:])].copy()


def empty_validation_cells(cells: anndata.AnnData) -> anndata.AnnData:
    counts = cells.X.toarray()
    counts[(cells.obs["split"] == "val").to_numpy()] = 0
    cells.X = csr_matrix(counts)
    return cells


def equal_cells(cells: anndata.AnnData) -> anndata.AnnData:
    cells.X = csr_matrix(np.ones(cells.shape, np.int32))
    return cells


def trained(path, edit):
    write_tiny_paired(path / "x.paired")
    edit(anndata.read_h5ad(path / "x.paired" / "cells.h5ad")).write_h5ad(path / "x.paired" / "cells.h5ad")
    dataset = PairedDataset.open(path / "x.paired")
    config = TrainConfig(preset="tiny", mixed_precision="no")
    return dataset, train(dataset, path / "x.model", config, log=lambda _: None)


@pytest.mark.parametrize("edit", [three_validation_cells, empty_validation_cells])
def test_own_cells_are_not_novel_without_useful_validation_cells(tmp_path, edit) -> None:
    """Quantiles of three cells would call more than half of all others novel."""
    dataset, bundle = trained(tmp_path, edit)
    assert bundle.provenance["cell_spacing_um"] == pytest.approx(16.0)
    found = assess_cells(bundle, dataset.counts, dataset.genes, len(dataset))
    assert found.verdict == "known"


def test_cells_that_are_all_alike_are_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="posterior collapse"):
        trained(tmp_path, equal_cells)
