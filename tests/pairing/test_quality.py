import numpy as np
import pytest
from scipy.sparse import csr_array

from pairing.sections import make_section
from sge2hist.data.errors import InputError
from sge2hist.pairing.alignment.tissue import map_tissue
from sge2hist.pairing.config import PrepareConfig
from sge2hist.pairing.quality import counts_per_cell, filter_by_counts, filter_by_position, filter_genes


def test_filters_by_position_agree_with_slow_rules() -> None:
    section = make_section(um_per_px=2.0)
    filters, fraction = filter_by_position(section, map_tissue(section, 4.0), PrepareConfig(patch_um=60.0, patch_px=30))
    half = 15
    x, y = section.centre_xy_px.T
    expected = (x - half >= -0.5) & (y - half >= -0.5) & (x + half <= 500.5) & (y + half <= 400.5)
    np.testing.assert_array_equal(filters.keep, expected)
    assert filters.removals[1]["removed"] == int((~expected).sum())
    assert fraction[filters.keep].min() > 0.9  # the made slide is tissue everywhere
    kept, _ = filter_by_position(section, map_tissue(section, 4.0), PrepareConfig(patch_um=60.0, keep_border=True))
    assert kept.keep.all()


def test_nuclei_too_small_and_too_large_are_removed_and_unknown_ones_kept() -> None:
    section = make_section(um_per_px=2.0)
    area_um2 = np.resize([7.9, 8.0, 250.0, 250.1, np.nan], section.n_obs)
    section.obs["nucleus_area_um2"] = area_um2
    tissue = map_tissue(section, 4.0)
    filters, _ = filter_by_position(section, tissue, PrepareConfig(keep_border=True))
    np.testing.assert_array_equal(filters.keep, np.resize([False, True, True, False, True], section.n_obs))
    assert filters.removals[-1]["filter"] == "nucleus of 8 to 250 um2"
    filters, _ = filter_by_position(section, tissue, PrepareConfig(keep_border=True, nucleus_um2=(0.0, 1e9)))
    assert filters.keep.all()


def test_glass_is_no_tissue_but_a_lumen_is() -> None:
    from sge2hist.data.slides.slide_image import SlideImage

    pixels = np.full((400, 500, 3), (200, 120, 170), np.uint8)
    pixels[:, 250:] = 250
    pixels[100:120, 100:120] = 250  # 40 um
    section = make_section(um_per_px=2.0, image=SlideImage.from_array(pixels))
    tissue = map_tissue(section, 4.0)
    share = tissue.fraction(np.array([[110.0, 110.0], [450.0, 200.0], [250.0, 200.0], [-5.0, 3.0]]), 60.0)
    np.testing.assert_allclose(share, [1.0, 0.0, 0.5, 0.0], atol=0.1)


def test_filters_by_counts_and_genes() -> None:
    counts = csr_array(np.array([[30, 0, 0], [5, 5, 15], [1, 0, 0], [0, 25, 3]]))
    section = make_section(width_px=40, height_px=20, bin_um=20.0)
    filters, _ = filter_by_position(section, map_tissue(section, 4.0), PrepareConfig(keep_border=True))
    filters.keep[:] = False
    filters.keep[[1, 3, 4, 6]] = True
    config = PrepareConfig(min_counts=20, min_genes=2, min_cells_per_gene=2)
    filter_by_counts(counts_per_cell(counts), np.diff(counts.indptr), filters, config.filters_of("bin"), "here")
    assert np.flatnonzero(filters.keep).tolist() == [3, 6]
    assert [line["removed"] for line in filters.removals[-2:]] == [1, 1]
    assert filter_genes(counts, config).keep.tolist() == [True, True, True]
    assert filter_genes(counts, PrepareConfig(min_cells_per_gene=3)).keep.tolist() == [True, False, False]


def test_nothing_left_shows_the_table() -> None:
    section = make_section(width_px=40, height_px=20, bin_um=20.0)
    with pytest.raises(InputError, match=r"patch of 200 um inside the image: 8 removed.*--min-counts"):
        filter_by_position(section, map_tissue(section, 4.0), PrepareConfig(patch_um=200.0))


@pytest.mark.parametrize(
    "wrong",
    [{"patch_um": 0}, {"fractions": (0.5, 0.1, 0.1)}, {"min_tissue_fraction": 2}, {"patch_px": 1}, {"um_per_px": -1.0}],
)
def test_ranges_are_checked_when_the_config_is_built(wrong) -> None:
    with pytest.raises(InputError):
        PrepareConfig(**wrong)
