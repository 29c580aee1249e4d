"""The public kidney section, where it is at hand (SGE2HIST_DATA names the folder that holds kidney_visium_hd/)."""

import os
from pathlib import Path

import numpy as np
import pytest

from sge2hist.data.section import Section
from sge2hist.pairing.alignment.image_checks import check_image
from sge2hist.pairing.alignment.registration import estimate_shift
from sge2hist.pairing.alignment.tissue import map_tissue
from sge2hist.readers import open_sections

pytestmark = pytest.mark.real_data


@pytest.fixture(scope="module")
def section() -> Section:
    root = os.environ.get("SGE2HIST_DATA")
    folder = Path(root or "") / "kidney_visium_hd"
    if not root or not folder.is_dir():
        pytest.skip("SGE2HIST_DATA does not name a folder with kidney_visium_hd/")
    return open_sections(folder / "outs", image=folder / "he.tif", bin_um=16)[0]


def test_size_scale_and_image(section) -> None:
    assert (section.n_obs, len(section.genes)) == (140_178, 18_084)
    assert section.um_per_px == 2.0
    assert all(value == pytest.approx(2.0, rel=1e-3) for value in section.um_per_px_sources.values())
    checked, warnings = check_image(section)
    assert checked is section
    assert any("coarse" in warning for warning in warnings)


def test_counts_by_region_and_registration(section) -> None:
    """Sums over rows of the array add up to all UMI; a known extra shift is found again."""
    group = section.obs["array_row"].to_numpy() // 34
    total = section.read_counts(group, 10).sum()
    assert total == 59_782_246
    n_counts = np.asarray(section.read_counts(None, None).sum(axis=1)).ravel()
    assert n_counts.mean() == pytest.approx(426, abs=1)
    tissue = map_tissue(section, 4.0)
    first = estimate_shift(tissue, section.centre_xy_px, n_counts)
    moved = estimate_shift(tissue, section.centre_xy_px - np.array([20.0, -15.0]), n_counts)
    assert first.confidence == moved.confidence == "high"
    assert moved.x_um - first.x_um == pytest.approx(40.0, abs=2)
    assert moved.y_um - first.y_um == pytest.approx(-30.0, abs=2)
