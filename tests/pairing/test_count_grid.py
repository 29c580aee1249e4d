"""The shift between counts and image is measured on the grid of counts, whatever the outlines of the cells are."""

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from pairing.sections import make_section
from sge2hist.pairing.alignment.image_checks import check_image
from sge2hist.pairing.alignment.tissue import map_tissue
from sge2hist.pairing.alignment.verdict import alignment_record, shifted
from sge2hist.pairing.cells import bin_totals, cells_of_section, count_grid_of_bins
from sge2hist.pairing.collect import collect_section
from sge2hist.pairing.config import CellsConfig, PrepareConfig

KNOWN_UM = (14.0, -6.0)  # to be added to the positions
CONFIG = PrepareConfig(patch_um=20.0, patch_px=20, min_counts=1, min_genes=1, types="none")


@pytest.fixture(scope="module")
def bins():
    return make_section(width_px=440, height_px=400, um_per_px=1.0, bin_um=2.0, n_genes=20, shift_um=KNOWN_UM)


@pytest.fixture(scope="module")
def cells(bins, tmp_path_factory):
    """Cells inside outlines on the image: the dark blobs, numbered."""
    blobs, _ = ndimage.label(bins.image.as_array().sum(axis=2) < 420)
    path = tmp_path_factory.mktemp("outlines") / "blobs.npy"
    np.save(path, blobs)
    return cells_of_section(bins, config=CellsConfig(labels=path))


def measured(section):
    part, _ = collect_section(section, map_tissue(section, 4.0), CONFIG)
    return part


def test_outlines_on_the_image_do_not_hide_a_shift(cells) -> None:
    shift = measured(cells).shift
    assert (shift.x_um, shift.y_um) == pytest.approx(KNOWN_UM, abs=2)
    assert shift.confidence == "high"


def test_the_correction_moves_what_is_measured(cells) -> None:
    part = measured(shifted(cells, KNOWN_UM))
    assert part.shift.length_um < 2
    assert "8 um, before bins became cells" in alignment_record(part, KNOWN_UM, [])["measured_on"]


def test_the_grid_keeps_the_counts_of_whole_squares(bins) -> None:
    totals = bin_totals(bins)
    np.testing.assert_array_equal(totals, bins.read_counts(None, None).sum(axis=1))
    grid = count_grid_of_bins(bins, totals)
    assert grid.side_um == 8
    assert len(grid.n_counts) == 55 * 50
    assert grid.n_counts.sum() == pytest.approx(totals.sum())
    np.testing.assert_allclose(grid.centre_xy_px[0], [4 - KNOWN_UM[0], 4 - KNOWN_UM[1]])


def test_a_square_with_bins_missing_counts_as_full(bins) -> None:
    kept = np.flatnonzero((bins.obs["array_row"] > 1) | (bins.obs["array_col"] > 1))
    some = dataclasses.replace(bins, obs=bins.obs.iloc[kept], centre_xy_px=bins.centre_xy_px[kept])
    grid = count_grid_of_bins(some, np.full(len(kept), 3))
    np.testing.assert_allclose(grid.n_counts, 48)
    assert len(grid.n_counts) == 55 * 50


def test_a_scaled_image_scales_the_grid(cells) -> None:
    from sge2hist.data.section import ImageReference

    reference = ImageReference(size_px=(880.0, 800.0), source="a preview")  # the image is half the size expected
    section, warnings = check_image(dataclasses.replace(cells, reference=reference))
    assert any("positions were scaled" in warning for warning in warnings)
    np.testing.assert_allclose(section.count_grid.centre_xy_px, cells.count_grid.centre_xy_px / 2)
