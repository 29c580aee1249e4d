"""A canvas is the same wherever it is cut, costs nothing where there is no cell, and reduces to one window."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sge2hist.data.cell_index import CellIndex
from sge2hist.generation.canvas import Area, CanvasDenoiser, canvas_noise, fusion_weights
from sge2hist.generation.cell_latents import encode_cells
from sge2hist.generation.slide import SlideCells, decode_tiles, draw_region
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image_model import SamplerConfig

FAST = SamplerConfig(n_steps=3)


@pytest.fixture(scope="module")
def bundle(tiny_model):
    return ModelBundle.load(tiny_model)


@pytest.fixture(scope="module")
def cells(bundle, tiny_paired):
    rows = tiny_paired.rows("all")
    latents = encode_cells(bundle, tiny_paired.counts, tiny_paired.genes, rows)
    index = CellIndex(tiny_paired.centre_xy_px * tiny_paired.um_per_px, tiny_paired.slide_of_cell)
    return SlideCells(index=index, slide=0, latents=latents)


def _pixels(bundle, latents, area, region_px: tuple[int, int, int, int]) -> np.ndarray:
    x, y, width, height = region_px
    (tile,) = decode_tiles(bundle, latents, area, (y, x), (height, width), max(width, height))
    return tile[:height, :width]


def test_fusion_weights_sum_to_one_on_the_lattice():
    weights = fusion_weights(16)
    total = torch.zeros(64, 64)
    for i in range(0, 49, 8):
        for j in range(0, 49, 8):
            total[i : i + 16, j : j + 16] += weights
    assert torch.allclose(total[8:-8, 8:-8], torch.ones(48, 48))


def test_noise_belongs_to_the_place():
    large = canvas_noise(Area(top=-32, left=-16, height=96, width=80), 2, seed=5)
    small = canvas_noise(Area(top=0, left=16, height=32, width=32), 2, seed=5)
    assert torch.equal(small, large[:, :, 32:64, 32:64])
    assert not torch.equal(small, canvas_noise(Area(top=0, left=16, height=32, width=32), 2, seed=6))
    assert float(large.std()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_a_region_is_the_same_whatever_was_drawn_around_it(bundle, cells, batch):
    wide, wide_area, _ = draw_region(bundle, cells, (100.0, 150.0, 200.0, 130.0), sampler=FAST)
    narrow, narrow_area, _ = draw_region(bundle, cells, (200.0, 200.0, 60.0, 40.0), sampler=FAST, batch=batch)
    box = (100, 100, 30, 20)  # px of 2 um
    a, b = _pixels(bundle, wide, wide_area, box), _pixels(bundle, narrow, narrow_area, box)
    assert a.std() > 1
    assert np.abs(a.astype(int) - b).max() <= 4  # bfloat16 sums are blocked by batch


def test_tiles_of_any_size_hold_the_same_pixels(bundle, cells):
    latents, area, _ = draw_region(bundle, cells, (200.0, 200.0, 80.0, 80.0), sampler=FAST)
    whole = _pixels(bundle, latents, area, (100, 100, 40, 40))
    tiles = list(decode_tiles(bundle, latents, area, (100, 100), (40, 40), 16))
    assert len(tiles) == 9
    joined = np.concatenate([np.concatenate(tiles[i : i + 3], axis=1) for i in (0, 3, 6)])[:40, :40]
    assert np.abs(whole.astype(int) - joined).max() <= 4


def test_empty_glass_costs_nothing_and_is_even(bundle, cells, monkeypatch):
    def forbidden(*args):
        raise AssertionError("the network was run where there is no cell")

    monkeypatch.setattr(bundle.model.image, "denoise", forbidden)
    latents, area, _ = draw_region(bundle, cells, (5000.0, 5000.0, 60.0, 60.0), sampler=FAST, glass_rgb=(240, 238, 242))
    pixels = _pixels(bundle, latents, area, (2500, 2500, 30, 30))
    assert np.abs(pixels[4:].astype(int) - pixels[:-4]).max() <= 2  # one latent pixel repeated: 4 x 4 px


def test_one_window_is_plain_denoising(bundle):
    model = bundle.model.image
    side, channels = 8, model.latent_channels
    area = Area(top=0, left=0, height=side, width=side)
    seen = []

    def place(corners):
        from sge2hist.generation.drawing import lone_cells

        seen.append(corners.tolist())
        z = np.zeros((1, bundle.config.gene.n_latent), np.float32)
        return lone_cells(z, np.zeros(1, np.float32), 64.0).placed(torch.device("cpu")), np.array([True])

    denoise = CanvasDenoiser(model, area, area, place, torch.zeros(channels), [2.0, 0.0], side=side)
    x = torch.randn(1, channels, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        condition = model.encode_cells(place(np.array([[0, 0]]))[0], (side, side))
        expected = model.denoise(x, torch.tensor([2.0]), condition)
    assert torch.allclose(denoise(x, 2.0), expected, atol=1e-5)
    assert seen[1] == [[0, 0]]


def test_a_slide_on_disk(bundle, tiny_paired, tmp_path):
    import tifffile

    from sge2hist.data.errors import InputError
    from sge2hist.data.files import read_manifest
    from sge2hist.generation.slide_set import generate_slide

    path = generate_slide(
        bundle, tiny_paired, tmp_path / "s.generated", region_um=(40.0, 80.0, 100.0, 60.0), sampler=FAST
    )
    with tifffile.TiffFile(path) as file:
        assert file.pages[0].shape == (30, 50, 3)
        assert "synthetic" in (file.ome_metadata or "")
    assert read_manifest(tmp_path / "s.generated", "generated")["mode"] == "slide"
    with pytest.raises(InputError, match="on a slide of 640 x 640 um"):
        generate_slide(bundle, tiny_paired, tmp_path / "t.generated", region_um=(600.0, 0.0, 100.0, 60.0), sampler=FAST)
