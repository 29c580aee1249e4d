"""Whether the cells are such as the model knows: nothing for its own, warnings, refusals, and what a forced run records."""

from __future__ import annotations

import json
import os
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix
from typer.testing import CliRunner

from sge2hist import SGE2Hist, generate_slide
from sge2hist.cli.main import app
from sge2hist.data.errors import InputError
from sge2hist.data.gene_panel import GenePanel, species_of
from sge2hist.data.generated import APPLICABILITY, GeneratedSet, applicability_headline
from sge2hist.evaluation.report.build import applicability_lines
from sge2hist.generation.applicability import (
    ApplicabilityWarning,
    assess_cells,
    check_cells,
    check_dataset,
    lower_limit,
)
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.samplers import SamplerConfig
from sge2hist.viewer.build import build_viewer

FAST = SamplerConfig(n_steps=1)
HER2ST = Path(os.environ.get("SGE2HIST_DATA", "/nonexistent")) / "her2st_st" / "C2.tsv.gz"


@pytest.fixture(scope="module")
def bundle(tiny_model):
    return ModelBundle.load(tiny_model)


@pytest.fixture(scope="module")
def kidney():
    return ModelBundle.load(Path(__file__).parents[2] / "src/sge2hist/pretrained/kidney")


def levels(bundle, counts, panel, xy_um_N2=None) -> dict[str, int]:
    found = assess_cells(bundle, lambda rows: counts[rows], panel, counts.shape[0], xy_um_N2=xy_um_N2)
    return {figure.name: figure.level for figure in found.figures}


def table(dataset, *, ids=None, symbols=None) -> anndata.AnnData:
    cells = dataset.adata()
    var = pd.DataFrame({"symbol": symbols or dataset.genes.symbols}, index=ids or dataset.genes.ids)
    return anndata.AnnData(X=cells.X, obs=cells.obs, var=var)


def spots(dataset, n_cells: int = 25) -> anndata.AnnData:
    """Sums of many cells, under the same genes."""
    X = csr_matrix(dataset.counts_in_memory())
    n = X.shape[0] // n_cells
    sums = csr_matrix((np.ones(n * n_cells), (np.repeat(np.arange(n), n_cells), np.arange(n * n_cells))))
    return anndata.AnnData(X=csr_matrix(sums @ X[: n * n_cells]), var=pd.DataFrame(index=dataset.genes.ids))


# --- verdicts -------------------------------------------------------------------------------------------------------


def test_the_models_own_tissue_is_known_without_a_word(bundle, tiny_paired):
    found = check_dataset(bundle, tiny_paired)  # a warning would be an error here
    assert found.verdict == "known"
    assert not found.forced
    assert {figure.level for figure in found.figures} == {0}
    assert {figure.name for figure in found.figures} == {
        "gene_share",
        "common_gene_names",
        "other_species",
        "counts_per_cell",
        "expression_profile",
        "novel_cells",
        "cell_spacing",
    }


@pytest.mark.parametrize("n", [0, 1, 2, 7])
def test_few_cells_of_the_own_tissue_are_known(bundle, tiny_paired, n):
    counts = tiny_paired.counts(np.arange(n))
    assert max(levels(bundle, counts, tiny_paired.genes).values()) == 0


def test_a_quarter_of_the_depth_warns_at_most(bundle, tiny_paired):
    counts = tiny_paired.counts_in_memory().copy()
    counts.data = np.random.default_rng(0).binomial(counts.data, 0.25).astype(np.int32)
    found = levels(bundle, counts, tiny_paired.genes)
    assert found["counts_per_cell"] == 1
    assert max(found.values()) == 1


def test_cells_without_any_counts_are_refused(bundle, tiny_paired):
    counts = tiny_paired.counts(np.arange(20)) * 0
    assert levels(bundle, counts, tiny_paired.genes)["counts_per_cell"] == 2


def test_shuffled_genes_are_refused(bundle, tiny_paired):
    order = np.random.default_rng(1).permutation(len(tiny_paired.genes))
    panel = GenePanel([tiny_paired.genes.ids[i] for i in order])
    found = levels(bundle, tiny_paired.counts_in_memory(), panel)
    assert found["novel_cells"] == 2 or found["expression_profile"] == 2


