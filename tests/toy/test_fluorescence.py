import numpy as np
import pytest

from sge2hist.data.slides.channels import ALL
from sge2hist.data.slides.slide_image import SlideImage
from sge2hist.toy.fluorescence import MARKERS, fluorescence_image, write_fluorescence


def test_channels_show_the_cells_of_the_he(tiny_tissue):
    dapi, membrane, cytoplasm = np.moveaxis(fluorescence_image(tiny_tissue).astype(np.float64), -1, 0)
    assert np.corrcoef(dapi.ravel(), tiny_tissue.stains.haematoxylin.ravel())[0, 1] > 0.7
    assert np.corrcoef(cytoplasm.ravel(), tiny_tissue.stains.eosin.ravel())[0, 1] > 0.8
    assert abs(np.corrcoef(dapi.ravel(), membrane.ravel())[0, 1]) < 0.5
    glass = tiny_tissue.stains.eosin + tiny_tissue.stains.haematoxylin == 0
    assert 150 < np.median(dapi[glass]) < 220


def test_a_channel_is_the_same_whichever_others_are_requested(tiny_tissue):
    every = fluorescence_image(tiny_tissue)
    assert np.array_equal(fluorescence_image(tiny_tissue, ("Cytoplasm", "DAPI")), every[..., [2, 0]])
    with pytest.raises(ValueError, match="CD45"):
        fluorescence_image(tiny_tissue, ("CD45",))


def test_the_file_is_an_ome_tiff_with_names_and_scale(tiny_tissue, tmp_path):
    write_fluorescence(tiny_tissue, tmp_path / "f.ome.tif")
    slide = SlideImage.open(tmp_path / "f.ome.tif", channels=ALL)
    assert slide.channels == MARKERS
    assert slide.um_per_px == tiny_tissue.config.um_per_px
