"""End to end on a synthetic tissue: each type of bad generator is exposed by the metric that measures its fault, and
only by it.
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sge2hist.data.errors import InputError
from sge2hist.data.generated import GeneratedSet
from sge2hist.evaluation.config import EvaluateConfig
from sge2hist.evaluation.evaluate import evaluate
from tests.evaluation.generated_sets import table_for, write_generated

CONFIG = EvaluateConfig(extractor="texture-v1", n_bootstrap=60, max_train=500, umap=False, min_type=20, gallery=3)


@pytest.fixture(scope="module")
def evaluated(tissue, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """One report on five generators for the same cells."""
    folder = tmp_path_factory.mktemp("evaluated")
    rows, rng = tissue.data.rows("test")[::2], np.random.default_rng(0)
    fresh = tissue.fresh(rows, 1)
    collapsed = np.empty_like(fresh)
    for type_index in range(3):
        mine = tissue.type_N[rows] == type_index
        collapsed[mine] = fresh[mine][:1]
    train = tissue.data.rows("train")
    copied = np.array([rng.choice(train[tissue.type_N[train] == tissue.type_N[row]]) for row in rows])
    sets = {
        "good": fresh,
        "other cells": tissue.fresh(rng.permutation(rows), 2),
        "collapsed": collapsed,
        "copied": tissue.data.patches(copied),
        "noisy": np.clip(fresh + rng.normal(0, 30, fresh.shape), 0, 255).astype(np.uint8),
    }
    paths = [tissue.write(folder / name, images, rows) for name, images in sets.items()]
    report = evaluate(paths, tissue.data, folder / "report", config=CONFIG)
    return report, folder / "report"


def value(report: dict[str, Any], metric: str, name: str, field: str = "value") -> float:
    (entry,) = (m for m in report["metrics"] if m["id"] == metric)
    return float(entry["real"]["value"] if name == "real" else entry["sets"][name][field])


def test_a_good_generator_passes_everything(evaluated) -> None:
    report, _ = evaluated
    assert value(report, "frechet", "good") < 2 * value(report, "frechet", "real")
    assert value(report, "coverage", "good") > 0.7
    assert value(report, "type_f1", "good") > 0.8 * value(report, "type_f1", "real")
    assert value(report, "expression_ratio_50", "good") > 0.8
    assert value(report, "morphometry_correlation", "good") > 0.6
    assert value(report, "copied", "good") < 0.05


def test_shuffling_is_exposed_by_every_right_metric_and_by_no_realism_metric(evaluated) -> None:
    report, _ = evaluated
    assert value(report, "frechet", "other cells") < 2 * value(report, "frechet", "real")
    assert value(report, "coverage", "other cells") > 0.7
    assert value(report, "type_f1_normalised", "other cells") < 0.3
    assert abs(value(report, "morphometry_correlation", "other cells")) < 0.25
    assert abs(value(report, "expression_ratio_50", "other cells")) < 0.4
    assert value(report, "retrieval_median_rank", "other cells") == pytest.approx(0.5, abs=0.12)
    assert value(report, "copied", "other cells") < 0.05


def test_collapse_is_exposed_by_variety_and_not_by_precision_or_type(evaluated) -> None:
    report, _ = evaluated
    assert value(report, "recall", "collapsed") < 0.1
    assert value(report, "coverage", "collapsed") < 0.3
    assert value(report, "precision", "collapsed") > 0.6
    assert value(report, "type_f1", "collapsed") > 0.8 * value(report, "type_f1", "real")
    assert value(report, "copied", "collapsed") < 0.05


def test_copying_is_exposed_by_memorisation_alone(evaluated) -> None:
    """Training patches of the right type: real in every way, and the type is right."""
    report, _ = evaluated
    assert value(report, "copied", "copied") > 0.95
    assert value(report, "frechet", "copied") < 2.5 * value(report, "frechet", "real")
    assert value(report, "coverage", "copied") > 0.7
    assert value(report, "type_f1", "copied") > 0.8 * value(report, "type_f1", "real")


def test_noise_is_exposed_by_realism_and_not_by_memorisation(evaluated) -> None:
    report, _ = evaluated
    assert value(report, "frechet", "noisy") > 5 * value(report, "frechet", "real")
    assert value(report, "kid", "noisy") > 10 * value(report, "kid", "good")
    assert value(report, "precision", "noisy") < 0.1
    assert value(report, "copied", "noisy") < 0.05


def test_every_estimate_has_n_interval_and_baselines(evaluated) -> None:
    report, _ = evaluated
    for metric in report["metrics"]:
        for entry in metric["sets"].values():
            assert entry["n"] > 0
            if metric["question"].startswith("Right") and not metric["id"].startswith(
                ("morphometry_o", "morphometry_s")
            ):
                assert entry["low"] <= entry["value"] + 1e-9, metric["id"]
                assert "resamples of" in entry["interval"]
                assert entry["shuffled"] is not None
                assert entry["conditioning_gain"]["low"] is not None
    assert {row["minus"] for row in report["differences"]} == {"good"}


def test_report_file_is_the_returned_report_and_plain_json(evaluated) -> None:
    report, folder = evaluated
    text = (folder / "report.json").read_text()
    assert json.loads(text)["metrics"] == json.loads(json.dumps(report["metrics"]))
    assert "NaN" not in text
    assert json.loads((folder / "manifest.json").read_text())["kind"] == "report"


def test_page_is_self_contained_and_marked(evaluated) -> None:
    _, folder = evaluated
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "http" not in page.replace("http-equiv", "")
    assert "TOY" in page
    assert "synthetic images" in page
    assert "<script src" not in page
    for question in ("Does it look real?", "Does it follow the RNA?", "Is it a copy?"):
        assert question in page
    assert "Sampled at random (seed 0)" in page


def test_what_the_report_lacks_is_listed(tissue, tmp_path: Path) -> None:
    rows = tissue.data.rows("test")
    rows = np.sort(np.concatenate([rows[tissue.type_N[rows] == 0][:60], rows[tissue.type_N[rows] == 1][:10]]))
    path = tissue.write(tmp_path / "a", tissue.fresh(rows, 0), rows)
    config = EvaluateConfig(extractor="texture-v1", n_bootstrap=10, max_train=300, umap=False, min_type=20)
    report = evaluate(path, tissue.data, tmp_path / "report", config=config)
    assert [row["type"] for row in report["per_type"]] == ["type 0"]
    assert [(row["type"], row["n"]) for row in report["types_omitted"]] == [("type 1", 10), ("type 2", 0)]
    assert any("more than 30 genes" in sentence for sentence in report["omitted"])
    page = (tmp_path / "report" / "report.html").read_text()
    assert "type 1 (10), type 2 (0)" in page
    assert "more than 30 genes" in page


def test_same_seed_gives_the_same_report(tissue, tmp_path: Path) -> None:
    rows = tissue.data.rows("test")[:40]
    path = tissue.write(tmp_path / "a", tissue.fresh(rows, 0), rows)
    config = EvaluateConfig(extractor="texture-v1", n_bootstrap=10, max_train=100, umap=False)
    first, second = (evaluate([path], tissue.data, config=config) for _ in range(2))
    assert first["metrics"] == second["metrics"]


def test_generated_set_with_shuffled_partner_samples_and_latents(tissue, tmp_path: Path) -> None:
    cells = tissue.data.rows("test")[:60]
    rows = np.repeat(cells, 2)
    rng = np.random.default_rng(0)
    latents = {"X_sge2hist_z1": np.eye(3)[tissue.type_N[rows]] + 0.05 * rng.normal(size=(120, 3))}
    table = table_for(tissue.data, rows).assign(sample=np.tile([0, 1], 60))
    images = np.concatenate([tissue.fresh(rows, 3)])
    own = write_generated(tmp_path / "m.generated", images, table, latents)
    wrong_rows = np.roll(cells, 7)
    wrong_table = table_for(tissue.data, cells, condition_row=wrong_rows)
    wrong = write_generated(tmp_path / "w.generated", tissue.fresh(wrong_rows, 4), wrong_table)
    config = EvaluateConfig(extractor="texture-v1", n_bootstrap=10, max_train=300, gallery=3)
    report = evaluate([f"model={own}", wrong], tissue.data, tmp_path / "report", config=config)
    assert [entry["name"] for entry in report["sets"]] == ["model"]
    assert report["sets"][0]["shuffled_baseline"].startswith("images generated from other cells")
    assert value(report, "morphometry_correlation", "model") > 0.5
    (entry,) = (m for m in report["metrics"] if m["id"] == "frechet")
    assert entry["sets"]["model"]["shuffled"] is not None
    assert report["over_samples"]["model"]["kid"]["n_samples"] == 2
    assert report["latent"]["model"]["z1"]["clustering"]["acc"]["value"] > 0.9
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.count('aria-label="features in two dimensions"') == 1
    plane = page[page.index('aria-label="z1 in two dimensions') :]
    assert plane[: plane.index("</svg>")].count("<circle") == 60


def test_images_of_types_are_scored_without_own_cells(tissue, tmp_path: Path) -> None:
    rows = tissue.data.rows("test")[:60]
    table = table_for(tissue.data, rows).assign(
        row=-1, cell_id="", cell_type=[f"type {k}" for k in tissue.type_N[rows]]
    )
    path = write_generated(tmp_path / "t.generated", tissue.fresh(rows, 3), table)
    config = EvaluateConfig(extractor="texture-v1", n_bootstrap=10, max_train=300, umap=False)
    report = evaluate([path], tissue.data, tmp_path / "report", config=config)
    ids = {metric["id"] for metric in report["metrics"]}
    assert {"frechet", "kid", "type_f1"} <= ids
    assert not ids & {"retrieval_top_1", "expression_50", "morphometry_correlation", "psnr"}
    assert "Not measured" in (tmp_path / "report" / "report.html").read_text()


def test_inputs_that_do_not_fit_are_refused_before_any_work(tissue, tmp_path: Path) -> None:
    rows = tissue.data.rows("test")[:30]
    path = tissue.write(tmp_path / "a", tissue.fresh(rows, 0), rows)
    with pytest.raises(InputError, match="at least one generated set"):
        evaluate([], tissue.data)
    with pytest.raises(InputError, match="equal name"):
        evaluate([path, path], tissue.data)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="did not write"):
        evaluate([path], tissue.data, tmp_path / "mine", overwrite=True)
    small = write_generated(
        tmp_path / "s.generated", tissue.fresh(rows, 0), table_for(tissue.data, rows), patch_um=16.0
    )
    with pytest.raises(InputError, match="patches of one size"):
        evaluate([path, small], tissue.data)


def test_wrong_arguments_are_named(tissue, tmp_path: Path) -> None:
    rows = tissue.data.rows("test")[:30]
    path = tissue.write(tmp_path / "a", tissue.fresh(rows, 0), rows)
    for generated in (3, [3], {"a": None}):
        with pytest.raises(InputError, match="images of type"):
            evaluate(generated, tissue.data)
    with pytest.raises(InputError, match="data of type int"):
        evaluate(path, 3)
    with pytest.raises(InputError, match="EvaluateConfig"):
        evaluate(path, tissue.data, config={"max_cells": 30})


def test_sets_come_as_one_a_list_a_dict_or_opened_and_progress_is_reported(tissue, tmp_path: Path) -> None:
    rows = tissue.data.rows("test")[:30]
    path = write_generated(tmp_path / "a.generated", tissue.fresh(rows, 0), table_for(tissue.data, rows))
    config = EvaluateConfig(extractor="texture-v1", n_bootstrap=5, max_train=50, umap=False)
    stages: dict[str, tuple[int, int]] = {}

    def progress(stage: str, done: int, total: int) -> None:
        stages[stage] = (done, total)

    reports = {
        "a": evaluate(path, tissue.data, config=config, progress=progress),
        "b": evaluate({"b": GeneratedSet.open(path)}, tissue.data.path, config=config),
        "c": evaluate([f"c={path}"], tissue.data, config=config),
    }
    assert [report["sets"][0]["name"] for report in reports.values()] == list(reports)
    assert len({json.dumps([m["real"] for m in report["metrics"]]) for report in reports.values()}) == 1
    assert "real patches" in stages
    assert all(done == total for done, total in stages.values())


@pytest.mark.parametrize("bad", [{"max_cells": 3}, {"split": "holdout"}, {"block_um": 0.0}, {"n_groups": 1}])
def test_config_checks_its_ranges(bad: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="EvaluateConfig"):
        EvaluateConfig(**bad)
