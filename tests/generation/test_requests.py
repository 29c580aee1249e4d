"""Requests for images: from RNA, from types, alone or among neighbours; every image is a function of its own seed."""

from __future__ import annotations

import anndata
import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from sge2hist import SGE2Hist
from sge2hist.data.errors import InputError
from sge2hist.data.generated import GeneratedSet
from sge2hist.generation.encode import z2_of_cell
from sge2hist.generation.patches import generate, image_batches
from sge2hist.generation.requests import (
    known_context,
    request_from_adata,
    request_from_paired,
)
from sge2hist.generation.type_requests import request_from_types
from sge2hist.generation.windows import image_seed
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.conditioning import MODE_ALL, MODE_SINGLE_CELL
from sge2hist.models.image.samplers import SamplerConfig

FAST = SamplerConfig(n_steps=4)


@pytest.fixture(scope="module")
def bundle(tiny_model):
    return ModelBundle.load(tiny_model)


def _images(bundle, request, batch: int = 64) -> np.ndarray:
    return np.concatenate(list(image_batches(bundle, request, FAST, batch=batch)))


def test_images_do_not_depend_on_batch_size_or_company(bundle, tiny_paired):
    rows = tiny_paired.rows("test")[:6]
    together = _images(bundle, request_from_paired(bundle, tiny_paired, rows, n_samples=2))
    one_by_one = _images(bundle, request_from_paired(bundle, tiny_paired, rows, n_samples=2), batch=1)
    third = _images(bundle, request_from_paired(bundle, tiny_paired, rows[2:3], n_samples=2))
    assert together.shape == (12, 32, 32, 3)
    # bfloat16 sums may be blocked differently: a grey level or two
    assert np.abs(together.astype(int) - one_by_one).max() <= 4
    assert np.abs(together[4:6].astype(int) - third).max() <= 4
    assert not np.array_equal(together[0], together[1])


def test_each_context_places_the_right_cells(bundle, tiny_paired):
    rows = tiny_paired.rows("test")[[50]]
    alone = request_from_paired(bundle, tiny_paired, rows, context="single_cell").placed_cells(slice(0, 1))
    assert alone.mode_B.tolist() == [MODE_SINGLE_CELL]
    assert alone.xy_um_M2.tolist() == [[32.0, 32.0]]
    among = request_from_paired(bundle, tiny_paired, rows).placed_cells(slice(0, 1))
    assert among.mode_B.tolist() == [MODE_ALL]
    at_centre = torch.nonzero((among.xy_um_M2 - 32.0).abs().amax(1) < 1e-6)[:, 0]
    assert len(at_centre) == 1
    assert np.allclose(among.z_MZ[at_centre[0]], alone.z_MZ[0], atol=1e-4)
    assert len(among.z_MZ) > 9


def test_shuffled_cells_take_other_expression(bundle, tiny_paired):
    rows = tiny_paired.rows("test")
    request = request_from_paired(bundle, tiny_paired, rows, shuffle_cells=True)
    assert np.array_equal(request.obs["row"], rows)
    assert sorted(request.obs["condition_row"]) == sorted(rows)
    assert (request.obs["row"] != request.obs["condition_row"]).mean() > 0.9
    assert np.array_equal(request.obs["seed"], request_from_paired(bundle, tiny_paired, rows).obs["seed"])


def test_adata_on_another_panel_order_gives_the_same_images(bundle, tiny_model, tiny_paired):
    cells = tiny_paired.adata()[tiny_paired.rows("test")[:4]].copy()
    order = np.random.default_rng(0).permutation(cells.n_vars)
    turned = cells[:, order].copy()
    turned.var_names = [f"{name}.3" for name in turned.var_names]  # Ensembl versions
    a, b = request_from_adata(bundle, cells), request_from_adata(bundle, turned)
    assert np.allclose(a.placed_cells(slice(0, 4)).z_MZ, b.placed_cells(slice(0, 4)).z_MZ, atol=1e-5)
    assert "30 of 30 genes" in b.report
    predicted = a.obs["sge2hist_type"].tolist()
    assert predicted == b.obs["sge2hist_type"].tolist()
    SGE2Hist.from_pretrained(tiny_model).embed(cells)
    assert predicted == cells.obs["sge2hist_type"].tolist()


def test_missing_genes_are_reported_and_not_read_as_zero(bundle, tiny_paired):
    cells = tiny_paired.adata()[tiny_paired.rows("test")[:50]].copy()
    part = cells[:, :20].copy()
    request = request_from_adata(bundle, part)
    assert "20 of 30 genes" in request.report
    assert "10 missing" in request.report
    zeroed = cells.copy()
    dense = zeroed.X.toarray()
    dense[:, 20:] = 0
    zeroed.X = csr_matrix(dense)
    z_part, z_zero = (request_from_adata(bundle, c).placed_cells(slice(0, 50)).z_MZ for c in (part, zeroed))
    assert not np.allclose(z_part, z_zero, atol=1e-3)


