"""Proteins of 10x Genomics' platforms are kept apart from the genes, with their names and their unit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fixtures.tenx import add_proteins
from fixtures.tissue import make_tissue
from fixtures.visium import write_visium
from fixtures.visium_hd import write_visium_hd
from fixtures.xenium import write_xenium
from sge2hist.data.errors import InputError
from sge2hist.data.paired import PairedDataset
from sge2hist.data.section import Section
from sge2hist.pairing.config import CellsConfig, PrepareConfig
from sge2hist.pairing.prepare import prepare
from sge2hist.readers import open_sections

TISSUE = make_tissue()
EVERYTHING = PrepareConfig(
    patch_um=8,
    patch_px=16,
    min_counts=0,
    min_genes=0,
    min_cells_per_gene=0,
    min_tissue_fraction=0,
    keep_border=True,
    types="none",
    fractions=(1, 0, 0),
    check_alignment=False,
)
GENES = TISSUE.gene_ids[:2]
SAME_SYMBOL = TISSUE.symbols[2]  # a protein that is called as a gene is
OF_GENE = {"CD45": GENES[0], SAME_SYMBOL: GENES[1]}


def _counts(dataset: PairedDataset) -> np.ndarray:
    """Counts of the genes that the proteins follow, [N, 2]."""
    columns = [dataset.genes.ids.index(gene) for gene in OF_GENE.values()]
    return dataset.counts_in_memory().toarray()[:, columns]


def _check(dataset: PairedDataset, n_barcodes: np.ndarray | int, scale: float = 1.0) -> None:
    """Truth: three times the counts of a gene, and one for each barcode that the cell is made of."""
    protein = PairedDataset.open(dataset.path).protein
    assert protein is not None
    assert list(protein.columns) == list(OF_GENE)
    assert list(protein.index) == list(dataset.obs.index)
    assert protein.to_numpy().dtype == np.float32
    expected = (3 * _counts(dataset) + np.broadcast_to(n_barcodes, len(dataset))[:, None]) / scale
    np.testing.assert_allclose(protein.to_numpy(), expected, rtol=1e-6)
    assert "CD45" not in dataset.genes.ids
    assert dataset.manifest["protein"]["names"] == list(OF_GENE)


def test_antibodies_of_visium(tmp_path: Path) -> None:
    truth = write_visium(tmp_path)
    genes = truth.tissue.gene_ids
    for path in truth.outs.glob("*.h5"):
        add_proteins(path, dict(zip(OF_GENE, genes[:2], strict=True)), "Antibody Capture")
    (section,) = open_sections(truth.outs, image=truth.image)
    assert "2 proteins" in section.describe()
    assert any("2 proteins ('Antibody Capture') kept apart" in note for note in section.notes)
    dataset = prepare([section], tmp_path / "x.paired", EVERYTHING)
    assert dataset.genes.ids == genes
    _check(dataset, 1)
    assert dataset.manifest["protein"]["unit"] == "UMI"


@pytest.mark.parametrize(("bin_um", "method"), [(16, "bins"), (2, "segmentation")])
def test_antibodies_of_visium_hd_are_summed_with_the_bins(tmp_path: Path, bin_um: int, method: str) -> None:
    truth = write_visium_hd(TISSUE, tmp_path, bin_um=(2, 8), version="4.0.1")
    for path in truth.outs.rglob("*_feature_bc_matrix.h5"):
        add_proteins(path, OF_GENE, "Antibody Capture")
    config = PrepareConfig(**vars(EVERYTHING) | {"bin_um": bin_um, "cells": CellsConfig(method=method)})
    dataset = prepare(truth.outs, tmp_path / "x.paired", config, images=truth.image)
    assert dataset.manifest["observation"] == ("bin" if method == "bins" else "cell")
    _check(dataset, dataset.obs["n_native_bins" if method == "bins" else "n_bins"].to_numpy())


@pytest.mark.parametrize("scaling_factor", [None, 10.0])
def test_intensities_of_xenium_are_divided_by_their_scaling_factor(tmp_path: Path, scaling_factor) -> None:
    folder = write_xenium(TISSUE, tmp_path / "x", version="xenium-4.0.1.0").folder
    add_proteins(folder / "cell_feature_matrix.h5", OF_GENE, "Protein Expression", scaling_factor)
    dataset = prepare(open_sections(folder), tmp_path / "x.paired", EVERYTHING)
    _check(dataset, 1, scaling_factor or 1.0)
    entry = dataset.manifest["protein"]
    assert entry["unit"] == "mean intensity"
    (slide,) = entry["slides"].values()
    assert slide == {"feature_type": "Protein Expression", "scaling_factor": scaling_factor or 1.0}


def test_a_scaling_factor_that_is_none(tmp_path: Path) -> None:
    folder = write_xenium(TISSUE, tmp_path / "x").folder
    add_proteins(folder / "cell_feature_matrix.h5", OF_GENE, "Protein Expression", 0.0)
    with pytest.raises(InputError, match="protein_scaling_factor = 0"):
        open_sections(folder)


def _named(*folders: Path) -> list[Section]:
    return [replace(section, name=path.name) for path in folders for section in open_sections(path)]


def test_a_slide_without_proteins_beside_one_with(tmp_path: Path) -> None:
    first, second = (write_xenium(TISSUE, tmp_path / name).folder for name in ("a", "b"))
    add_proteins(first / "cell_feature_matrix.h5", OF_GENE, "Protein Expression", 10.0)
    sections = _named(first, second)
    dataset = prepare(sections, tmp_path / "x.paired", EVERYTHING)
    assert dataset.protein is not None
    of_second = dataset.slide_of_cell == 1
    assert dataset.protein[of_second].isna().all(axis=None)
    assert dataset.protein[~of_second].notna().all(axis=None)
    add_proteins(second / "cell_feature_matrix.h5", OF_GENE, "Antibody Capture")
    sections = _named(first, second)
    with pytest.raises(InputError, match="proteins in UMI and mean intensity"):
        prepare(sections, tmp_path / "y.paired", EVERYTHING)
    assert not (tmp_path / "y.paired").exists()


def test_a_dataset_without_proteins_has_none(tmp_path: Path) -> None:
    dataset = prepare(open_sections(write_xenium(TISSUE, tmp_path / "x").folder), tmp_path / "x.paired", EVERYTHING)
    assert dataset.protein is None
    assert "protein" not in dataset.manifest
