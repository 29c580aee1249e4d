"""What `prepare` is given -> opened sections, each with a name of its own; counts and pixels are read later."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sge2hist.data.errors import InputError, as_path
from sge2hist.data.section import Section
from sge2hist.data.slides.channels import ALL, parse_channels
from sge2hist.data.virtual_he import REQUEST, requested_file
from sge2hist.pairing.alignment.map_to_image import AUTO
from sge2hist.pairing.cells import choose_method
from sge2hist.pairing.config import PrepareConfig
from sge2hist.pairing.slide_table import SlideTable
from sge2hist.pairing.stain_ranges import with_virtual_he
from sge2hist.readers import CHOOSING_FORMATS, FLUORESCENCE_FORMATS, open_sections
from sge2hist.readers.detect import FORMATS, detect_format
from sge2hist.readers.tenx.visium_hd_folder import find_squares
from sge2hist.readers.tenx.visium_hd_segmented import find_segmented
from sge2hist.readers.tenx.xenium_alignment import IDENTITY

Input = str | Path | Section  # what an instrument wrote, or a section that the caller has opened
Log = Callable[[str], None]


def open_inputs(
    inputs: Input | Sequence[Input] | SlideTable,
    images: str | Path | Sequence[str | Path | None] | None,
    config: PrepareConfig,
    log: Log,
) -> list[tuple[Section, Path | None]]:
    """Open all inputs: the sections, and what each was read from (None for a section that the caller opened).

    Raises
    ------
    InputError
        Without an input, with an input given twice, with another number of images, or if a reader finds something
        wrong.
    """
    if isinstance(inputs, SlideTable):
        return _open_table(inputs, images, config, log)
    given = _listed(inputs, "inputs")
    if len(given) > 1 and config.alignment is not None and str(config.alignment) not in (AUTO, IDENTITY):
        raise InputError(
            found=f"--alignment {config.alignment} for {len(given)} inputs",
            expected="one input: a map belongs to one image",
            repair="--alignment auto, or an alignment file beside each H&E of a Xenium run",
        )
    opened: list[tuple[Section, Path | None]] = []
    for source, image in zip(given, _image_of_each(given, images), strict=True):
        path = None if isinstance(source, Section) else Path(source)
        sections = [source] if isinstance(source, Section) else _open_chosen(Path(source), image, config)
        if requested_file(image)[0]:
            sections = [with_virtual_he(section, config.stain_roles) for section in sections]
        elif config.stain_roles is not None:
            raise InputError(
                found="--stain-roles without virtual H&E", where=str(source), repair=f"--image {REQUEST}, or omit it"
            )
        for section in sections:
            section = _with_own_name(section, path, {other.name for other, _ in opened}, log)
            log(section.describe())
            log(_describe_scale(section))
            opened.append((section, path))
    return opened


def _open_table(
    table: SlideTable, images: object, config: PrepareConfig, log: Log
) -> list[tuple[Section, Path | None]]:
    """Open the inputs of a table; their sections get its names, donors and stains."""
    if images is not None:
        raise InputError(found="images beside a table of slides", where=str(table.source), repair="its column image")
    opened: list[tuple[Section, Path | None]] = []
    _image_of_each([row.path for row in table.rows], None)  # no input twice
    for row in table.rows:
        found = open_inputs([row.path], [row.image], config, log)
        if row.name and len(found) > 1:
            raise InputError(
                found=f"one name, {row.name}, for {len(found)} sections",
                where=f"{table.source}, {row.path.name}",
                expected="an input of one section, or no name",
            )
        for section, path in found:
            name = row.name or section.name
            section = dataclasses.replace(section, name=name, donor=row.donor, staining=row.stain)
            opened.append((_with_own_name(section, path, {other.name for other, _ in opened}, log), path))
    return opened


def _image_of_each(
    inputs: list[Input], images: str | Path | Sequence[str | Path | None] | None
) -> list[str | Path | None]:
    if not inputs:
        raise InputError(found="no input", expected="at least one instrument folder, file or section")
    paths = [as_path(source, "inputs").resolve() for source in inputs if not isinstance(source, Section)]
    if len(set(paths)) < len(paths):
        raise InputError(
            found="one input given twice", expected="each once: its cells would be in both training and test"
        )
    if images is None:
        return [None] * len(inputs)
    listed = [None if image is None else as_path(image, "images") for image in _listed(images, "images")]
    if len(listed) != len(inputs):
        raise InputError(
            found=f"{len(listed)} images for {len(inputs)} inputs", expected="one --image for each, in the same order"
        )
    for source, image in zip(inputs, listed, strict=True):
        if isinstance(source, Section) and image is not None:
            raise InputError(found=f"an image ({image}) for a section that is open", where=source.name, expected="None")
    return [*listed]


def _listed(given: Any, name: str) -> list[Any]:
    """One or several values of an argument as a list; `InputError` for what is neither."""
    if isinstance(given, list | tuple):
        return list(given)
    return [given if isinstance(given, Section) else as_path(given, name)]


def _open_chosen(path: Path, image: str | Path | None, config: PrepareConfig) -> list[Section]:
    """The sections of one input; the one of `config.section` where it holds several."""
    sections = open_input(path, image, config)
    if config.section is None or _format_of(path, config) in CHOOSING_FORMATS:  # the reader has chosen
        return sections
    names = [section.name for section in sections]
    if len(sections) == 1:
        raise InputError(found=f"--section {config.section}, but one section", where=str(path), repair="omit it")
    if config.section not in names:
        raise InputError(found=f"--section {config.section}", where=str(path), expected=f"one of {', '.join(names)}")
    return [sections[names.index(config.section)]]


def _format_of(path: Path, config: PrepareConfig) -> str:
    return detect_format(path).format if config.format == "auto" else config.format


def open_input(path: Path, image: str | Path | None, config: PrepareConfig) -> list[Section]:
    """Open one input; Visium HD without `bin_um` is read at 2 um when cells can be made of its bins.

    Where there are no 2 um bins but Space Ranger's own table of cells, that is read instead.
    """
    format = _format_of(path, config)
    virtual_he, file = requested_file(image)
    if virtual_he and file is None and format not in FLUORESCENCE_FORMATS:
        raise InputError(
            found=f"--image {REQUEST} with {FORMATS.get(format, format)}",
            where=str(path),
            expected="a Xenium, CosMx or MERSCOPE folder, which holds the fluorescence of the run",
            repair=f"--image {REQUEST}:FILE with the fluorescence image",
        )
    channels = _channels(config.channels)
    options: dict[str, Any] = {
        "image": file if virtual_he else image,
        "um_per_px": config.image_um_per_px,
        "alignment": _for_reader(config.alignment, format),
        "genes": config.genes,
        "layer": config.layer,
        "rounding_seed": config.seed if config.round_counts else None,
        "table": config.table,
        "channels": channels or ALL if virtual_he else channels,
    }
    if config.positions != "auto" and format != "anndata" and config.cells.labels is None:
        raise InputError(
            found=f"--positions {config.positions} with {FORMATS.get(format, format)}",
            where=str(path),
            expected="an AnnData, or outlines given by --labels: this format states the unit of its positions",
            repair="omit it",
        )
    if format in CHOOSING_FORMATS:
        options["section"] = config.section
    if format == "anndata":
        options["positions"] = config.positions
    method = config.cells.method
    if format == "visium_hd" and config.bin_um is None and method != "bins":
        if 2 in find_squares(path):
            sections = open_sections(path, format=format, bin_um=2, **options)
            if choose_method(sections[0], path, config.cells) != "bins":
                return sections  # else the image is too coarse to show nuclei: bins of the usual side
        elif method in ("auto", "segmentation") and find_segmented(path) is not None:
            format = "visium_hd_segmented"
    return open_sections(path, format=format, bin_um=config.bin_um, **options)


def _for_reader(alignment: str | Path | None, format: str) -> str | Path | None:
    """Xenium's reader applies a map itself; one that is found is applied to its cells in px of the DAPI image."""
    if format != "xenium" or alignment is None:
        return None
    return IDENTITY if str(alignment) == AUTO else alignment


def _channels(channels: str | tuple[str, ...] | None) -> tuple[str, ...] | None:
    return parse_channels(channels if channels is None or isinstance(channels, str) else ",".join(channels))


def _with_own_name(section: Section, path: Path | None, taken: set[str], log: Log) -> Section:
    """Instruments call every run "region_1": a name that is taken gets a number."""
    if section.name not in taken:
        return section
    number = 2
    while f"{section.name}_{number}" in taken:
        number += 1
    name = f"{section.name}_{number}"
    log(f"{path or 'the section'} is called {name} here: an earlier input is {section.name} already")
    return dataclasses.replace(section, name=name)


def _describe_scale(section: Section) -> str:
    sources = "; ".join(f"{value:.4g} ({name})" for name, value in section.um_per_px_sources.items())
    unit = f"in px of {section.image.path.name}"
    if section.needs_map is not None:
        unit = f"in {section.needs_map}"
    elif section.frame_facts is not None:
        unit = "in a unit that the file does not state"
    return f"  um per px: {sources}; positions {unit}, x = column, y = row"
