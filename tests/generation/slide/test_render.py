"""A slide is the same whatever the region, the number of processes and interruptions; edits change their neighbourhood alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import anndata
import numpy as np
import pytest
import shapely
import tifffile
import torch

from sge2hist.data.artifacts import read_json, read_manifest
from sge2hist.data.coverage import COVERAGE_NAME
from sge2hist.data.errors import InputError
from sge2hist.data.generated import SLIDE_NAME
from sge2hist.data.spatial_index import CellIndex
from sge2hist.devices import has_fast_bfloat16
from sge2hist.generation.encode import encode_cells, neighbour_reader
from sge2hist.generation.slide import job as slide_job
from sge2hist.generation.slide.cells import CellRows
from sge2hist.generation.slide.edits import Edit
from sge2hist.generation.slide.job import REPORT
from sge2hist.generation.slide.merge import merge_slides
from sge2hist.generation.slide.render import SlideConfig, generate_slide, prepare_slide, render_slide, work_folder
from sge2hist.generation.slide.source import source_from_adata, source_from_paired
from sge2hist.generation.slide.tiling import LAYOUT_VERSION, canvas_noise, latent_area
from sge2hist.generation.slide.worker import CELLS_MULTIPLE, PADDING_UM, cells_of_windows
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.samplers import SamplerConfig, sample
from sge2hist.training.finetune.adversarial_decoder import with_decoder_noise

FAST = SamplerConfig(n_steps=2, eta=1.0, eta_above=0.0, sigma_range=(0.5, 20.0))  # fresh noise in the first step
REGION_UM = (200.0, 200.0, 120.0, 100.0)


@pytest.fixture(scope="module")
def bundle(tiny_model):
    return with_decoder_noise(ModelBundle.load(tiny_model), 4, seed=0)  # decoder noise depends on the position, too


@pytest.fixture(scope="module")
def source(tiny_paired):
    return source_from_paired(tiny_paired)


def _options(**changes) -> dict:
    return {"region_um": REGION_UM, "sampler": FAST, **changes}


def _config(**changes) -> SlideConfig:
    return SlideConfig(**_options(**changes))


def _pixels(bundle, source, path, **changes) -> np.ndarray:
    return tifffile.imread(generate_slide(bundle, source, path, **_options(**changes)).path / SLIDE_NAME)


@pytest.fixture(scope="module")
def pixels(bundle, source, tmp_path_factory) -> np.ndarray:
    return _pixels(bundle, source, tmp_path_factory.mktemp("plain") / "s.generated")


@pytest.mark.parametrize(("guidance", "eta", "times"), [(1.0, 0.0, 1), (1.5, 1.0, 1), (1.0, 0.0, 2)])
def test_tiled_sampling_equals_denoising_of_one_canvas(bundle, source, tmp_path, guidance, eta, times):
    """Against the plain method: all windows of one canvas in memory, and the sampler of patches."""
    bundle = bundle.with_patch_px(times * bundle.config.patch_px)
    sampler = replace(FAST, n_steps=4, guidance=guidance, guidance_interval=(0.005, 100.0), eta=eta, eta_above=0.005)
    job = prepare_slide(bundle, source, tmp_path / "s.generated", _config(sampler=sampler))
    lattice, model = job.lattice, bundle.model.image
    worker = job.worker(0)
    inner = latent_area(lattice, job.spec.region_px)
    area, block = inner.grown(5 * lattice.window_side), lattice.block_side
    i0, j0 = area.top // block * block, area.left // block * block
    height, width = (-(-(area.bottom - i0) // block)) * block, (-(-(area.right - j0) // block)) * block
    whole = type(area)(top=i0, left=j0, height=height, width=width)
    rows = np.arange(len(source.xy_um_N2))
    index = CellIndex(source.xy_um_N2, np.zeros(len(rows), int))
    neighbours = neighbour_reader(bundle, source.read_counts, source.genes, index)
    latents = encode_cells(bundle, source.read_counts, source.genes, rows, neighbours=neighbours)
    near = CellRows(xy_um_M2=source.xy_um_N2, z_MZ=latents.mean_NZ, depth_M=latents.depth_N, source_M=rows)

    n_run = iter(range(8))

    def denoise(x, sigma):
        out, side, halo = torch.zeros_like(x), lattice.tile_side, lattice.halo
        offset = side // 2 if next(n_run) == 1 else 0  # the second of four is offset
        for i in range(side + offset, height - 2 * side + 1, side):
            for j in range(side + offset, width - 2 * side + 1, side):
                corner = np.array([[i + i0 - halo, j + j0 - halo]])
                cells, occupied = cells_of_windows(corner, near, lattice, bundle.config.receptive_radius_um)
                out[0, :, i : i + side, j : j + side] = worker.glass_L[:, None, None]
                if occupied[0]:
                    window_side = lattice.window_side
                    with torch.no_grad():
                        condition = model.encode_cells(cells, (window_side, window_side))
                        window = x[:, :, i - halo : i - halo + window_side, j - halo : j - halo + window_side]
                        answer = model.denoiser(window, torch.tensor([sigma]), condition)[0]
                        if guidance != 1:
                            none = model.encode_cells(cells.unconditional(), (window_side, window_side))
                            unconditional = model.denoiser(window, torch.tensor([sigma]), none)[0]
                            answer = unconditional + guidance * (answer - unconditional)
                    out[0, :, i : i + side, j : j + side] = answer[:, halo : halo + side, halo : halo + side]
        return out

    noise = canvas_noise(whole, lattice.latent_channels, 0)[None]
    streams = iter(range(1, 9))
    fresh = lambda: canvas_noise(whole, lattice.latent_channels, 0, next(streams))[None]  # noqa: E731
    expected = sample(denoise, noise * job.sigmas[0], model.denoiser.evaluations(sampler), fresh)[0]
    monkey = pytest.MonkeyPatch()
    monkey.setattr(slide_job.shutil, "rmtree", lambda *args, **kwargs: None)  # the last states are read below
    job.run()
    monkey.undo()
    found = worker._canvas(len(job.steps), inner)
    own = expected[:, inner.top - i0 : inner.bottom - i0, inner.left - j0 : inner.right - j0]
    assert float(own.std()) > 0.1
    assert torch.allclose(found, own, atol=0.05 if has_fast_bfloat16(torch.device("cpu")) else 1e-3)
    assert float((found - own).abs().mean()) < 0.005


def test_windows_are_padded_with_cells_without_weight(bundle, source, tmp_path):
    job = prepare_slide(bundle, source, tmp_path / "s.generated", _config())
    block = next(b for b in job.plan.blocks_to_advance(0) if len(job.plan.tile_corners(0, b)))
    corners, near = job.plan.tile_corners(0, block)[:3], job.cells.neighbourhood(block)
    filled, occupied = cells_of_windows(corners, near, job.lattice, bundle.config.receptive_radius_um)
    n = int(occupied.sum())
    assert len(filled.image_M) % (n * CELLS_MULTIPLE) == 0
    assert torch.bincount(filled.image_M, minlength=n).unique().numel() == 1
    own = torch.nonzero(filled.xy_um_M2[:, 0] != PADDING_UM)[:, 0]
    assert 0 < len(own) < len(filled.image_M)
    alone = replace(
        filled,
        z_MZ=filled.z_MZ[own],
        depth_M=filled.depth_M[own],
        xy_um_M2=filled.xy_um_M2[own],
        image_M=filled.image_M[own],
    )
    side = (job.lattice.window_side, job.lattice.window_side)
    with torch.no_grad():
        (features, vector), (features_alone, vector_alone) = (
            bundle.model.image.encode_cells(c, side) for c in (filled, alone)
        )
        for a, b in zip([*features, vector], [*features_alone, vector_alone], strict=True):
            assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(("batch", "n_steps"), [(1, 2), (7, 2), (7, 4)])
def test_a_region_is_the_same_whatever_is_generated_with_it(bundle, source, pixels, tmp_path, batch, n_steps):
    x, y = REGION_UM[:2]
    same = {"batch": batch, "sampler": replace(FAST, n_steps=n_steps)}  # of four, one is offset
    if n_steps != FAST.n_steps:
        pixels = _pixels(bundle, source, tmp_path / "wide.generated", **same)
    narrow = _pixels(bundle, source, tmp_path / "n.generated", region_um=(x + 40, y + 20, 60.0, 40.0), **same)
    assert pixels.shape == (50, 60, 3)
    assert pixels.std() > 1
    shared = pixels[10:30, 20:50].astype(int)
    assert narrow.shape == shared.shape
    assert np.abs(shared - narrow).max() <= 2  # other batches may be summed in another order


def test_killed_and_resumed_is_the_same(bundle, source, pixels, tmp_path, monkeypatch):
    path = tmp_path / "s.generated"
    original = slide_job._do
    for n_done in (1, 1, 2, 1):
        done = []

        def dying(worker, task, k, item, done=done, n_done=n_done):
            if len(done) == n_done:
                raise KeyboardInterrupt
            done.append(item)
            return original(worker, task, k, item)

        monkeypatch.setattr(slide_job, "_do", dying)
        with pytest.raises(KeyboardInterrupt):
            generate_slide(bundle, source, path, **_options())
        monkeypatch.setattr(slide_job, "_do", original)
        assert not path.exists()
    with pytest.raises(InputError, match="unfinished work on another slide"):
        generate_slide(bundle, source, path, **_options(seed=1))
    with monkeypatch.context() as other:
        other.setattr("sge2hist.generation.slide.tiling.MIN_BLOCK", 128)
        with pytest.raises(InputError, match="or version differ"):
            generate_slide(bundle, source, path, **_options())
    job = prepare_slide(bundle, source, path, _config())
    counted = []
    resumed = tifffile.imread(render_slide(job, source, path, _config(), progress=counted.append))
    assert np.array_equal(resumed, pixels)
    assert sum(counted) == job.n_windows > 0
    assert not work_folder(path).exists()
    assert not np.array_equal(_pixels(bundle, source, tmp_path / "t.generated", seed=1), pixels)


def test_workers_and_parts_change_nothing(bundle, source, pixels, tmp_path):
    shared = _pixels(bundle, source, tmp_path / "w.generated", workers=2)
    assert np.abs(shared.astype(int) - pixels).max() <= 2  # another number of threads may sum in another order
    tall = {"region_um": (200.0, 200.0, 40.0, 400.0), "n_seeds": 2, "sampler": replace(FAST, n_steps=4)}
    whole = tmp_path / "whole.generated"
    one = _pixels(bundle, source, whole, **tall)
    parts = [tmp_path / f"p{i}.generated" for i in (1, 2)]
    for i, part in enumerate(parts):
        _pixels(bundle, source, part, part=(i + 1, 2), **tall)
    with pytest.raises(InputError, match="1 of 2 parts; missing 2"):
        merge_slides(parts[:1], tmp_path / "m.generated")
    merged = merge_slides([parts[1], parts[0]], tmp_path / "m.generated")
    assert np.abs(tifffile.imread(merged).astype(int) - one).max() <= 2
    for name in ("uncertainty.ome.tif",):
        a, b = tifffile.imread(whole / name), tifffile.imread(merged.parent / name)
        assert a.max() > 0
        assert np.abs(a.astype(int) - b).max() <= 8
    cells, joined = (anndata.read_h5ad(folder / "cells.h5ad") for folder in (whole, merged.parent))
    assert joined.obs_names.tolist() == cells.obs_names.tolist()
    assert np.allclose(joined.obsm["spatial"], cells.obsm["spatial"])
    a, b = read_manifest(whole, "generated"), read_manifest(merged.parent, "generated")
    assert {**a, "part": None} == b
    covered = [
        shapely.union_all(
            [shapely.geometry.shape(f["geometry"]) for f in read_json(folder / COVERAGE_NAME)["features"]]
        )
        for folder in (whole, merged.parent)
    ]
    assert covered[0].area > 0
    assert covered[0].symmetric_difference(covered[1]).area < 1e-6
    assert (b["network_px"], b["lattice"]) == (8, [LAYOUT_VERSION, 8, 2, 64, 0, 4, 0, 0])
    with pytest.raises(InputError, match="at most 2 parts"):
        _pixels(bundle, source, tmp_path / "x.generated", part=(1, 3), **tall)


def test_the_side_of_the_tiles(bundle, source, pixels, tmp_path):
    def generated(name: str, tile_px: int, **options) -> np.ndarray:
        path = tmp_path / f"{name}.generated"
        slide = generate_slide(bundle, source, path, tile_px=tile_px, **_options(**options))
        assert slide.manifest["window_step_um"] == tile_px * bundle.config.um_per_px
        assert slide.manifest["model_fingerprint"] == bundle.fingerprint
        return tifffile.imread(path / SLIDE_NAME)

    px = bundle.config.patch_px
    assert np.array_equal(generated("own", px), pixels)
    large = generated("large", 2 * px)
    assert not np.array_equal(large, pixels)
    assert np.array_equal(large, generated("workers", 2 * px, workers=2))
    for wrong in ({"tile_px": px + 1}, {"tile_px": 0}, {"tile_px": px, "stand_alone": True}):
        with pytest.raises(InputError, match="px"):
            generate_slide(bundle, source, tmp_path / "wrong.generated", **wrong)
    assert not (tmp_path / "wrong.generated").exists()


def test_empty_glass_is_uniform_and_runs_no_network(bundle, source, tmp_path, monkeypatch):
    far = replace(source, xy_um_N2=source.xy_um_N2 + 9000.0, bounds_um=(0.0, 0.0, 20000.0, 20000.0))

    def forbidden(*args):
        raise AssertionError("the network was run where there is no cell")

    monkeypatch.setattr(bundle.model.image, "guided_denoiser", forbidden)
    pixels = _pixels(bundle, far, tmp_path / "g.generated", glass_rgb=(240, 238, 242))
    assert np.abs(pixels[4:].astype(int) - pixels[:-4]).max() == 0  # one latent pixel repeated: 4 x 4 px
    assert read_json(tmp_path / "g.generated" / COVERAGE_NAME)["features"] == []
    assert read_manifest(tmp_path / "g.generated", "generated")["covered_share"] == 0


def test_a_slide_says_where_cells_were_measured(bundle, source, tmp_path):
    """Cells left of 100 um alone: 25 um farther there is no cell in reach."""
    left = replace(source, xy_um_N2=np.where(source.xy_um_N2[:, :1] < 100, source.xy_um_N2, source.xy_um_N2 + 9000.0))
    slide = generate_slide(bundle, left, tmp_path / "m.generated", **_options(region_um=(40.0, 80.0, 120.0, 60.0)))
    (feature,) = read_json(slide.path / COVERAGE_NAME)["features"]
    area = shapely.geometry.shape(feature["geometry"])
    last_um = left.xy_um_N2[left.xy_um_N2[:, 0] < 100, 0].max()
    assert area.bounds[:2] == (0, 0)
    assert area.bounds[2] * 2 + 40 == pytest.approx(last_um + 25, abs=4)
    assert area.bounds[3] == 30
    assert slide.manifest["covered_share"] == pytest.approx((last_um + 25 - 40) / 120, abs=0.05)


def test_edits_change_their_neighbourhood_alone(bundle, source, pixels, tmp_path):
    import shapely

    wide = {"region_um": (100.0, 200.0, 500.0, 60.0)}
    before = _pixels(bundle, source, tmp_path / "a.generated", **wide)
    spot = shapely.box(95, 150, 132, 310)
    # a receptive radius per step and one more, the cells beyond, the halo of the decoder, and the neighbours that z2 depends on
    radius_um = 3 * (7 + 2) * 8 + bundle.config.receptive_radius_um + 16 * 8 + bundle.config.gene.neighbour_um
    far_px = int((132 - 100 + radius_um) / 2) + 1
    assert far_px < 240
    for number, edit in enumerate(
        [
            Edit(area=spot, set_type="gamma"),
            Edit(area=spot, gene="GENE0", factor=20.0),
            Edit(area=spot, remove=True),
            Edit(area=spot, add_type="beta", spacing_um=6.0),
        ]
    ):
        after = _pixels(bundle, source, tmp_path / f"b{number}.generated", edits=(edit,), **wide)
        assert np.array_equal(after[:, far_px:], before[:, far_px:]), edit
        assert (after[:, :16] != before[:, :16]).any(), (
            edit
        )  # few: the network is hardly trained and depends little on its cells
        table = anndata.read_h5ad(tmp_path / f"b{number}.generated" / "cells.h5ad")
        if number == 0:
            assert set(table.obs["cell_type"][table.obs["edited"]]) == {"gamma"}
        elif number == 2:
            assert (table.obsm["spatial_um"][:, 0] > 132).all()
        elif number == 3:
            assert table.obs["cell_type"][table.obs_names.str.startswith("added")].eq("beta").all()


def test_any_adata_with_positions_in_um(bundle, tiny_paired, pixels, tmp_path):
    cells = tiny_paired.adata()
    cells.obs["x_um"], cells.obs["y_um"] = (tiny_paired.centre_xy_px * tiny_paired.um_per_px).T
    source = source_from_adata(cells)
    assert np.array_equal(_pixels(bundle, source, tmp_path / "s.generated"), pixels)
    del cells.obs["cell_type"]
    generate_slide(bundle, cells, tmp_path / "t.generated", **_options())
    table = anndata.read_h5ad(tmp_path / "t.generated" / "cells.h5ad")
    truth = tiny_paired.obs["cell_type"].astype(str)[table.obs_names]
    assert (table.obs["cell_type"].astype(str) == truth).mean() > 0.5
    del cells.obsm["spatial"], cells.obs["x_um"]
    with pytest.raises(InputError, match="no positions"):
        source_from_adata(cells)


def test_a_slide_on_disk(bundle, source, tmp_path):
    slide = generate_slide(bundle, source, tmp_path / "s.generated", **_options(region_um=(40.0, 80.0, 100.0, 60.0)))
    assert slide.region_um == (40.0, 80.0, 100.0, 60.0)
    with tifffile.TiffFile(slide.path / SLIDE_NAME) as file:
        assert file.pages[0].shape == (30, 50, 3)
        assert "synthetic" in (file.ome_metadata or "")
        assert 'PhysicalSizeX="2.0"' in (file.ome_metadata or "")
    manifest = read_manifest(tmp_path / "s.generated", "generated")
    assert manifest["mode"] == "slide"
    assert manifest["region_um"] == [40.0, 80.0, 100.0, 60.0]
    table = anndata.read_h5ad(tmp_path / "s.generated" / "cells.h5ad")
    assert np.allclose(table.obsm["spatial"] * 2 + (40, 80), table.obsm["spatial_um"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.generated"]


def test_wrong_input_is_named_before_any_work(bundle, source, tmp_path):
    for changes, match in (
        ({"region_um": (600.0, 0.0, 100.0, 60.0)}, "on a slide of 640 x 640 um"),
        ({"edits": (Edit(set_type="delta"),)}, "alpha"),
        ({"edits": (Edit(gene="NONE"),)}, "gene 'NONE'"),
    ):
        with pytest.raises(InputError, match=match):
            generate_slide(bundle, source, tmp_path / "s.generated", **_options(**changes))
    assert list(tmp_path.iterdir()) == []


def test_steps_of_the_schedule_fall(bundle):
    assert all(a > b for a, b in pairwise(bundle.model.image.denoiser.sigmas(FAST)))


def test_a_run_killed_before_its_report_resumes(bundle, source, tmp_path):
    config = _config()
    job = prepare_slide(bundle, source, tmp_path / "s.generated", config)
    report = job.folder / REPORT
    before = report.read_text()
    report.unlink()
    assert (prepare_slide(bundle, source, tmp_path / "s.generated", config).folder / REPORT).read_text() == before


def test_cells_that_two_edits_add_at_one_position_keep_their_types(bundle, source, tmp_path):
    import shapely

    area = shapely.box(220, 220, 260, 250)
    edits = tuple(Edit(area=area, add_type=name, spacing_um=9.0) for name in ("BETA", "alpha"))
    generate_slide(bundle, source, tmp_path / "s.generated", **_options(edits=edits))
    table = anndata.read_h5ad(tmp_path / "s.generated" / "cells.h5ad").obs
    added = table[table.index.str.startswith("added")]["cell_type"].astype(str)
    assert added.value_counts().to_dict() == {"beta": len(added) // 2, "alpha": len(added) // 2}
    assert len(added) > 10


def test_arguments_of_python_users(bundle, tiny_model, tiny_paired, tmp_path):
    small = {"region_um": (200.0, 200.0, 40.0, 30.0), "sampler": replace(FAST, n_steps=1)}
    lines = []
    slide = generate_slide(str(tiny_model), tiny_paired.path, tmp_path / "s.generated", log=lines.append, **small)
    assert slide.image.as_array().shape == (15, 20, 3)
    assert "30 of 30 genes" in lines[0]
    for arguments, match in (
        ((3, tiny_paired), "model of type int"),
        ((bundle, bundle), "cells of type ModelBundle"),
        ((bundle, tiny_paired, {"n_seeds": 0}), "n_seeds"),
        ((bundle, tiny_paired, {"slide": 1}), "slide 1"),
        ((bundle, tiny_paired, {"edits": tmp_path / "none.geojson"}), "none.geojson"),
    ):
        model, cells, options = (*arguments, {})[:3]
        with pytest.raises(InputError, match=match):
            generate_slide(model, cells, tmp_path / "t.generated", **{**small, **options})
