"""Training crops: pixels and cell positions stay together under every turn, and held-out tissue is never touched."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from sge2hist.models.image.conditioning import MODE_ALL
from sge2hist.models.image.footprints import rasterise
from sge2hist.training.image.conditioning import cells_by_mode, place_on_crops, sample_outlined
from sge2hist.training.image.patches import PatchSource
from tests.fixtures.paired import write_tiny_paired


@pytest.fixture
def dataset(tiny_paired):
    return tiny_paired


def _source(dataset, jitter_um: float = 8.0) -> PatchSource:
    return PatchSource(dataset, patch_px=32, um_per_px=2.0, receptive_radius_um=28.0, jitter_um=jitter_um)


def test_crop_is_the_dataset_patch(dataset):
    source = _source(dataset)
    rows = np.array([500, 730])
    crops = source.crops(rows, source.centre_um_N2[rows], np.zeros((2, 3), bool))
    images = ((crops.image_BCHW + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    assert np.array_equal(images, dataset.patches(rows))


@pytest.mark.parametrize("turn", range(8))
def test_cells_turn_with_the_picture(dataset, turn):
    source = _source(dataset)
    rows = np.array([822])
    turn_13 = np.array([[turn & 1, turn >> 1 & 1, turn >> 2 & 1]], bool)
    still = source.crops(rows, source.centre_um_N2[rows] + 5.0, np.zeros((1, 3), bool))
    turned = source.crops(rows, source.centre_um_N2[rows] + 5.0, turn_13)
    assert np.array_equal(still.row_M, turned.row_M)

    def colour_at(crops) -> np.ndarray:
        px = np.floor(crops.xy_um_M2 / 2.0).astype(int)
        inside = ((px >= 0) & (px < 32)).all(1)
        return inside, crops.image_BCHW[0].permute(1, 2, 0).numpy()[px[:, 1].clip(0, 31), px[:, 0].clip(0, 31)]

    inside, a = colour_at(still)
    inside_turned, b = colour_at(turned)
    assert np.array_equal(inside, inside_turned)
    assert np.abs(a[inside] - b[inside]).mean() < 0.12  # the fixture's noise; another cell's colour differs by 0.5
    assert inside.sum() >= 9


def test_cells_of_a_crop_are_those_a_slow_search_finds(dataset):
    source = _source(dataset)
    crops = source.batch(5, np.random.default_rng(0), augment=False)
    for b in range(5):
        own = crops.row_M[crops.crop_M == b]
        corner = source.centre_um_N2[own[0]] - crops.xy_um_M2[crops.crop_M == b][0]
        distance = np.abs(source.centre_um_N2 - (corner + 32.0)).max(1)
        assert np.array_equal(own, np.flatnonzero(distance <= 32.0 + 28.0))
    assert np.array_equal(np.sort(crops.crop_M), crops.crop_M)
    assert (np.bincount(crops.crop_M[crops.is_centre_M], minlength=5) == 1).all()


def test_moved_crops_stay_clear_of_held_out_patches(dataset):
    source = _source(dataset)
    split = dataset.obs["split"].astype(str).to_numpy()
    held_out = source.centre_um_N2[np.isin(split, ["val", "test"])]
    side = 64.0
    for step in range(20):
        crops = source.batch(32, np.random.default_rng(step), augment=False)
        for b in range(32):
            first = np.flatnonzero(crops.crop_M == b)[0]
            centre = source.centre_um_N2[crops.row_M[first]] - crops.xy_um_M2[first] + side / 2
            assert np.abs(held_out - centre).max(1).min() >= side - 1e-3


def test_beyond_the_slide_is_glass(dataset):
    source = _source(dataset)
    source.glass[0] = np.array([240, 230, 238], np.uint8)  # as measured on a slide that shows glass
    crops = source.crops(np.array([0]), np.array([[-10.0, -500.0]]), np.zeros((1, 3), bool))
    glass_C = torch.tensor([240.0, 230.0, 238.0]) / 127.5 - 1
    assert torch.allclose(crops.image_BCHW[0], glass_C[:, None, None], atol=1e-5)


def test_crops_taken_anywhere_reach_glass_and_stay_clear_of_held_out_patches(dataset):
    source = _source(dataset)
    split = dataset.obs["split"].astype(str).to_numpy()
    held_out = source.centre_um_N2[np.isin(split, ["val", "test"])]
    own = np.concatenate(
        [source.batch(32, np.random.default_rng(s), augment=False, share_anywhere=1.0).is_centre_M for s in range(4)]
    )
    assert own.sum() < 32  # nearly no crop lies at the cell that it was sampled with
    rows = np.repeat(source.rows[:1], 200)
    places = source._anywhere(rows, source.centre_um_N2[rows], np.random.default_rng(0))
    size_um = np.array(source.slides[0].shape[1::-1]) * source.um_per_px
    off_slide = (places < 0).all(1)
    assert 20 < off_slide.sum() < 60
    crops = source.crops(rows[:1], places[off_slide][:1], np.zeros((1, 3), bool))
    assert len(crops.row_M) == 0  # glass and no cell
    assert float(crops.image_BCHW.std(dim=(2, 3)).max()) == 0
    places = places[~off_slide]
    assert ((places >= 32) & (places <= size_um - 32)).all()
    moved = places[(places != source.centre_um_N2[rows[0]]).any(1)]
    assert len(moved) > 120
    assert min(np.abs(held_out - place).max(1).min() for place in moved) >= 64.0
    assert (moved.std(0) > 0.15 * size_um).all()


@pytest.mark.parametrize("turn", range(8))
def test_outlines_turn_with_the_picture(tmp_path, turn):
    """The slide is painted with the outlines: in every crop the rasterised outlines cover the painted pixels."""
    dataset = write_tiny_paired(tmp_path / "x.paired", outlines=True)
    source = PatchSource(dataset, patch_px=32, um_per_px=2.0, receptive_radius_um=28.0, jitter_um=8.0)
    height, width = source.slides[0].shape[:2]
    vertices = torch.from_numpy(dataset.outline_um + source.centre_um_N2[:, None].astype(np.float32))
    one_image = torch.zeros(len(vertices), dtype=torch.long)
    painted = rasterise(vertices, one_image, (1, height, width), step_um=2.0, start_um=0.0)[0] > 0
    source.slides[0] = np.repeat(painted.numpy()[..., None] * np.uint8(255), 3, axis=2)
    rows, turn_13 = np.array([822]), np.array([[turn & 1, turn >> 1 & 1, turn >> 2 & 1]], bool)
    crops = source.crops(rows, source.centre_um_N2[rows] + 5.0, turn_13)
    outline = torch.from_numpy(crops.outline_um_MV2)
    covered = rasterise(outline, torch.from_numpy(crops.crop_M), (1, 32, 32), step_um=2.0, start_um=0.0)[0] > 0
    shown = crops.image_BCHW[0, 0] > 0
    assert 0.3 < shown.float().mean() < 0.8
    assert (covered != shown).float().mean() < 0.01  # points on an edge, in float32


def test_a_share_of_the_crops_shows_points(tmp_path):
    dataset = write_tiny_paired(tmp_path / "x.paired", outlines=True)
    crops = _source(dataset).batch(40, np.random.default_rng(0))
    outlined_B = sample_outlined(40, np.random.default_rng(1), 0.25)
    kept, mode_M = cells_by_mode(crops, np.full(40, MODE_ALL))
    placed = place_on_crops(
        crops, kept, torch.zeros(len(kept), 2), np.zeros(1600, np.float32), mode_M, crops.slide_B, outlined_B
    )
    known_M = torch.isfinite(placed.outline_MV2).all(dim=(1, 2)).numpy()
    assert 0.5 < outlined_B.mean() < 0.95
    assert np.array_equal(known_M, outlined_B[crops.crop_M] & (crops.row_M != 1599))
    assert sample_outlined(40, np.random.default_rng(1), 0.0) is None


def test_placed_cells_lie_in_crops_and_are_no_centres(dataset):
    everywhere = _source(dataset)
    data = copy.copy(dataset)
    data.is_centre = dataset.is_centre.copy()
    placed = everywhere.rows[::2]
    data.is_centre[placed] = False
    source = _source(data)
    assert np.array_equal(source.rows, np.setdiff1d(everywhere.rows, placed))
    crops = source.batch(200, np.random.default_rng(0))
    assert not np.isin(crops.centre_row_B, placed).any()
    assert np.isin(crops.row_M, placed).mean() > 0.2
