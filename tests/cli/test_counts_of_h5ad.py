"""Every command finds the same counts in an .h5ad: `generate`, `generate-slide`, and Python beside them."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pytest
from scipy.sparse import csr_matrix
from typer.testing import CliRunner

import sge2hist
from sge2hist.cli.main import app
from sge2hist.data.artifacts import read_json
from sge2hist.data.errors import InputError
from sge2hist.data.generated import GeneratedSet, GeneratedSlide


def _run(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def plain(tiny_paired) -> anndata.AnnData:
    """Counts in X."""
    adata = tiny_paired.adata()[:200].copy()
    adata.obs["x_um"], adata.obs["y_um"] = (tiny_paired.centre_xy_px[:200] * tiny_paired.um_per_px).T
    return adata


@pytest.fixture(scope="module")
def in_raw(plain) -> anndata.AnnData:
    """Normalised values of some genes in X, counts of all in raw."""
    adata = plain[:, :20].copy()
    total = np.asarray(plain.X.sum(1)).ravel()
    adata.X = csr_matrix(np.log1p(adata.X.toarray() / total[:, None] * 1e4).astype(np.float32))
    adata.raw = plain
    return adata


def test_patches_from_counts_in_raw_equal_those_from_counts_in_x(tiny_model, plain, in_raw, tmp_path: Path) -> None:
    for name, adata in (("plain", plain), ("raw", in_raw)):
        adata.write_h5ad(tmp_path / f"{name}.h5ad")
        out = tmp_path / f"{name}.generated"
        text = _run("generate", tiny_model, "--data", tmp_path / f"{name}.h5ad", "-n", 3, "--steps", 1, "-o", out)
    assert "counts from raw/X" in text
    one, other = (GeneratedSet.open(tmp_path / f"{name}.generated") for name in ("plain", "raw"))
    for i in range(3):
        np.testing.assert_array_equal(one.image(i), other.image(i))
    assert other.manifest["counts"]["location"] == "raw/X"
    with pytest.raises(InputError, match="as after a logarithm"):
        _run("generate", tiny_model, "--data", tmp_path / "raw.h5ad", "--layer", "X", "-o", tmp_path / "no.generated")
    assert not (tmp_path / "no.generated").exists()
    model = sge2hist.SGE2Hist.from_pretrained(tiny_model)
    embedded = [adata.copy() for adata in (plain, in_raw)]
    for adata in embedded:
        model.embed(adata)
    np.testing.assert_array_equal(*(adata.obsm["X_sge2hist_z1"] for adata in embedded))


def test_a_slide_from_counts_in_raw_equals_that_from_counts_in_x(tiny_model, plain, in_raw, tmp_path: Path) -> None:
    x, y = plain.obs[["x_um", "y_um"]].to_numpy().mean(0).round()
    pixels = []
    for name, adata, more in (("plain", plain, ()), ("raw", in_raw, ("--layer", "raw/X"))):
        adata.write_h5ad(tmp_path / f"{name}.h5ad")
        out = tmp_path / f"{name}.generated"
        words = ("--data", tmp_path / f"{name}.h5ad", "--region", f"{x},{y},40,40", "--steps", 1, *more)
        _run("generate-slide", tiny_model, *words, "--force", "-o", out)
        pixels.append(GeneratedSlide.open(out).image.read(0, 0, 20, 20))
    np.testing.assert_array_equal(*pixels)
    assert read_json(out / "manifest.json")["counts"]["location"] == "raw/X"


def test_corrected_counts_are_rounded_and_recorded(tiny_model, plain, tmp_path: Path) -> None:
    corrected = plain.copy()
    factor = np.random.default_rng(0).uniform(0.6, 1, corrected.X.data.shape)
    corrected.X = csr_matrix((corrected.X.data * factor, corrected.X.indices, corrected.X.indptr), corrected.shape)
    corrected.write_h5ad(tmp_path / "a.h5ad")
    words = ("generate", tiny_model, "--data", tmp_path / "a.h5ad", "-n", 4, "--steps", 1)
    with pytest.raises(InputError, match=r"--layer X --round-counts"):
        _run(*words, "-o", tmp_path / "no.generated")
    images = []
    for n, batch in ((4, 64), (2, 1)):
        out = tmp_path / f"{n}.generated"
        _run(*words, "--round-counts", "--seed", 5, "-n", n, "--batch", batch, "-o", out)
        made = GeneratedSet.open(out)
        images.append({cell: made.image(i) for i, cell in enumerate(made.obs["cell_id"])})
    assert made.manifest["counts"]["round_counts"] is True
    assert made.manifest["counts"]["rounding_seed"] == 5
    for cell, image in images[1].items():
        assert np.abs(image.astype(int) - images[0][cell]).max() <= 2  # batch sizes differ
    model = sge2hist.SGE2Hist.from_pretrained(tiny_model)
    with pytest.raises(InputError, match="round_counts=True"):
        model.embed(corrected)
    model.embed(corrected, round_counts=True, seed=5)
    assert corrected.uns["sge2hist"]["counts"]["rounding_seed"] == 5


def test_layer_belongs_to_h5ad(tiny_model, tiny_paired, tmp_path: Path) -> None:
    for verb in ("generate", "generate-slide"):
        with pytest.raises(InputError, match="--layer"):
            _run(verb, tiny_model, "--data", tiny_paired.path, "--layer", "X", "-o", tmp_path / "x.generated")
    model = sge2hist.SGE2Hist.from_pretrained(tiny_model)
    with pytest.raises(InputError, match="--round-counts with a paired dataset"):
        model.generate_from_genes(tiny_paired, rows=[0], round_counts=True)
