import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sge2hist.data.errors import InputError
from sge2hist.pairing.split import split_cells

DEFAULTS = {"block_um": 100.0, "gap_um": 20.0, "fractions": (0.7, 0.1, 0.2), "seed": 0}


def cells(n: int, side_um: float, seed: int = 0, n_slides: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.uniform(0, side_um, (n, 2)), rng.integers(0, n_slides, n)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    patch_um=st.floats(5, 60),
    block_um=st.floats(60, 200),
    n_slides=st.integers(1, 3),
)
def test_no_patch_of_one_split_overlaps_a_patch_of_another(seed, patch_um, block_um, n_slides) -> None:
    centre, slide = cells(400, 800.0, seed, n_slides)
    try:
        split = split_cells(centre, slide, block_um=block_um, gap_um=patch_um, fractions=(0.7, 0.1, 0.2), seed=seed)
    except InputError:
        return  # a split may end up empty with such blocks; that is tested below
    distance = np.abs(centre[:, None] - centre[None]).max(axis=2)  # slow reference: all pairs
    same_slide = slide[:, None] == slide[None]
    used = split != "dropped"
    differ = (split[:, None] != split[None]) & used[:, None] & used[None]
    assert not (same_slide & differ & (distance < patch_um)).any()


def test_fractions_are_met_and_seed_decides() -> None:
    centre, slide = cells(20_000, 3000.0)
    split = split_cells(centre, slide, **{**DEFAULTS, "gap_um": 1.0})
    share = {name: float((split == name).mean()) for name in ("train", "val", "test", "dropped")}
    assert share["train"] == pytest.approx(0.7, abs=0.04)
    assert share["val"] == pytest.approx(0.1, abs=0.02)
    assert share["test"] == pytest.approx(0.2, abs=0.02)
    assert (split == split_cells(centre, slide, **{**DEFAULTS, "gap_um": 1.0})).all()
    assert (split != split_cells(centre, slide, **{**DEFAULTS, "gap_um": 1.0, "seed": 1})).any()


def test_only_cells_close_to_another_split_are_dropped() -> None:
    centre, slide = cells(3000, 1000.0)
    split = split_cells(centre, slide, **DEFAULTS)
    distance = np.abs(centre[:, None] - centre[None]).max(axis=2)
    for row in np.flatnonzero(split == "dropped")[:50]:
        block = np.floor(centre / 100.0)
        foreign = (block != block[row]).any(axis=1)
        assert distance[row, foreign].min() < 20.0


def test_cells_of_different_slides_are_not_close() -> None:
    centre, _ = cells(500, 90.0)
    doubled, slide = np.concatenate([centre, centre]), np.repeat([0, 1], 500)
    split = split_cells(doubled, slide, block_um=100.0, gap_um=50.0, fractions=(0.5, 0.0, 0.5), seed=0)
    assert "dropped" not in split
    assert len(set(split[:500])) == len(set(split[500:])) == 1


def test_whole_slide_holdout() -> None:
    centre, slide = cells(6000, 1000.0, n_slides=3)
    split = split_cells(centre, slide, **DEFAULTS, test_slides=(1,))
    assert set(split[slide == 1]) == {"test"}
    assert "test" not in split[slide != 1]
    rest = split[(slide != 1) & (split != "dropped")]
    assert (rest == "val").mean() == pytest.approx(1 / 8, abs=0.06)


def test_the_error_of_an_empty_split_names_the_repair() -> None:
    centre, slide = cells(50, 80.0)
    with pytest.raises(InputError, match="--split-block-um"):
        split_cells(centre, slide, **DEFAULTS)
    split = split_cells(centre, slide, **{**DEFAULTS, "fractions": (1.0, 0.0, 0.0)})
    assert set(split) == {"train"}
