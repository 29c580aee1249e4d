"""A region of a section as one stand-alone canvas (`generation.slide.canvas`): in memory, or as a generated slide."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from sge2hist.data.artifacts import atomic_directory, check_output, write_manifest
from sge2hist.data.coverage import COVERAGE_NAME, Coverage, write_coverage
from sge2hist.data.errors import InputError
from sge2hist.data.generated import APPLICABILITY, CELLS_NAME, KIND, SLIDE_MODE, SLIDE_NAME, note_of
from sge2hist.data.slides.slide_writer import TILE_PX, write_slide
from sge2hist.generation.applicability import Warn, warn_user
from sge2hist.generation.encode import features_used, protein_reader
from sge2hist.generation.footprints import footprints_name
from sge2hist.generation.look import Look, look_of
from sge2hist.generation.slide.canvas import RegionPx, canvas_area, canvas_pixels, canvas_um, sample_canvas
from sge2hist.generation.slide.edited_source import EditedSource
from sge2hist.generation.slide.edits import edit_fields
from sge2hist.generation.slide.job import lattice_of
from sge2hist.generation.slide.nearby_cells import NearbyCells, encode_nearby, inside_box
from sge2hist.generation.slide.request import SlideConfig, check_slide, with_footprints
from sge2hist.generation.slide.source import SlideSource
from sge2hist.generation.slide.table import TableRows, writing_table
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.samplers import SamplerConfig, Visit

MAX_WEIGHTS = 60_000_000  # cells times latent pixels of a canvas: the network spreads every cell over all of it


class StandAloneRegion:
    """A region (x, y, width, height in px) of a section after edits, with the cells that condition it.

    Raises
    ------
    InputError
        If the canvas is too large for the memory that its cells would take.
    """

    def __init__(self, bundle: ModelBundle, edited: EditedSource, region_px: RegionPx) -> None:
        self.bundle, self.region_px = bundle, region_px
        lattice, network = lattice_of(bundle), 2 ** (len(bundle.config.image.unet.channels) - 1)
        self.area = canvas_area(lattice, region_px, network)
        self.um_per_latent_px = lattice.um_per_latent_px
        x, y, width, height = canvas_um(lattice, self.area, bundle.config.receptive_radius_um)
        centre, half = np.array([x + width / 2, y + height / 2]), (width / 2, height / 2)
        n = int(inside_box(edited.xy_um_N2, centre, np.array(half)).sum())
        if max(n, 1) * self.area.width * self.area.height > MAX_WEIGHTS:
            um = bundle.config.um_per_px
            raise InputError(
                found=f"a stand-alone region of {region_px[2] * um:.0f} x {region_px[3] * um:.0f} um with {n:,} cells",
                expected="a smaller one",
                repair="generate-slide without --stand-alone takes regions of any size",
            )
        self.cells: NearbyCells = encode_nearby(bundle, edited, centre, half)

    def generate(self, seed: int, sampler: SamplerConfig, visit: Visit | None = None) -> np.ndarray:
        """The image, uint8 [H, W, C]; `visit` as of :func:`sge2hist.models.image.samplers.sample`."""
        corner = np.array([self.area.left, self.area.top]) * self.um_per_latent_px
        latents = sample_canvas(self.bundle, self.cells.placed(corner), self.area, seed, sampler, visit)
        return canvas_pixels(self.bundle, latents, self.area, self.region_px, seed)


def write_stand_alone(
    bundle: ModelBundle,
    source: SlideSource,
    output: str | Path,
    config: SlideConfig,
    *,
    overwrite: bool = False,
    warn: Warn = warn_user,
) -> str:
    """Generate a region as one canvas into a folder ``X.generated``; returns one line about the genes that were found.

    Raises
    ------
    InputError
        As :func:`~sge2hist.generation.slide.render.prepare_slide` does, if no region is given, or if it is too large.
    """
    output = Path(output)
    check_output(output, overwrite=overwrite, kind=KIND)
    if config.region_um is None or config.part is not None or config.n_seeds != 1:
        raise InputError(
            found="a stand-alone region "
            + ("without a region" if config.region_um is None else "in parts or of seeds"),
            expected="one region and one seed",
            repair="--region x,y,width,height",
        )
    region_px, applicability = check_slide(bundle, source, config, warn)
    look = look_of(bundle, config.render, config.stain_roles)
    source = with_footprints(bundle, source, config.footprints)
    edited = EditedSource(source, config.edits)
    region = StandAloneRegion(bundle, edited, region_px)
    sampler = config.sampler or bundle.config.sampler
    image = region.generate(config.seed, sampler)
    um = bundle.config.um_per_px
    with atomic_directory(output, overwrite=overwrite, kind=KIND) as partial:
        write_region_image(partial / SLIDE_NAME, image, bundle, look)
        with writing_table(partial / CELLS_NAME) as table:
            table.add(_table_rows(bundle, edited, region, config.seed))
        corner_um, size_um = np.array(region_px[:2]) * um, (region_px[2] * um, region_px[3] * um)
        coverage = Coverage(region.cells.xy_um_M2 - corner_um, size_um)
        write_coverage(partial / COVERAGE_NAME, coverage.geojson(um))
        facts = {
            "synthetic": True,
            "mode": SLIDE_MODE,
            "slide": source.slide,
            "region_um": [value * um for value in region_px],
            "region_px": list(region_px),
            "model_fingerprint": bundle.fingerprint,
            "trained_on": bundle.trained_on,
            "um_per_px": um,
            **look.manifest,
            "sampler": asdict(sampler),
            "stand_alone": True,
            "footprints": footprints_name(source.outline_um_NV2),
            "seed": config.seed,
            "n_seeds": 1,
            "edits": [edit_fields(edit) for edit in config.edits],
            APPLICABILITY: applicability.as_dict(),
            "part": None,
            "toy": bundle.is_toy or bool(source.manifest.get("toy")),
            **features_used(bundle, protein_reader(bundle, source)),
            "n_images": 0,
            "covered_share": round(coverage.share, 4),
        }
        write_manifest(partial, KIND, **{**source.manifest, **facts})
    return region.cells.report


def write_region_image(path: Path, image_HWC: np.ndarray, bundle: ModelBundle, look: Look | None = None) -> None:
    """Write an image that the model generated as a pyramidal OME-TIFF that is marked as synthetic; `look`: that of the model."""
    look = look or look_of(bundle)
    image_HWC = look.apply(image_HWC)
    height, width, n_channels = image_HWC.shape

    def tiles() -> Iterator[np.ndarray]:
        for top in range(0, height, TILE_PX):
            for left in range(0, width, TILE_PX):
                part = image_HWC[top : top + TILE_PX, left : left + TILE_PX]
                tile = np.full((TILE_PX, TILE_PX, n_channels), 255, np.uint8)
                tile[: part.shape[0], : part.shape[1]] = part
                yield tile

    note, um_per_px = note_of(look.manifest), bundle.config.um_per_px
    write_slide(path, tiles(), um_per_px, shape=(height, width), description=note, channels=look.channels)


def _table_rows(bundle: ModelBundle, edited: EditedSource, region: StandAloneRegion, seed: int) -> TableRows:
    """The cells inside the region."""
    x, y, width, height = region.region_px
    cells, source = region.cells, edited.source
    xy_px = cells.xy_um_M2 / bundle.config.um_per_px - (x, y)
    inside = np.asarray(((xy_px >= 0) & (xy_px < (width, height))).all(1))
    at, is_added = cells.source_M[inside], cells.source_M[inside] < 0
    types = np.full(len(at), "", object)
    if source.type_N is not None:
        types[~is_added] = source.type_N[at[~is_added]]
    else:
        types[~is_added] = np.array(bundle.types.names, object)[cells.type_M[inside][~is_added]]
    edited.set_type_names(bundle, at, types)
    ids = np.full(len(at), "", object)
    ids[~is_added] = source.id_N[at[~is_added]]
    ids[is_added] = [f"added_{number}" for number in range(int(is_added.sum()))]
    for code in np.unique(at[is_added]):
        types[at == code] = bundle.canonical_type_name(str(edited.edits[-1 - code].add_type))
    return TableRows(
        id_N=ids,
        type_N=types,
        edited_N=is_added | edited.is_edited(at),
        seed_N=np.full(len(at), seed, np.int64),
        xy_px_N2=xy_px[inside],
        xy_um_N2=cells.xy_um_M2[inside],
    )