def test_wrong_input_is_named(bundle, tiny_paired):
    other = anndata.AnnData(X=csr_matrix(np.ones((2, 3), np.float32)))
    other.var_names = ["A", "B", "C"]
    with pytest.raises(InputError, match="no gene in common"):
        request_from_adata(bundle, other)
    logged = tiny_paired.adata()[:3].copy()
    logged.X = logged.X.astype(np.float32) * 0.7
    with pytest.raises(InputError, match="numbers with fractions"):
        request_from_adata(bundle, logged)
    with pytest.raises(InputError, match="alpha, "):
        request_from_types(bundle, ["alpha", "delta"])
    with pytest.raises(InputError, match="type, prior"):
        request_from_types(bundle, ["alpha"], z2="posterior")
    with pytest.raises(InputError, match="context"):
        request_from_paired(bundle, tiny_paired, tiny_paired.rows("test"), context="far")
    with pytest.raises(InputError, match="homotypic, single_cell"):
        request_from_types(bundle, ["alpha"], context="neighbours")


def test_a_cell_without_neighbours_is_placed_among_cells_like_it(bundle, tiny_paired):
    rows = tiny_paired.rows("test")[:3]
    cells = tiny_paired.adata()[rows].copy()
    homotypic, paired = (
        request_from_adata(bundle, cells).placed_cells(slice(0, 3)),
        request_from_paired(bundle, tiny_paired, rows, context="homotypic").placed_cells(slice(0, 3)),
    )
    alone = request_from_adata(bundle, cells, context="single_cell").placed_cells(slice(0, 3))
    assert homotypic.mode_B.tolist() == [MODE_ALL] * 3
    assert alone.mode_B.tolist() == [MODE_SINGLE_CELL] * 3
    for i in range(3):
        own = homotypic.image_M == i
        assert own.sum() > 9
        n_type = bundle.config.gene.n_type
        assert np.allclose(homotypic.z_MZ[own, n_type:], alone.z_MZ[i, n_type:])
        assert (
            homotypic.z_MZ[own, :n_type].mean(0) - alone.z_MZ[i, :n_type]
        ).abs().max() < 0.5  # samples of its posterior
        assert (homotypic.z_MZ[own, :n_type].std(0) > 0).all()
        assert np.allclose(homotypic.depth_M[own], alone.depth_M[i])
    assert np.allclose(homotypic.z_MZ[:, :n_type], paired.z_MZ[:, :n_type], atol=1e-5)
    later = request_from_adata(bundle, cells).placed_cells(slice(1, 3))
    assert np.array_equal(later.z_MZ, homotypic.z_MZ[homotypic.image_M > 0])  # a function of the image's seed alone
    with pytest.raises(InputError, match="nobody"):
        z2_of_cell(bundle, tiny_paired, "nobody")


def test_another_resolution_is_refused_unless_resampled(bundle, tiny_paired, monkeypatch):
    monkeypatch.setattr(tiny_paired, "patch_um", 128.0)
    with pytest.raises(InputError, match=r"4 um/px in the data and a model of 2 um/px.*--resample"):
        request_from_paired(bundle, tiny_paired, tiny_paired.rows("test")[:1])
    assert len(request_from_paired(bundle, tiny_paired, tiny_paired.rows("test")[:1], resample=True)) == 1


def test_types_by_name_and_reference_environment(bundle, tiny_paired):
    request = request_from_types(bundle, ["Alpha", "gamma"], n=5, seed=3, context="single_cell")
    assert request.obs["cell_type"].tolist() == ["alpha"] * 5 + ["gamma"] * 5
    again = request_from_types(bundle, ["Alpha", "gamma"], n=5, seed=3, context="single_cell")
    assert np.allclose(request.latents["X_sge2hist_z1"], again.latents["X_sge2hist_z1"])
    z2 = z2_of_cell(bundle, tiny_paired, "cell_7")
    like = request_from_types(bundle, ["alpha"], n=3, z2=z2, context="single_cell")
    assert np.allclose(like.latents["X_sge2hist_z2"], z2)
    usual, prior = (
        request_from_types(bundle, ["alpha"], n=400, z2=z2, context="single_cell").latents["X_sge2hist_z2"]
        for z2 in ("type", "prior")
    )
    components, weights = bundle.components_of("alpha")
    mean_M = weights / weights.sum() @ bundle.model.gene.micro.means_KM[components].numpy()
    assert np.abs(usual.mean(0) - mean_M).max() < 0.25
    assert np.abs(prior.mean(0)).max() < 0.25
    assert np.abs(prior.std(0) - 1).max() < 0.2
    # a sample of a type is most likely under that type's own components
    gamma = (
        bundle.model.gene.mixture.responsibilities(torch.from_numpy(request.latents["X_sge2hist_z1"])).detach().numpy()
    )
    own = [bundle.types.name_of_component[k] for k in gamma.argmax(1)]
    assert np.mean([a.casefold() == b.casefold() for a, b in zip(own, request.obs["cell_type"], strict=True)]) >= 0.7


