"""um per px as files of other programs state it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from sge2hist.data.slides.channels import ALL
from sge2hist.data.slides.image_metadata import um_per_unit
from sge2hist.data.slides.slide_image import SlideImage

SLIDE = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
MACRO = SLIDE[:40, :50].copy()
HEAD = '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'


def image(
    pixels: np.ndarray, ifd: int | None, size: str, name: str = "slide", order: str = "XYCZT", kind: str = "uint8"
) -> str:
    height, width = pixels.shape[:2]
    data = "<TiffData/>" if ifd is None else f'<TiffData IFD="{ifd}" PlaneCount="1"/>'
    return (
        f'<Image ID="Image:{name}" Name="{name}"><Pixels ID="Pixels:{name}" DimensionOrder="{order}" Type="{kind}" '
        f'SizeX="{width}" SizeY="{height}" SizeC="3" SizeZ="1" SizeT="1" {size}>'
        f'<Channel ID="Channel:{name}" SamplesPerPixel="3"/>{data}</Pixels></Image>'
    )


def sizes(x: str, unit: str = "µm", y: str | None = None) -> str:
    unit_x, unit_y = (f'PhysicalSize{axis}Unit="{unit}"' if unit else "" for axis in "XY")
    return f'PhysicalSizeX="{x}" {unit_x} PhysicalSizeY="{y or x}" {unit_y}'


def write(path: Path, pages: list[np.ndarray], description: str | bytes, **options: Any) -> SlideImage:
    text = description if isinstance(description, bytes) else description.encode()
    with tifffile.TiffWriter(path) as writer:
        for number, page in enumerate(pages):
            writer.write(page, photometric="rgb", description=None if number else text, metadata=None, **options)
    return SlideImage.open(path)


@pytest.mark.parametrize(
    ("value", "unit", "um_per_px"),
    [
        ("0.25", "µm", 0.25),
        ("0.25", "&#181;m", 0.25),
        ("0.25", "&#xB5;m", 0.25),
        ("0.25", "&#956;m", 0.25),  # Greek mu
        ("0.25", "&micro;m", 0.25),  # HTML's: no XML
        ("0.25", "Âµm", 0.25),  # UTF-8 read as Latin-1
        ("0.25", "um", 0.25),
        ("0.25", "micron", 0.25),
        ("0.25", "", 0.25),  # the schema's default
        ("250", "nm", 0.25),
        ("2.5e-4", "mm", 0.25),
        ("0.000025", "cm", 0.25),
        ("2.5E-7", "m", 0.25),
        ("250000", "pm", 0.25),
        ("2500", "Å", 0.25),
        ("0.00001", "in", 0.254),
        ("1", "pixel", None),
        ("0.25", "reference frame", None),
        ("1", "Mm", None),  # megametre
    ],
)
def test_ome_units(tmp_path: Path, value: str, unit: str, um_per_px: float | None) -> None:
    slide = write(tmp_path / "he.ome.tif", [SLIDE], HEAD + image(SLIDE, 0, sizes(value, unit)) + "</OME>")
    assert slide.um_per_px == (pytest.approx(um_per_px) if um_per_px else None)
    assert any("no length" in note for note in slide.notes) == (unit in ("pixel", "reference frame"))


def test_quotes_order_and_prefixes_of_xml(tmp_path: Path) -> None:
    xml = HEAD + image(SLIDE, 0, sizes("0.25", "&#181;m")) + "</OME>"
    single = xml.replace('"', "'")
    prefixed = (
        xml.replace("xmlns=", "xmlns:ome=").replace("<", "<ome:").replace("<ome:/", "</ome:").replace("<ome:?", "<?")
    )
    for number, text in enumerate((single, prefixed, xml.replace("<Image", "<!-- PhysicalSizeX='9' -->\n<Image"))):
        assert write(tmp_path / f"{number}.ome.tif", [SLIDE], text).um_per_px == 0.25


@pytest.mark.parametrize("stated", [True, False])
@pytest.mark.parametrize("slide_first", [True, False])
def test_the_series_that_is_chosen_states_the_scale(tmp_path: Path, slide_first: bool, stated: bool) -> None:
    """A macro or label image before or behind the slide; where the slide states nothing, its resolution tags do."""
    pages = [("slide", SLIDE, sizes("0.25", "&#181;m") if stated else ""), ("macro", MACRO, sizes("2.0"))]
    pages = pages if slide_first else pages[::-1]
    xml = HEAD + "".join(image(pixels, i, size, name) for i, (name, pixels, size) in enumerate(pages)) + "</OME>"
    slide = write(
        tmp_path / "he.ome.tif", [pixels for _, pixels, _ in pages], xml, resolution=(20000, 20000), resolutionunit=3
    )
    assert (slide.width_px, slide.um_per_px) == (160, pytest.approx(0.25 if stated else 0.5))
    macro = SlideImage.open(tmp_path / "he.ome.tif", page=int(slide_first))
    assert (macro.width_px, macro.um_per_px) == (50, 2.0)


def test_two_series_of_one_size(tmp_path: Path) -> None:
    """The TiffData elements say which page is whose; without them no scale is better than another's."""
    for ifds in ((0, 1), (None, None)):
        a, b = (image(SLIDE, ifd, sizes(x), n) for ifd, x, n in zip(ifds, ("0.25", "0.5"), "ab", strict=True))
        path = tmp_path / f"{ifds[0]}.ome.tif"
        write(path, [SLIDE, SLIDE[::-1].copy()], HEAD + a + b + "</OME>")
        found = [SlideImage.open(path, page=page).um_per_px for page in (0, 1)]
        assert found == ([0.25, 0.5] if ifds[0] is not None else [None, None])


