"""Generates a slide: ``slide.ome.tif`` (pyramidal, marked as synthetic), its cells, and how it was made.

:func:`generate_slide` does all of it. Its two halves are :func:`prepare_slide` (checks, encoding, plan) and :func:`render_slide`
(sampling, writing).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sge2hist.data.artifacts import (
    atomic_directory,
    check_output,
    read_json,
    require_disk_space,
    write_json,
    write_manifest,
)
from sge2hist.data.coverage import COVERAGE_NAME, Coverage, write_coverage
from sge2hist.data.errors import InputError, refuse_wrong_arguments
from sge2hist.data.generated import (
    APPLICABILITY,
    CELLS_NAME,
    KIND,
    SLIDE_MODE,
    SLIDE_NAME,
    UNCERTAINTY_NAME,
    GeneratedSlide,
    note_of,
)
from sge2hist.data.output_lock import locks_output
from sge2hist.data.paired import PairedDataset
from sge2hist.data.slides.channels import background_level, is_rgb
from sge2hist.data.slides.glass import glass_colour
from sge2hist.data.slides.slide_writer import write_slide
from sge2hist.generation.applicability import Warn, warn_user
from sge2hist.generation.encode import features_used, protein_reader
from sge2hist.generation.footprints import AUTO, footprints_name
from sge2hist.generation.look import look_of
from sge2hist.generation.slide.edits import Edit, edit_fields, read_edits
from sge2hist.generation.slide.job import Progress, SlideJob, SlideSpec, lattice_of
from sge2hist.generation.slide.layout_source import open_cells
from sge2hist.generation.slide.request import SlideConfig, check_slide, with_footprints
from sge2hist.generation.slide.source import Rectangle, SlideSource
from sge2hist.generation.slide.stand_alone import write_stand_alone
from sge2hist.generation.slide.table import write_slide_cells
from sge2hist.generation.slide.tiling import region_of_part
from sge2hist.generation.slide.written_pixels import (
    UNCERTAINTY_SCALE,
    spread_over_seeds,
    uncertainty_note,
    written_tiles,
)
from sge2hist.models.bundle import ModelBundle, model_folder
from sge2hist.models.image.samplers import SamplerConfig
from sge2hist.progress import bar

if TYPE_CHECKING:
    import anndata

APPLICABILITY_NAME = "applicability.json"  # in the folder of work
DEFAULT_GLASS = (243, 243, 243)


class HasBundle(Protocol):
    """An object with a model bundle, as :class:`sge2hist.SGE2Hist` is."""

    @property
    def bundle(self) -> ModelBundle:
        """The model with its genes and types."""


@refuse_wrong_arguments(
    "slide",
    "section",
    "positions",
    "image_um_per_px",
    "layer",
    "round_counts",
    "region_um",
    "seed",
    "n_seeds",
    "edits",
    "sampler",
    "glass_rgb",
    "part",
    "tile_px",
    "batch",
    "workers",
    "stand_alone",
    "render",
    "footprints",
    "stain_roles",
    "force",
    "overwrite",
    "log",
    "progress",
)
@locks_output()
def generate_slide(
    model: HasBundle | ModelBundle | str | Path,
    source: PairedDataset | anndata.AnnData | SlideSource | str | Path,
    output: str | Path,
    *,
    slide: int | None = None,
    section: str | None = None,
    positions: str = "auto",
    image_um_per_px: float | None = None,
    layer: str | None = None,
    round_counts: bool = False,
    region_um: Rectangle | None = None,
    seed: int = 0,
    n_seeds: int = 1,
    edits: Sequence[Edit] | str | Path = (),
    sampler: SamplerConfig | None = None,
    footprints: str = AUTO,
    glass_rgb: tuple[int, ...] | None = None,
    part: tuple[int, int] | None = None,
    tile_px: int | None = None,
    stand_alone: bool = False,
    batch: int = 64,
    workers: int = 1,
    force: bool = False,
    render: str | None = None,
    stain_roles: str | None = None,
    overwrite: bool = False,
    log: Callable[[str], None] | None = None,
    progress: bool | None = None,
) -> GeneratedSlide:
    """Generate the H&E of a section, or of a region of it, from RNA and positions, as one pyramidal OME-TIFF.

    The same call resumes a run that was stopped.

    Parameters
    ----------
    model
        An `SGE2Hist`, a model folder, or a name such as "pretrained:kidney". A path or name is loaded on the CPU.
    source
        A paired dataset, an AnnData of raw counts with positions in um (obs x_um and y_um), or the path of either; or a layout of
        cell types without counts (:mod:`sge2hist.generation.slide.layout`).
    output
        Folder to write, usually ``X.generated``.
    slide, section
        Number or name of the slide of a paired dataset that holds several; `section` also names one of several sections
        of an AnnData.
    positions, image_um_per_px
        Unit of ``obsm["spatial"]`` of an AnnData: see :func:`~sge2hist.generation.slide.source.source_from_adata`.
    layer, round_counts
        Of an AnnData: where its raw counts are, and whether they are rounded by `seed` (`data.table.cell_table`).
    region_um
        x, y, width, height in um; default: the whole slide.
    seed, n_seeds
        Seed of the noise. Above one seed the first gives the image, and the spread over seed, seed + 1, ... is written too.
    edits
        Changes of cells, or a GeoJSON file of them (:mod:`sge2hist.generation.slide.edits`).
    sampler
        Sampler settings; default: the model's.
    footprints
        How cells are placed: "auto", "outline" or "point" (:func:`~sge2hist.generation.footprints.outlines_to_use`).
    glass_rgb
        Colour of empty glass, 0 to 255, one level per channel; default: that of the training slide.
    part
        (i, n) generates the i-th of n parts only, from 1; :func:`sge2hist.generation.slide.merge.merge_slides` joins them.
    tile_px
        Side of the tiles, px; default: that of the training patches. Larger tiles take less time for a whole section and
        more for a small region; their pixels differ.
    stand_alone
        Generate the region as one canvas with one fixed halo: in seconds, but its pixels depend on the region, and differ from
        those of the slide.
    batch, workers
        Windows run at once, and processes; neither changes the result.
    force
        Generate from cells that the model does not know (see :mod:`sge2hist.generation.applicability`).
    render, stain_roles
        "virtual-he" writes the stains of a fluorescence model as H&E colours; roles of the channels, default: by their names.
    overwrite
        Replace an existing output or unfinished work on another slide.
    log
        Called with one line about the genes that cells and model share, and with a warning if the cells differ from the training
        cells; default: only the warning is given, by Python's `warnings`.
    progress
        Show progress bars; default: in an interactive session.

    Raises
    ------
    InputError
        If an argument cannot be used: see :func:`prepare_slide`.

    Example
    -------
    .. code-block:: python

        import sge2hist
        slide = sge2hist.generate_slide("pretrained:kidney", "kidney.paired", "kidney.generated")
        slide.image.read(0, 0, 512, 512).shape  # (512, 512, 3)
    """
    if stand_alone and tile_px is not None:
        raise InputError(
            found=f"tiles of {tile_px} px and a stand-alone region", expected="one of them: it has no tiles"
        )
    bundle = _open_bundle(model).with_patch_px(tile_px)
    options: dict[str, Any] = {"section": section, "positions": positions, "um_per_px": image_um_per_px}
    options |= {"layer": layer, "round_counts": round_counts, "seed": seed}
    cells = source if isinstance(source, SlideSource) else open_cells(bundle, source, slide, **options)
    warn = warn_user if log is None else (lambda message: log(f"warning: {message}"))
    for warning in cells.warnings:
        warn(warning)
    for note in cells.notes:
        (log or (lambda line: None))(note)
    config = SlideConfig(
        region_um=region_um,
        seed=seed,
        n_seeds=n_seeds,
        sampler=sampler,
        footprints=footprints,
        edits=tuple(read_edits(edits, cells.um_per_edit_unit) if isinstance(edits, str | Path) else edits),
        part=part,
        glass_rgb=glass_rgb,
        batch=batch,
        workers=workers,
        force=force,
        stand_alone=stand_alone,
        render=render,
        stain_roles=stain_roles,
    )
    if stand_alone:
        report = write_stand_alone(bundle, cells, output, config, overwrite=overwrite, warn=warn)
        if log is not None:
            log(report)
        return GeneratedSlide.open(output)
    with bar("encoding cells", None, show=progress) as advance:
        job = prepare_slide(bundle, cells, output, config, overwrite=overwrite, progress=advance, warn=warn)
    if log is not None:
        log(job.report)
    with bar("windows", job.n_windows, show=progress) as advance:
        render_slide(job, cells, output, config, overwrite=overwrite, progress=advance)
    return GeneratedSlide.open(output)


def _open_bundle(model: HasBundle | ModelBundle | str | Path) -> ModelBundle:
    if isinstance(model, str | Path):
        return ModelBundle.load(model_folder(model))
    bundle = model if isinstance(model, ModelBundle) else getattr(model, "bundle", None)
    if not isinstance(bundle, ModelBundle):
        raise InputError(
            found=f"a model of type {type(model).__name__}",
            expected="an SGE2Hist, a model folder, or a name such as pretrained:kidney",
        )
    return bundle


@locks_output()
def prepare_slide(
    bundle: ModelBundle,
    source: SlideSource,
    output: str | Path,
    config: SlideConfig,
    *,
    overwrite: bool = False,
    progress: Progress = lambda n: None,
    warn: Warn = warn_user,
) -> SlideJob:
    """Check everything, encode the cells and plan the work, or find unfinished work for this output.

    `progress` counts cells, as :func:`sge2hist.generation.slide.cells.write_cells` does; `warn` is called if the cells differ
    from those that the model was trained on.

    Raises
    ------
    InputError
        If the output exists, the region is empty or not on the slide, the model takes no positions or does not know such cells
        (:func:`sge2hist.generation.applicability.check_cells`), an edit names an unknown type
        or gene, or other work for this output is unfinished (`overwrite` throws it away).
    """
    output = Path(output)
    check_output(output, overwrite=overwrite, kind=KIND)
    region, applicability = check_slide(bundle, source, config, warn)
    source = with_footprints(bundle, source, config.footprints)
    if config.part is not None:
        lattice = lattice_of(bundle)
        region = region_of_part(region, config.part, lattice.block_side * lattice.downsampling)
    edits = list(config.edits)
    require_disk_space(output, (4 + 4 * config.n_seeds) * len(bundle.config.channels) // 3 * region[2] * region[3])
    spec = SlideSpec(
        region_px=region,
        seeds=tuple(config.seed + i for i in range(config.n_seeds)),
        sampler=config.sampler or bundle.config.sampler,
        glass_rgb=config.glass_rgb or glass_of(bundle, source),
        model=bundle.fingerprint,
        data=str(source.manifest["data_fingerprint"]),
        edits=tuple(edit.fingerprint() for edit in edits),
        footprints=footprints_name(source.outline_um_NV2),
    )
    job = SlideJob.prepare(
        work_folder(output), bundle, source, edits, spec, config.batch, fresh=overwrite, progress=progress
    )
    write_json(job.folder / APPLICABILITY_NAME, applicability.as_dict())
    return job


def work_folder(output: Path) -> Path:
    """Folder of the unfinished work for an output: beside it, hidden."""
    return output.with_name(f".{output.name}.work")


def glass_of(bundle: ModelBundle, source: SlideSource) -> tuple[int, ...]:
    """Colour of empty glass: as in training, else of the slide if the model was trained on it, else near white, or black."""
    known = bundle.provenance.get("glass_rgb")
    if known is not None:
        return tuple(int(value) for value in known)
    trained_on_it = bundle.provenance.get("data_fingerprint") == source.manifest["data_fingerprint"]
    found = glass_colour(source.image()) if trained_on_it and source.image is not None else None
    channels = bundle.config.channels
    return found or (DEFAULT_GLASS if is_rgb(channels) else (background_level(channels),) * len(channels))


@locks_output()
def render_slide(
    job: SlideJob,
    source: SlideSource,
    output: str | Path,
    config: SlideConfig,
    *,
    overwrite: bool = False,
    progress: Progress = lambda n: None,
) -> Path:
    """Sample a prepared slide and write it. Returns the path of ``slide.ome.tif``. `progress` counts windows."""
    job.run(workers=config.workers, progress=progress)
    output = Path(output)
    _, _, width, height = job.spec.region_px
    um_per_px = job.bundle.config.um_per_px
    with atomic_directory(output, overwrite=overwrite, kind=KIND) as partial:
        first = job.worker(job.spec.seeds[0])
        look = look_of(job.bundle, config.render, config.stain_roles)
        tiles = written_tiles(job, lambda tile: look.apply(np.load(first.output_file(tile))), len(look.channels))
        write_slide(
            partial / SLIDE_NAME,
            tiles,
            um_per_px,
            shape=(height, width),
            description=note_of(look.manifest),
            channels=look.channels,
        )
        if config.n_seeds > 1:
            spread = written_tiles(job, lambda tile: spread_over_seeds(job, tile), n_channels=3)
            note = uncertainty_note(config.n_seeds)
            write_slide(partial / UNCERTAINTY_NAME, spread, um_per_px, shape=(height, width), description=note)
        write_slide_cells(partial / CELLS_NAME, job, source, list(config.edits))
        coverage = _coverage(job)
        write_coverage(partial / COVERAGE_NAME, coverage.geojson(um_per_px))
        write_manifest(
            partial, KIND, **_manifest(job, source, config), **look.manifest, covered_share=round(coverage.share, 4)
        )
    shutil.rmtree(job.folder)
    return output / SLIDE_NAME


def _coverage(job: SlideJob) -> Coverage:
    """Where the slide has cells; beyond it is glass."""
    x, y, width, height = (value * job.bundle.config.um_per_px for value in job.spec.region_px)
    positions = [cells.xy_um_M2 - (x, y) for cells in job.cells.in_source_order()]
    return Coverage(np.concatenate([np.empty((0, 2)), *positions]), (width, height))


def _manifest(job: SlideJob, source: SlideSource, config: SlideConfig) -> dict[str, Any]:
    """Fields of the manifest of a slide."""
    bundle, spec = job.bundle, job.spec
    um = bundle.config.um_per_px
    return {
        **source.manifest,
        "synthetic": True,
        "mode": SLIDE_MODE,
        "slide": source.slide,
        "region_um": [value * um for value in spec.region_px],
        "region_px": list(spec.region_px),
        "model_fingerprint": spec.model,
        "trained_on": bundle.trained_on,
        "um_per_px": um,
        "sampler": asdict(spec.sampler),
        "window_step_um": job.lattice.tile_side * job.lattice.um_per_latent_px,
        "lattice": job.lattice.fingerprint(len(job.steps)),
        "network_px": job.lattice.downsampling * bundle.config.image.unet.shrinking,
        "footprints": spec.footprints,
        "seed": spec.seeds[0],
        "n_seeds": len(spec.seeds),
        "uncertainty_scale": UNCERTAINTY_SCALE,
        "glass_rgb": list(spec.glass_rgb),
        "edits": [edit_fields(edit) for edit in config.edits],
        APPLICABILITY: read_json(job.folder / APPLICABILITY_NAME),
        "part": None if config.part is None else list(config.part),
        "toy": bundle.is_toy or bool(source.manifest.get("toy")),
        **features_used(bundle, protein_reader(bundle, source)),
        "n_images": 0,
    }
