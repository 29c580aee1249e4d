"""Fluorescence TIFFs as tifffile writes them: the truth is the array that went in."""

import numpy as np
import pytest
import tifffile

from sge2hist.data.errors import InputError
from sge2hist.data.slides.channels import ALL
from sge2hist.data.slides.slide_image import SlideImage
from sge2hist.data.slides.slide_writer import write_slide

NAMES = ("DAPI", "Boundary", "18S", "SMA")


@pytest.fixture
def counts() -> np.ndarray:
    return np.random.default_rng(0).integers(100, 4000, (3, 700, 900)).astype(np.uint16)


def _write(path, counts, names=NAMES, axes="CYX", **metadata):
    channel = {"Channel": {"Name": list(names[: len(counts)])}} if names else {}
    tifffile.imwrite(
        path,
        counts,
        ome=True,
        photometric="minisblack",
        tile=(256, 256),
        metadata={"axes": axes, **channel, **metadata},
    )
    return path


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_a_slide_of_any_channels_comes_back_as_it_was_written(tmp_path, n):
    image = np.random.default_rng(n).integers(0, 256, (1100, 700, n), dtype=np.uint8)
    write_slide(tmp_path / "slide.ome.tif", image, 0.5, channels=NAMES[:n], tile_px=256)
    slide = SlideImage.open(tmp_path / "slide.ome.tif", channels=NAMES[:n])
    assert slide.channels == NAMES[:n]
    assert slide.um_per_px == 0.5
    assert len(slide.levels) == 3
    assert np.array_equal(slide.as_array(), image)
    half = slide.levels[1].region(0, 0, 550, 350)
    assert np.abs(half - image.reshape(550, 2, 350, 2, n).mean((1, 3))).max() <= 0.5
    with tifffile.TiffFile(tmp_path / "slide.ome.tif") as tiff:
        assert all(f'Name="{name}"' in tiff.ome_metadata for name in NAMES[:n])


def test_16_bits_become_8_by_percentiles_of_each_channel(tmp_path, counts):
    slide = SlideImage.open(_write(tmp_path / "f.ome.tif", counts), channels=("18S", "DAPI"))
    for number, (name, plane) in enumerate((("18S", counts[2]), ("DAPI", counts[0]))):
        low, high = slide.ranges[name]
        assert np.allclose((low, high), np.percentile(plane, [1, 99.8]), rtol=0.02, atol=3)
        expected = np.clip((plane - low) / (high - low) * 255, 0, 255)
        assert np.abs(slide.as_array()[..., number] - expected).max() <= 0.51
    assert "16 bits became 8: 18S" in slide.notes[0]


def test_8_bits_are_kept(tmp_path, counts):
    planes = (counts >> 4).astype(np.uint8)
    slide = SlideImage.open(_write(tmp_path / "f.ome.tif", planes), channels=ALL)
    assert slide.channels == NAMES[:3]
    assert slide.ranges == dict.fromkeys(NAMES[:3], (0.0, 255.0))
    assert np.array_equal(slide.as_array(), np.moveaxis(planes, 0, -1))


def test_one_file_per_channel_as_xenium_writes_them(tmp_path, counts):
    xml = tifffile.OmeXml()
    ids = [f"urn:uuid:0000000{i}-0000-0000-0000-000000000000" for i in range(3)]
    xml.addimage("uint16", counts.shape, (3, 1, 1, *counts.shape[1:], 1), axes="CYX", Channel={"Name": list(NAMES[:3])})
    text = xml.tostring(declaration=True)
    data = "".join(
        f'<TiffData FirstC="{i}" IFD="0" PlaneCount="1"><UUID FileName="ch{i}.ome.tif">{one}</UUID></TiffData>'
        for i, one in enumerate(ids)
    )
    start, end = text.index("<TiffData"), text.index("</Pixels>")
    text = text[:start] + data + text[end:]
    for i, one in enumerate(ids):
        own = text.replace("<OME ", f'<OME UUID="{one}" ', 1) if "UUID=" not in text[: text.index("<Image")] else text
        tifffile.imwrite(tmp_path / f"ch{i}.ome.tif", counts[i], tile=(256, 256), description=own, metadata=None)
    slide = SlideImage.open(tmp_path / "ch0.ome.tif", channels=ALL)
    assert slide.channels == NAMES[:3]
    low, high = slide.ranges["18S"]
    expected = np.clip((counts[2] - low) / (high - low) * 255, 0, 255)
    assert np.abs(slide.as_array()[..., 2] - expected).max() <= 0.51


def test_without_being_asked_fluorescence_is_refused(tmp_path, counts):
    for name, planes in (("deep", counts), ("like_rgb", (counts >> 4).astype(np.uint8))):
        path = _write(tmp_path / f"{name}.ome.tif", planes)
        with pytest.raises(InputError, match="--channels"):
            SlideImage.open(path)


def test_three_grey_pages_without_a_nuclear_stain_are_still_rgb(tmp_path, counts):
    path = _write(tmp_path / "planar.ome.tif", (counts >> 4).astype(np.uint8), names=None)
    assert SlideImage.open(path).channels == ("red", "green", "blue")


def test_what_is_no_plane_of_channels_is_refused(tmp_path, counts):
    stack = _write(tmp_path / "z.ome.tif", counts, names=None, axes="ZYX")
    with pytest.raises(InputError, match=r"axes zyx.*focal plane"):
        SlideImage.open(stack, channels=("DAPI",))
    tifffile.imwrite(tmp_path / "he.tif", np.zeros((64, 64, 3), np.uint8), photometric="rgb")
    with pytest.raises(InputError, match="omit --channels"):
        SlideImage.open(tmp_path / "he.tif", channels=ALL)
    (tmp_path / "x.png").write_bytes(b"\x89PNG")
    with pytest.raises(InputError, match="no TIFF"):
        SlideImage.open(tmp_path / "x.png", channels=ALL)
