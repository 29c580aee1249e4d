"""Cells of any reader put on an image by a map: one that a file states, or one that is found (`--alignment auto`)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sge2hist.data.artifacts import write_json
from sge2hist.data.errors import InputError
from sge2hist.data.position_frame import FrameFacts, factor_to_px, spacing_of
from sge2hist.data.section import Section
from sge2hist.data.slides.channels import ALL, nuclear_channel
from sge2hist.data.slides.slide_image import SlideImage
from sge2hist.pairing.alignment.automatic import Registration, register
from sge2hist.pairing.alignment.block_matching import apply_map, scale_of
from sge2hist.pairing.alignment.cross_validation import MAX_TILE_UM
from sge2hist.pairing.alignment.image_checks import SIZE_TOLERANCE, share_inside
from sge2hist.pairing.alignment.nuclear_map import ImageNuclei, NuclearSource, PointNuclei
from sge2hist.pairing.alignment.verdict import REFUSE_UM, WARN_UM
from sge2hist.readers.alignment_file import KIND, MATRIX_KEY, read_alignment_file, refuse_other_reading
from sge2hist.readers.tenx.xenium import find_morphology
from sge2hist.readers.tenx.xenium_alignment import IDENTITY

AUTO = "auto"
NUCLEUS_UM = 3.0  # standard deviation of the Gaussian that stands for a nucleus
TYPICAL_SPACING_UM = 8.0  # distance to the nearest cell, where nothing states the unit of the positions
MAX_POINTS = 400_000  # finer bins are summed
XENIUM = "Xenium"
MIN_ON_REFERENCE = 0.9  # share of the cells that lie on the DAPI image of their own run


@dataclass(frozen=True, kw_only=True)
class ImageMap:
    """The map that was applied."""

    image_to_cells: np.ndarray  # float64 [3, 3]: px of the image -> frame of the cells
    unit: str  # of that frame
    um_per_unit: float | None  # None where nothing states it
    source: str
    registration: Registration | None  # where it was found automatically
    image: dict[str, Any]  # name, size and scale
    moved_um: tuple[float, float] | None = None  # median and most, of positions stated for this image; None: none were

    def summary(self) -> dict[str, Any]:
        """Everything, for `alignment.json` and the manifest."""
        found = self.registration
        return {
            "kind": KIND,
            "version": 1,
            MATRIX_KEY: self.image_to_cells.tolist(),
            "direction": "(x, y, 1) in px of the image -> (x, y, 1) in the frame of the cells; x = column, y = row",
            "unit_of_cells": self.unit,
            "um_per_unit": self.um_per_unit,
            "source": self.source,
            "image": self.image,
            "moved_um": None if self.moved_um is None else {"median": self.moved_um[0], "most": self.moved_um[1]},
            "evidence": None if found is None else found.evidence.summary(),
            "search": None if found is None else {"score": found.score, "runner_up": found.runner_up},
        }

    def warnings(self) -> list[str]:
        """What a user has to decide: pixels are too coarse to see nuclei, or stated positions were replaced by ones near by."""
        found = []
        if self.registration is not None and self.registration.evidence.tile_um > MAX_TILE_UM:
            found.append(
                f"registered on pixels of {self.registration.evidence.tile_um:.0f} um, the finest that cells and image show: "
                "single nuclei are not seen, and a serial section would fit as well. Check that the image shows this very section"
            )
        if self.moved_um is not None and WARN_UM <= self.moved_um[0] < REFUSE_UM:
            median, most = self.moved_um
            found.append(
                f"registration moves the positions stated for this image by {median:.0f} um (median; at most {most:.0f} um). "
                "Counts are not nuclei: prepare without --alignment as well, and keep the map whose alignment.png fits better"
            )
        return found

    def write(self, json_path: Path, csv_path: Path) -> None:
        """`alignment.json`, and the matrix alone as Xenium Explorer reads it: 3 lines of 3 numbers, no header."""
        write_json(json_path, self.summary())
        np.savetxt(csv_path, self.image_to_cells, delimiter=",", fmt="%.12g")


def map_section(
    section: Section,
    alignment: str | Path,
    *,
    positions: str = "auto",
    um_per_px: float | None = None,
    folder: Path | None = None,
) -> tuple[Section, ImageMap]:
    """The section with positions in px of its image, by a file or by registration.

    Parameters
    ----------
    alignment
        "auto", or a file (see `readers.alignment_file`).
    positions
        Unit of the positions, where the format states none (`data.position_frame.POSITIONS`).
    um_per_px
        Of the image, as the user states it; None: by the map, where the unit of the cells is known, else as the image states.
    folder
        What the section was read from: the DAPI image of a Xenium run is found in it.

    Raises
    ------
    InputError
        If the file cannot be read or puts the cells off the image, or no map is beyond doubt.
    """
    um_per_unit, is_known = _unit_of(section, positions)
    if not is_known and um_per_px is None and section.image.um_per_px is None:
        raise InputError(
            found="neither um per px of the image nor the unit of the positions",
            where=section.name,
            repair="give --image-um-per-px, or --positions um",
        )
    if str(alignment) == AUTO:
        matrix, source, registration = _found(section, um_per_unit, is_known, um_per_px, folder)
    else:
        matrix, source = _stated(section, alignment)
        registration = None
    scale = scale_of(matrix)  # px of the image per unit of the cells
    by_map = {"alignment": um_per_unit / scale} if is_known else {}
    by_file = {} if section.image.um_per_px is None else {"image metadata": section.image.um_per_px}
    by_user = {} if um_per_px is None else {"--image-um-per-px": um_per_px}
    sources = {**by_user, **by_map, **by_file}
    used = next(iter(sources.values()))
    moved_um = None
    if registration is not None and _states_pixels(section):
        length_um = np.linalg.norm(apply_map(matrix, section.centre_xy_px) - section.centre_xy_px, axis=1) * used
        moved_um = float(np.median(length_um)), float(length_um.max())
    applied = ImageMap(
        image_to_cells=np.linalg.inv(matrix),
        unit=_name_of_unit(section, positions),
        um_per_unit=um_per_unit if is_known else used * scale,
        source=source,
        registration=registration,
        image={
            "name": section.image.path.name,
            "width_px": section.image.width_px,
            "height_px": section.image.height_px,
            "um_per_px": used,
        },
        moved_um=moved_um,
    )
    moved = dataclasses.replace(
        section.moved(lambda xy: apply_map(matrix, xy)),
        um_per_px=used,
        um_per_px_sources=sources,
        frame_facts=None,
        needs_map=None,
        reference=None,
        notes=[
            *(note.partition("; image aligned by")[0] for note in section.notes),
            f"cells put on the image by {source}",
        ],
    )
    return moved, applied


def _states_pixels(section: Section) -> bool:
    """Whether the positions are stated in px of the image, by an instrument or a store."""
    return section.technology != XENIUM and section.frame_facts is None and section.needs_map is None


def _unit_of(section: Section, positions: str) -> tuple[float, bool]:
    """Um per unit of the positions, and whether that is known rather than guessed from their spacing."""
    if section.technology == XENIUM:
        return section.um_per_px_sources["alignment"], True
    facts = section.frame_facts
    if facts is None:
        return section.um_per_px, True
    if positions == "um":
        return 1.0, True
    if positions != "auto" and facts.um_per_px is not None:
        return facts.um_per_px * factor_to_px(positions, facts, facts.um_per_px, section.name), True
    return _guess(section, facts), False


def _guess(section: Section, facts: FrameFacts) -> float:
    spacing = spacing_of(section.centre_xy_px)
    if spacing is None or spacing.nearest <= 0:
        return 1.0
    return (facts.bin_um or TYPICAL_SPACING_UM) / spacing.nearest


def _name_of_unit(section: Section, positions: str) -> str:
    if section.technology == XENIUM:
        return "px of the DAPI image"
    if section.needs_map is not None:
        return section.needs_map
    if section.frame_facts is None:
        return "px of the image that the instrument's software was given"
    return "numbers of the table" + ("" if positions == "auto" else f", {positions}")


def _stated(section: Section, path: str | Path) -> tuple[np.ndarray, str]:
    """The map of a file, cells -> image, and its description."""
    if str(path) == IDENTITY:
        return np.eye(3), "no alignment (identity)"
    stated = read_alignment_file(path)
    image = section.image
    to_cells = stated.image_to_cells
    if stated.image_size_px is not None:
        factors = np.array([image.width_px, image.height_px]) / stated.image_size_px
        if abs(factors[0] / factors[1] - 1) > SIZE_TOLERANCE:
            width, height = stated.image_size_px
            raise InputError(
                found=f"an image of {image.width_px} x {image.height_px} px",
                where=str(image.path),
                expected=f"the image of {width} x {height} px that {path} was made for, or a scaled copy of it",
                repair="give that image, or --alignment auto",
            )
        to_cells = to_cells @ np.diag([*(1 / factors), 1.0])

    def lands(matrix: np.ndarray) -> float:
        return share_inside(apply_map(np.linalg.inv(matrix), section.centre_xy_px), image.width_px, image.height_px)

    refuse_other_reading(lands, to_cells, str(path))
    return np.linalg.inv(to_cells), stated.description


def _found(
    section: Section, um_per_unit: float, is_known: bool, um_per_px: float | None, folder: Path | None
) -> tuple[np.ndarray, str, Registration]:
    stated_um = um_per_px or section.image.um_per_px
    reference, name = _reference(section, um_per_unit, folder)
    found = register(
        reference,
        ImageNuclei(section.image, stated_um or _same_area(reference, section.image)),
        n_cells=section.n_obs,
        scale_is_stated=is_known and stated_um is not None,
        where=str(section.image.path),
    )
    evidence = found.evidence
    source = (
        f"registration against {name}: {evidence.n_agreeing} of {evidence.n_tiles} tiles agree, residual "
        f"{evidence.residual_um:.2f} um, uncertainty {evidence.uncertainty_um:.2f} um"
    )
    return found.matrix, source, found


def _same_area(reference: NuclearSource, slide: SlideImage) -> float:
    """A guess of um per px: the image covers the cells."""
    overview = reference.overview()
    area_um2 = overview.known_HW.sum() * (overview.step * reference.um_per_unit) ** 2
    return float(np.sqrt(area_um2 / (slide.width_px * slide.height_px)))


def _reference(section: Section, um_per_unit: float, folder: Path | None) -> tuple[NuclearSource, str]:
    """What the image is registered to: the DAPI image of a Xenium run, else the positions."""
    if section.technology == XENIUM and folder is not None:
        dapi = _dapi_image(section, folder)
        if dapi is not None:
            return ImageNuclei(dapi, um_per_unit), f"the DAPI image {dapi.path.name}"
    xy, weight = section.centre_xy_px, None
    sigma_um = NUCLEUS_UM
    if section.observation != "cell":
        side_um = section.observation_um or um_per_unit * _spacing(xy)
        sigma_um = max(NUCLEUS_UM, side_um if section.observation == "bin" else side_um / 2)
        xy, weight = _weighted(section)
    return (
        PointNuclei(xy, um_per_unit, sigma_um=sigma_um, weight_N=weight),
        f"the positions of {section.n_obs:,} {section.observation}s",
    )


def _spacing(xy: np.ndarray) -> float:
    spacing = spacing_of(xy)
    return 1.0 if spacing is None else spacing.nearest


def _weighted(section: Section) -> tuple[np.ndarray, np.ndarray]:
    """Positions of bins or spots and their UMI, capped; summed on a grid where there are very many."""
    if section.read_totals is not None:
        totals = section.read_totals().astype(np.float64)
    else:
        totals = np.asarray(section.read_counts(None, None).sum(axis=1), np.float64).ravel()
    totals = np.minimum(totals, np.quantile(totals, 0.995))
    xy = section.centre_xy_px
    if len(xy) <= MAX_POINTS:
        return xy, totals
    side = float(np.sqrt(np.prod(np.ptp(xy, axis=0)) / MAX_POINTS))
    column, row = np.floor((xy - xy.min(axis=0)) / side).astype(np.int64).T
    square = row * (int(column.max()) + 1) + column
    _, inverse = np.unique(square, return_inverse=True)
    number = np.bincount(inverse)
    centre = np.stack([np.bincount(inverse, xy[:, k]) for k in (0, 1)], axis=1) / number[:, None]
    return centre, np.bincount(inverse, totals)


def _dapi_image(section: Section, folder: Path) -> SlideImage | None:
    """The nuclear stain of the run; None where there is none, it cannot be read, or it is the image itself."""
    path = find_morphology(folder)
    if path is None or path.resolve() == section.image.path.resolve():
        return None
    try:
        channels = SlideImage.open(path, channels=ALL).channels
        slide = SlideImage.open(path, channels=(channels[nuclear_channel(channels)],))
    except InputError:  # registered to the positions then, as the log says
        return None
    inside = share_inside(section.centre_xy_px, slide.width_px, slide.height_px)
    return slide if inside >= MIN_ON_REFERENCE else None