def test_pixels_that_are_not_square(tmp_path: Path) -> None:
    ome = write(tmp_path / "a.ome.tif", [SLIDE], HEAD + image(SLIDE, 0, sizes("0.25", y="0.5")) + "</OME>")
    tags = write(tmp_path / "a.tif", [SLIDE], "", resolution=(40000, 20000), resolutionunit=3)
    for slide in (ome, tags):
        assert slide.um_per_px is None
        assert any("0.25 x 0.5 um are not square" in note for note in slide.notes)
    nearly = write(tmp_path / "b.ome.tif", [SLIDE], HEAD + image(SLIDE, 0, sizes("0.2527", y="0.2528")) + "</OME>")
    assert nearly.um_per_px == 0.2527
    mixed = sizes("0.25").replace(
        'PhysicalSizeY="0.25" PhysicalSizeYUnit="µm"', 'PhysicalSizeY="250" PhysicalSizeYUnit="nm"'
    )
    assert write(tmp_path / "c.ome.tif", [SLIDE], HEAD + image(SLIDE, 0, mixed) + "</OME>").um_per_px == 0.25


def test_broken_xml_falls_back_to_a_note(tmp_path: Path) -> None:
    slide = write(tmp_path / "a.ome.tif", [SLIDE], HEAD + "<Image><Pixels PhysicalSizeX='0.25'></OME>")
    assert slide.um_per_px is None
    assert any("cannot be read" in note for note in slide.notes)


@pytest.mark.parametrize("unit", ["um", "micron", "microns", "µm", "\\u00B5m", "nm", "mm", "cm", "inch", "pixel"])
def test_imagej(tmp_path: Path, unit: str) -> None:
    """ImageJ states px per unit in the resolution tags, and the unit in words; its TIFFs are in Latin-1."""
    per_um = {"nm": 1e-3, "mm": 1e3, "cm": 1e4, "inch": 25400}.get(unit, 1.0)
    text = f"ImageJ=1.54f\nunit={unit}\nloop=false\n".encode("latin-1")
    resolution = (4 * per_um, 4 * per_um)
    slide = write(tmp_path / "he.tif", [SLIDE], text, resolution=resolution, resolutionunit=1)
    assert slide.um_per_px == (pytest.approx(0.25) if unit != "pixel" else None)


def test_imagej_as_tifffile_writes_it(tmp_path: Path) -> None:
    options: dict[str, Any] = {"imagej": True, "resolution": (4, 4)}
    tifffile.imwrite(tmp_path / "he.tif", SLIDE, metadata={"unit": "um"}, **options)
    assert SlideImage.open(tmp_path / "he.tif").um_per_px == pytest.approx(0.25)
    tifffile.imwrite(tmp_path / "f.tif", SLIDE[..., 0], metadata={"unit": "um"}, **options)
    assert SlideImage.open(tmp_path / "f.tif", channels=("DAPI",)).um_per_px == pytest.approx(0.25)


