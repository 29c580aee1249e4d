"""Every compression x photometric tag, against a decoder that is not ours: the codec alone, OpenSlide, Pillow."""

import io
import struct
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from fixtures.tissue import make_tissue
from sge2hist.data.errors import InputError
from sge2hist.data.slides.slide_image import SlideImage

SIDE = 64
RGB = np.ascontiguousarray(make_tissue(width_px=150, height_px=100).image)


def tiles_of(pixels: np.ndarray) -> list[np.ndarray]:
    """Row-major tiles, white beyond the border."""
    height, width = pixels.shape[:2]
    padded = np.full((-(-height // SIDE) * SIDE, -(-width // SIDE) * SIDE, pixels.shape[2]), 255, np.uint8)
    padded[:height, :width] = pixels
    return [
        np.ascontiguousarray(padded[y : y + SIDE, x : x + SIDE])
        for y in range(0, padded.shape[0], SIDE)
        for x in range(0, padded.shape[1], SIDE)
    ]


def write_encoded(
    path: Path,
    tiles: list[bytes],
    compression: int,
    photometric: int,
    tags: Any = (),
    samples: int = 3,
    order: str = "<",
) -> Path:
    """A TIFF of tiles that are already encoded, with any tags: written by hand, so that no writer corrects them."""
    height, width = RGB.shape[:2]
    entries = [
        *((254, 4, (0,)), (256, 4, (width,)), (257, 4, (height,)), (258, 3, (8,) * samples), (259, 3, (compression,))),
        *((262, 3, (photometric,)), (277, 3, (samples,)), (284, 3, (1,)), (322, 3, (SIDE,)), (323, 3, (SIDE,))),
        *tags,
    ]
    offset, offsets = 8, []
    for tile in tiles:
        offsets.append(offset)
        offset += len(tile)
    entries += [(324, 4, tuple(offsets)), (325, 4, tuple(map(len, tiles)))]
    sizes = {3: "H", 4: "I", 5: "I", 7: "B"}
    directory, beyond = b"", offset + 2 + 12 * len(entries) + 4
    extra = b""
    for tag, kind, values in sorted(entries):
        data = struct.pack(f"{order}{len(values)}{sizes[kind]}", *values)
        count = len(values) // 2 if kind == 5 else len(values)
        if len(data) > 4:
            directory += struct.pack(f"{order}HHII", tag, kind, count, beyond + len(extra))
            extra += data + bytes(len(data) % 2)
        else:
            directory += struct.pack(f"{order}HHI", tag, kind, count) + data.ljust(4, b"\0")
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, offset)
    path.write_bytes(head + b"".join(tiles) + struct.pack(f"{order}H", len(entries)) + directory + bytes(4) + extra)
    return path


def ycbcr(rgb: np.ndarray) -> np.ndarray:
    """By Pillow."""
    return np.asarray(Image.fromarray(rgb).convert("YCbCr"))


def j2k(planes: np.ndarray, *, mct: bool = False, **options: Any) -> bytes:
    return imagecodecs.jpeg2k_encode(planes, codecformat="j2k", reversible=True, mct=mct, resolutions=2, **options)


def j2k_subsampled(pixels: np.ndarray, step_y: int, step_x: int) -> bytes:
    """A codestream with subsampled chroma (as Aperio writes 33003): three of one component, their packets in CPRL order."""
    shrunk = pixels[::step_y, ::step_x]
    heads, bodies = [], []
    for plane in (pixels[..., 0], shrunk[..., 1], shrunk[..., 2]):
        data = j2k(np.ascontiguousarray(plane))
        start, position, head = data.index(b"\xff\x93") + 2, 2, {}
        while data[position : position + 2] != b"\xff\x90":
            length = int.from_bytes(data[position + 2 : position + 4])
            head[data[position : position + 2]] = data[position + 4 : position + 2 + length]
            position += 2 + length
        heads.append(head)
        bodies.append(data[start:-2])

    def segment(marker: bytes, content: bytes) -> bytes:
        return marker + struct.pack(">H", len(content) + 2) + content

    components = bytes([7, 1, 1]) + 2 * bytes([7, step_x, step_y])
    size = heads[0][b"\xff\x51"][:34] + struct.pack(">H", 3) + components
    style = bytearray(heads[0][b"\xff\x52"])
    style[1], style[4] = 4, 0  # component, position, resolution, layer; no colour transform
    body = b"".join(bodies)
    return (
        b"\xff\x4f"
        + segment(b"\xff\x51", size)
        + segment(b"\xff\x52", bytes(style))
        + segment(b"\xff\x5c", heads[0][b"\xff\x5c"])
        + segment(b"\xff\x90", struct.pack(">HIBB", 0, 14 + len(body), 0, 1))
        + b"\xff\x93"
        + body
        + b"\xff\xd9"
    )


def from_openslide(path: Path) -> np.ndarray:
    openslide = pytest.importorskip("openslide")
    with openslide.OpenSlide(path) as slide:
        return np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))


