"""`--features rna,protein`: from training to every way of generating, each with the proteins of the very cells."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from sge2hist import SGE2Hist, generate_slide
from sge2hist.cli.main import app
from sge2hist.data.errors import InputError
from sge2hist.data.generated import LATENT_KEYS, GeneratedSet
from sge2hist.data.paired import PairedDataset
from sge2hist.data.spatial_index import CellIndex
from sge2hist.generation.applicability import ApplicabilityWarning, check_dataset
from sge2hist.generation.dose import dose_request
from sge2hist.generation.edited_patches import edited_request
from sge2hist.generation.encode import encode_cells, neighbour_reader, z2_of_cell
from sge2hist.generation.requests import request_from_adata, request_from_paired
from sge2hist.generation.slide.edits import Edit
from sge2hist.generation.slide.render import prepare_slide
from sge2hist.generation.slide.request import SlideConfig
from sge2hist.generation.slide.source import source_from_paired
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.gene.encode import dense_counts
from sge2hist.models.image.samplers import SamplerConfig
from sge2hist.training.config import TrainConfig
from sge2hist.training.finetune.base import check_tunable, conditioning_cells
from sge2hist.training.gene.data import GeneData
from sge2hist.training.gene.stages import calibrate_novelty
from sge2hist.training.train import train
from tests.fixtures.paired import write_tiny_paired

NAMES = ("CD3", "CD8", "CD20")
BOTH = TrainConfig(preset="tiny", mixed_precision="no", features="rna,protein", steps=2)
FAST = SamplerConfig(n_steps=1)
ROWS = np.array([1403, 1404, 1500])


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> PairedDataset:
    return write_tiny_paired(tmp_path_factory.mktemp("data") / "p.paired", proteins=NAMES)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "p.model"
    logged: list[str] = []
    train(data, path, BOTH, log=logged.append)
    assert any("30 genes, 3 proteins, " in line for line in logged)
    return path


@pytest.fixture(scope="module")
def bundle(trained, data) -> ModelBundle:
    """The model, with latents that follow the proteins more than two steps of training teach: a wrong row shows."""
    bundle = ModelBundle.load(trained)
    layer = bundle.model.gene.encoder.from_proteins.layer
    torch.nn.init.normal_(layer.weight, std=0.3, generator=torch.Generator().manual_seed(0))
    calibrate_novelty(bundle.model.gene, GeneData.from_paired(data, data.rows("train"), None, bundle.proteins))
    return bundle


@pytest.fixture(scope="module")
def expected(bundle, data) -> np.ndarray:
    """z1 of all cells, by one call of the encoder."""
    index = CellIndex(data.centre_xy_px * data.um_per_px, data.slide_of_cell)
    features = neighbour_reader(bundle, data.counts, data.genes, index)(np.arange(len(data)))
    protein = torch.from_numpy(data.protein.to_numpy(np.float32))
    with torch.no_grad():
        counts = dense_counts(data.counts_in_memory())
        posterior = bundle.model.gene.encode(counts, None, torch.from_numpy(features), protein)
    return posterior.z1.numpy()


def _without(data: PairedDataset, folder) -> PairedDataset:
    """The dataset as it is where no protein was measured."""
    shutil.copytree(data.path, folder / "rna.paired")
    bare = PairedDataset.open(folder / "rna.paired")
    bare.manifest.pop("protein")
    return bare


def _z1(request) -> np.ndarray:
    return request.latents[LATENT_KEYS["z1"]]


def test_a_model_keeps_its_proteins(trained, data):
    bundle = ModelBundle.load(trained)
    assert bundle.proteins.names == NAMES
    assert bundle.proteins.unit == "UMI"
    assert bundle.config.gene.n_proteins == 3
    assert bundle.provenance["training"]["features"] == "rna,protein"
    layer, of_train = bundle.model.gene.encoder.from_proteins, data.protein.to_numpy()[data.rows("train")]
    np.testing.assert_allclose(layer.mean_P.numpy(), np.log1p(of_train).mean(0), rtol=1e-5)
    assert layer.layer.weight.abs().max() > 0
    assert "3 proteins" in (trained / "README.md").read_text()
    (trained / "proteins.csv").rename(trained / "away.csv")
    with pytest.raises(InputError, match="a list of proteins that cannot be read"):
        ModelBundle.load(trained)
    (trained / "away.csv").rename(trained / "proteins.csv")
    described = CliRunner().invoke(app, ["inspect", str(trained)])
    assert "proteins" in described.output


def test_patches_of_a_dataset_read_the_proteins_of_their_cells(bundle, data, expected):
    request = request_from_paired(bundle, data, ROWS)
    np.testing.assert_allclose(_z1(request), expected[ROWS], atol=1e-4)
    assert request.manifest["features"] == "rna,protein"
    shuffled = request_from_paired(bundle, data, ROWS, shuffle_cells=True)
    np.testing.assert_allclose(_z1(shuffled), expected[shuffled.obs["condition_row"]], atol=1e-4)
    assert dict(check_dataset(bundle, data).as_dict())["verdict"] is not None


def test_edits_and_doses_keep_the_proteins(bundle, data, expected):
    edits = [Edit(cells=(str(data.obs.index[0]),), gene="GENE3", factor=2.0)]
    request = edited_request(bundle, data, ROWS, edits)
    np.testing.assert_allclose(_z1(request), expected[ROWS], atol=1e-4)
    cell, gene = str(data.obs.index[1403]), data.genes.ids[-1]
    for cells in (data, data.adata()):
        dose = dose_request(bundle, cells, cell, gene, [1.0, 4.0])
        np.testing.assert_allclose(_z1(dose)[0], expected[1403], atol=1e-4)
        assert dose.manifest["features"] == "rna,protein"


def test_an_anndata_is_read_by_the_names_of_its_proteins(bundle, data, expected):
    cells = data.adata()
    cells.obsm["protein"] = cells.obsm["protein"][["CD20", "CD3", "CD8"]]
    np.testing.assert_allclose(_z1(request_from_adata(bundle, cells, rows=ROWS)), expected[ROWS], atol=1e-4)
    del cells.obsm["protein"]["CD8"]
    with pytest.raises(InputError, match=r"no values of 1 of the model's 3 proteins \(CD8\)"):
        SGE2Hist(bundle=bundle).generate_from_genes(cells, rows=[0], sampler=FAST)


def test_a_slide_and_the_embedding_read_them(bundle, data, expected, tmp_path):
    options = {"region_um": (100.0, 500.0, 96.0, 96.0), "sampler": FAST}
    job = prepare_slide(bundle, source_from_paired(data), tmp_path / "a.generated", SlideConfig(**options))
    rows = [part for part in job.cells.in_source_order() if len(part.source_M)]
    source, z_MZ = np.concatenate([p.source_M for p in rows]), np.concatenate([p.z_MZ for p in rows])
    assert len(source) > 36
    np.testing.assert_allclose(z_MZ[:, :8], expected[source], atol=1e-4)
    for alone in (False, True):
        slide = generate_slide(bundle, data, tmp_path / f"{alone}.generated", stand_alone=alone, **options)
        assert slide.manifest["features"] == "rna,protein"

    cells = data.adata()
    SGE2Hist(bundle=bundle).embed(cells)
    assert cells.uns["sge2hist"]["proteins"]
    np.testing.assert_allclose(cells.obsm[LATENT_KEYS["z1"]], expected, atol=1e-4)


def replace_proteins(data: PairedDataset, values: np.ndarray) -> PairedDataset:
    """The dataset with other values."""
    other = PairedDataset.open(data.path)
    other.__dict__["proteins"] = replace(other.proteins, value_NP=values.astype(np.float32))
    return other


def test_the_explorer_reads_them(bundle, data, expected):
    from sge2hist.explorer.cells import CellAnswers
    from sge2hist.explorer.tissue import Tissue

    tissue = Tissue(bundle, data, model_name="m", warn=lambda _: None)
    np.testing.assert_allclose(tissue.patch(1403, ()).z_centre[:8], expected[1403], atol=1e-4)
    answers, edited = CellAnswers(tissue), tissue.edited(())
    found = answers.tissue.embed(edited.read_counts(ROWS), ROWS)
    np.testing.assert_allclose(found.z1_NT, expected[ROWS], atol=1e-4)
    assert answers.describe(edited, str(data.obs.index[1403]))["predicted_type"] in bundle.types.names


def test_the_microenvironment_of_a_cell_and_further_training_read_them(bundle, data):
    index = CellIndex(data.centre_xy_px * data.um_per_px, data.slide_of_cell)
    neighbours = neighbour_reader(bundle, data.counts, data.genes, index)
    z2 = z2_of_cell(bundle, data, str(data.obs.index[1403]))
    row = ROWS[:1]
    alone = encode_cells(bundle, data.counts, data.genes, row, neighbours=neighbours).mean_NZ[0, 8:]
    assert np.abs(z2 - alone).max() > 0.01
    check_tunable(bundle, data)
    cells = conditioning_cells(bundle.model, bundle, data, "cpu")
    assert cells is not None


def test_without_proteins_rna_alone_conditions_with_a_warning(bundle, data, tmp_path):
    bare = _without(data, tmp_path)
    with pytest.warns(ApplicabilityWarning, match="none was measured: RNA alone conditions these images"):
        request = request_from_paired(bundle, bare, ROWS)
    assert request.manifest["features"] == "rna"
    (figure,) = (f for f in request.manifest["applicability"]["figures"] if f["name"] == "protein_share")
    assert figure["value"] == 0.0
    with torch.no_grad():
        plain = bundle.model.gene.encode(dense_counts(data.counts(ROWS))).z1.numpy()
    np.testing.assert_allclose(_z1(request), plain, atol=1e-4)
    with pytest.raises(InputError, match="a dataset without proteins"):
        check_tunable(bundle, bare)


def test_the_command_records_which_features_it_used(trained, data, tmp_path):
    cells = data.adata()
    del cells.obsm["protein"]
    cells.write_h5ad(tmp_path / "x.h5ad")
    output = tmp_path / "x.generated"
    arguments = ["--data", str(tmp_path / "x.h5ad"), "-n", "2", "--steps", "1", "-o", str(output)]
    done = CliRunner().invoke(app, ["generate", str(trained), *arguments])
    assert done.exit_code == 0, done.output
    assert "none was measured" in " ".join(done.output.split())
    assert GeneratedSet.open(output).manifest["features"] == "rna"
    described = CliRunner().invoke(app, ["inspect", str(output)])
    assert "features" in described.output


def test_wrong_features_are_refused_before_anything_is_written(data, tiny_paired, tiny_model, trained, tmp_path):
    for wrong, repair in (
        ("protein", "beside the genes"),
        ("rna,foo", "rna or rna,protein"),
        ("", "rna or rna,protein"),
    ):
        with pytest.raises(InputError, match=f"--features {wrong};.*{repair}"):
            TrainConfig(features=wrong)
    with pytest.raises(InputError, match="--features rna,protein and a dataset without proteins"):
        train(tiny_paired, tmp_path / "a.model", BOTH, log=lambda _: None)
    for start, features in ((tiny_model, "rna,protein"), (trained, "rna")):
        config = TrainConfig(preset="tiny", features=features, warm_start=str(start))
        with pytest.raises(InputError, match="a model to start from that reads"):
            train(data, tmp_path / "a.model", config, log=lambda _: None)
    assert list(tmp_path.iterdir()) == []


def test_an_older_run_of_genes_alone_can_be_resumed():
    assert "features" not in TrainConfig().identity()
    assert BOTH.identity()["features"] == "rna,protein"


def test_a_slide_that_lacks_a_protein_is_trained_on(data, tmp_path):
    values = data.protein.to_numpy().copy()
    values[::2] = np.nan
    values[:, 2] = np.nan
    part = replace_proteins(data, values)
    bundle = train(part, tmp_path / "half.model", BOTH, log=lambda _: None)
    assert bundle.proteins.names == NAMES[:2]
    assert all(torch.isfinite(value).all() for value in bundle.model.state_dict().values() if value.is_floating_point())
    assert isinstance(data.protein, pd.DataFrame)
