"""Physical pixel size as image files state it."""

from __future__ import annotations

import re
from typing import Any

# Larger values are print resolutions (72 dpi is 353 um/px), not microscopes.
MAX_PLAUSIBLE_UM_PER_PX = 20.0
_UM_PER_UNIT = {"µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6}


def plausible(um_per_px: float | None) -> float | None:
    """`um_per_px` if it can be a microscope's, else None."""
    if um_per_px is None or not 0 < um_per_px < MAX_PLAUSIBLE_UM_PER_PX:
        return None
    return um_per_px


def tiff_um_per_px(tiff: Any, page: Any) -> float | None:
    """Pixel size of an open tifffile.TiffFile: from OME-XML, else Aperio's MPP, else the resolution tags.

    Returns
    -------
    um per px, or None when nothing plausible is stated.
    """
    found = ome_um_per_px(tiff.ome_metadata) if tiff.is_ome else None
    found = plausible(found) or plausible(aperio_um_per_px(page.description or ""))
    if found:
        return found
    resolution, unit = page.tags.get("XResolution"), page.tags.get("ResolutionUnit")
    um_per_unit = {2: 25400.0, 3: 10000.0}.get(int(unit.value) if unit is not None else 0)
    if resolution is None or um_per_unit is None:
        return None
    numerator, denominator = resolution.value
    return plausible(um_per_unit * denominator / numerator) if numerator else None


def ome_um_per_px(xml: str | None) -> float | None:
    """PhysicalSizeX of the first image in OME-XML, in um; square pixels are taken for granted.

    >>> ome_um_per_px('<Pixels PhysicalSizeX="0.25" PhysicalSizeXUnit="µm"/>')
    0.25
    """
    size = re.search(r'PhysicalSizeX="([0-9.eE+-]+)"', xml or "")
    if size is None:
        return None
    unit = re.search(r'PhysicalSizeXUnit="([^"]+)"', xml or "")
    factor = _UM_PER_UNIT.get(unit.group(1).strip() if unit else "µm")
    return _number(size.group(1), factor)


def aperio_um_per_px(description: str) -> float | None:
    """The ``MPP = 0.499`` entry of an Aperio image description."""
    found = re.search(r"MPP\s*=\s*([0-9.]+)", description)
    return _number(found.group(1), 1.0) if found else None


def _number(text: str, factor: float | None) -> float | None:
    try:
        return float(text) * factor if factor else None
    except ValueError:
        return None
