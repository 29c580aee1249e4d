"""Parts of the tables of single cells: shuffled patches, panoptic quality, directions, structures, outlines."""

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")


def disc(labels: np.ndarray, x: float, y: float, radius: float, number: int) -> None:
    rows, columns = np.mgrid[: labels.shape[0], : labels.shape[1]]
    labels[np.hypot(columns - x, rows - y) <= radius] = number


def nuclei_of(labels: np.ndarray):
    from cell_measures import Nuclei

    count = int(labels.max())
    centres = np.array([np.argwhere(labels == i + 1).mean(0)[::-1] for i in range(count)]).reshape(-1, 2)
    return Nuclei(xy_px_L2=centres, shape_L4=np.zeros((count, 4)), angle_L=np.zeros(count), label_image=labels)


def test_shuffled_patches_are_those_of_far_places_and_never_the_own() -> None:
    from cell_patches import distances_um, far_places

    xy = np.random.default_rng(0).uniform(0, 3000, (30, 2))
    order = far_places(xy, 0)
    np.testing.assert_array_equal(np.sort(order), np.arange(30))
    assert distances_um(xy, order).min() >= 500
    assert (order != far_places(xy, 1)).any()
    near = np.random.default_rng(1).uniform(0, 100, (7, 2))  # nowhere is far
    assert (far_places(near, 0) != np.arange(7)).all()
    mixed = np.concatenate([near, near[:6] + 2000])
    assert (distances_um(mixed, far_places(mixed, 0)) >= 500).sum() == 12  # of 7 and 6 one stays near


def test_types_take_turns_so_that_rare_ones_are_there() -> None:
    from cell_measures import spread_patches

    rng = np.random.default_rng(0)
    xy, types = rng.uniform(0, 5000, (2000, 2)), (rng.random(2000) < 0.01).astype(int)
    chosen = spread_patches(xy, np.arange(2000), 20, 100.0, rng, types)
    assert (types[chosen] == 1).sum() >= 8
    gap = np.abs(xy[chosen][:, None] - xy[chosen][None]).max(2)
    assert gap[~np.eye(20, dtype=bool)].min() >= 100


def test_panoptic_quality_of_equal_missing_shifted_and_merged_nuclei() -> None:
    from single_cell_nuclei import mean_iou, panoptic_counts, panoptic_quality

    truth = np.zeros((64, 64), np.int64)
    for number, (x, y) in enumerate([(12, 12), (40, 12), (12, 40), (40, 40)], start=1):
        disc(truth, x, y, 6, number)

    def quality(found: np.ndarray) -> tuple[float, float]:
        counts = panoptic_counts([nuclei_of(truth)], [nuclei_of(found)])
        return panoptic_quality(counts)(np.ones((1, 1)))[0], mean_iou(counts)(np.ones((1, 1)))[0]

    assert quality(truth) == pytest.approx((1, 1))
    assert quality(np.where(truth > 2, 0, truth)) == pytest.approx((2 / 3, 1))  # 2 of 4: 2 / (2 + 2 / 2)
    moved = np.roll(truth, 3, 1)
    iou = (truth * (truth == moved) > 0).sum() / (truth + moved > 0).sum()
    assert quality(moved) == pytest.approx((iou, iou))
    assert quality(np.roll(truth, 9, 1))[0] == 0
    assert quality(np.zeros_like(truth))[0] == 0


def test_nuclei_are_numbered_anew_when_those_of_the_edge_go() -> None:
    labels = np.zeros((64, 64), np.int64)
    for number, (x, y) in enumerate([(3, 30), (30, 30), (45, 30)], start=1):
        disc(labels, x, y, 5, number)
    inside = nuclei_of(labels).inside(8.0)
    np.testing.assert_array_equal(inside.xy_px_L2, [[30, 30], [45, 30]])
    np.testing.assert_array_equal(inside.label_image == 1, labels == 2)
    np.testing.assert_array_equal(inside.label_image == 2, labels == 3)


def test_direction_of_an_axis_has_no_sense_and_no_break() -> None:
    from single_cell_nuclei import axial_r

    rng = np.random.default_rng(0)
    angle = rng.uniform(-np.pi / 2, np.pi / 2, 500)
    turned = angle + np.pi  # the same axis
    kept, weights = np.ones(500, bool), np.ones((1, 500))
    assert axial_r(angle, turned, kept)(weights)[0] == pytest.approx(1)
    assert axial_r(angle, angle + np.pi / 2, kept)(weights)[0] == pytest.approx(-1)
    assert abs(axial_r(angle, rng.permutation(angle), kept)(weights)[0]) < 0.1
    half = np.arange(500) < 250
    mixed = np.where(half, angle, rng.permutation(angle))
    assert axial_r(angle, mixed, half)(weights)[0] == pytest.approx(1)


