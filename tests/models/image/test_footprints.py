"""Outlines on the grid against shapely, and the rules that make them repeatable."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
import torch

from sge2hist.models.image.footprints import boundary, rasterise

STEP_UM, START_UM = 0.85, -3.4


def _stars(n: int, rng: np.random.Generator, *, radius_um: tuple[float, float] = (2, 8)) -> np.ndarray:
    centre = rng.uniform(-5, 35, (n, 2))
    angle = np.sort(rng.uniform(0, 2 * np.pi, (n, 24)), 1)
    radius = rng.uniform(*radius_um, (n, 24))
    outline = centre[:, None] + np.stack([np.cos(angle), np.sin(angle)], 2) * radius[..., None]
    return outline.astype(np.float32)


@pytest.mark.parametrize("radius_um", [(0.5, 2), (2, 8), (20, 40)])
def test_covered_points_are_those_of_shapely(radius_um):
    rng = np.random.default_rng(0)
    outline, image = _stars(60, rng, radius_um=radius_um), np.sort(rng.integers(0, 4, 60))
    x, y = np.meshgrid(START_UM + (np.arange(40) + 0.5) * STEP_UM, START_UM + (np.arange(36) + 0.5) * STEP_UM)
    expected = np.zeros((4, 36, 40), int)
    for m, (ring, b) in enumerate(zip(outline.astype(float), image, strict=True)):
        expected[b][shapely.contains_xy(shapely.Polygon(ring), x, y)] = m + 1
    found = rasterise(
        torch.from_numpy(outline), torch.from_numpy(image), (4, 36, 40), step_um=STEP_UM, start_um=START_UM
    )
    assert (found.numpy() != expected).mean() < 1e-4  # points within float32 of an edge
    assert (expected > 0).mean() > 0.03


def test_outlines_with_a_common_edge_share_the_points_on_it():
    """Edges through grid points: each point belongs to exactly one of four squares."""
    squares = [[[x, y], [x + 2, y], [x + 2, y + 2], [x, y + 2]] for x in (0.5, 2.5) for y in (0.5, 2.5)]
    found = rasterise(
        torch.tensor(squares), torch.zeros(4, dtype=torch.long), (1, 6, 6), step_um=1.0, start_um=0.0
    ).numpy()[0]
    assert np.bincount(found.ravel()).tolist() == [20, 4, 4, 4, 4]


def test_vertices_that_repeat_and_unknown_outlines_change_nothing():
    rng = np.random.default_rng(1)
    outline = torch.from_numpy(_stars(5, rng))
    image = torch.tensor([0, 0, 0, 1, 1])
    options = {"shape": (2, 40, 40), "step_um": STEP_UM, "start_um": START_UM}
    plain = rasterise(outline, image, **options)
    padded = torch.cat([outline, outline[:, -1:].expand(-1, 3, -1)], 1)
    assert torch.equal(rasterise(padded, image, **options), plain)
    with_unknown = torch.cat([outline, torch.full((1, 24, 2), torch.nan)])
    assert torch.equal(rasterise(with_unknown, torch.cat([image, torch.tensor([1])]), **options), plain)


def test_boundary_separates_touching_cells():
    label = torch.zeros(1, 5, 8, dtype=torch.long)
    label[0, 1:4, 1:4], label[0, 1:4, 4:7] = 1, 2
    expected = label[0] > 0
    expected[2, 2] = expected[2, 5] = False
    assert torch.equal(boundary(label)[0], expected)