def test_seeds_are_distinct_and_stable():
    seeds = {image_seed(s, key, i) for s in range(3) for key in ("a", "b") for i in range(4)}
    assert len(seeds) == 24
    assert all(0 <= seed < 2**62 for seed in seeds)
    assert image_seed(0, "cell_1", 0) == 1049963395565370014


def test_a_set_on_disk_reads_back(bundle, tiny_paired, tmp_path):
    request = request_from_paired(bundle, tiny_paired, tiny_paired.rows("test")[:5], n_samples=2)
    written = generate(bundle, request, tmp_path / "a.generated", sampler=FAST, batch=4)
    images = _images(bundle, request, batch=4)
    assert len(written) == 10
    assert written.manifest["synthetic"] is True
    assert written.manifest["toy"] is True
    assert written.manifest["model_fingerprint"] == bundle.fingerprint
    for i in range(10):
        assert np.array_equal(written.image(i), images[i])
    assert np.array_equal(GeneratedSet.open(tmp_path / "a.generated").obs["seed"], request.obs["seed"])
    with pytest.raises(InputError, match="--overwrite"):
        generate(bundle, request, tmp_path / "a.generated", sampler=FAST)


def test_a_failure_leaves_nothing_behind(bundle, tiny_paired, tmp_path, monkeypatch):
    request = request_from_paired(bundle, tiny_paired, tiny_paired.rows("test")[:5])

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sge2hist.data.generated._write_png", full)
    with pytest.raises(InputError, match="No space left"):
        generate(bundle, request, tmp_path / "a.generated", sampler=FAST)
    assert list(tmp_path.iterdir()) == []


def test_notebook_object(tiny_model, tiny_paired):
    model = SGE2Hist.from_pretrained(tiny_model)
    images = model.generate_from_genes(tiny_paired, rows=[3, 4], n_samples=3, sampler=FAST)
    assert images.shape == (2, 3, 32, 32, 3)
    assert images.dtype == np.uint8
    assert model.generate_from_types("beta", n=2, sampler=FAST).shape == (2, 32, 32, 3)
    assert "beta" in model.types.names
    with pytest.raises(InputError):
        SGE2Hist.from_pretrained("/nowhere/at/all.model")


def test_embedding_of_an_adata(tiny_model, tiny_paired):
    cells = tiny_paired.adata()[tiny_paired.rows("test")].copy()
    report = SGE2Hist.from_pretrained(tiny_model).embed(cells)
    assert "30 of 30 genes" in report
    assert cells.obsm["X_sge2hist_z1"].shape == (len(cells), 8)
    assert {"sge2hist_type", "sge2hist_novel"} <= set(cells.obs)
    assert cells.obs["sge2hist_novel"].mean() < 0.2  # ordinary cells of the same tissue


def test_a_homotypic_patch_is_full_of_one_type(bundle):
    request = request_from_types(bundle, ["alpha"], n=2, context="homotypic")
    cells = request.placed_cells(slice(0, 2))
    assert cells.mode_B.tolist() == [MODE_ALL, MODE_ALL]
    own = cells.xy_um_M2[cells.image_M == 0]
    assert np.allclose(np.unique(np.diff(np.unique(own[:, 0]))), bundle.config.image.condition.splat_um)
    assert own.min() <= -bundle.config.receptive_radius_um + 16
    assert own.max() >= 64 + bundle.config.receptive_radius_um - 16
    component, _ = bundle.components_of("alpha")
    gene = bundle.model.gene
    means = torch.cat([gene.mixture.means_KT.detach(), gene.micro.means_KM], dim=1).numpy()[component]
    latents = np.concatenate([request.latents["X_sge2hist_z1"], request.latents["X_sge2hist_z2"]], axis=1)
    assert np.isclose(latents[0], means).all(1).any()
    prior = request_from_types(bundle, ["alpha"], n=2, z2="prior")
    assert np.allclose(prior.latents["X_sge2hist_z2"], 0)


def test_context_names_of_version_0_1_are_accepted(bundle, tiny_paired):
    rows = tiny_paired.rows("test")[:1]
    for old, new in (("field", "homotypic"), ("centre", "single_cell")):
        assert known_context(old) == new
        assert request_from_paired(bundle, tiny_paired, rows, context=old).manifest["context"] == new
