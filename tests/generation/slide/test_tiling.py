"""Tiling: noise is a function of the position; the planned windows are those that the region depends on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sge2hist.generation.slide.tiling import (
    Area,
    Lattice,
    SlidePlan,
    canvas_noise,
    latent_area,
    occupied_tiles,
    tile_grid,
)


def test_noise_is_a_function_of_the_position():
    large = canvas_noise(Area(top=-32, left=-16, height=96, width=80), 2, seed=5)
    small = canvas_noise(Area(top=0, left=16, height=32, width=32), 2, seed=5)
    assert torch.equal(small, large[:, 32:64, 32:64])
    assert not torch.equal(small, canvas_noise(Area(top=0, left=16, height=32, width=32), 2, seed=6))
    assert not torch.equal(small, canvas_noise(Area(top=0, left=16, height=32, width=32), 2, seed=5, stream=1))
    assert float(large.std()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("side", [8, 12, 16, 24, 64, 96])
def test_blocks_hold_whole_tiles_and_whole_tiles_of_noise(side):
    lattice = Lattice(tile_side=side, um_per_latent_px=8.0, downsampling=4, latent_channels=2)
    assert lattice.block_side % lattice.tile_side == 0
    assert lattice.block_side % 16 == 0
    assert lattice.block_side >= lattice.window_side
    assert lattice.window_side % 4 == 0
    assert lattice.block_side >= 4 * side
    assert lattice.output_tile_side % lattice.block_side == 0
    assert min(side // 8, 4) <= lattice.halo < side / 2


def meets(a: Area, b: Area) -> bool:
    """Whether two areas have a latent pixel in common."""
    return a.top < b.bottom and b.top < a.bottom and a.left < b.right and b.left < a.right


@pytest.mark.parametrize("n", [1, 3, 5])
def test_planned_windows_are_those_that_the_region_depends_on(n):
    lattice = Lattice(tile_side=16, um_per_latent_px=8.0, downsampling=4, latent_channels=2)
    assert [lattice.tile_offset(k, 8) for k in range(8)] == [0, 8, 0, 8, 0, 0, 0, 0]
    region, radius_um = (900, 1000, 300, 200), 28.0
    xy_um = np.random.default_rng(0).uniform((1500, 1500), (2300, 2600), (300, 2))
    grid = tile_grid(lattice, region, n)
    plan = SlidePlan(
        lattice=lattice,
        region_px=region,
        n_evaluations=n,
        occupied=occupied_tiles(grid, lattice, radius_um, [xy_um[:100], xy_um[100:]]),
    )
    needed = latent_area(lattice, region)
    for k in reversed(range(n)):
        run = {tuple(corner) for block in plan.blocks_to_advance(k) for corner in plan.tile_corners(k, block)}
        area, covered = plan.area_needed(k), []
        expected, required = set(), set()
        offset = lattice.tile_offset(k, n)
        for top in range(-240 + offset, 800, 16):
            for left in range(-240 + offset, 800, 16):
                tile = Area(top=top, left=left, height=16, width=16)
                centre = np.array([left + 8, top + 8]) * 8.0
                # an offset tile is run if the window of a tile that it touches has a cell
                touched = [(0, 0)] if not offset else [(-64, -64), (-64, 64), (64, -64), (64, 64)]
                occupied = any(
                    (np.abs(xy_um - centre - shift).max(1) <= 64 + 16 + radius_um).any() for shift in touched
                )
                if meets(tile, area) and occupied:
                    expected.add((top, left))
                if meets(tile, needed):
                    covered.append(tile.grown(2))
                    required |= {(top, left)} if occupied else set()
        assert run == expected
        assert required <= run  # those that the region depends on, followed step by step
        advanced = {*plan.blocks_to_advance(k)}
        for window in covered:
            assert {b for b in window.grown(-2).tiles(lattice.block_side) if plan.is_active(b)} <= advanced
        for top, left in run:
            window = Area(top=top - 2, left=left - 2, height=20, width=20)
            assert all(plan.is_active(b) for b in window.tiles(lattice.block_side))
        needed = Area(
            top=min(a.top for a in covered),
            left=min(a.left for a in covered),
            height=max(a.bottom for a in covered) - min(a.top for a in covered),
            width=max(a.right for a in covered) - min(a.left for a in covered),
        )
    assert plan.n_windows == sum(len(plan.tile_corners(k, b)) for k in range(n) for b in plan.blocks_to_advance(k))
