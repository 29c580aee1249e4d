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


NAMES_OF_4 = ("ch0000_dapi.ome.tif", "ch0001_atp1a1_cd45_e-cadherin.ome.tif", "ch0002_18s.ome.tif")


def _write_set(folder: Path, planes: np.ndarray, missing: int | None = None) -> None:
    """One file per stain, JPEG 2000 tiles; each file names its siblings, as onboard analysis 4 writes them."""
    folder.mkdir()
    stains = ("DAPI", "ATP1A1/CD45/E-Cadherin", "18S")
    uuids = [f"urn:uuid:00000000-0000-0000-0000-00000000000{i}" for i in range(3)]
    data = "".join(
        f'<TiffData FirstC="{i}" IFD="0" PlaneCount="1"><UUID FileName="{name}">{uuids[i]}</UUID></TiffData>'
        for i, name in enumerate(NAMES_OF_4)
    )
    channels = "".join(
        f'<Channel ID="Channel:0:{i}" Name="{name}" SamplesPerPixel="1"/>' for i, name in enumerate(stains)
    )
    height, width = planes.shape[1:]
    for i, name in enumerate(NAMES_OF_4):
        xml = (
            f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{uuids[i]}"><Image ID="Image:0">'
            f'<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="{width}" SizeY="{height}" SizeZ="1" '
            f'SizeC="3" SizeT="1" PhysicalSizeX="{PIXEL_UM}" PhysicalSizeY="{PIXEL_UM}">{channels}{data}</Pixels>'
            "</Image></OME>"
        )
        if i != missing:
            tifffile.imwrite(
                folder / name,
                planes[i],
                photometric="minisblack",
                tile=(256, 256),
                compression="jpeg2000",
                compressionargs={"level": 0, "reversible": True},
                description=xml,
                metadata=None,
            )


@pytest.mark.parametrize("version", ["xenium-4.0.0.10", "", "Xenium Ranger 3.1.1", "unreleased (dev)"])
def test_a_set_of_files_of_onboard_analysis_4(tmp_path: Path, version: str) -> None:
    truth = write_xenium(make_tissue(), tmp_path / "x", he_to_dapi=np.eye(3), version=version)
    planes = np.random.default_rng(1).integers(0, 3000, (3, 600, 900)).astype(np.uint16)
    _write_set(truth.folder / "morphology_focus", planes)
    section = xenium.read(truth.folder, channels=ALL)
    assert section.image.channels == ("DAPI", "ATP1A1/CD45/E-Cadherin", "18S")
    values = section.image.levels[0].values.region(0, 0, 600, 900)  # type: ignore[attr-defined]
    assert (values == np.moveaxis(planes, 0, -1)).all()
    assert section.um_per_px == pytest.approx(PIXEL_UM)
    assert section.software.endswith(version.removeprefix("xenium-"))


def test_a_file_that_is_missing_in_a_set_is_named(tmp_path: Path) -> None:
    truth = write_xenium(make_tissue(), tmp_path / "x", he_to_dapi=np.eye(3))
    planes = np.zeros((3, 600, 900), np.uint16)
    _write_set(truth.folder / "morphology_focus", planes, missing=2)
    with pytest.raises(InputError, match=r"some are missing[\s\S]*ch0002_18s\.ome\.tif"):
        xenium.read(truth.folder, channels=ALL)


def test_formats_that_hold_an_he_take_no_channels(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--channels with "):
        open_sections(tmp_path, format="legacy_st", channels=ALL)


def _column(folder: Path, name: str) -> np.ndarray:
    import pyarrow.parquet as pq

    return pq.read_table(folder / "cells.parquet")[name].to_numpy()
