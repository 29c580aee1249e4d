"""Xenium with a morphology image: in px of the instrument whatever alignment of an H&E lies beside it."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from fixtures.tissue import make_tissue
from fixtures.xenium import alignment_matrix, write_xenium
from sge2hist.data.errors import InputError
from sge2hist.data.slides.channels import ALL
from sge2hist.readers import open_sections
from sge2hist.readers.tenx import xenium

PIXEL_UM = 0.2125


def test_a_morphology_image_needs_no_alignment(tmp_path: Path) -> None:
    tissue = make_tissue()
    matrix = alignment_matrix(tissue.um_per_px, quarter_turns=1, shift_px=(90, 120))
    truth = write_xenium(tissue, tmp_path / "x", he_to_dapi=matrix)  # with an H&E and its alignment
    centre_um = np.stack([_column(truth.folder, name) for name in ("x_centroid", "y_centroid")], 1)
    side_px = int(centre_um.max() / PIXEL_UM) + 50
    planes = np.random.default_rng(0).integers(100, 900, (2, side_px, side_px)).astype(np.uint16)
    path = truth.folder / "morphology_focus_0000.ome.tif"
    metadata = {"axes": "CYX", "Channel": {"Name": ["DAPI", "18S"]}}
    tifffile.imwrite(path, planes, ome=True, photometric="minisblack", tile=(256, 256), metadata=metadata)
    (section,) = open_sections(truth.folder, image=path, channels=ALL)
    assert section.image.channels == ("DAPI", "18S")
    assert section.um_per_px == pytest.approx(PIXEL_UM)
    assert section.centre_xy_px == pytest.approx(centre_um / PIXEL_UM)
    assert any("16 bits became 8" in note for note in section.notes)


def test_the_image_of_the_run_is_found(tmp_path: Path) -> None:
    truth = write_xenium(make_tissue(), tmp_path / "x", he_to_dapi=np.eye(3))
    with pytest.raises(InputError, match=r"no morphology image.*--image FILE"):
        xenium.read(truth.folder, channels=ALL)
    planes = np.random.default_rng(0).integers(0, 200, (2, 700, 900)).astype(np.uint8)
    metadata = {"axes": "CYX", "Channel": {"Name": ["DAPI", "18S"]}}
    path = truth.folder / "morphology_focus" / "morphology_focus_0000.ome.tif"
    path.parent.mkdir()
    tifffile.imwrite(path, planes, ome=True, photometric="minisblack", metadata=metadata)
    assert np.array_equal(xenium.read(truth.folder, channels=ALL).image.as_array(), np.moveaxis(planes, 0, -1))


def test_formats_that_hold_an_he_take_no_channels(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--channels with "):
        open_sections(tmp_path, format="legacy_st", channels=ALL)


def _column(folder: Path, name: str) -> np.ndarray:
    import pyarrow.parquet as pq

    return pq.read_table(folder / "cells.parquet")[name].to_numpy()
