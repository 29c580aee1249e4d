"""Splatting against a slow reference, and the invariances that the condition must have."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sge2hist.models.image.conditioning import (
    MODE_ALL,
    MODE_NONE,
    MODE_SINGLE_CELL,
    CellMapEncoder,
    CellVectorEncoder,
    ConditionConfig,
    PlacedCells,
    splat,
)


def _cells(z, xy, image, modes, slides=None) -> PlacedCells:
    return PlacedCells(
        z_MZ=torch.as_tensor(z, dtype=torch.float32),
        depth_M=torch.zeros(len(z)),
        xy_um_M2=torch.as_tensor(xy, dtype=torch.float32).reshape(-1, 2),
        image_M=torch.as_tensor(image, dtype=torch.long),
        mode_B=torch.as_tensor(modes),
        slide_B=torch.zeros(len(modes), dtype=torch.long) if slides is None else torch.as_tensor(slides),
    )


def test_splat_equals_the_slow_sum():
    rng = np.random.default_rng(0)
    value, xy, image = rng.normal(size=(9, 3)), rng.uniform(-2, 8, (9, 2)), np.array([0, 0, 0, 0, 2, 2, 2, 2, 2])
    for reach in (1.0, 2.0, 1.7):
        expected = np.zeros((3, 3, 5, 6))
        for v, (x, y), b in zip(value, xy, image, strict=True):
            for i in range(5):
                for j in range(6):
                    weight = max(0, 1 - abs(y - i) / reach) * max(0, 1 - abs(x - j) / reach)
                    expected[b, :, i, j] += v * weight
        found = splat(torch.tensor(value), torch.tensor(xy), torch.tensor(image), (3, 5, 6), reach)
        assert np.allclose(found.numpy(), expected)


def test_splat_of_a_lattice_is_a_partition_of_unity():
    step = 2.0
    y, x = np.meshgrid(np.arange(-4, 20, step) + 0.37, np.arange(-4, 20, step) + 0.81, indexing="ij")
    xy = torch.tensor(np.stack([x.ravel(), y.ravel()], 1))
    found = splat(
        torch.ones(len(xy), 1, dtype=torch.float64), xy, torch.zeros(len(xy), dtype=torch.long), (1, 9, 9), step
    )
    assert torch.allclose(found, torch.ones_like(found))


def _encoder() -> CellMapEncoder:
    torch.manual_seed(0)
    return CellMapEncoder(ConditionConfig(embedding=6, channels=8), n_latent=4, n_slides=2).eval()


def test_cells_moved_by_one_node_move_the_map_by_one_node():
    encoder, rng = _encoder(), np.random.default_rng(1)
    z, xy = rng.normal(size=(20, 4)), rng.uniform(-20, 84, (20, 2))
    still, _ = encoder(_cells(z, xy, [0] * 20, [MODE_ALL]), (8, 8))
    moved, _ = encoder(_cells(z, xy + np.array([8.0, 0.0]), [0] * 20, [MODE_ALL]), (8, 8))
    assert torch.allclose(moved[..., 1:], still[..., :-1], atol=1e-5)


def test_a_window_of_a_larger_canvas_is_the_same_map():
    encoder, rng = _encoder(), np.random.default_rng(2)
    z, xy = rng.normal(size=(60, 4)), rng.uniform(-24, 152, (60, 2))
    large, _ = encoder(_cells(z, xy, [0] * 60, [MODE_ALL]), (16, 16))
    window, _ = encoder(_cells(z, xy - [32.0, 16.0], [0] * 60, [MODE_ALL]), (8, 8))
    assert torch.allclose(window, large[..., 2:10, 4:12], atol=1e-5)


def test_empty_glass_differs_from_unconditional():
    encoder = _encoder()
    with torch.no_grad():
        encoder.mode_3D.weight.normal_()
    nothing = _cells(np.zeros((0, 4)), np.zeros((0, 2)), [], [MODE_ALL, MODE_NONE, MODE_SINGLE_CELL])
    maps, _ = encoder(nothing, (4, 4))
    assert not torch.allclose(maps[0], maps[1])
    assert not torch.allclose(maps[0], maps[2])
    unconditional = _cells(np.ones((1, 4)), [[16.0, 16.0]], [0], [MODE_ALL]).unconditional()
    assert torch.allclose(encoder(unconditional, (4, 4))[0][0], maps[1])


def test_vector_encoder_takes_the_cell_nearest_the_centre():
    encoder = CellVectorEncoder(ConditionConfig(form="vector", grid_um=2.0, splat_um=2.0), n_latent=2, n_slides=1)
    cells = _cells([[1, 1], [2, 2], [3, 3]], [[3, 3], [15, 17], [16, 16]], [0, 0, 2], [MODE_ALL, MODE_ALL, MODE_NONE])
    _, vector = encoder(cells, (16, 16))
    assert vector[0].tolist() == [2, 2]
    assert torch.equal(vector[1], encoder.null_Z)
    assert torch.equal(vector[2], encoder.null_Z)


def _outlined(outline, **changes) -> tuple[torch.Tensor, CellMapEncoder]:
    torch.manual_seed(0)
    config = ConditionConfig(embedding=6, channels=8, outlines=True, outline_um=20.0)
    encoder = CellMapEncoder(config, n_latent=4, n_slides=2).eval()
    xy = torch.tensor([[20.0, 28.0], [44.0, 30.0]])
    cells = _cells(torch.ones(2, 4), xy, [0, 0], [MODE_ALL])
    if outline is not None:
        outline = torch.as_tensor(outline, dtype=torch.float32)
    return encoder(replace(cells, outline_MV2=outline, **changes), (8, 8))[0], encoder


def test_cells_without_an_outline_are_points():
    unknown, _ = _outlined(torch.full((2, 5, 2), torch.nan))
    assert torch.equal(unknown, _outlined(None)[0])
    square = [[[8.0, 16], [32, 16], [32, 40], [8, 40]]]
    one_known, _ = _outlined(torch.cat([torch.tensor(square), torch.full((1, 4, 2), torch.nan)]))
    assert not torch.equal(one_known, unknown)


def test_a_cell_covers_the_nodes_inside_its_outline_alone():
    """A square of 3 x 3 nodes: the grid before the convolutions holds the cell's embedding there, and zero elsewhere."""
    _, encoder = _outlined(None)
    square = torch.tensor([[[16.0, 16], [40, 16], [40, 40], [16, 40]]])
    cells = _cells(torch.ones(1, 4), [[28.0, 28.0]], [0], [MODE_ALL])
    value = torch.arange(1.0, 4.0)[None]
    grid = encoder._spread_outlines(replace(cells, outline_MV2=square), value, (1, 12, 12))[0]
    inside = torch.zeros(12, 12)
    inside[4:7, 4:7] = 1
    assert torch.equal(grid[:3], value[0][:, None, None] * inside)
    assert torch.equal(grid[3], inside)  # covered
    edge = inside * 0.5  # two of the four points of a side node are on the boundary, three of a corner's
    edge[5, 5] = 0
    edge[[4, 4, 6, 6], [4, 6, 4, 6]] = 0.75
    assert torch.equal(grid[4], edge)
    centre = torch.zeros(12, 12)
    centre[5, 5] = 1
    assert torch.equal(grid[5], centre)