def test_scale_of_the_fluorescence_series(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "f.ome.tif", ome=True) as writer:
        for pixels, um in ((MACRO[..., 0], 2.0), (SLIDE[..., 0], 0.25)):
            metadata = {"axes": "YX", "PhysicalSizeX": um, "PhysicalSizeY": um, "Channel": {"Name": "DAPI"}}
            writer.write(pixels, photometric="minisblack", metadata=metadata)
    slide = SlideImage.open(tmp_path / "f.ome.tif", channels=ALL)
    assert (slide.width_px, slide.um_per_px) == (160, 0.25)


@pytest.mark.parametrize("mpp", ["0.4990", "0,4990"])
def test_aperio_levels(tmp_path: Path, mpp: str) -> None:
    """Every level of an SVS repeats the description of the first, with its MPP."""
    path = tmp_path / "he.svs"
    base = "Aperio Image Library v10.0.51\r\n200x140 [0,20 160x120] (64x64) JPEG/RGB Q=30"
    with tifffile.TiffWriter(path) as writer:
        for step, text in ((1, base), (4, f"{base.replace(' JPEG', ' -> 40x30 JPEG')}")):
            pixels = np.ascontiguousarray(SLIDE[::step, ::step])
            description = f"{text}|AppMag = 20|MPP = {mpp}|Left = 25.69"
            writer.write(pixels, photometric="rgb", tile=(64, 64), description=description, metadata=None)
        writer.write(MACRO, photometric="rgb", description="Aperio Image Library\r\nlabel 50x40", metadata=None)
    assert SlideImage.open(path).um_per_px == pytest.approx(0.499)
    assert SlideImage.open(path, page=1).um_per_px == pytest.approx(4 * 0.499)
    assert SlideImage.open(path, page=2).um_per_px is None


def test_units_of_resolution_tags_and_pictures(tmp_path: Path) -> None:
    for unit, per_um in ((2, 25400), (3, 10000)):
        resolution = (4 * per_um, 4 * per_um)
        slide = write(tmp_path / f"{unit}.tif", [SLIDE], "", resolution=resolution, resolutionunit=unit)
        assert slide.um_per_px == pytest.approx(0.25)
    assert write(tmp_path / "none.tif", [SLIDE], "", resolution=(4, 4), resolutionunit=1).um_per_px is None
    Image.fromarray(SLIDE).save(tmp_path / "a.png", dpi=(101600, 101600))
    assert SlideImage.open(tmp_path / "a.png").um_per_px == pytest.approx(0.25, rel=1e-3)
    Image.fromarray(SLIDE).save(tmp_path / "b.png", dpi=(101600, 50800))
    assert SlideImage.open(tmp_path / "b.png").um_per_px is None


def test_openslide_states_both_sides(tmp_path: Path) -> None:
    openslide = pytest.importorskip("openslide")
    for name, y in (("a", 20000), ("b", 10000)):
        path = tmp_path / f"{name}.svslide"
        options: dict[str, Any] = {"resolution": (20000, y), "resolutionunit": 3}
        tifffile.imwrite(path, SLIDE, photometric="rgb", tile=(64, 64), **options)
        with openslide.OpenSlide(path) as theirs:
            assert float(theirs.properties["openslide.mpp-x"]) == pytest.approx(0.5)
        slide = SlideImage.open(path)
        assert slide.um_per_px == (pytest.approx(0.5) if y == 20000 else None)
        assert any("not square" in note for note in slide.notes) == (y != 20000)


def test_all_units_of_the_ome_schema_are_lengths_but_two() -> None:
    metric = "Ym Zm Em Pm Tm Gm Mm km hm dam m dm cm mm µm nm pm fm am zm ym"
    schema = f"{metric} Å thou li in ft yd mi ua ly pc pt".split()
    assert [unit for unit in schema if um_per_unit(unit) is None] == []
    assert um_per_unit("pixel") is um_per_unit("reference frame") is um_per_unit("") is None
    assert (um_per_unit("µm"), um_per_unit("in"), um_per_unit("thou")) == (1.0, 25400.0, pytest.approx(25.4))
