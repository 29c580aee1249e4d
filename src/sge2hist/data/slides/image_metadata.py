"""Physical pixel size as image files state it: OME-XML, Aperio, ImageJ, resolution tags."""

from __future__ import annotations

import html
import re
from typing import Any
from xml.etree import ElementTree

# Larger values are print resolutions (72 dpi is 353 um/px), not microscopes.
MAX_PLAUSIBLE_UM_PER_PX = 20.0
MAX_ASPECT = 0.01  # by which the sides of a pixel may differ
# UnitsLength of the OME schema; "pixel" and "reference frame" are none.
_PREFIXES = ("Y", "Z", "E", "P", "T", "G", "M", "k", "h", "da", "", "d", "c", "m", "µ", "n", "p", "f", "a", "z", "y")
_POWERS = (24, 21, 18, 15, 12, 9, 6, 3, 2, 1, 0, -1, -2, -3, -6, -9, -12, -15, -18, -21, -24)
_METRES = {f"{prefix}m": 10.0**power for prefix, power in zip(_PREFIXES, _POWERS, strict=True)}
_METRES |= {"Å": 1e-10, "thou": 2.54e-5, "li": 0.0254 / 12, "in": 0.0254, "ft": 0.3048, "yd": 0.9144, "pt": 0.0254 / 72}
_METRES |= {"mi": 1609.344, "ua": 1.495978707e11, "ly": 9.4607304725808e15, "pc": 3.0856775814913673e16}
_WORDS = {"micron": "µm", "micrometer": "µm", "micrometre": "µm", "nanometer": "nm", "nanometre": "nm", "inch": "in"}
_WORDS |= {"millimeter": "mm", "millimetre": "mm", "centimeter": "cm", "centimetre": "cm", "meter": "m", "metre": "m"}
# How programs write the micro sign: Greek mu, u, UTF-8 read as Latin-1, an escape, or what is left where it was lost.
_MICRO = re.compile(r"^(μ|u|Âµ|Î¼|\\u00b5|\\u03bc|\ufffd|\?)(?=m$)", re.IGNORECASE)

Scale = tuple[float | None, list[str]]  # um per px, or None when nothing plausible is stated; notes


def plausible(um_per_px: float | None) -> float | None:
    """`um_per_px` if it can be a microscope's, else None."""
    if um_per_px is None or not 0 < um_per_px < MAX_PLAUSIBLE_UM_PER_PX:
        return None
    return um_per_px


def um_per_unit(unit: str) -> float | None:
    """Length of a unit in um; None when it is no length.

    >>> [um_per_unit(unit) for unit in ("um", "µm", "nm", "microns", "pixel")]
    [1.0, 1.0, 0.001, 1.0, None]
    """
    unit = unit.strip()
    word = unit.casefold()
    unit = _MICRO.sub("µ", _WORDS.get(word) or _WORDS.get(word.removesuffix("s")) or unit)
    metres = _METRES.get(unit)
    return None if metres is None else float(f"{metres * 1e6:.12g}")


def pixel_side_um(x_um: float | None, y_um: float | None) -> Scale:
    """The side of a pixel; None and a note when its two sides differ.

    >>> pixel_side_um(0.25, 0.5)
    (None, ['pixels of 0.25 x 0.5 um are not square: the scale of the file is not used'])
    """
    x_um, y_um = plausible(x_um), plausible(y_um)
    if x_um and y_um and abs(x_um / y_um - 1) > MAX_ASPECT:
        return None, [f"pixels of {x_um:.4g} x {y_um:.4g} um are not square: the scale of the file is not used"]
    return x_um or y_um, []


def tiff_um_per_px(tiff: Any, page: Any) -> Scale:
    """Pixel size of a page of an open tifffile.TiffFile: from OME-XML, else Aperio's MPP, ImageJ's unit, the resolution tags.

    Returns
    -------
    um per px, or None when nothing plausible is stated or pixels are not square; notes.
    """
    width, height = int(page.keyframe.imagewidth), int(page.keyframe.imagelength)
    base, description = tiff.pages[0], page.description or ""
    if tiff.is_ome:
        index = page.index if len(page.treeindex) == 1 and page.parent is tiff else None
        found, notes = ome_um_per_px(tiff.ome_metadata, (width, height), index)
        if found or notes:
            return found, notes
    if found := plausible(aperio_um_per_px(description)):
        if "->" not in description:
            return found, []
        step = int(base.imagewidth) / width  # a reduced level repeats the value of the first page
        same_field = abs(step * height / int(base.imagelength) - 1) < 2 * MAX_ASPECT
        return (plausible(found * step) if same_field else None), []
    return _resolution(page, description or base.description)


