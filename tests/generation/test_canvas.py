"""The canvas: weights that sum to one, noise that belongs to the place, windows that matter."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sge2hist.generation.canvas import Area, Lattice, canvas_noise, fusion_weights
from sge2hist.generation.slide_plan import SlidePlan, occupied_windows, window_grid


@pytest.mark.parametrize(("side", "step"), [(16, 8), (16, 12), (16, 16), (12, 9)])
def test_fusion_weights_sum_to_one_on_the_lattice(side, step):
    weights = fusion_weights(side, step)
    assert float(weights.min()) > 0
    size = side + 4 * step
    total = torch.zeros(size, size)
    for i in range(0, size - side + 1, step):
        for j in range(0, size - side + 1, step):
            total[i : i + side, j : j + side] += weights
    inner = slice(side - step, step - side or None)
    assert torch.allclose(total[inner, inner], torch.ones(()))


def test_noise_belongs_to_the_place():
    large = canvas_noise(Area(top=-32, left=-16, height=96, width=80), 2, seed=5)
    small = canvas_noise(Area(top=0, left=16, height=32, width=32), 2, seed=5)
    assert torch.equal(small, large[:, 32:64, 32:64])
    assert not torch.equal(small, canvas_noise(Area(top=0, left=16, height=32, width=32), 2, seed=6))
    assert not torch.equal(small, canvas_noise(Area(top=0, left=16, height=32, width=32), 2, seed=5, draw=1))
    assert float(large.std()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("side", [8, 12, 16, 64])
def test_blocks_hold_whole_windows_and_whole_tiles_of_noise(side):
    lattice = Lattice(side=side, um=8.0, pixels=4, channels=2)
    assert lattice.block % lattice.step == 0
    assert lattice.block % 16 == 0
    assert lattice.block >= side


def test_the_windows_that_matter_are_those_that_reach_the_region():
    lattice = Lattice(side=16, um=8.0, pixels=4, channels=2)
    region, reach_um = (900, 1000, 300, 200), 28.0
    xy_um = np.random.default_rng(0).uniform((1500, 1500), (2300, 2600), (300, 2))
    grid = window_grid(lattice, region, 3)
    plan = SlidePlan(
        lattice=lattice, region_px=region, n_evaluations=3,
        occupied=occupied_windows(grid, lattice, reach_um, [xy_um[:100], xy_um[100:]]),
    )  # fmt: skip
    for k in range(3):
        run = {tuple(corner) for block in plan.blocks_to_denoise(k) for corner in plan.corners(k, block)}
        wanted = plan.wanted(k)
        expected = set()
        for top in range(-240, 800, lattice.step):
            for left in range(-240, 800, lattice.step):
                window = Area(top=top, left=left, height=16, width=16)
                centre = np.array([left + 8, top + 8]) * 8.0
                if window.meets(wanted) and (np.abs(xy_um - centre).max(1) <= 64 + reach_um).any():
                    expected.add((top, left))
        assert run == expected
        written = {*plan.blocks_to_update(k)}
        for top, left in run:
            assert all(plan.is_active(b) for b in Area(top=top, left=left, height=16, width=16).places(lattice.block))
        for tile in plan.tiles():
            if k == 2:
                needed = {b for b in plan.tile_area(tile).places(lattice.block) if plan.is_active(b)}
                assert {b for b in needed if lattice.block_area(*b).meets(plan.inner)} <= written
    assert plan.n_windows == sum(len(plan.corners(k, b)) for k in range(3) for b in plan.blocks_to_denoise(k))