def test_spots_are_refused_by_their_depth(bundle, tiny_paired):
    with pytest.raises(InputError, match=r"counts on the model's genes.*spots.*--force"):
        SGE2Hist(bundle=bundle).generate_from_genes(spots(tiny_paired), sampler=FAST)


@pytest.mark.parametrize(("factor", "level"), [(1.0, 0), (2.0, 1), (0.5, 1), (12.5, 2)])
def test_spacing_of_positions(bundle, tiny_paired, factor, level):
    """2.0: px of 0.5 um taken for um; 12.5: spots."""
    xy_um_N2 = tiny_paired.centre_xy_px * tiny_paired.um_per_px * factor
    found = levels(bundle, tiny_paired.counts_in_memory(), tiny_paired.genes, xy_um_N2)
    assert found["cell_spacing"] == level


def test_few_genes_of_the_model(kidney):
    counts = csr_matrix(np.random.default_rng(0).poisson(20.0, (30, 4000)))
    for n, level in ((2000, 0), (500, 1), (63, 2)):
        assert levels(kidney, counts[:, :n], GenePanel(kidney.genes.ids[:n]))["gene_share"] == level
    mixed = GenePanel([*kidney.genes.ids[:300], *(f"other{i}" for i in range(17_585))])
    counts = csr_matrix(np.ones((3, len(mixed))))
    assert levels(kidney, counts, mixed)["common_gene_names"] == 2


# --- species --------------------------------------------------------------------------------------------------------


def test_mouse_symbols_are_refused_by_a_human_model(kidney):
    symbols = [symbol.capitalize() for symbol in kidney.genes.symbols]
    counts = csr_matrix(np.random.default_rng(0).poisson(1.0, (20, len(symbols))))
    found = assess_cells(kidney, lambda rows: counts[rows], GenePanel(symbols), 20)
    figure = next(figure for figure in found.figures if figure.name == "other_species")
    assert figure.level == 2
    assert "case of their symbols is ignored" in figure.text
    assert levels(kidney, counts, GenePanel([s.lower() for s in symbols]))["other_species"] == 1  # may be an export
    ids = [f"ENSMUSG{i:011d}" for i in range(len(symbols))]
    assert levels(kidney, counts, GenePanel(ids, kidney.genes.symbols))["other_species"] == 0  # named as the model's


def test_ids_of_two_species_are_refused(bundle, tiny_paired):
    mouse = GenePanel([f"ENSMUSG{i:011d}" for i in range(30)], tiny_paired.genes.symbols)
    assert levels(bundle, tiny_paired.counts_in_memory(), mouse)["other_species"] == 2


@pytest.mark.parametrize(
    ("ids", "symbols", "expected"),
    [
        (["ENSG00000169344.16"], ["UMOD"], "human"),
        (["ENSMUSG00000030963"], ["Umod"], "mouse"),
        (["ENSRNOG00000017551"], None, "rat"),
        (["ENSXETG00000012345"], None, "another species (ENSXETG)"),
        (["Umod", "Nphs1", "Krt8"], None, "mouse or rat"),
        (["UMOD", "NPHS1", "C1orf112", "KRT8", "KRT18", "VIM"], None, None),
        (["1", "2"], None, None),
    ],
)
def test_species_of_a_panel(ids, symbols, expected):
    assert species_of(GenePanel(ids, symbols)) == expected


def test_mouse_ids_and_mouse_symbols_agree(bundle):
    one, other = species_of(GenePanel(["ENSMUSG00000030963"])), species_of(GenePanel(["Umod", "Nphs1"]))
    assert one is not None
    assert other is not None
    assert one in other


def test_lower_limit_is_that_of_scipy():
    from scipy.stats import binomtest

    for k, n in ((0, 10), (1, 1), (3, 50), (500, 2000)):
        expected = binomtest(k, n).proportion_ci(method="wilson").low
        assert lower_limit(k / n, n) == pytest.approx(expected, abs=1e-3)


# --- real cells -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not HER2ST.is_file(), reason="SGE2HIST_DATA names no folder with her2st_st")
def test_breast_spots_are_refused_by_the_kidney_model(kidney):
    counts = pd.read_csv(HER2ST, sep="\t", index_col=0)
    cells = anndata.AnnData(X=csr_matrix(counts.to_numpy(np.float32)), var=pd.DataFrame(index=counts.columns))
    with pytest.raises(InputError, match="cells that this model does not know") as error:
        SGE2Hist(bundle=kidney).generate_from_genes(cells, rows=[0, 1], sampler=FAST)
    assert "novel" in str(error.value)
    assert "correlates" in str(error.value)


