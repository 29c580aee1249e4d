"""A slide is the same wherever it is cut, by however many processes, killed or not; edits change their neighbourhood alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import anndata
import numpy as np
import pytest
import tifffile
import torch

from sge2hist.data.artifacts import read_manifest
from sge2hist.data.errors import InputError
from sge2hist.data.spatial_index import CellIndex
from sge2hist.devices import has_fast_bfloat16
from sge2hist.generation.encode import around_in, encode_cells
from sge2hist.generation.slide import job as slide_job
from sge2hist.generation.slide.edits import Edit
from sge2hist.generation.slide.job import REPORT
from sge2hist.generation.slide.merge import merge_slides
from sge2hist.generation.slide.render import SlideConfig, generate_slide, prepare_slide, render_slide, work_folder
from sge2hist.generation.slide.source import source_from_adata, source_from_paired
from sge2hist.generation.slide.tiling import RULE, canvas_noise
from sge2hist.generation.slide.worker import CELLS_STEP, FAR_UM, cells_of_windows
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.image_model import SamplerConfig
from sge2hist.models.image.samplers import sample
from sge2hist.training.finetune.adversarial_decoder import with_grain

FAST = SamplerConfig(n_steps=2, eta=1.0, eta_above=0.0, sigma_range=(0.5, 20.0))  # fresh noise in the first step
REGION_UM = (200.0, 200.0, 120.0, 100.0)


@pytest.fixture(scope="module")
def bundle(tiny_model):
    return with_grain(ModelBundle.load(tiny_model), 4, seed=0)  # grain must belong to its place, too


@pytest.fixture(scope="module")
def source(tiny_paired):
    return source_from_paired(tiny_paired)


def _config(**changes) -> SlideConfig:
    return SlideConfig(**{"region_um": REGION_UM, "sampler": FAST, **changes})


def _draw(bundle, source, path, **changes) -> np.ndarray:
    return tifffile.imread(generate_slide(bundle, source, path, _config(**changes)))


@pytest.fixture(scope="module")
def pixels(bundle, source, tmp_path_factory) -> np.ndarray:
    return _draw(bundle, source, tmp_path_factory.mktemp("plain") / "s.generated")


@pytest.mark.parametrize(("guidance", "eta"), [(1.0, 0.0), (1.5, 1.0)])
def test_it_is_denoising_of_one_canvas_square_by_square(bundle, source, tmp_path, guidance, eta):
    """Against the plain method: all windows of one canvas in memory, the sampler as it is."""
    sampler = replace(FAST, n_steps=4, guidance=guidance, guidance_interval=(0.005, 100.0), eta=eta, eta_above=0.005)
    job = prepare_slide(bundle, source, tmp_path / "s.generated", _config(sampler=sampler))
    lattice, model = job.lattice, bundle.model.image
    work = job.work(0)
    area = job.plan.inner.grown(5 * lattice.side)
    block = lattice.block
    i0, j0 = area.top // block * block, area.left // block * block
    height, width = (-(-(area.bottom - i0) // block)) * block, (-(-(area.right - j0) // block)) * block
    whole = type(area)(top=i0, left=j0, height=height, width=width)
    rows = np.arange(len(source.xy_um_N2))
    places = CellIndex(source.xy_um_N2, np.zeros(len(rows), int))
    around = around_in(bundle, source.read_counts, source.genes, places)
    latents = encode_cells(bundle, source.read_counts, source.genes, rows, around=around)
    from sge2hist.generation.slide.cells import PlacedRows

    near = PlacedRows(xy_um_M2=source.xy_um_N2, z_MZ=latents.mean_NZ, depth_M=latents.depth_N, source_M=rows)

    n_run = iter(range(8))

    def denoise(x, sigma):
        out, step, rim = torch.zeros_like(x), lattice.step, lattice.rim
        aside = step // 2 if next(n_run) == 1 else 0  # the second of four looks across
        for i in range(step + aside, height - 2 * step + 1, step):
            for j in range(step + aside, width - 2 * step + 1, step):
                place = np.array([[i + i0 - rim, j + j0 - rim]])
                cells, occupied = cells_of_windows(place, near, lattice, bundle.config.receptive_radius_um)
                out[0, :, i : i + step, j : j + step] = work.glass_L[:, None, None]
                if occupied[0]:
                    side = lattice.side
                    with torch.no_grad():
                        condition = model.encode_cells(cells, (side, side))
                        window = x[:, :, i - rim : i - rim + side, j - rim : j - rim + side]
                        answer = model.denoise(window, torch.tensor([sigma]), condition)[0]
                        if guidance != 1:
                            none = model.encode_cells(cells.unconditional(), (side, side))
                            untold = model.denoise(window, torch.tensor([sigma]), none)[0]
                            answer = untold + guidance * (answer - untold)
                    out[0, :, i : i + step, j : j + step] = answer[:, rim : rim + step, rim : rim + step]
        return out

    noise = canvas_noise(whole, lattice.channels, 0)[None]
    draws = iter(range(1, 9))
    fresh = lambda: canvas_noise(whole, lattice.channels, 0, next(draws))[None]  # noqa: E731
    expected = sample(denoise, noise * job.sigmas[0], model.evaluations(sampler), fresh)[0]
    monkey = pytest.MonkeyPatch()
    monkey.setattr(slide_job.shutil, "rmtree", lambda *args, **kwargs: None)  # the last states are looked at below
    job.run()
    monkey.undo()
    inner = job.plan.inner
    found = work._canvas(len(job.steps), inner)
    own = expected[:, inner.top - i0 : inner.bottom - i0, inner.left - j0 : inner.right - j0]
    assert float(own.std()) > 0.1
    assert torch.allclose(found, own, atol=0.05 if has_fast_bfloat16(torch.device("cpu")) else 1e-3)
    assert float((found - own).abs().mean()) < 0.005


def test_windows_are_filled_up_with_cells_that_weigh_nothing(bundle, source, tmp_path):
    job = prepare_slide(bundle, source, tmp_path / "s.generated", _config())
    block = next(b for b in job.plan.blocks_to_advance(0) if len(job.plan.corners(0, b)))
    corners, near = job.plan.corners(0, block)[:3], job.cells.near(block)
    filled, occupied = cells_of_windows(corners, near, job.lattice, bundle.config.receptive_radius_um)
    n = int(occupied.sum())
    assert len(filled.image_M) % (n * CELLS_STEP) == 0
    assert torch.bincount(filled.image_M, minlength=n).unique().numel() == 1
    own = torch.nonzero(filled.xy_um_M2[:, 0] != FAR_UM)[:, 0]
    assert 0 < len(own) < len(filled.image_M)
    alone = replace(
        filled,
        z_MZ=filled.z_MZ[own],
        depth_M=filled.depth_M[own],
        xy_um_M2=filled.xy_um_M2[own],
        image_M=filled.image_M[own],
    )
    side = (job.lattice.side, job.lattice.side)
    with torch.no_grad():
        (told, vector), (told_alone, vector_alone) = (bundle.model.image.encode_cells(c, side) for c in (filled, alone))
        for a, b in zip([*told, vector], [*told_alone, vector_alone], strict=True):
            assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(("batch", "n_steps"), [(1, 2), (7, 2), (7, 4)])
def test_a_region_is_the_same_whatever_was_drawn_around_it(bundle, source, pixels, tmp_path, batch, n_steps):
    x, y = REGION_UM[:2]
    same = {"batch": batch, "sampler": replace(FAST, n_steps=n_steps)}  # of four, one stands aside
    if n_steps != FAST.n_steps:
        pixels = _draw(bundle, source, tmp_path / "wide.generated", **same)
    narrow = _draw(bundle, source, tmp_path / "n.generated", region_um=(x + 40, y + 20, 60.0, 40.0), **same)
    assert pixels.shape == (50, 60, 3)
    assert pixels.std() > 1
    shared = pixels[10:30, 20:50].astype(int)
    assert narrow.shape == shared.shape
    assert np.abs(shared - narrow).max() <= 2  # other batches may be summed in another order


def test_killed_and_resumed_is_the_same(bundle, source, pixels, tmp_path, monkeypatch):
    path = tmp_path / "s.generated"
    counted, original = [], slide_job._do
    for n_done in (1, 1, 2, 1):
        done = []

        def dying(work, kind, k, item, done=done, n_done=n_done):
            if len(done) == n_done:
                raise KeyboardInterrupt
            done.append(item)
            return original(work, kind, k, item)

        monkeypatch.setattr(slide_job, "_do", dying)
        with pytest.raises(KeyboardInterrupt):
            generate_slide(bundle, source, path, _config(), progress=counted.append)
        monkeypatch.setattr(slide_job, "_do", original)
        assert not path.exists()
    with pytest.raises(InputError, match="unfinished work on another drawing"):
        generate_slide(bundle, source, path, _config(seed=1))
    with monkeypatch.context() as other:
        other.setattr("sge2hist.generation.slide.tiling.BLOCK", 128)
        with pytest.raises(InputError, match="or version differ"):
            generate_slide(bundle, source, path, _config())
    counted.clear()
    job = prepare_slide(bundle, source, path, _config())
    resumed = tifffile.imread(render_slide(job, source, path, _config(), progress=counted.append))
    assert np.array_equal(resumed, pixels)
    assert sum(counted) == job.n_windows > 0
    assert not work_folder(path).exists()
    assert not np.array_equal(_draw(bundle, source, tmp_path / "t.generated", seed=1), pixels)


def test_workers_and_parts_change_nothing(bundle, source, pixels, tmp_path):
    shared = _draw(bundle, source, tmp_path / "w.generated", workers=2)
    assert np.abs(shared.astype(int) - pixels).max() <= 2  # another number of threads may sum in another order
    tall = {"region_um": (200.0, 200.0, 40.0, 400.0), "n_seeds": 2, "sampler": replace(FAST, n_steps=4)}
    whole = tmp_path / "whole.generated"
    one = _draw(bundle, source, whole, **tall)
    parts = [tmp_path / f"p{i}.generated" for i in (1, 2)]
    for i, part in enumerate(parts):
        _draw(bundle, source, part, part=(i + 1, 2), **tall)
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
    assert (b["network_px"], b["lattice"]) == (8, [RULE, 8, 2, 64, 0, 4, 0, 0])
    with pytest.raises(InputError, match="at most 2 parts"):
        _draw(bundle, source, tmp_path / "x.generated", part=(1, 3), **tall)


def test_empty_glass_costs_nothing_and_is_even(bundle, source, tmp_path, monkeypatch):
    far = replace(source, xy_um_N2=source.xy_um_N2 + 9000.0, bounds_um=(0.0, 0.0, 20000.0, 20000.0))

    def forbidden(*args):
        raise AssertionError("the network was run where there is no cell")

    monkeypatch.setattr(bundle.model.image, "denoise", forbidden)
    pixels = _draw(bundle, far, tmp_path / "g.generated", glass_rgb=(240, 238, 242))
    assert np.abs(pixels[4:].astype(int) - pixels[:-4]).max() == 0  # one latent pixel repeated: 4 x 4 px


def test_edits_change_their_neighbourhood_alone(bundle, source, pixels, tmp_path):
    import shapely

    wide = {"region_um": (100.0, 200.0, 500.0, 60.0)}
    before = _draw(bundle, source, tmp_path / "a.generated", **wide)
    spot = shapely.box(95, 150, 132, 310)
    # a square less a pixel and a rim per step and in the last, cells beyond, the decoder's halo, and the cells that z2 knows of
    reach_um = 3 * (7 + 2) * 8 + bundle.config.receptive_radius_um + 16 * 8 + bundle.config.gene.neighbour_um
    far_px = int((132 - 100 + reach_um) / 2) + 1
    assert far_px < 240
    for number, edit in enumerate(
        [
            Edit(area=spot, set_type="gamma"),
            Edit(area=spot, gene="GENE0", factor=20.0),
            Edit(area=spot, remove=True),
            Edit(area=spot, add_type="beta", spacing_um=6.0),
        ]
    ):
        after = _draw(bundle, source, tmp_path / f"b{number}.generated", edits=(edit,), **wide)
        assert np.array_equal(after[:, far_px:], before[:, far_px:]), edit
        assert (after[:, :16] != before[:, :16]).any(), edit  # few: hardly trained, the network minds its cells little
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
    assert np.array_equal(_draw(bundle, source, tmp_path / "s.generated"), pixels)
    del cells.obs["cell_type"]
    generate_slide(bundle, source_from_adata(cells), tmp_path / "t.generated", _config())
    table = anndata.read_h5ad(tmp_path / "t.generated" / "cells.h5ad")
    truth = tiny_paired.obs["cell_type"].astype(str)[table.obs_names]
    assert (table.obs["cell_type"].astype(str) == truth).mean() > 0.5
    del cells.obsm["spatial"], cells.obs["x_um"]
    with pytest.raises(InputError, match="no positions"):
        source_from_adata(cells)


def test_a_slide_on_disk(bundle, source, tmp_path):
    path = generate_slide(bundle, source, tmp_path / "s.generated", _config(region_um=(40.0, 80.0, 100.0, 60.0)))
    with tifffile.TiffFile(path) as file:
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
            generate_slide(bundle, source, tmp_path / "s.generated", _config(**changes))
    assert list(tmp_path.iterdir()) == []


def test_steps_of_the_schedule_fall(bundle):
    assert all(a > b for a, b in pairwise(bundle.model.image.sigmas(FAST)))


def test_a_run_killed_before_it_told_of_its_genes_goes_on(bundle, source, tmp_path):
    config = _config()
    told = [prepare_slide(bundle, source, tmp_path / "s.generated", config) for _ in range(2)]
    report = told[0].folder / REPORT
    before = report.read_text()
    report.unlink()
    assert (prepare_slide(bundle, source, tmp_path / "s.generated", config).folder / REPORT).read_text() == before


def test_cells_that_two_edits_put_in_at_one_place_keep_their_types(bundle, source, tmp_path):
    import shapely

    area = shapely.box(220, 220, 260, 250)
    edits = tuple(Edit(area=area, add_type=name, spacing_um=9.0) for name in ("BETA", "alpha"))
    generate_slide(bundle, source, tmp_path / "s.generated", _config(edits=edits))
    table = anndata.read_h5ad(tmp_path / "s.generated" / "cells.h5ad").obs
    added = table[table.index.str.startswith("added")]["cell_type"].astype(str)
    assert added.value_counts().to_dict() == {"beta": len(added) // 2, "alpha": len(added) // 2}
    assert len(added) > 10
