"""Instrument folders and images -> paired dataset.

The steps in their order: open the inputs (`inputs`), check the images and make cells of bins (`alignment`, `cells`),
collect the cells that pass the filters (`collect`), split them (`split`), label them (`labels`), write (`write`).
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sge2hist.data.artifacts import atomic_directory, check_output, require_disk_space
from sge2hist.data.errors import InputError, as_path, refuse_wrong_arguments
from sge2hist.data.output_lock import locks_output
from sge2hist.data.paired import PairedDataset
from sge2hist.data.section import Section
from sge2hist.data.slides.channels import is_rgb, require_same_channels
from sge2hist.data.virtual_he import REQUEST
from sge2hist.pairing.alignment.frame import to_px
from sge2hist.pairing.alignment.image_checks import check_image
from sge2hist.pairing.alignment.map_to_image import AUTO, XENIUM, ImageMap, map_section
from sge2hist.pairing.alignment.registration_report import write_registration_report
from sge2hist.pairing.alignment.tissue import tissue_of
from sge2hist.pairing.alignment.verdict import alignment_record, check_shift, shifted, version_warnings
from sge2hist.pairing.cells import cells_of_section, choose_method
from sge2hist.pairing.collect import Cells, Progress, SectionCells, collect_section, merge_sections
from sge2hist.pairing.config import PrepareConfig
from sge2hist.pairing.inputs import Input, Log, open_inputs
from sge2hist.pairing.labels import LabelInputs, Labels, label_all
from sge2hist.pairing.report import ReportInputs, write_report
from sge2hist.pairing.slide_table import SlideTable
from sge2hist.pairing.split import split_cells, split_placed
from sge2hist.pairing.stain_ranges import choose_transform, with_stain_scale
from sge2hist.pairing.write import Prepared, type_order, write_cells, write_paired_manifest, write_slides

if TYPE_CHECKING:
    from scipy.sparse import csr_array

BYTES_PER_NONZERO = 5  # of the compressed counts, generously


def _no_progress(stage: str, done: int, total: int) -> None:
    """Show no progress."""


@refuse_wrong_arguments("config", "log", "progress", "overwrite")
@locks_output()
def prepare(
    inputs: Input | Sequence[Input] | SlideTable,
    output: str | Path,
    config: PrepareConfig | None = None,
    *,
    images: str | Path | Sequence[str | Path | None] | None = None,
    log: Log = print,
    progress: Progress = _no_progress,
    overwrite: bool = False,
    **options: Any,
) -> PairedDataset:
    """Pair gene expression with images: open the inputs, check the images, make cells, pair, write, open the dataset.

    Parameters
    ----------
    inputs
        What the instrument wrote (Space Ranger's ``outs/``, a Xenium folder, ``.h5ad``, ``.zarr``, ...) or a
        `Section` that is open; several become one dataset with one slide each. Or a table of slides with their donors
        (`sge2hist.pairing.slide_table.read_slide_table`).
    output
        Folder to write, by custom ``NAME.paired``; it appears only when it is complete. Of each slide it has an
        ``alignment.png``: look at it.
    config
        All options with their units; `PrepareConfig` lists them.
    images
        The microscope image of each input, in the same order: H&E, or fluorescence with `channels`. None where the
        input holds the image.
    log
        Called with lines of text: the sections, the cells made of bins, warnings.
    progress
        Called as ``progress(stage, done, total)``.
    overwrite
        Replace an earlier dataset at `output`; anything else there is never replaced.
    options
        Fields of `PrepareConfig`, instead of those in `config`.

    Raises
    ------
    InputError
        If an option is wrong, an input cannot be read, an image does not match, nothing passes the filters, a split is
        empty, labels are not found, the output exists, or the disk is full; nothing is left behind then.

    Example
    -------
    .. code-block:: python

        from sge2hist import prepare
        dataset = prepare(
            "run/outs", "kidney.paired", images="he.tif", bin_um=16, patch_um=64.0, types="markers:kidney"
        )

    Cells made of 2 um bins: nuclei found in the H&E, and the bins within 12 um of them:

    .. code-block:: python

        from sge2hist.pairing.config import CellsConfig
        cells = CellsConfig(method="nuclei", expand_um=12.0)
        dataset = prepare("run/outs", "kidney.paired", images="he.tif", cells=cells)
    """
    config = _with_options(config or PrepareConfig(), options)
    check_output(as_path(output, "output"), overwrite=overwrite, kind="paired")
    opened = open_inputs(inputs, images, config, log)
    sections = [section for section, _ in opened]
    config = _with_toy_flag(config, sections)
    _check_sections(sections, config)
    transform = choose_transform(sections, config.stain_transform)
    checked = [_check_and_make_cells(section, path, config, transform, log, progress) for section, path in opened]
    um_per_px = config.um_per_px or max(section.um_per_px for section, _, _ in checked)
    parts, counts, alignment = [], [], []
    for number, (section, _, warnings) in enumerate(checked):
        progress("reading counts", number, len(checked))
        part, part_counts = _collect(section, config)
        applied_um = config.shift_of(section.name)
        warnings += version_warnings(section, part.shift)
        if config.check_alignment:
            warnings += check_shift(part.shift, section, applied_um, one_of_several=len(checked) > 1)
        parts.append(part)
        counts.append(part_counts)
        del part_counts
        applied_map = checked[number][1]
        alignment.append(alignment_record(part, applied_um, warnings))
        if applied_map is not None:
            alignment[-1]["map"] = applied_map.summary()
    progress("reading counts", len(checked), len(checked))
    cells = merge_sections(parts, counts, config)
    gap_um = config.patch_um + 2 * um_per_px  # the patch and the pixels that its border may share
    progress("splitting and labelling", 0, 1)
    split = _split(cells, parts, config, gap_um)
    labels = _label(cells, parts, split, config)
    alignment[0]["warnings"] = [*alignment[0]["warnings"], *labels.warnings]
    progress("splitting and labelling", 1, 1)
    for record in alignment:
        for warning in record["warnings"]:
            log(f"warning: {record['slide']}: {warning}")
    prepared = Prepared(
        parts=parts,
        cells=cells,
        split=split,
        labels=labels,
        um_per_px=um_per_px,
        gap_um=gap_um,
        alignment=alignment,
        config=config,
        maps=[applied_map for _, applied_map, _ in checked],
    )
    _write(prepared, output, overwrite=overwrite, progress=progress)
    return PairedDataset.open(output)


def _with_options(config: PrepareConfig, options: dict[str, Any]) -> PrepareConfig:
    """The config with fields replaced; unknown names and values of a wrong type are errors of the caller."""
    names = [field.name for field in dataclasses.fields(PrepareConfig)]
    for name in options:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            raise InputError(
                found=f"option {name!r}",
                where="prepare",
                expected=f"fields of PrepareConfig ({', '.join(names)})",
                repair=f"{near[0]}=..." if near else "",
            )
    return dataclasses.replace(config, **options)


def _with_toy_flag(config: PrepareConfig, sections: list[Section]) -> PrepareConfig:
    """Mark the dataset as toy when a section says that this program simulated it."""
    toy = config.toy or any(section.software.startswith("sge2hist toy") for section in sections)
    return dataclasses.replace(config, toy=toy)


def _check_sections(sections: list[Section], config: PrepareConfig) -> None:
    """What must be right before anything slow: names of slides, patch side, channels."""
    names = [section.name for section in sections]
    requested = [("--holdout-slide", name) for name in config.holdout_slides]
    requested += [("--shift-um", name) for name in config.slide_shifts_um]
    for option, name in requested:
        if name not in names:
            raise InputError(found=f"{option} {name}", expected=f"one of {', '.join(names)}")
    donors = sorted({section.donor for section in sections} - {""})
    for name in config.holdout_donors:
        if name not in donors:
            raise InputError(
                found=f"--holdout-donor {name}",
                expected=f"one of {', '.join(donors)}"
                if donors
                else "donors, in the column donor of --slides TABLE.csv",
            )
    unstated = [section.name for section in sections if not section.donor]
    if config.holdout_donors and unstated:
        raise InputError(
            found=f"no donor of {', '.join(unstated)}",
            expected="the donor of every slide: one without may be that which is held out",
            repair="fill in the column donor of --slides",
        )
    for section in sections:
        if section.needs_map is not None and config.alignment is None:
            raise InputError(
                found=f"positions in {section.needs_map}, and an image that is none of the run",
                where=str(section.image.path),
                expected="the map between both",
                repair="--alignment auto, --alignment FILE, or --alignment identity if they are the same",
            )
        max_um = section.max_patch_um
        if max_um is not None and config.patch_um > max_um * (1 + 1e-9):
            raise InputError(
                found=f"--patch-um {config.patch_um:g} with pictures of {max_um:g} um",
                where=section.name,
                expected="a patch that shows one picture: its neighbours in the file are no neighbours in the tissue",
                repair=f"--patch-um {max_um:g} --patch-px {round(max_um / section.um_per_px)}",
            )
    virtual = [section.image.virtual_he is not None for section in sections]
    if any(virtual) and not all(virtual):
        raise InputError(
            found="virtual H&E beside another image",
            where=sections[virtual.index(False)].name,
            expected="images of one look: a model does not know which of them a cell has",
            repair=f"--image {REQUEST} for each, or two datasets",
        )
    if all(_is_held_out(section, config) for section in sections):
        raise InputError(found="every slide held out", expected="at least one slide to train on")
    for section in sections[1:]:
        require_same_channels(section.image.channels, sections[0].image.channels, where=section.name)


def _is_held_out(section: Section, config: PrepareConfig) -> bool:
    return section.name in config.holdout_slides or section.donor in config.holdout_donors


def _check_and_make_cells(
    section: Section, path: Path | None, config: PrepareConfig, transform: str, log: Log, progress: Progress
) -> tuple[Section, ImageMap | None, list[str]]:
    """Put the cells on the image, check it, correct the shift, scale the stains, make cells of bins.

    Returns the section, the map that put its cells on the image (None: the format's own), and warnings. Space Ranger's
    outlines lie in px of the image that it was run with, before any scaling and shift, so its cells are made first.
    Outlines on the given image need positions that match it, so those cells are made last.
    """
    method = choose_method(section, path, config.cells)

    warnings: list[str] = []

    def with_cells(section: Section) -> Section:
        cells = cells_of_section(
            section,
            config=config.cells,
            method=method,
            folder=path,
            positions=config.positions,
            warn=warnings.append,
            progress=lambda done, total: progress("finding nuclei", done, total),
        )
        if cells is not section:
            log(cells.notes[-1])
        return cells

    if method == "segmentation":
        section = with_cells(section)
    applied_map = None
    if config.alignment is not None and (section.technology != XENIUM or str(config.alignment) == AUTO):
        progress("registration", 0, 1)
        section, applied_map = map_section(
            section,
            config.alignment,
            positions=config.positions,
            um_per_px=config.image_um_per_px,
            folder=path,
        )
        progress("registration", 1, 1)
        log(f"{section.name}: {applied_map.source}; the image has {section.um_per_px:.4g} um/px")
        warnings += applied_map.warnings()
    elif section.frame_facts is not None:
        section, frame_warnings = to_px(section, tissue_of(section), config.positions, keep_inside=config.keep_inside)
        warnings += frame_warnings
    # a map beyond doubt may show a part of the section: that is no error
    registered = applied_map is not None and applied_map.registration is not None
    section, image_warnings = check_image(section, keep_inside=config.keep_inside or registered)
    warnings += image_warnings
    section = shifted(section, config.shift_of(section.name))
    section = with_stain_scale(section, transform)
    return section if method == "segmentation" else with_cells(section), applied_map, warnings


def _collect(section: Section, config: PrepareConfig) -> tuple[SectionCells, csr_array]:
    return collect_section(section, tissue_of(section), config)


def _split(cells: Cells, parts: list[SectionCells], config: PrepareConfig, gap_um: float) -> np.ndarray:
    held = tuple(i for i, part in enumerate(parts) if _is_held_out(part.section, config))
    centre = cells.is_centre
    split = split_cells(
        cells.centre_xy_um[centre],
        cells.slide_of_cell[centre],
        block_um=config.block_um,
        gap_um=gap_um,
        fractions=config.fractions,
        seed=config.seed,
        test_slides=held,
    )
    return split_placed(split, centre, cells.centre_xy_um, cells.slide_of_cell, gap_um)


def _label(cells: Cells, parts: list[SectionCells], split: np.ndarray, config: PrepareConfig) -> Labels:
    first = parts[0].section
    inputs = LabelInputs(
        counts_NG=cells.counts_NG,
        genes=cells.genes,
        obs=cells.instrument_obs,
        cell_ids=cells.obs.index,
        centre_xy_um=cells.centre_xy_um,
        slide_of_cell=cells.slide_of_cell,
        train_rows=np.flatnonzero((split == "train") & cells.is_centre),
        bin_um=first.observation_um if first.observation == "bin" else None,
    )
    return label_all(inputs, cells.is_centre, config)


def _write(prepared: Prepared, output: str | Path, *, overwrite: bool, progress: Progress) -> None:
    n_pixels = sum(
        part.section.image.width_px * part.section.image.height_px * (part.section.um_per_px / prepared.um_per_px) ** 2
        for part in prepared.parts
    )
    # lossless H&E takes about two bytes per pixel; the half-size level waits on disk while the slide is written, and channels of
    # fluorescence wait there in full
    channels = prepared.parts[0].section.image.channels
    per_pixel = 3.5 if is_rgb(channels) else 2.0 * len(channels)
    require_disk_space(output, int(per_pixel * n_pixels) + BYTES_PER_NONZERO * prepared.cells.counts_NG.nnz)
    with atomic_directory(output, overwrite=overwrite, kind="paired") as folder:
        slides = write_slides(folder, prepared, progress)
        progress("cells", 0, 1)
        cells_hash = write_cells(folder, prepared)
        progress("cells", 1, 1)
        for number in range(len(prepared.parts)):
            _report(folder, prepared, number)
            _write_map(folder, prepared, number)
            progress("alignment report", number + 1, len(prepared.parts))
        write_paired_manifest(folder, prepared, slides, cells_hash)


def _write_map(folder: Path, prepared: Prepared, number: int) -> None:
    applied, part = prepared.maps[number], prepared.parts[number]
    if applied is None:
        return
    suffix = "" if number == 0 else f".{number}"
    applied.write(folder / f"alignment{suffix}.json", folder / f"alignment{suffix}.csv")
    write_registration_report(folder / f"registration{suffix}.png", part.section, applied, toy=prepared.config.toy)


def _report(folder: Path, prepared: Prepared, number: int) -> None:
    part = prepared.parts[number]
    mine = prepared.cells.slide_of_cell == number
    inputs = ReportInputs(
        part=part,
        split=prepared.split[mine],
        cell_type=prepared.labels.names[mine],
        types=type_order(prepared.labels.names),
        record=prepared.alignment[number],
        toy=prepared.config.toy,
    )
    name = "alignment.png" if number == 0 else f"alignment.{number}.png"
    write_report(folder / name, inputs)