def test_finder_gives_the_direction_and_the_outline_of_a_nucleus() -> None:
    from cell_measures import NucleusFinder, PatchCells, nuclei_of_cells

    um, angle = 0.425, 0.6
    y, x = np.mgrid[:128, :128] - 64.0
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    image = np.full((1, 128, 128, 2), 20, np.uint8)
    image[0, (along / 16) ** 2 + (across / 7) ** 2 <= 1, 0] = 200
    ring = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    outline = 64 + 30 * np.stack([np.cos(ring), np.sin(ring)], 1)
    outline[:, 0] = np.maximum(outline[:, 0], 64)  # the right half
    cells = PatchCells(
        patch_N=np.zeros(1, int),
        xy_px_N2=np.array([[64.0, 64.0]]),
        row_N=np.zeros(1, int),
        outline_px_NV2=outline[None],
    )
    found = nuclei_of_cells(image, cells, NucleusFinder(um_per_px=um, threshold=100), 8.0)
    direction = np.array([np.sin(found.angle_N[0]), np.cos(found.angle_N[0])])  # x, y: skimage measures from the rows
    assert abs(direction @ [np.cos(angle), np.sin(angle)]) > 0.99
    assert found.within_N[0] == pytest.approx(0.5, abs=0.06)


def test_shares_of_tiles_are_counted_in_their_tile() -> None:
    from cell_measures import PatchCells
    from single_cell_structures import shares_of_tiles

    rng = np.random.default_rng(0)
    xy, patch = rng.uniform(0, 256, (600, 2)), np.repeat([0, 1], 300)
    is_type = (xy[:, 0] > 128).astype(float)
    cells = PatchCells(patch_N=patch, xy_px_N2=xy, row_N=np.arange(600), outline_px_NV2=None)
    shares = shares_of_tiles(is_type, cells, 256, 64.0).reshape(2, 4, 4)
    np.testing.assert_array_equal(shares, np.broadcast_to([0.0, 0, 1, 1], (2, 4, 4)))
    few = PatchCells(patch_N=patch[:2], xy_px_N2=xy[:2], row_N=np.arange(2), outline_px_NV2=None)
    assert np.isnan(shares_of_tiles(is_type[:2], few, 256, 64.0)).all()


def test_area_of_polygons_is_that_of_shapely() -> None:
    from shapely import polygons
    from single_cell_structures import polygon_areas

    ring = np.sort(np.random.default_rng(0).uniform(0, 2 * np.pi, (5, 12)), 1)
    outlines = 7 * np.stack([np.cos(ring), np.sin(ring)], -1)
    np.testing.assert_allclose(polygon_areas(outlines), [polygon.area for polygon in polygons(outlines)])


def test_added_cells_lie_between_cells_and_apart_from_each_other() -> None:
    from added_cells import APART_UM, PER_PATCH, places_between

    rng = np.random.default_rng(0)
    cells, centres = rng.uniform(0, 400, (900, 2)), np.array([[100.0, 100], [300, 250]])
    places, window = places_between(cells, centres, 20.0, rng)
    np.testing.assert_array_equal(window, np.repeat([0, 1], PER_PATCH))
    assert np.abs(places - centres[window]).max() <= 20
    gap = np.linalg.norm(places[:, None] - places[None], axis=2)
    assert gap[~np.eye(len(places), dtype=bool)].min() >= APART_UM
    anywhere = centres[0] + rng.uniform(-20, 20, (200, 2))
    nearest = [np.linalg.norm(some[:, None] - cells[None], axis=2).min(1) for some in (places, anywhere)]
    assert nearest[0].mean() > 1.5 * nearest[1].mean()


def test_every_share_of_a_patch_is_of_its_own_cells() -> None:
    """Patches of a batch are cut out with their cells, numbered from the first of the part."""
    import torch
    from cell_patches import patches_of, some_cells

    from sge2hist.models.image.conditioning import MODE_ALL, PlacedCells

    image = torch.tensor([0, 0, 1, 2, 2, 2])
    placed = PlacedCells(
        z_MZ=torch.arange(6.0)[:, None],
        depth_M=torch.arange(6.0),
        xy_um_M2=torch.zeros(6, 2),
        image_M=image,
        mode_B=torch.full((3,), MODE_ALL),
        slide_B=torch.arange(3),
    )
    part = patches_of(placed, slice(1, 3))
    assert part.image_M.tolist() == [0, 1, 1, 1]
    assert part.depth_M.tolist() == [2, 3, 4, 5]
    assert part.slide_B.tolist() == [1, 2]
    kept = some_cells(placed, np.array([True, False, True, False, False, True]))
    assert kept.image_M.tolist() == [0, 1, 2]
    assert len(kept.mode_B) == 3


def test_distances_are_printed_beside_the_floor_and_the_shuffled_set(capsys):
    from evaluation import show

    def entry(value: float, **more) -> dict:
        return {"value": value, "low": value - 1, "high": value + 1, **more}

    of_both = entry(64.0, shuffled=entry(70.0))
    metrics = [
        {"name": "Frechet distance", "real": entry(50.0), "sets": {"own": of_both}},
        {"name": "PSNR, dB", "real": None, "sets": {"own": entry(13.0, shuffled=None)}},
    ]
    show({"sets": [{"name": "own"}], "metrics": metrics})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| metric | real | own | own, shuffled |"
    assert lines[2] == "| Frechet distance | 50 [49, 51] | 64 [63, 65] | 70 [69, 71] |"
    assert lines[3] == "| PSNR, dB | - | 13 [12, 14] | - |"
