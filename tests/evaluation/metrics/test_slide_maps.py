"""Maps of a slide against a truth that is known: the real slide itself, a copy with noise, and a shuffled one."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import r2_score

from sge2hist.data.artifacts import atomic_directory, write_manifest
from sge2hist.data.errors import InputError
from sge2hist.data.he_stain import stain_statistics
from sge2hist.data.slides.slide_image import SlideImage
from sge2hist.data.slides.slide_writer import write_slide
from sge2hist.evaluation.config import EvaluateConfig
from sge2hist.evaluation.evaluate import evaluate
from sge2hist.evaluation.metrics.slide_maps import held_out_windows, r2_estimate, score_slide, statistic_maps
from sge2hist.evaluation.open_images import open_image_set
from sge2hist.evaluation.resampling import make_resampling

REGION_UM = (64.0, 32.0, 512.0, 600.0)


def _slide(path: Path, pixels: np.ndarray, **changes) -> Path:
    with atomic_directory(path) as partial:
        write_slide(partial / "slide.ome.tif", pixels, 2.0)
        content = {"mode": "slide", "slide": "s1", "region_um": list(REGION_UM), "um_per_px": 2.0, "n_images": 0}
        write_manifest(partial, "generated", **{**content, **changes})
    return path


@pytest.fixture(scope="module")
def real(tiny_paired) -> np.ndarray:
    x, y, width, height = (int(value / 2) for value in REGION_UM)
    return tiny_paired.slides[0].read(x, y, width, height)


def test_maps_are_the_statistics_of_windows():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (70, 100, 3)).astype(np.uint8)
    maps = statistic_maps(SlideImage.from_array(pixels), 2.0, (0.0, 0.0, 200.0, 140.0), 2.0, window_um=64.0)
    assert maps["eosin_mean"].shape == (2, 3)
    alone = stain_statistics(pixels[None, 32:64, 64:96])
    for name, values in maps.items():
        assert values[1, 2] == pytest.approx(alone[name][0], abs=1e-6)


def test_placed_cells_change_no_window_that_counts(tiny_paired):
    """A placed cell is in no split; windows of held-out tissue hold it as well."""
    region = (0.0, 0.0, 640.0, 640.0)
    before = held_out_windows(tiny_paired, 0, region)
    placed = copy.copy(tiny_paired)
    placed.is_centre = tiny_paired.is_centre.copy()
    test = tiny_paired.rows("test")
    placed.is_centre[test[::2]] = False
    assert before.any()
    assert np.array_equal(held_out_windows(placed, 0, region), before)


def test_windows_that_count_hold_held_out_cells_alone(tiny_paired):
    counts = held_out_windows(tiny_paired, 0, (0.0, 0.0, 640.0, 640.0))
    assert counts.shape == (10, 10)
    # rows of cells from 32 on are test: 512 um and below
    assert counts[8:].all()
    assert not counts[:8].any()


def test_a_copy_scores_one_and_noise_scores_nothing(tiny_paired, real, tmp_path):
    rng = np.random.default_rng(0)
    same = score_slide([_slide(tmp_path / "a.generated", real)], tiny_paired, split="all").report
    for score in same["maps"][:2]:
        assert score["correlation"]["value"] == pytest.approx(1)
        assert score["r2"] == pytest.approx(1)
        assert abs(score["shuffled"]["value"]) < 0.5
    assert same["n_windows"] == 8 * 9
    noise = rng.integers(60, 250, (*real.shape[:2], 1)).repeat(3, -1).astype(np.uint8)
    other = score_slide([_slide(tmp_path / "b.generated", noise)], tiny_paired, split="all").report
    assert all(abs(score["correlation"]["value"]) < 0.5 for score in other["maps"])
    assert other["seams"]["value"] == pytest.approx(1, abs=0.05)
    both = score_slide([tmp_path / "a.generated", tmp_path / "b.generated"], tiny_paired, split="all").report
    assert both["n_slides"] == 2
    assert 0.3 < both["maps"][0]["correlation"]["value"] < 1


def test_r2_and_its_resamples_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    real, generated = 3 + rng.normal(size=(2, 200))
    resampling = make_resampling(np.arange(200) // 10, n_replicates=5, n_groups=4, rng=rng)
    found = r2_estimate(real, generated, resampling)
    assert found.value == pytest.approx(r2_score(real, generated))
    for replicate, weights in zip(found.replicates, resampling.bootstrap_RN, strict=True):
        assert replicate == pytest.approx(r2_score(real, generated, sample_weight=weights))
    assert np.isnan(r2_estimate(np.full(200, 3.0), generated, resampling).value)
    assert r2_estimate(real, real, resampling).minus(found).value == pytest.approx(1 - found.value)


def test_a_grid_is_seen(tiny_paired, real, tmp_path):
    lined = real.copy()
    x0, y0 = (-int(value / 2) % 16 for value in REGION_UM[:2])
    step = (np.indices(real.shape[:2])[0] - y0) // 16 % 2 * 12 + (np.indices(real.shape[:2])[1] - x0) // 16 % 2 * 12
    lined = np.clip(lined.astype(int) - step[..., None], 0, 255).astype(np.uint8)
    found = score_slide([_slide(tmp_path / "c.generated", lined, window_step_um=32.0)], tiny_paired, split="all").report
    assert found["seams"]["value"] > found["real_seams"]["value"] + 0.1
    assert found["seams_alike"] is None
    y, x = np.indices(real.shape[:2])
    loud = lined.astype(int) + ((y - y0) // 4 % 2 * 20 + (x - x0) // 4 % 2 * 20)[..., None]
    lined = np.clip(loud, 0, 255).astype(np.uint8)  # and a grid of the network
    alike = score_slide(
        [_slide(tmp_path / "f.generated", lined, window_step_um=32.0, network_px=4)], tiny_paired, split="all"
    ).report
    assert alike["seams_alike"]["value"] < alike["seams"]["value"] - 0.1


def test_wrong_input_is_named(tiny_paired, real, tmp_path):
    patches = _slide(tmp_path / "d.generated", real, mode="genes")
    with pytest.raises(InputError, match="expected a generated slide"):
        score_slide([patches], tiny_paired)
    train = _slide(tmp_path / "e.generated", real[:64, :64], region_um=[64.0, 32.0, 128.0, 128.0])
    with pytest.raises(InputError, match="0 windows"):
        score_slide([train], tiny_paired)


def _of_tissue(tissue, path: Path, pixels: np.ndarray, column: int) -> Path:
    height, width = pixels.shape[:2]
    region = [32.0 * column, 0.0, float(width), float(height)]
    return _slide(path, pixels, um_per_px=1.0, slide="s", region_um=region, model_fingerprint="m", seed=5)


def test_a_slide_is_evaluated_like_any_set_and_as_a_whole(tissue, tmp_path):
    """The real slide given as a generated one: its windows are the cells' own patches, its maps are right."""
    data = tissue.data
    held_out = data.slides[0].as_array()[:, 28 * 32 :]  # columns of cells from 28 on are test
    path = _of_tissue(tissue, tmp_path / "a.generated", held_out, 28)
    images = open_image_set(path, data)
    assert images.row_M.tolist() == data.rows("test").tolist()
    subsample = np.array([0, 17, len(images) - 1])
    assert np.array_equal(images.images(subsample), data.patches(images.row_M[subsample]))
    assert (images.image_px, images.seed_M[0], images.is_slide) == (32, 5, True)
    config = EvaluateConfig(extractor="texture-v1", n_bootstrap=10, max_train=300, umap=False, gallery=3)
    rows = data.rows("test")
    patches = tissue.write(tmp_path / "patches", tissue.fresh(rows, 0), rows)
    report = evaluate([path, patches], data, tmp_path / "report", config=config)
    rank = next(metric for metric in report["metrics"] if metric["id"] == "retrieval_median_rank")
    assert rank["sets"]["a"]["value"] < 0.01 < rank["sets"]["patches"]["value"]
    assert list(report["slides"]) == ["a"]
    assert report["slides"]["a"]["maps"][0]["correlation"]["value"] == pytest.approx(1)
    assert report["slides"]["a"]["n_windows"] == 6 * 13
    assert report["slides"]["a"]["seams"]["value"] == report["slides"]["a"]["real_seams"]["value"]
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Generated slides" in page
    assert "seam score" in page
    assert page.count('alt="generated slide"') == 1
    assert page.count('alt="haematoxylin_mean generated"') == 1


def test_a_slide_without_held_out_windows_is_evaluated_by_its_cells_or_refused(tissue, tmp_path):
    real = tissue.data.slides[0].as_array()
    small = _of_tissue(tissue, tmp_path / "b.generated", real[:, 39 * 32 :], 39)  # one column: no window of 64 um
    config = EvaluateConfig(extractor="texture-v1", n_bootstrap=10, max_train=100, umap=False, gallery=3)
    report = evaluate([small], tissue.data, tmp_path / "report", config=config)
    assert report["slides"] == {}
    assert report["data"]["n_cells"] == 26
    train = _of_tissue(tissue, tmp_path / "c.generated", real[:, : 8 * 32], 0)
    with pytest.raises(InputError, match="no cell of split test"):
        evaluate([train], tissue.data, config=config)
