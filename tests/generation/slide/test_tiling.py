"""The canvas: noise that belongs to the place, squares and windows that matter."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sge2hist.generation.slide.tiling import Area, Lattice, SlidePlan, canvas_noise, occupied_windows, window_grid


def test_noise_belongs_to_the_place():
    large = canvas_noise(Area(top=-32, left=-16, height=96, width=80), 2, seed=5)
    small = canvas_noise(Area(top=0, left=16, height=32, width=32), 2, seed=5)
    assert torch.equal(small, large[:, 32:64, 32:64])
    assert not torch.equal(small, canvas_noise(Area(top=0, left=16, height=32, width=32), 2, seed=6))
    assert not torch.equal(small, canvas_noise(Area(top=0, left=16, height=32, width=32), 2, seed=5, draw=1))
    assert float(large.std()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("step", [8, 12, 16, 64])
def test_blocks_hold_whole_squares_and_whole_tiles_of_noise(step):
    lattice = Lattice(step=step, um=8.0, pixels=4, channels=2)
    assert lattice.block % lattice.step == 0
    assert lattice.block % 16 == 0
    assert lattice.block >= lattice.side
    assert lattice.side % 4 == 0
    assert step // 8 <= lattice.rim < step / 2


@pytest.mark.parametrize("n", [1, 3, 5])
def test_the_windows_that_matter_are_those_that_reach_the_region(n):
    lattice = Lattice(step=16, um=8.0, pixels=4, channels=2)
    assert [lattice.aside(k, 8) for k in range(8)] == [0, 8, 0, 8, 0, 0, 0, 0]
    region, reach_um = (900, 1000, 300, 200), 28.0
    xy_um = np.random.default_rng(0).uniform((1500, 1500), (2300, 2600), (300, 2))
    grid = window_grid(lattice, region, n)
    plan = SlidePlan(
        lattice=lattice,
        region_px=region,
        n_evaluations=n,
        occupied=occupied_windows(grid, lattice, reach_um, [xy_um[:100], xy_um[100:]]),
    )
    needed = plan.inner
    for k in reversed(range(n)):
        run = {tuple(corner) for block in plan.blocks_to_advance(k) for corner in plan.corners(k, block)}
        wanted, sees = plan.wanted(k), []
        expected, least = set(), set()
        aside = lattice.aside(k, n)
        for top in range(-240 + aside, 800, 16):
            for left in range(-240 + aside, 800, 16):
                square = Area(top=top, left=left, height=16, width=16)
                centre = np.array([left + 8, top + 8]) * 8.0
                # a square that stands aside is run if a window of those that it touches holds a cell
                touched = [(0, 0)] if not aside else [(-64, -64), (-64, 64), (64, -64), (64, 64)]
                occupied = any((np.abs(xy_um - centre - off).max(1) <= 64 + 16 + reach_um).any() for off in touched)
                if square.meets(wanted) and occupied:
                    expected.add((top, left))
                if square.meets(needed):
                    sees.append(square.grown(2))
                    least |= {(top, left)} if occupied else set()
        assert run == expected
        assert least <= run  # those that the region depends on, followed step by step
        advanced = {*plan.blocks_to_advance(k)}
        for square in sees:
            assert {b for b in square.grown(-2).places(lattice.block) if plan.is_active(b)} <= advanced
        for top, left in run:
            window = Area(top=top - 2, left=left - 2, height=20, width=20)
            assert all(plan.is_active(b) for b in window.places(lattice.block))
        needed = Area(
            top=min(a.top for a in sees),
            left=min(a.left for a in sees),
            height=max(a.bottom for a in sees) - min(a.top for a in sees),
            width=max(a.right for a in sees) - min(a.left for a in sees),
        )
    assert plan.n_windows == sum(len(plan.corners(k, b)) for k in range(n) for b in plan.blocks_to_advance(k))
