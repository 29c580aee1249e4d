"""Tables that benchmarks print or that are made from their files: the right figure in the right cell."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)


def cells(text: str) -> dict[str, list[str]]:
    """First cell of each row -> the others."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    assert len({len(row) for row in rows}) == 1, "rows of different lengths"
    return {row[0]: row[1:] for row in rows}


def test_filters_come_from_the_manifest(tmp_path: Path) -> None:
    from reproduce_tables import filters

    steps = [{"filter": "inside", "removed": 1500, "left": 8500}, {"filter": "counts", "removed": 20, "left": 8480}]
    qc = {"cells": {"s1": steps}, "read": {"s1": 10_000}, "placed": {"s1": 8500}}
    (tmp_path / "manifest.json").write_text(json.dumps({"qc": qc, "observation": "bin"}))
    assert filters(tmp_path).splitlines()[2:] == [
        "| s1 | bins read |  | 10,000 |",
        "|  | inside | 1,500 | 8,500 |",
        "|  | counts | 20 | 8,480 |",
        "|  | placed: on the image |  | 8,500 |",
    ]


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    ours = {"acc": [0.6, 0.8], "nmi": [0.5, 0.5], "ari": [0.4, 0.4], "seconds": [10.0, 12.0]}
    ours |= {"log_likelihood_per_count": [-5.0, -5.2], "reconstruction_r": [0.7, 0.7], "acc_deepest": [0.9, 0.9]}
    ours |= {"type_from_z1": [1.0, 0.98], "type_chance": [0.25, 0.25], "composition_from_z1_and_z2": [0.6, 0.6]}
    ours |= {"type_acc_100%_genes": [0.9, 0.9], "type_acc_2%_genes": [0.2, 0.4]}
    gmm = {name: [1.0, 1.0] for name in ("acc", "nmi", "ari", "seconds")}
    (tmp_path / "scores.json").write_text(json.dumps({"toy": {"ours": ours, "pca-gmm": gmm}}))
    return tmp_path / "scores.json"


def test_gene_tables_show_mean_and_deviation_over_seeds(scores: Path) -> None:
    from reproduce_gene_tables import blocks, deepest, methods, panel

    every = [line.split(" | ") for line in methods(scores).splitlines()]
    assert every[2][1:4] == ["ours", "0.700 ± 0.100", "0.500 ± 0.000"]
    assert every[2][5] == "-5.100 ± 0.100"
    assert every[2][-1] == "11.0 |"
    assert every[3][1] == "PCA + Gaussian mixture"
    assert every[3][5] == ""  # no likelihood was scored
    assert "0.900 ± 0.000" in deepest(scores)
    found = blocks(scores)
    assert "| toy, ours | type (chance 0.25) | 0.99 ± 0.01 |  |  |  |  |" in found
    assert "| toy, ours | neighbour composition |  |  | 0.60 ± 0.00 |  |  |" in found
    assert "Gaussian" not in found  # it has no blocks
    assert cells(panel(scores)) == {
        "share of the genes": ["100 %", "2 %"],
        "---": ["---", "---"],
        "toy": ["0.90 ± 0.00", "0.30 ± 0.10"],
    }


def test_every_method_of_the_benchmark_has_a_name() -> None:
    from gene_methods import METHODS as RUN
    from reproduce_gene_tables import METHODS as NAMED

    assert set(RUN) == set(NAMED)


def test_weights_tell_their_last_training() -> None:
    from weights import rows

    provenance = {
        "training": {"start": "runs/first.model", "hours": 1.0, "seed": 6},
        "n_train_cells": 1234,
        "stage_seconds": {"autoencoder": 0.0, "gene": 0.0, "joint": 3600.1, "sharpen": 973.0},
        "stage_steps": {"autoencoder": 500, "joint": 7000},
        "sharpen": {"hours": 0.27, "learning_rate": 1e-4, "seed": 2},
    }
    assert list(rows(provenance, 7_760_000, 15_900_000)) == [
        ("weights", "15.9 MB", "7.76 M parameters"),
        ("last training", "1,234 cells", "warm start, hours 1.0, seed 6"),
        ("autoencoder", "in a training before", "500 steps"),
        ("joint", "60 min", "7,000 steps"),
        ("sharpen", "16 min", "hours 0.27, learning rate 0.0001"),
    ]


@pytest.fixture
def slide_score() -> ModuleType:
    import slide_score

    return slide_score


def test_slides_are_scored_as_a_table(slide_score: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """The mean of two noisy copies of the real map is nearer to it than each; a shuffled map knows nothing."""
    from slide_regression import COARSE_UM, FINE_UM

    rng = np.random.default_rng(0)
    sides = {COARSE_UM: 40, FINE_UM: 160}

    def maps(noise: float) -> dict[float, dict[str, np.ndarray]]:
        return {um: {key: v + noise * rng.normal(size=v.shape) for key, v in of.items()} for um, of in real.items()}

    real = {um: {key: rng.normal(size=(n, n)) for key in slide_score.SHORT} for um, n in sides.items()}
    one, other = maps(0.5), maps(0.5)
    mean = {um: {key: (one[um][key] + other[um][key]) / 2 for key in one[um]} for um in one}
    counts = {um: np.ones((n, n), bool) for um, n in sides.items()}
    slide_score.print_table({"generated, one seed": one, "generated, mean of 2 seeds": mean}, real, counts, "test")
    printed = capsys.readouterr().out
    found = cells(printed.split("\n\n")[0])
    r2, r, spread = (float(value) for value in found["generated, one seed"][0].split(" / "))
    assert r2 == pytest.approx(1 - 0.25, abs=0.05)
    assert r == pytest.approx(1 / np.sqrt(1.25), abs=0.03)
    assert spread == pytest.approx(np.sqrt(1.25), abs=0.05)
    assert float(found["generated, mean of 2 seeds"][0].split(" / ")[0]) == pytest.approx(1 - 0.125, abs=0.05)
    assert float(found["generated, one seed, shuffled"][0].split(" / ")[1]) == pytest.approx(0, abs=0.1)
    assert next(iter(cells(printed.split("\n\n")[1]))) == "R2 / r / spread, 25,600 windows of 16 um of split test"


def test_values_of_a_wide_table_lose_intervals_and_shuffled_columns(tmp_path: Path) -> None:
    from reproduce_tables import values

    (tmp_path / "x.md").write_text(
        "cells\n| metric | real | a | a, shuffled | shuffled |\n| --- | --- | --- | --- | --- |\n"
        "| KID, best (50) | 0.1 [-0.2, 0.3] | 2e-05 [1e-05, 3e-05] | 9 [8, 9] | - |\n"
    )
    assert cells(values(tmp_path / "x.md")) == {
        "metric": ["real", "a", "shuffled"],
        "---": ["---", "---", "---"],
        "KID, best (50)": ["0.1", "2e-05", "-"],
    }
