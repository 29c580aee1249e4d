"""A generated slide on disk: ``slide.ome.tif`` (pyramidal, marked synthetic), its cells, and how it was made."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sge2hist.data.artifacts import atomic_directory, check_output, require_disk_space, write_manifest
from sge2hist.data.errors import InputError
from sge2hist.data.generated import CELLS_NAME, KIND, SLIDE_MODE, SLIDE_NAME, UNCERTAINTY_NAME
from sge2hist.data.slides.channels import background_level, is_rgb, require_same_channels
from sge2hist.data.slides.glass import glass_colour
from sge2hist.data.slides.slide_writer import TILE_PX, write_slide
from sge2hist.generation.slide.edits import Edit, check_edits
from sge2hist.generation.slide.job import Progress, SlideJob, SlideSpec, lattice_of
from sge2hist.generation.slide.source import Rectangle, SlideSource, region_px
from sge2hist.generation.slide.table import write_slide_cells
from sge2hist.generation.slide.tiling import Block
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.image_model import SamplerConfig

NOTE = "synthetic image generated from gene expression by sge2hist; not for diagnosis"
UNCERTAINTY_SCALE = 4  # stored grey levels per grey level of spread
DEFAULT_GLASS = (243, 243, 243)


@dataclass(frozen=True, kw_only=True)
class SlideConfig:
    """How a slide is drawn."""

    region_um: Rectangle | None = None  # x, y, width, height; None: all of it
    seed: int = 0
    n_seeds: int = 1  # above 1: the spread over so many seeds is written too
    sampler: SamplerConfig | None = None  # None: the model's
    edits: tuple[Edit, ...] = ()
    part: tuple[int, int] | None = None  # (i, n): the i-th of n parts, from 1
    glass_rgb: tuple[int, ...] | None = None  # one level per channel; None: of the training slide
    batch: int = 64  # windows run at once
    workers: int = 1  # processes

    def __post_init__(self) -> None:
        if self.n_seeds < 1 or self.batch < 1 or self.workers < 1:
            raise ValueError("n_seeds, batch and workers must be at least 1")
        if self.seed < 0:
            raise ValueError("seed must be at least 0")
        if self.part is not None and not 1 <= self.part[0] <= self.part[1]:
            raise ValueError(f"part {self.part[0]} of {self.part[1]}")


def prepare_slide(
    bundle: ModelBundle,
    source: SlideSource,
    output: str | Path,
    config: SlideConfig,
    *,
    overwrite: bool = False,
    progress: Progress = lambda n: None,
) -> SlideJob:
    """Check everything, encode the cells and plan the work, or find it half done by an earlier, killed run.

    `progress` counts cells, as :func:`sge2hist.generation.slide.cells.write_cells` does.

    Raises
    ------
    InputError
        If the output exists, the region is empty or off the slide, the model knows no places, an edit names what is not there,
        or other work for this output is unfinished (`overwrite` throws it away).
    """
    output = Path(output)
    check_output(output, overwrite=overwrite, kind=KIND)
    if source.channels is not None:
        require_same_channels(source.channels, bundle.config.channels, where=source.slide)
    sampler = config.sampler or bundle.config.sampler
    if bundle.config.image.condition.form != "map":
        raise InputError(
            found=f"a model of preset {bundle.config.preset}, which is told one cell and no places",
            expected="a model of placed cells, for a slide",
        )
    edits = list(config.edits)
    check_edits(edits, bundle, source.genes, source.xy_um_N2)
    region = region_px(source, config.region_um, bundle.config.um_per_px)
    if config.part is not None:
        region = part_of(region, config.part, lattice_of(bundle).block * lattice_of(bundle).pixels)
    require_disk_space(output, (4 + 4 * config.n_seeds) * len(bundle.config.channels) // 3 * region[2] * region[3])
    drawing = SlideSpec(
        region_px=region,
        seeds=tuple(config.seed + i for i in range(config.n_seeds)),
        sampler=sampler,
        glass_rgb=config.glass_rgb or glass_of(bundle, source),
        model=bundle.fingerprint,
        data=str(source.manifest["data_fingerprint"]),
        edits=tuple(edit.fingerprint() for edit in edits),
    )
    return SlideJob.prepare(
        work_folder(output), bundle, source, edits, drawing, config.batch, fresh=overwrite, progress=progress
    )


def render_slide(
    job: SlideJob,
    source: SlideSource,
    output: str | Path,
    config: SlideConfig,
    *,
    overwrite: bool = False,
    progress: Progress = lambda n: None,
) -> Path:
    """Draw a prepared slide and write it. Returns the path of ``slide.ome.tif``. `progress` counts windows."""
    job.run(workers=config.workers, progress=progress)
    output = Path(output)
    _, _, width, height = job.drawing.region_px
    um_per_px = job.bundle.config.um_per_px
    with atomic_directory(output, overwrite=overwrite, kind=KIND) as partial:
        first = job.work(job.drawing.seeds[0])
        tiles = region_tiles(job, lambda tile: np.load(first.tile_path(tile)))
        channels = job.bundle.config.channels
        write_slide(partial / SLIDE_NAME, tiles, um_per_px, shape=(height, width), description=NOTE, channels=channels)
        if config.n_seeds > 1:
            spread = region_tiles(job, lambda tile: _spread(job, tile), n_channels=3)
            note = uncertainty_note(config.n_seeds)
            write_slide(partial / UNCERTAINTY_NAME, spread, um_per_px, shape=(height, width), description=note)
        write_slide_cells(partial / CELLS_NAME, job, source, list(config.edits))
        write_manifest(partial, KIND, **slide_manifest(job, source, config))
    shutil.rmtree(job.folder)
    return output / SLIDE_NAME


def generate_slide(
    bundle: ModelBundle,
    source: SlideSource,
    output: str | Path,
    config: SlideConfig | None = None,
    *,
    overwrite: bool = False,
    progress: Progress = lambda n: None,
) -> Path:
    """:func:`prepare_slide` and :func:`render_slide` in one: the H&E of a section, or of a region of it, from RNA and positions."""
    config = config or SlideConfig()
    job = prepare_slide(bundle, source, output, config, overwrite=overwrite)
    return render_slide(job, source, output, config, overwrite=overwrite, progress=progress)


def slide_manifest(job: SlideJob, source: SlideSource, config: SlideConfig) -> dict[str, Any]:
    """What the manifest of a slide says."""
    bundle, drawing = job.bundle, job.drawing
    um = bundle.config.um_per_px
    return {
        **source.manifest,
        "synthetic": True,
        "mode": SLIDE_MODE,
        "slide": source.slide,
        "region_um": [value * um for value in drawing.region_px],
        "region_px": list(drawing.region_px),
        "model_fingerprint": drawing.model,
        "um_per_px": um,
        "channels": bundle.config.channels,
        "sampler": asdict(drawing.sampler),
        "window_step_um": job.lattice.step * job.lattice.um,
        "lattice": job.lattice.told(len(job.steps)),
        "network_px": job.lattice.pixels * 2 ** (len(bundle.config.image.unet.channels) - 1),  # its coarsest pixel
        "seed": drawing.seeds[0],
        "n_seeds": len(drawing.seeds),
        "uncertainty_scale": UNCERTAINTY_SCALE,
        "glass_rgb": list(drawing.glass_rgb),
        "edits": [_told(edit) for edit in config.edits],
        "part": None if config.part is None else list(config.part),
        "toy": bundle.is_toy or bool(source.manifest.get("toy")),
        "n_images": 0,
    }


def _told(edit: Edit) -> dict[str, Any]:
    told = {name: value for name, value in asdict(replace(edit, area=None)).items() if name != "area"}
    return {**told, "polygon_um": None if edit.area is None else edit.area.wkt}


def uncertainty_note(n_seeds: int) -> str:
    """What the picture of the uncertainty says of itself."""
    return f"spread over {n_seeds} seeds, {UNCERTAINTY_SCALE} per grey level; {NOTE}"


def work_folder(output: Path) -> Path:
    """Where the unfinished work for an output lies: beside it, hidden."""
    return output.with_name(f".{output.name}.work")


def glass_of(bundle: ModelBundle, source: SlideSource) -> tuple[int, ...]:
    """Colour of glass: as the model was told in training, else of the slide it was trained on, else near white, or black."""
    known = bundle.provenance.get("glass_rgb")
    if known is not None:
        return tuple(int(value) for value in known)
    own = bundle.provenance.get("data_fingerprint") == source.manifest["data_fingerprint"]
    found = glass_colour(source.image()) if own and source.image is not None else None
    channels = bundle.config.channels
    return found or (DEFAULT_GLASS if is_rgb(channels) else (background_level(channels),) * len(channels))


def part_of(region: tuple[int, int, int, int], part: tuple[int, int], block_px: int) -> tuple[int, int, int, int]:
    """The rows of a region (px) that the i-th of n parts draws; parts meet where blocks do.

    Raises
    ------
    InputError
        If there are more parts than rows of blocks.
    """
    x, y, width, height = region
    first, last = y // block_px, -(-(y + height) // block_px)
    (i, n), rows = part, last - first
    if n > rows:
        raise InputError(
            found=f"--part {i}/{n}", expected=f"at most {rows} parts: the region has {rows} rows of blocks"
        )
    top = max(y, (first + (i - 1) * rows // n) * block_px)
    bottom = min(y + height, (first + i * rows // n) * block_px)
    return x, top, width, bottom - top


def region_tiles(
    job: SlideJob, read: Callable[[Block], np.ndarray], n_channels: int | None = None
) -> Iterator[np.ndarray]:
    """Tiles of the written slide, uint8 [TILE_PX, TILE_PX, C] (C: the model's unless told), row-major, cut from the lattice's."""
    x, y, width, height = job.drawing.region_px
    size = job.plan.tile * job.lattice.pixels
    n_channels = n_channels or len(job.bundle.config.channels)
    for top in range(y, y + height, TILE_PX):
        for left in range(x, x + width, TILE_PX):
            bottom, right = min(top + TILE_PX, y + height), min(left + TILE_PX, x + width)
            out = np.full((TILE_PX, TILE_PX, n_channels), 255, np.uint8)
            for i in range(top // size, -(-bottom // size)):
                for j in range(left // size, -(-right // size)):
                    y0, y1 = max(top, i * size), min(bottom, (i + 1) * size)
                    x0, x1 = max(left, j * size), min(right, (j + 1) * size)
                    given = read((i, j))[y0 - i * size : y1 - i * size, x0 - j * size : x1 - j * size]
                    out[y0 - top : y1 - top, x0 - left : x1 - left] = given
            yield out


def _spread(job: SlideJob, tile: Block) -> np.ndarray:
    """Standard deviation over seeds, mean of the channels, in UNCERTAINTY_SCALE steps per grey level; uint8 [T, T, 3]."""
    seen = np.stack([np.load(job.work(seed).tile_path(tile)) for seed in job.drawing.seeds]).astype(np.float32)
    spread = seen.std(axis=0, ddof=1).mean(axis=-1)
    grey = (spread * UNCERTAINTY_SCALE).round().clip(0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)