def test_outlines_of_a_batch_are_those_of_each_image():
    _, encoder = _outlined(None)
    rng = np.random.default_rng(2)
    parts = []
    for n in (3, 1, 4):
        xy = torch.from_numpy(rng.uniform(0, 64, (n, 2)).astype(np.float32))
        outline = xy[:, None] + torch.from_numpy(rng.uniform(-12, 12, (n, 7, 2)).astype(np.float32))
        parts.append(replace(_cells(rng.normal(size=(n, 4)), xy, [0] * n, [MODE_ALL]), outline_MV2=outline))
    alone = torch.cat([encoder(part, (8, 8))[0] for part in parts])
    fields = {name: torch.cat([getattr(part, name) for part in parts]) for name in vars(parts[0])}
    fields["image_M"] = torch.tensor([0, 0, 0, 1, 2, 2, 2, 2])
    assert torch.allclose(encoder(PlacedCells(**fields), (8, 8))[0], alone, atol=1e-6)


@pytest.mark.parametrize("known", [True, False])
def test_canvas_without_cells_in_a_model_of_outlines(known):
    """No cell at all, as in the unconditional half of guidance: glass for MODE_ALL, the null map for MODE_NONE."""
    _, encoder = _outlined(None)
    none = _cells(torch.zeros(0, 4), torch.zeros(0, 2), torch.zeros(0, dtype=torch.long), [MODE_ALL, MODE_NONE])
    found, _ = encoder(replace(none, outline_MV2=torch.zeros(0, 5, 2) if known else None), (8, 8))
    far = _cells(torch.ones(1, 4), [[500.0, 500.0]], [0], [MODE_ALL, MODE_NONE])
    assert torch.allclose(found, encoder(far, (8, 8))[0])
    assert torch.equal(found[1], encoder.null_D[:, None, None].expand_as(found[1]))
