"""Scores of known answers, and files that cannot be scored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from sge2hist.cli.main import app
from sge2hist.data.errors import InputError
from sge2hist.quiz.score import score_quiz

N = 20
REAL = [i % 2 == 0 for i in range(N)]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    images = [{"image": i + 1, "real": REAL[i], "cell_type": "ab"[i // 10], "cell_id": f"c{i}"} for i in range(N)]
    key = {
        "kind": "quiz_key",
        "format_version": 1,
        "quiz": "q1",
        "generated": "g",
        "data": "d.paired",
        "images": images,
    }
    (tmp_path / "key.json").write_text(json.dumps(key))
    (tmp_path / "answers").mkdir()
    return tmp_path


def write_answers(study: Path, name: str, right: list[bool], confidence: int = 3, **changes: Any) -> Path:
    answers = [
        {
            "image": i + 1,
            "answer": "real" if REAL[i] == right[i] else "generated",
            "confidence": confidence,
            "seconds": 2.0 + i,
            "comment": "<b>odd</b>" if i == 0 else "",
        }
        for i in range(len(right))
    ]
    path = study / "answers" / f"{name}.json"
    file = {"kind": "quiz_answers", "format_version": 1, "quiz": "q1", "reader": name, "answers": answers}
    path.write_text(json.dumps(file | changes))
    return path


def test_known_readers(study):
    paths = [
        write_answers(study, "expert", [True] * N),
        write_answers(study, "novice", [i < 12 for i in range(N)]),
        write_answers(study, "late", [True] * 8),
    ]
    scores = score_quiz(paths, n_resamples=200)
    expert, novice, late = scores["readers"]
    assert expert["accuracy"]["value"] == 1
    assert expert["accuracy"]["low"] == pytest.approx(20 / (20 + 1.959964**2))  # Wilson, all right
    assert expert["auc"]["value"] == 1
    assert expert["auc"]["low"] is None  # no mistake that a bootstrap could vary
    assert novice["accuracy"] | {"low": 0, "high": 0} == {"value": 0.6, "low": 0, "high": 0, "n": 20}
    assert novice["real_called_real"]["value"] == 0.6
    assert late["n"] == 8
    assert scores["pooled"]["n"] == 48
    assert scores["pooled"]["accuracy"]["value"] == pytest.approx(40 / 48)
    assert scores["pooled"]["accuracy_clustered"]["low"] < scores["pooled"]["accuracy"]["low"]
    assert expert["seconds"]["value"] == pytest.approx(np.median(2.0 + np.arange(N)))
    assert any("late answered 8 of 20" in note for note in scores["notes"])
    cohen = {tuple(one["readers"]): one for one in scores["agreement"]["cohen"]}
    assert cohen["expert", "novice"]["kappa"] == pytest.approx(0.2)  # agree in 12 of 20, chance one half
    assert cohen["expert", "late"] == {"readers": ["expert", "late"], "kappa": 1.0, "n": 8}
    assert {one["type"]: one["accuracy"]["value"] for one in scores["types"]} == {"a": 1.0, "b": pytest.approx(12 / 20)}


def test_a_guess_counts_less_than_certainty(study):
    """Wrong answers given as guesses: the ROC still separates completely."""
    right = [i not in (3, 4) for i in range(N)]
    path = write_answers(study, "careful", right, confidence=5)
    content = json.loads(path.read_text())
    for i in (3, 4):
        content["answers"][i]["confidence"] = 1
    path.write_text(json.dumps(content))
    (reader,) = score_quiz([path], n_resamples=50)["readers"]
    assert reader["accuracy"]["value"] == 0.9
    assert reader["auc"]["value"] == pytest.approx(0.99)  # of 100 pairs one is the wrong way round


def test_command_writes_table_and_page(study):
    write_answers(study, "a", [i % 3 > 0 for i in range(N)])
    write_answers(study, "b", [i % 4 > 0 for i in range(N)])
    files = sorted(str(path) for path in (study / "answers").glob("*.json"))
    result = CliRunner().invoke(app, ["quiz", "--score", *files, "-o", str(study / "scores")])
    assert result.exit_code == 0, result.output
    assert "accuracy" in result.output
    assert "65 %" in result.output
    assert "Cohen's kappa of a and b" in result.output
    scores = json.loads((study / "scores" / "scores.json").read_text())
    assert [one["reader"] for one in scores["readers"]] == ["a", "b"]
    page = (study / "scores" / "scores.html").read_text()
    assert "&lt;b&gt;odd&lt;/b&gt;" in page
    assert "<b>odd" not in page
    assert (study / "scores" / "roc.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quiz": "q2"}, "answers to quiz 'q2'.*key"),
        ({"kind": "report"}, "kind 'report'"),
        ({"answers": []}, "no answer"),
        ({"reader": " "}, "no name"),
        ({"answers": [{"image": 21, "answer": "real", "confidence": 1, "seconds": 1}]}, "images 1 to 20"),
        ({"answers": [{"image": 1, "answer": "maybe", "confidence": 1, "seconds": 1}]}, "answer 'maybe'"),
        ({"answers": [{"image": 1, "answer": "real", "confidence": 6, "seconds": 1}]}, "confidence 6"),
        ({"answers": [{"image": 1, "answer": "real", "confidence": True, "seconds": 1}]}, "confidence True"),
        ({"answers": [{"image": 1, "answer": "real", "confidence": 1, "seconds": -1}]}, "-1 seconds"),
        ({"answers": [{"image": 1, "answer": "real", "confidence": 1, "seconds": 1}] * 2}, "answered twice"),
        ({"answers": [{"image": 1, "answer": ["real"], "confidence": 1, "seconds": 1}]}, "answer"),
    ],
)
def test_files_that_cannot_be_scored(study, changes, message):
    path = write_answers(study, "r", [True] * N, **changes)
    with pytest.raises(InputError, match=message) as caught:
        score_quiz([path], study / "scores")
    assert str(path) in str(caught.value)
    assert not (study / "scores").exists()


def test_two_files_of_one_reader(study):
    first = write_answers(study, "r", [True] * N)
    second = study / "answers" / "r (1).json"
    second.write_text(first.read_text())
    with pytest.raises(InputError, match="second file of the reader 'r'"):
        score_quiz([first, second])


def test_no_key(study):
    path = write_answers(study, "r", [True] * N)
    (study / "key.json").unlink()
    with pytest.raises(InputError, match=r"--key quiz/key\.json"):
        score_quiz([path])


@pytest.mark.parametrize(
    "words",
    [["a.generated"], ["a.generated", "b.generated", "--data", "d", "-o", "o"], ["a.json", "--score", "--data", "d"]],
)
def test_wrong_commands(words):
    result = CliRunner().invoke(app, ["quiz", *words])
    assert isinstance(result.exception, InputError)