# --- what users see -------------------------------------------------------------------------------------------------


def test_python_calls_refuse_and_can_be_forced(bundle, tiny_paired):
    model, cells = SGE2Hist(bundle=bundle), spots(tiny_paired)
    for call in (
        lambda **options: model.generate_from_genes(cells, rows=[0], sampler=FAST, **options),
        lambda **options: model.embed(cells, **options),
        lambda **options: model.dose(cells, cells.obs_names[0], cells.var_names[0], [1.0], sampler=FAST, **options),
    ):
        with pytest.raises(InputError, match="does not know"):
            call()
        with pytest.warns(ApplicabilityWarning, match="does not know such cells"):
            call(force=True)
    assert cells.uns["sge2hist"]["verdict"] == "unknown"
    assert cells.uns["sge2hist"]["figures"]["counts_per_cell"] > 20


def test_slide_refuses_before_it_writes_and_records_a_forced_run(bundle, tiny_paired, tmp_path):
    cells = tiny_paired.adata()
    wide_um = tiny_paired.centre_xy_px * tiny_paired.um_per_px * 4
    cells.obs[["x_um", "y_um"]] = wide_um
    del cells.obsm["spatial"]
    cells.uns.clear()
    options = {"region_um": (0, 0, 128, 128), "sampler": FAST}
    with pytest.raises(InputError, match="64 um away, 16 um among the training cells"):
        generate_slide(bundle, cells, tmp_path / "x.generated", **options)
    assert list(tmp_path.iterdir()) == []
    messages: list[str] = []
    slide = generate_slide(bundle, cells, tmp_path / "x.generated", force=True, log=messages.append, **options)
    assert any("does not know such cells" in message for message in messages)
    found = slide.manifest[APPLICABILITY]
    assert (found["verdict"], found["forced"]) == ("unknown", True)
    page = build_viewer(slide.path, tmp_path / "view").read_text(encoding="utf-8")
    assert "cells unknown to the model" in page
    assert "64 um away" in page


def test_commands_warn_refuse_and_record(tiny_paired, tiny_model, tmp_path):
    path, output = tmp_path / "spots.h5ad", tmp_path / "x.generated"
    spots(tiny_paired).write_h5ad(path)
    arguments = ["generate", str(tiny_model), "--data", str(path), "-n", "2", "--steps", "1", "-o", str(output)]
    refused = CliRunner().invoke(app, arguments)
    assert isinstance(refused.exception, InputError) or refused.exit_code != 0
    assert not output.exists()
    forced = CliRunner().invoke(app, [*arguments, "--force"])
    assert forced.exit_code == 0
    assert "warning: " in forced.output
    manifest = GeneratedSet.open(output).manifest
    assert manifest[APPLICABILITY]["forced"]
    json.dumps(manifest[APPLICABILITY], allow_nan=False)
    described = CliRunner().invoke(app, ["inspect", str(output)])
    assert "does not know such cells" in described.output


def test_warning_of_the_first_threshold_names_the_figure(bundle, tiny_paired):
    cells = tiny_paired.counts_in_memory() * 5
    messages: list[str] = []
    found = check_cells(
        bundle, lambda rows: cells[rows], tiny_paired.genes, len(tiny_paired), where="x.h5ad", warn=messages.append
    )
    assert found.verdict == "doubtful"
    assert not found.forced
    assert len(messages) == 1
    assert messages[0].startswith("x.h5ad: The cells differ")
    assert "counts" in messages[0]


def test_report_headline():
    figure = {"text": "few genes", "level": 2}
    report = {
        "sets": [
            {"name": "a", "manifest": {APPLICABILITY: {"verdict": "unknown", "figures": [figure]}}},
            {"name": "b", "manifest": {APPLICABILITY: {"verdict": "known", "figures": []}}},
            {"name": "c", "manifest": {}},
        ]
    }
    lines = applicability_lines(report)
    assert "toybanner" in lines.split("</p>")[0]
    assert "a: The model does not know such cells" in lines
    assert "b: The cells are such as" in lines
    assert "c: " not in lines
    assert applicability_headline(None) is None