def difference(a: np.ndarray, b: np.ndarray) -> int:
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b).max())


LOSSLESS = {"none": None, "lzw": "lzw", "deflate": "zlib", "zstd": "zstd", "packbits": "packbits", "lzma": "lzma"}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("tile", [None, (SIDE, SIDE)], ids=["strips", "tiles"])
@pytest.mark.parametrize("compression", LOSSLESS)
def test_lossless_rgb(tmp_path: Path, compression: str, tile: Any, planar: str, order: Any) -> None:
    pixels = RGB if planar == "contig" else np.moveaxis(RGB, -1, 0)
    options: dict[str, Any] = {"photometric": "rgb", "planarconfig": planar, "compression": LOSSLESS[compression]}
    tifffile.imwrite(tmp_path / "he.tif", pixels, tile=tile, byteorder=order, **options)
    assert (SlideImage.open(tmp_path / "he.tif").as_array() == RGB).all()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", ["none", "lzw", "deflate", "zstd", "packbits"])
def test_ycbcr_without_a_colour_codec(tmp_path: Path, compression: str, planar: str, order: Any) -> None:
    samples = ycbcr(RGB) if planar == "contig" else np.moveaxis(ycbcr(RGB), -1, 0)
    options: dict[str, Any] = {"planarconfig": planar, "compression": LOSSLESS[compression], "byteorder": order}
    tags = [(530, "H", 2, (1, 1), True)]
    tifffile.imwrite(tmp_path / "he.tif", samples, photometric="ycbcr", extratags=tags, tile=(SIDE, SIDE), **options)
    got = SlideImage.open(tmp_path / "he.tif").as_array()
    assert difference(got, np.asarray(Image.fromarray(ycbcr(RGB), "YCbCr").convert("RGB"))) <= 1
    assert difference(got, RGB) <= 3


def test_ycbcr_by_its_own_coefficients_and_levels(tmp_path: Path) -> None:
    """Video levels (16 to 235) of ITU-R BT.709; the truth is skimage's for the levels, worked by hand for the weights."""
    red, green, blue = 0.2126, 0.7152, 0.0722
    r, g, b = np.moveaxis(RGB / 255, -1, 0)
    luma = red * r + green * g + blue * b
    video = np.stack(
        [16 + 219 * luma, 128 + 224 * (b - luma) / (2 - 2 * blue), 128 + 224 * (r - luma) / (2 - 2 * red)], -1
    )
    tags = [
        (530, 3, (1, 1)),
        (529, 5, (2126, 10000, 7152, 10000, 722, 10000)),
        (532, 5, (16, 1, 235, 1, 128, 1, 240, 1, 128, 1, 240, 1)),
    ]
    tiles = [tile.tobytes() for tile in tiles_of(video.round().astype(np.uint8))]
    path = write_encoded(tmp_path / "he.tif", tiles, 1, 6, tags)
    # TIFF 6.0 scales chroma by 127, where video is defined by 127.5: half a level
    assert difference(SlideImage.open(path).as_array(), RGB) <= 4