def _resolution(page: Any, description: str) -> Scale:
    """From the resolution tags, in the unit of ImageJ's description where it names one."""
    tag = page.tags.get("ResolutionUnit")
    tag_unit_um = {2: 25400.0, 3: 10000.0}.get(int(tag.value) if tag is not None else 0)
    x, y = (
        _um_per_px(page.tags.get(f"{axis}Resolution"), imagej_unit(description, axis) or tag_unit_um) for axis in "XY"
    )
    return pixel_side_um(x, y)


def _um_per_px(tag: Any, unit_um: float | None) -> float | None:
    if tag is None or unit_um is None:
        return None
    numerator, denominator = tag.value
    return unit_um * denominator / numerator if numerator else None


def imagej_unit(description: str, axis: str = "X") -> float | None:
    """Length in um of the unit in the description of an ImageJ TIFF; None when it names none.

    >>> imagej_unit("ImageJ=1.54f\\nunit=micron\\n")
    1.0
    """
    if not description.startswith(("ImageJ=", "SCIFIO=")):
        return None
    stated = dict(line.split("=", 1) for line in description.splitlines() if "=" in line)
    return um_per_unit(stated.get(f"{axis.lower()}unit") or stated.get("unit", ""))


def ome_um_per_px(xml: str, size_px: tuple[int, int], page: int | None = None) -> Scale:
    """PhysicalSizeX and PhysicalSizeY of the image of a size [width, height], in um.

    Parameters
    ----------
    page
        Number of the TIFF page, which decides between several images of that size.

    >>> ome_um_per_px('<OME><Pixels SizeX="9" SizeY="7" PhysicalSizeX="250" PhysicalSizeXUnit="nm"/></OME>', (9, 7))
    (0.25, [])
    """
    try:
        root = ElementTree.fromstring(_known_entities(xml))
    except ElementTree.ParseError as error:
        return None, [f"OME-XML that cannot be read ({error}): its scale is not used"]
    images = [node for node in root.iter() if _tag(node) == "Pixels"]
    ours = [node for node in images if (node.get("SizeX"), node.get("SizeY")) == tuple(map(str, size_px))]
    if len({_sides(node) for node in ours}) > 1:
        ours = [node for node in ours if page is not None and page in _pages(node)][:1]
        if not ours:
            return None, ["several OME images of this size and of different scales: their scale is not used"]
    if not ours:
        return None, []
    (x, unit_x), (y, unit_y) = _sides(ours[0])
    unknown = [unit for value, unit in ((x, unit_x), (y, unit_y)) if value and um_per_unit(unit) is None]
    if unknown:
        return None, [f"OME PhysicalSize in {unknown[0]!r} is no length: its scale is not used"]
    return pixel_side_um(_number(x, um_per_unit(unit_x)), _number(y, um_per_unit(unit_y)))


def _known_entities(xml: str) -> str:
    """XML knows five named entities; programs write those of HTML."""
    return re.sub(
        r"&([A-Za-z]+\d*);",
        lambda found: found[0] if found[1] in ("amp", "lt", "gt", "quot", "apos") else html.unescape(found[0]),
        xml,
    )


def _sides(node: Any) -> tuple[tuple[str, str], tuple[str, str]]:
    x, y = ((node.get(f"PhysicalSize{axis}") or "", node.get(f"PhysicalSize{axis}Unit") or "µm") for axis in "XY")
    return x, y


def _pages(node: Any) -> set[int]:
    """Numbers of the TIFF pages of an image, as its TiffData elements state them."""
    found: set[int] = set()
    for data in node:
        if _tag(data) == "TiffData" and data.get("IFD") is not None:
            first = int(data.get("IFD"))
            found |= set(range(first, first + int(data.get("PlaneCount") or 1)))
    return found


def _tag(node: Any) -> str:
    return str(node.tag).rsplit("}", 1)[-1]


def aperio_um_per_px(description: str) -> float | None:
    """The ``MPP = 0.499`` entry of an Aperio image description; a decimal comma is read, too.

    >>> aperio_um_per_px("Aperio Image Library|AppMag = 20|MPP = 0,4990")
    0.499
    """
    found = re.search(r"\bMPP\s*=\s*([0-9.,]+)", description)
    return _number(found.group(1).replace(",", "."), 1.0) if found else None


def _number(text: str, factor: float | None) -> float | None:
    try:
        return float(text.replace(",", ".")) * factor if factor else None
    except ValueError:
        return None
