"""Instrument folders: one file per vendor format, each returns a `Section`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sge2hist.data.section import Section
    from sge2hist.data.slides.channels import Channels

# Options that each format understands, beside `image`.
_OPTIONS = {
    "visium_hd": ("bin_um", "name", "channels"),
    "visium_hd_segmented": ("um_per_px", "name", "channels"),
    "xenium": ("um_per_px", "alignment", "channels"),
    "cosmx": ("um_per_px", "channels", "section"),
    "merscope": ("um_per_px", "channels"),
    "stereoseq": ("um_per_px", "bin_um", "channels"),
    "visium": ("um_per_px", "name", "channels", "section"),
    "legacy_st": ("um_per_px", "sections"),
    "anndata": ("um_per_px", "layer", "rounding_seed", "channels", "section", "positions"),
    "spatialdata": ("um_per_px", "layer", "rounding_seed", "table", "bin_um"),
    "published_pickle": ("um_per_px", "genes"),
}
TENX_FORMATS = ("visium_hd", "visium_hd_segmented", "xenium", "visium")
"""Formats whose module lies in `readers.tenx`."""
VENDOR_MODULES = {
    "cosmx": "nanostring.cosmx",
    "merscope": "vizgen.merscope",
    "stereoseq": "stomics.stereoseq",
}
"""Formats whose module lies in the folder of its vendor."""
FLUORESCENCE_FORMATS = ("xenium", "cosmx", "merscope")
"""Formats whose folders hold the fluorescence of the run."""
CHOOSING_FORMATS = tuple(name for name, options in _OPTIONS.items() if "section" in options)
"""Formats whose reader takes one of several sections; the others return all of them."""


def open_sections(
    path: str | Path,
    *,
    format: str = "auto",
    image: str | Path | None = None,
    bin_um: int | None = None,
    um_per_px: float | None = None,
    name: str | None = None,
    alignment: str | Path | None = None,
    sections: list[str] | None = None,
    layer: str | None = None,
    table: str | None = None,
    genes: str | Path | None = None,
    channels: Channels | None = None,
    section: str | None = None,
    positions: str | None = None,
    rounding_seed: int | None = None,
) -> list[Section]:
    """Open an instrument folder or file as one or more sections; counts and pixels are read later.

    Parameters
    ----------
    format
        A key of `readers.detect.FORMATS`, or "auto" to recognise it.
    image
        The H&E, or a fluorescence image with `channels`; not needed where the format holds it.
    bin_um
        Side of the bins (Visium HD, Stereo-seq, SpatialData).
    um_per_px
        Scale of the image, where the format does not state it, or to override what it states.
    name
        Slide id.
    alignment
        Xenium: csv that maps H&E px to DAPI px.
    sections
        Legacy ST: which sections of the folder.
    layer, table
        AnnData and SpatialData: where raw counts are, which table.
    rounding_seed
        AnnData and SpatialData: round counts with fractions at random, by this seed; None: they are refused.
    positions
        AnnData: the frame of the positions that the user states (`data.position_frame.POSITIONS`).
    genes
        Published pickle: csv ``gene_id,symbol`` in the order of its vectors.
    section
        AnnData, CosMx and Visium: name of one of several sections in the file or folder.
    channels
        Channels of a fluorescence image to take, by name, or `channels.ALL`; None: the image is an H&E.

    Raises
    ------
    InputError
        If the format is not recognised, an option does not belong to it, or the reader finds something wrong.
    """
    given: dict[str, Any] = {
        "bin_um": bin_um,
        "um_per_px": um_per_px,
        "name": name,
        "alignment": alignment,
        "sections": sections,
        "layer": layer,
        "table": table,
        "genes": genes,
        "channels": channels,
        "section": section,
        "positions": positions,
        "rounding_seed": rounding_seed,
    }
    options = {key: value for key, value in given.items() if value is not None}
    chosen = _choose(path, format)
    _refuse_foreign(chosen, path, options)
    return _read(chosen, path, image, options)


def _choose(path: str | Path, format: str) -> str:
    from sge2hist.data.errors import InputError
    from sge2hist.readers.detect import FORMATS, detect_format

    if format == "auto":
        return detect_format(path).format
    if format not in FORMATS:
        raise InputError(found=f"--format {format}", expected=f"auto, {', '.join(FORMATS)}")
    return format


def _refuse_foreign(chosen: str, path: str | Path, options: dict[str, Any]) -> None:
    from sge2hist.data.errors import InputError
    from sge2hist.readers.detect import FORMATS

    foreign = [key for key in options if key not in _OPTIONS[chosen]]
    if foreign:
        raise InputError(
            found=f"{_option(foreign[0])} with {FORMATS[chosen]}",
            where=str(path),
            expected=f"only {', '.join(_option(key) for key in _OPTIONS[chosen] if key not in ('name', 'sections'))}",
            repair="omit it",
        )


def _option(name: str) -> str:
    """The command line's name of an option: there, --um-per-px is the resolution of what is written."""
    own = {"um_per_px": "--image-um-per-px", "rounding_seed": "--round-counts"}
    return own.get(name, f"--{name.replace('_', '-')}")


def _read(chosen: str, path: str | Path, image: str | Path | None, options: dict[str, Any]) -> list[Section]:
    if chosen == "legacy_st":
        from sge2hist.readers import legacy_st

        return legacy_st.read_all(path, image=image, **options)
    if chosen == "spatialdata":
        from sge2hist.readers.spatialdata.store import read_all

        return read_all(path, image=str(image) if image is not None else None, **options)
    if chosen == "published_pickle":
        from sge2hist.readers import published_pickle

        return [published_pickle.read(path, **options)]
    from importlib import import_module

    elsewhere = {"anndata": "anndata_file", **VENDOR_MODULES} | {name: f"tenx.{name}" for name in TENX_FORMATS}
    module = elsewhere.get(chosen, chosen)
    reader = import_module(f"sge2hist.readers.{module}")
    return [reader.read(path, image=image, **options)]