def test_subsampled_chroma_without_jpeg_is_refused_with_a_command(tmp_path: Path) -> None:
    tiles = [bytes(SIDE * SIDE * 3 // 2) for _ in tiles_of(RGB)]
    path = write_encoded(tmp_path / "he.tif", tiles, 1, 6, [(530, 3, (2, 2))])
    with pytest.raises(InputError, match=r"subsampled chroma.*python -c"):
        SlideImage.open(path)


def jpeg(pixels: np.ndarray, stored: str, marker: str, subsampling: str) -> bytes:
    """One JPEG tile of RGB pixels, stored as RGB or YCbCr; with the marker of JFIF, Adobe (APP14), or none."""
    space = stored.casefold()
    data = imagecodecs.jpeg8_encode(pixels, level=95, colorspace="rgb", outcolorspace=space, subsampling=subsampling)
    start, position = b"\xff\xd8", 2
    while data[position + 1] in (0xE0, 0xEE):
        position += 2 + int.from_bytes(data[position + 2 : position + 4])
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([int(stored == "YCBCR")])
    jfif = b"\xff\xe0\x00\x10JFIF\0\1\1\0\0\1\0\1\0\0"
    return start + {"adobe": adobe, "jfif": jfif, "none": b""}[marker] + data[position:]


@pytest.mark.parametrize(
    ("stored", "photometric", "marker", "subsampling"),
    [
        ("YCBCR", 6, "none", "444"),
        ("YCBCR", 6, "none", "420"),
        ("YCBCR", 6, "jfif", "422"),
        ("YCBCR", 6, "adobe", "444"),
        ("RGB", 2, "none", "444"),
        ("RGB", 2, "adobe", "444"),
        ("RGB", 6, "adobe", "444"),  # the tag is wrong
        ("YCBCR", 2, "adobe", "444"),
        ("YCBCR", 2, "jfif", "420"),
        ("YCBCR", 2, "none", "420"),  # subsampled: cannot be RGB
    ],
)
def test_jpeg_tiles(tmp_path: Path, stored: str, photometric: int, marker: str, subsampling: str) -> None:
    tiles = [jpeg(tile, stored, marker, subsampling) for tile in tiles_of(RGB)]
    path = write_encoded(tmp_path / "he.svs", tiles, 7, photometric, [(530, 3, (int(subsampling[1] < "4") + 1, 1))])
    slide = SlideImage.open(path)
    got = slide.as_array()
    assert np.abs(got.astype(int) - RGB).mean() < 4  # wrong colours are 30 off
    named = (
        tiles
        if marker != "none" or stored == "YCBCR"
        else [jpeg(tile, stored, "adobe", "444") for tile in tiles_of(RGB)]
    )
    pillow = [np.asarray(Image.open(io.BytesIO(tile)).convert("RGB")) for tile in named]
    assert difference(got[:SIDE, :SIDE], pillow[0]) <= 4  # two decoders
    agrees = (stored == "YCBCR") == (photometric == 6)
    assert any("photometric tag" in note for note in slide.notes) == (not agrees)
    if agrees:
        assert difference(got, from_openslide(path)) <= 4


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("colour", ["rgb", "ycbcr"])
def test_jpeg_written_by_tifffile(tmp_path: Path, colour: str, planar: str) -> None:
    options: dict[str, Any] = {"compression": "jpeg", "compressionargs": {"level": 95}, "tile": (SIDE, SIDE)}
    if planar == "separate":
        samples = np.moveaxis(ycbcr(RGB) if colour == "ycbcr" else RGB, -1, 0)
        tags = [(530, "H", 2, (1, 1), True)] if colour == "ycbcr" else []
        tifffile.imwrite(
            tmp_path / "he.tif", samples, photometric=colour, planarconfig="separate", extratags=tags, **options
        )
    else:
        options["compressionargs"]["outcolorspace"] = colour
        tifffile.imwrite(tmp_path / "he.tif", RGB, photometric="rgb", **options)
    assert np.abs(SlideImage.open(tmp_path / "he.tif").as_array().astype(int) - RGB).mean() < 4


def test_jpeg_tiles_without_their_tables_are_one_error(tmp_path: Path) -> None:
    tiles = []
    for tile in tiles_of(RGB):
        data = jpeg(tile, "YCBCR", "none", "444")
        while (at := data.find(b"\xff\xdb")) > 0:  # quantisation tables away, as in an abbreviated stream
            data = data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4]) :]
        tiles.append(data)
    with pytest.raises(InputError, match="cannot be decoded"):
        SlideImage.open(write_encoded(tmp_path / "he.svs", tiles, 7, 6))


@pytest.mark.parametrize(
    ("compression", "photometric", "stored", "mct"),
    [
        (33003, 2, "YCBCR", False),
        (33003, 6, "YCBCR", False),
        (33005, 2, "RGB", False),
        (33005, 2, "RGB", True),
        (33005, 6, "RGB", True),
        (34712, 2, "RGB", False),
        (34712, 2, "RGB", True),
        (34712, 6, "YCBCR", False),
        (34712, 6, "RGB", True),  # DICOM's YBR_RCT: the codec's own transform
        (33004, 2, "RGB", True),
        (33004, 6, "YCBCR", False),
    ],
)
def test_jpeg_2000_tiles(tmp_path: Path, compression: int, photometric: int, stored: str, mct: bool) -> None:
    tiles = [j2k(ycbcr(tile) if stored == "YCBCR" else tile, mct=mct) for tile in tiles_of(RGB)]
    description = [(270, 7, tuple(b"Aperio Image Library\0"))]
    path = write_encoded(tmp_path / "he.svs", tiles, compression, photometric, description)
    got = SlideImage.open(path).as_array()
    assert difference(got, RGB) <= (3 if stored == "YCBCR" else 0)  # YCbCr of 8 bits is rounded
    if compression in (33003, 33005):
        assert difference(got, _aperio(path)) <= 2


