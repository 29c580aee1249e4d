"""The frame of positions against a tissue whose truth is known: px are taken, every other frame is named and refused."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from sge2hist.data.errors import InputError
from sge2hist.data.position_frame import FrameFacts, check_positions_option, read_facts
from sge2hist.pairing.alignment.frame import choose_factor
from sge2hist.pairing.alignment.tissue import TissueMap

SIDE_UM = np.array([3000.0, 2000.0])  # of the image
MAP_UM = 4.0


def _in_tissue(xy_um: np.ndarray) -> np.ndarray:
    """An L with a round head: like no mirror image of itself."""
    x, y = xy_um.T
    stem = (x > 300) & (x < 900) & (y > 200) & (y < 1800)
    foot = (x > 300) & (x < 2600) & (y > 1300) & (y < 1800)
    return stem | foot | (np.hypot(x - 1700, y - 600) < 280)


def observations(kind: str) -> np.ndarray:
    """Positions in um of cells (9 um apart, jittered), 8 um bins, or spots on a hexagonal array of 100 um."""
    pitch = {"cells": 9.0, "bins": 8.0, "spots": 100.0}[kind]
    rows = np.sqrt(3) / 2 if kind == "spots" else 1.0
    x, y = np.meshgrid(np.arange(0, SIDE_UM[0], pitch), np.arange(0, SIDE_UM[1], pitch * rows))
    if kind == "spots":
        x[1::2] += pitch / 2
    xy = np.stack([x.ravel(), y.ravel()], 1)
    if kind == "cells":
        xy = xy + np.random.default_rng(0).uniform(-2.5, 2.5, xy.shape)
    return xy[_in_tissue(xy)]


def tissue_at(um_per_px: float) -> TissueMap:
    """The tissue as an image of this resolution shows it, with a nucleus at every cell."""
    height, width = (SIDE_UM[::-1] / MAP_UM).astype(int)
    y, x = np.mgrid[:height, :width] * MAP_UM + MAP_UM / 2
    mask = _in_tissue(np.stack([x.ravel(), y.ravel()], 1)).reshape(height, width)
    nuclear = np.zeros((height, width), np.float32)
    column, row = (observations("cells") / MAP_UM).astype(int).T
    np.add.at(nuclear, (np.minimum(row, height - 1), np.minimum(column, width - 1)), 1)
    nuclear = gaussian_filter(nuclear, 0.7) + 0.05 * np.random.default_rng(1).standard_normal(nuclear.shape)
    return TissueMap(
        step_px=MAP_UM / um_per_px,
        um_per_px=MAP_UM,
        density=mask.astype(np.float32),
        nuclear=nuclear.astype(np.float32),
        nuclear_name="haematoxylin",
        mask=mask,
    )


def factor(xy: np.ndarray, um_per_px: float, positions: str = "auto", facts: FrameFacts | None = None, **options):
    return choose_factor(
        xy,
        tissue_at(um_per_px),
        facts=facts or FrameFacts(),
        um_per_px=um_per_px,
        size_px=tuple((SIDE_UM / um_per_px).astype(int)),
        positions=positions,
        what="positions",
        where="x",
        **options,
    )


def facts_of(um_per_px: float) -> FrameFacts:
    return FrameFacts(preview_scale={"hires": 500 * um_per_px / 3000, "lowres": 150 * um_per_px / 3000})


@pytest.mark.parametrize("um_per_px", [0.25, 0.5, 2.0])
@pytest.mark.parametrize("kind", ["cells", "bins", "spots"])
def test_px_are_taken_and_other_frames_are_refused_with_the_option_that_states_them(
    kind: str, um_per_px: float
) -> None:
    xy_um = observations(kind)
    facts = facts_of(um_per_px)
    assert factor(xy_um / um_per_px, um_per_px, facts=facts) == (1.0, [])
    assert factor(xy_um / um_per_px, um_per_px) == (1.0, [])
    for frame, xy in {
        "um": xy_um,
        "hires": xy_um / um_per_px * facts.preview_scale["hires"],
        "lowres": xy_um / um_per_px * facts.preview_scale["lowres"],
    }.items():
        with pytest.raises(InputError, match=f"--positions {frame} "):
            factor(xy, um_per_px, facts=facts)
        times, warnings = factor(xy, um_per_px, frame, facts=facts)
        np.testing.assert_allclose(xy * times, xy_um / um_per_px)
        assert warnings == []
    with pytest.raises(InputError, match="swap"):
        factor(xy_um[:, ::-1] / um_per_px, um_per_px, facts=facts)
    with pytest.raises(InputError, match=r"to repair"):  # px of the next level, which at 0.5 um/px are um
        factor(xy_um / um_per_px / 2, um_per_px)


def test_um_at_one_um_per_px_are_px() -> None:
    assert factor(observations("cells"), 1.0) == (1.0, [])


def test_the_message_gives_both_figures() -> None:
    with pytest.raises(InputError, match=r"0\.25 um/px the nearest neighbours 1\.\d+ um apart.*as um .* 7 um apart"):
        factor(observations("cells"), 0.25)


@pytest.mark.parametrize("kind", ["cells", "bins"])
@pytest.mark.parametrize("share", ["region", "rare"])
def test_a_part_of_the_observations_in_px_is_no_false_alarm(kind: str, share: str) -> None:
    xy_um = observations(kind)
    region = (np.abs(xy_um - [600, 1500]) < 250).all(1)
    kept = region if share == "region" else np.random.default_rng(2).random(len(xy_um)) < 0.03
    for um_per_px in (0.25, 0.5, 1.0, 2.0):
        assert factor(xy_um[kept] / um_per_px, um_per_px, facts=facts_of(um_per_px)) == (1.0, [])


def test_a_region_of_cells_in_um_is_recognised_by_the_nuclei() -> None:
    xy_um = observations("cells")
    xy_um = xy_um[(np.abs(xy_um - [600, 1500]) < 250).all(1)]
    with pytest.raises(InputError, match="--positions um"):
        factor(xy_um, 0.5)


def test_scale_factors_decide_where_the_image_cannot() -> None:
    bins = observations("bins")
    bins = bins[(np.abs(bins - [600, 1500]) < 250).all(1)]
    facts = FrameFacts(preview_scale={"hires": 0.5}, spot_px=16.0, bin_um=8.0)  # 8 um at 0.5 um/px
    assert factor(bins / 0.5, 0.5, facts=facts, cells=False)[0] == 1.0
    with pytest.raises(InputError, match="look like um"):
        factor(bins, 0.5, facts=facts, cells=False)


def test_doubt_about_a_small_region_is_said_and_barcodes_of_bins_end_it() -> None:
    bins = observations("bins")
    bins = bins[(np.abs(bins - [400, 500]) < 100).all(1)] * 2  # 16 um
    times, warnings = factor(bins, 0.5, cells=False)  # or 8 um, as px
    assert times == 1.0
    assert warnings[0].startswith("px or um?")
    for um, names in ((16, ["s_016um_00000_00000-1"]), (8, ["s_008um_00000_00000-1"])):
        facts = read_facts({}, names)
        if um == 8:
            assert factor(bins, 0.5, facts=facts, cells=False) == (1.0, [])
        else:
            with pytest.raises(InputError, match="look like um"):
                factor(bins, 0.5, facts=facts, cells=False)


def test_a_stated_unit_wins_and_absurd_ones_are_said() -> None:
    times, warnings = factor(observations("cells"), 0.25, "px")
    assert times == 1.0
    assert "um apart at 0.25 um/px" in warnings[0]
    with pytest.raises(InputError, match="tissue_hires_scalef"):
        factor(observations("cells"), 0.25, "hires")
    with pytest.raises(InputError, match=r"auto \| px"):
        check_positions_option("mm")


def test_mm_and_too_few_positions() -> None:
    with pytest.raises(InputError, match="another unit than px"):
        factor(observations("cells") / 1000, 0.5)
    assert factor(observations("cells")[:5] / 0.5, 0.5)[0] == 1.0


def test_observations_beside_the_image_do_not_count_where_they_are_expected() -> None:
    xy_um = observations("cells")
    both = np.concatenate([xy_um + np.array([x, 0]) for x in (0, 6000, 12000)])
    assert factor(both / 0.5, 0.5, keep_inside=True) == (1.0, [])
