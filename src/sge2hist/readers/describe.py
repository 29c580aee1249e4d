"""What an input is, for `sge2hist inspect`: format, software, units, sizes, um per px and where it comes from."""

from __future__ import annotations

from pathlib import Path

from sge2hist.data.errors import InputError
from sge2hist.data.section import ImageReference, Section
from sge2hist.data.slides.channels import ALL, describe_channels, is_rgb
from sge2hist.data.slides.slide_image import SlideImage
from sge2hist.readers import open_sections
from sge2hist.readers.detect import detect_format
from sge2hist.readers.tenx import space_ranger, visium, visium_hd_segmented
from sge2hist.readers.tenx.mtx_matrix import MtxMatrix
from sge2hist.readers.tenx.tenx_matrix import TenxMatrix
from sge2hist.readers.tenx.visium_folder import find_visium, samples_with_positions
from sge2hist.readers.tenx.visium_hd_folder import find_matrix, find_squares

Facts = list[tuple[str, str]]
UNITS = ("units", "positions in px of the H&E given to Space Ranger: x = column, y = row")


def input_facts(path: str | Path, *, image: str | Path | None = None) -> Facts:
    """Lines (name, value) about an instrument folder or file; counts stay on disk.

    Space Ranger's folders do not hold the H&E: without `image` they are described as far as they go, with the size of
    the image that they expect.

    Raises
    ------
    InputError
        If the format is not known or a file is damaged.
    """
    path = Path(path)
    detected = detect_format(path)
    facts = [("format", f"{detected.format}: {detected.description}")]
    if detected.format == "visium" and len(samples_with_positions(path)) > 1:
        image = None  # of which sample?
    if detected.format.startswith("visium"):
        facts += _space_ranger_facts(path, detected.format)
        return facts if image is None else facts + _image_facts(path, image)
    of_run = image is None and detected.format in ("cosmx", "merscope")
    try:
        sections = open_sections(path, image=image, channels=ALL if of_run else None)
    except InputError as error:
        return [*facts, ("before it can be prepared", str(error))]
    for section in sections:
        facts += section_facts(section)
    return facts


def section_facts(section: Section) -> Facts:
    """Lines about one opened section."""
    side = f" of {section.observation_um:g} um" if section.observation_um else ""
    channels = section.image.channels
    shown = "H&E" if is_rgb(channels) else "image"
    facts = [
        ("section", section.name),
        ("technology", section.technology + (f" ({section.software})" if section.software else "")),
        ("observations", f"{section.n_obs:,} {section.observation}s{side}"),
        ("genes", f"{len(section.genes):,} (ids {section.genes.index[0]}, ...)"),
        (shown, f"{section.image.path.name}, {section.image.width_px:,} x {section.image.height_px:,} px"),
        ("um per px", f"{section.um_per_px:.4g}"),
    ]
    if not is_rgb(channels):
        facts.append(("stains", describe_channels(channels)))
    facts += [(f"  by {name}", f"{value:.4g}") for name, value in section.um_per_px_sources.items()]
    unit = section.needs_map or f"px of the {shown}"
    facts.append(("units", f"positions in {unit}: x = column, y = row"))
    return facts + [("note", note) for note in section.notes]


def _space_ranger_facts(path: Path, name: str) -> Facts:
    facts: Facts = []
    if name == "visium":
        samples = samples_with_positions(path)
        for sample in samples:
            facts += [("section", sample)] if sample else []
            facts += _visium_facts(path, sample)
        if len(samples) > 1:
            facts.append(("before it can be prepared", f"choose one: --section {samples[0]}"))
        return facts
    elif name == "visium_hd":
        squares = find_squares(path)
        for side_um, square in squares.items():
            facts += _matrix_facts(TenxMatrix.open(find_matrix(square)[0]), f"bins of {side_um} um")
        spatial = squares[max(squares)] / "spatial"
    folder = visium_hd_segmented.find_segmented(path)
    matrix = visium_hd_segmented.find_cell_matrix(folder) if folder is not None else None
    if folder is not None and matrix is not None:
        facts += _matrix_facts(TenxMatrix.open(matrix), "cells segmented by Space Ranger")
        if name == "visium_hd_segmented":
            spatial = folder / "spatial"
    return facts + _scale_facts(spatial)


def _visium_facts(path: Path, sample: str | None) -> Facts:
    files = find_visium(path, sample)
    facts = _matrix_facts(visium.open_counts(files), "spots of 55 um, 100 um apart")
    spots = visium.read_positions(files.positions)
    centre_xy_px = spots[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy()
    sources, notes = visium.grid_scale(spots, centre_xy_px, files.positions)
    facts += [("um per px", f"{value:.4g} ({name}, {files.positions.name})") for name, value in sources.items()]
    facts += [("note", note) for note in (*files.notes, *notes)]
    if files.scale_factors is None:
        return [*facts, ("H&E expected", "unknown: no scalefactors_json.json"), UNITS]
    factors = space_ranger.scale_factors_in(files.scale_factors)
    return facts + _reference_facts(factors, files.scale_factors, space_ranger.reference_of(files.pictures, factors))


def _matrix_facts(matrix: TenxMatrix | MtxMatrix, what: str) -> Facts:
    size = f"{matrix.n_obs:,} x {len(matrix.genes):,} genes, {matrix.n_values:,} values"
    return [(what, f"{size} ({matrix.path.name}, {matrix.software or 'software unknown'})")]


def _scale_facts(spatial: Path) -> Facts:
    factors, path = space_ranger.read_scale_factors(spatial)
    return _reference_facts(factors, path, space_ranger.read_reference(spatial, factors))


def _reference_facts(factors: dict[str, float], path: Path, reference: ImageReference | None) -> Facts:
    facts = []
    if "microns_per_pixel" in factors:
        facts.append(("um per px", f"{factors['microns_per_pixel']:.4g} (microns_per_pixel of {path.name})"))
    if reference is not None:
        width, height = reference.size_px
        facts.append(
            ("H&E expected", f"about {width:,.0f} x {height:,.0f} px (from {reference.source}); give it as --image")
        )
    return [*facts, UNITS]


def _image_facts(path: Path, image: str | Path) -> Facts:
    slide = SlideImage.open(image)
    stated = f", {slide.um_per_px:.4g} um/px by its metadata" if slide.um_per_px else ""
    facts = [("H&E given", f"{slide.width_px:,} x {slide.height_px:,} px{stated}")]
    sections = open_sections(path, image=image)
    facts += [(f"  um per px by {name}", f"{value:.4g}") for name, value in sections[0].um_per_px_sources.items()]
    return facts + [("note", note) for note in sections[0].notes]
