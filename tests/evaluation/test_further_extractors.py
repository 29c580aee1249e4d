"""Several extractors in one report, what small changes cost, and both sides preprocessed alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sge2hist.data.errors import InputError
from sge2hist.evaluation.config import EvaluateConfig
from sge2hist.evaluation.evaluate import evaluate
from sge2hist.evaluation.features.extractor import jpeg_compressed
from sge2hist.evaluation.features.extractors import resolve_extractor
from sge2hist.evaluation.report import sentences
from sge2hist.evaluation.sensitivity import denser

MINE = "sge2hist.evaluation.features.texture:texture_features"  # the main extractor under another name


def settings(**changed: Any) -> EvaluateConfig:
    given = {"extractor": ("texture-v1", MINE), "n_bootstrap": 20, "max_train": 300, "umap": False, "min_type": 20}
    return EvaluateConfig(**{**given, **changed})


@pytest.fixture(scope="module")
def evaluated(tissue, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    folder = tmp_path_factory.mktemp("several")
    rows = tissue.data.rows("test")
    path = tissue.write(folder / "good", tissue.fresh(rows, 1), rows)
    report = evaluate(path, tissue.data, folder / "report", config=settings())
    return report, (folder / "report" / "report.html").read_text()


def by_id(metrics: list[dict[str, Any]]) -> dict[str, Any]:
    return {metric["id"]: metric for metric in metrics}


def test_the_same_features_give_the_same_figures(evaluated) -> None:
    """A further extractor has distances, floor and retrieval on the same cells: identical features, identical figures."""
    report, _ = evaluated
    (further,) = report["further_extractors"]
    assert further["name"] == MINE
    main, other = by_id(report["metrics"]), by_id(further["metrics"])
    assert {"frechet", "kid", "precision", "recall", "coverage", "retrieval_top_10"} <= other.keys()
    for name, metric in other.items():
        assert metric["real"] == main[name]["real"]
        assert metric["sets"] == main[name]["sets"]
    assert further["sensitivity"] == report["sensitivity"]


def test_the_page_shows_every_extractor(evaluated) -> None:
    report, page = evaluated
    assert "Every extractor" in page
    assert "What small changes cost" in page
    assert MINE in page
    assert "slide stored without loss" in page
    assert "Other extractors" in sentences.opening(report, "good")[0].text


def test_small_changes_have_the_right_cost(evaluated, tissue) -> None:
    report, _ = evaluated
    floor, shift, jpeg, stain = report["sensitivity"]
    assert [floor["change"], floor["over_floor"], floor["frechet_from_unchanged"]] == ["none (floor)", 1.0, 0.0]
    assert floor["n"] == shift["n"] <= 300
    for row in (shift, jpeg, stain):
        assert row["frechet_from_unchanged"] > 0
    assert jpeg["frechet_from_unchanged"] > shift["frechet_from_unchanged"]
    assert stain["change"] == "stains 5 % denser"


def test_a_shift_is_read_from_the_slide(tissue) -> None:
    """A wide patch holds the patch itself in its middle, so its neighbouring crop is a shift by one pixel."""
    data = tissue.data
    rows = data.rows("test")[40:44]
    px = data.patch_px
    wide = data.patches(rows, side_um=data.patch_um * (px + 2) / px, out_px=px + 2)
    np.testing.assert_array_equal(wide[:, 1:-1, 1:-1], data.patches(rows))


def test_denser_stains_multiply_the_optical_density() -> None:
    image = np.array([[[[255, 200, 100]]]], np.uint8)
    np.testing.assert_array_equal(denser(image, 1.0), image)
    expected = 256 * (np.array([256, 201, 101]) / 256) ** 1.05 - 1
    np.testing.assert_array_equal(denser(image, 1.05)[0, 0, 0], np.rint(expected))


def test_none_are_measured_when_none_are_asked_for(tissue, tmp_path: Path) -> None:
    rows = tissue.data.rows("test")[::2]
    path = tissue.write(tmp_path / "good", tissue.fresh(rows, 1), rows)
    report = evaluate(path, tissue.data, config=settings(extractor="texture-v1", sensitivity_cells=0))
    assert report["sensitivity"] == report["further_extractors"] == []


def test_jpeg_on_both_sides_is_no_difference(tissue, tmp_path: Path) -> None:
    """Real patches, stored as JPEG files by another tool: with compression of both sides they are real again."""
    rows = tissue.data.rows("test")
    real = tissue.data.patches(rows)
    folder = tissue.write(tmp_path / "jpeg", real, rows)
    for png in folder.glob("*.png"):
        Image.open(png).save(png.with_suffix(".jpg"), quality=30)
        png.unlink()
    table = folder / "images.csv"
    table.write_text(table.read_text().replace(".png", ".jpg"))
    plain = evaluate(folder, tissue.data, config=settings(extractor="texture-v1"))
    alike = evaluate(folder, tissue.data, config=settings(extractor="texture-v1", jpeg_quality=30))
    distances = [by_id(report["metrics"])["frechet"] for report in (plain, alike)]
    ratios = [found["sets"]["jpeg"]["value"] / found["real"]["value"] for found in distances]
    assert ratios[0] > 1.5
    assert ratios[1] == pytest.approx(1, abs=0.15)  # compressing twice at one quality changes hardly anything
    assert any("--jpeg" in note for note in plain["notes"])
    assert not any("--jpeg" in note for note in alike["notes"])
    assert alike["extractor"]["jpeg_quality"] == 30
    assert "JPEG quality 30" in alike["preprocessing"]["both"]


def test_the_extractor_sees_compressed_images() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    extract = resolve_extractor("texture-v1")
    np.testing.assert_array_equal(extract.after_jpeg(50)(images), extract(jpeg_compressed(images, 50)))


def test_the_farthest_extractor_decides() -> None:
    def metric(value: float) -> dict[str, Any]:
        figure = {"value": value, "low": None, "high": None, "n": 500, "interval": "none"}
        return {"id": "frechet", "real": {"value": 1.0}, "sets": {"a": figure}}

    for main, other, answer in (
        (1.0, 1.1, "Yes, to these extractors"),
        (1.0, 2.0, "Nearly"),
        (1.0, 9.0, "Not yet"),
        (0.8, 2.0, "Nearly"),
        (0.8, 1.1, "Closer than real tissue is"),
        (1.0, 0.5, "Closer than real tissue is"),
    ):
        further = [{"name": "UNI2-h", "metrics": [metric(other)]}]
        sentence = sentences.opening({"metrics": [metric(main)], "further_extractors": further}, "a")[0]
        assert sentence.answer == answer
        assert f"UNI2-h {other:.2f} times" in sentence.text


def test_wrong_settings_are_refused() -> None:
    for wrong in ({"jpeg_quality": 0}, {"jpeg_quality": 100}, {"sensitivity_cells": -1}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            EvaluateConfig(**wrong)
