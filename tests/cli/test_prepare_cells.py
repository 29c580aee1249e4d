from fixtures.tissue import make_tissue
from fixtures.visium_hd import write_visium_hd
from sge2hist.cli.prepare import _open
from sge2hist.pairing.cells import CellsConfig, cells_of_section

BINS = CellsConfig(method="bins")


def test_two_um_bins_are_opened_when_the_image_shows_nuclei(tmp_path):
    truth = write_visium_hd(make_tissue(), tmp_path)
    for how, expected in ((CellsConfig(), 2.0), (CellsConfig(method="bins"), 16.0)):
        section = _open(truth.outs, truth.image, "auto", None, None, {}, how)[0]
        assert section.observation_um == expected


def test_without_two_um_bins_space_rangers_table_of_cells_is_read(tmp_path):
    truth = write_visium_hd(make_tissue(), tmp_path, version="4.0.1", bin_um=(8,))
    for how, expected in ((CellsConfig(), "cell"), (CellsConfig(method="segmentation"), "cell"), (BINS, "bin")):
        section = _open(truth.outs, truth.image, "auto", None, None, {}, how)[0]
        assert section.observation == expected
        assert cells_of_section(section, config=how, folder=truth.outs) is section


def test_a_coarse_image_gives_bins_of_the_usual_side(tmp_path):
    tissue = make_tissue(width_px=120, height_px=100, um_per_px=2.0)
    truth = write_visium_hd(tissue, tmp_path, homography=None)
    section = _open(truth.outs, truth.image, "auto", None, None, {}, CellsConfig())[0]
    assert section.observation_um == 16.0
