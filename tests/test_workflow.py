"""The workflow for cohorts: two toy slides through all its jobs, resumed, and refused where its table is wrong."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sge2hist.toy.tissue import ToyTissueConfig, simulate
from sge2hist.toy.visium_hd_folder import write_visium_hd

WORKFLOWS = Path(__file__).parents[1] / "workflows"


def test_rules_of_the_cluster_profile_exist():
    rules = set(re.findall(r"^(?:rule|checkpoint) (\w+):", (WORKFLOWS / "Snakefile").read_text(), re.M))
    profile = yaml.safe_load((WORKFLOWS / "profiles" / "slurm" / "config.yaml").read_text())
    assert set(profile["set-resources"]) <= rules


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snakemake", "-s", str(WORKFLOWS / "Snakefile"), "--configfile", "my.yaml"]
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    return subprocess.run(
        [*command, "--cores", "1", "--show-failed-logs", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )


@pytest.fixture
def cohort(tmp_path) -> Path:
    pytest.importorskip("snakemake")
    lines = ["path,image,donor,name"]
    for number, (donor, name) in enumerate((("A", "first slide"), ("B", "second"))):
        paths = write_visium_hd(simulate(ToyTissueConfig.tiny(), seed=number), tmp_path / f"toy{number}")
        lines.append(f"{paths.outs.relative_to(tmp_path)},{paths.image.relative_to(tmp_path)},{donor},{name}")
    (tmp_path / "slides.csv").write_text("\n".join(lines) + "\n")
    settings = yaml.safe_load((WORKFLOWS / "config.yaml").read_text()) | {
        "prepare": "--bin-um 16 --patch-um 32 --patch-px 32 --split-block-um 150 --types none",
        "train": "--preset tiny --mixed-precision no --steps 2",
        "generate_slide": "--steps 1 --region 0,0,160,160",
        "evaluate": "--extractor texture-v1 --bootstrap 10 --no-umap --split all",
        "command": f"{sys.executable} -m sge2hist",
        "train_command": f"{sys.executable} -m sge2hist",
    }
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path


def test_two_slides_through_all_jobs(cohort):
    done = _run(cohort)
    assert done.returncode == 0, done.stderr
    out = cohort / "cohort"
    assert [slide["id"] for slide in json.loads((out / "cohort.paired" / "manifest.json").read_text())["slides"]] == [
        "first slide",
        "second",
    ]
    with open(out / "summary.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["slide"] for row in rows} == {"first_slide", "second"}
    for name in ("first_slide", "second"):
        report = json.loads((out / "reports" / name / "report.json").read_text())
        (metric,) = (one for one in report["metrics"] if one["id"] == rows[0]["metric"])
        (row,) = (one for one in rows if one["slide"] == name and one["metric"] == metric["id"])
        assert float(row["value"]) == metric["sets"][name]["value"]
        assert (out / "slides" / f"{name}.generated" / "manifest.json").is_file()
    again = _run(cohort)
    assert "Nothing to be done" in again.stdout + again.stderr
    # as if it had been stopped before the second slide was ready: that one is generated, by the model that is there
    (out / "done" / "generate" / "second").unlink()
    shutil.rmtree(out / "reports" / "second")
    (out / "summary.csv").unlink()
    plan = _run(cohort, "--dry-run").stdout
    assert re.findall(r"^(?:local)?(?:rule|checkpoint) (\w+):", plan, re.M) == [
        "generate_slide",
        "evaluate",
        "summary",
        "all",
    ]
    assert "slide=second" in plan
    assert "slide=first_slide" not in plan


def test_a_wrong_table_is_one_error_before_any_job(cohort):
    (cohort / "slides.csv").write_text("path,image\nnowhere,he.tif\n")
    done = _run(cohort)
    assert done.returncode != 0
    assert "path 'nowhere'" in done.stderr
    assert not (cohort / "cohort").exists()