@pytest.mark.parametrize("photometric", [2, 6])
@pytest.mark.parametrize("steps", [(1, 2), (2, 2)], ids=["422", "420"])
@pytest.mark.parametrize("compression", [33003, 34712])
def test_jpeg_2000_with_subsampled_chroma(tmp_path: Path, compression: int, steps: Any, photometric: int) -> None:
    smooth = np.asarray(Image.fromarray(RGB).resize((15, 10)).resize((150, 100), Image.Resampling.BICUBIC))
    tiles = [j2k_subsampled(ycbcr(tile), *steps) for tile in tiles_of(smooth)]
    tags = [(270, 7, tuple(b"Aperio Image Library\0")), (530, 3, steps[::-1])]
    path = write_encoded(tmp_path / "he.svs", tiles, compression, photometric, tags)
    got = SlideImage.open(path).as_array()
    assert np.abs(got.astype(int) - smooth).mean() < 3
    if compression == 33003 and steps == (1, 2):
        assert difference(got, _aperio(path)) <= 2


def _aperio(path: Path) -> np.ndarray:
    """OpenSlide's pixels; it demands the tags of Aperio's own files."""
    openslide = pytest.importorskip("openslide")
    assert openslide.OpenSlide.detect_format(path) == "aperio"
    return from_openslide(path)


@pytest.mark.parametrize("space", ["SRGB", "SYCC"])
@pytest.mark.parametrize("compression", [33005, 34712])
def test_jpeg_2000_in_its_own_box_states_its_colours(tmp_path: Path, compression: int, space: str) -> None:
    tiles = [
        imagecodecs.jpeg2k_encode(
            ycbcr(tile) if space == "SYCC" else tile, codecformat="jp2", colorspace=space, mct=False, reversible=True
        )
        for tile in tiles_of(RGB)
    ]
    path = write_encoded(tmp_path / "he.tif", tiles, compression, 6 if space == "SYCC" else 2, [(530, 3, (1, 1))])
    got = SlideImage.open(path).as_array()
    assert difference(got, RGB) <= 3
    assert difference(got[:SIDE, :SIDE], np.asarray(Image.open(io.BytesIO(tiles[0])).convert("RGB"))) <= 2


@pytest.mark.parametrize(
    ("compression", "encode", "limit"),
    [
        (50001, lambda tile: imagecodecs.webp_encode(tile, lossless=True), 0),
        (50002, lambda tile: imagecodecs.jpegxl_encode(tile, lossless=True), 0),
        (34933, imagecodecs.png_encode, 0),
    ],
    ids=["webp", "jpegxl", "png"],
)
@pytest.mark.parametrize("photometric", [2, 6])
def test_codecs_that_hand_out_rgb(tmp_path: Path, compression: int, encode: Any, limit: int, photometric: int) -> None:
    tiles = [encode(tile) for tile in tiles_of(RGB)]
    path = write_encoded(tmp_path / "he.tif", tiles, compression, photometric, [(530, 3, (1, 1))])
    assert difference(SlideImage.open(path).as_array(), RGB) <= limit


@pytest.mark.parametrize("compression", ["none", "jpeg", "jpeg2000"])
def test_sparse_tiles_are_white_whatever_the_colour_space(tmp_path: Path, compression: str) -> None:
    encode = {
        "none": np.ndarray.tobytes,
        "jpeg": lambda t: jpeg(RGB[:SIDE, :SIDE], "YCBCR", "none", "444"),
        "jpeg2000": j2k,
    }
    tiles = [encode[compression](ycbcr(tile)) for tile in tiles_of(RGB)]
    tiles[1] = b""
    number = {"none": 1, "jpeg": 7, "jpeg2000": 33003}[compression]
    slide = SlideImage.open(write_encoded(tmp_path / "he.tif", tiles, number, 6, [(530, 3, (1, 1))]))
    assert (slide.read(SIDE, 0, SIDE, SIDE) == 255).all()


def test_the_orientation_tag_is_noted_and_pixels_stay_in_stored_order(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "he.tif", RGB, photometric="rgb", extratags=[(274, "H", 1, 6, True)])
    slide = SlideImage.open(tmp_path / "he.tif")
    assert (slide.as_array() == RGB).all()
    assert any("orientation tag 6" in note for note in slide.notes)
