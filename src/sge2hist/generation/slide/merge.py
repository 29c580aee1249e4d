"""Parts of a slide, drawn apart (a job array, several machines), joined into one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from sge2hist.data.artifacts import atomic_directory, check_output, write_manifest
from sge2hist.data.errors import InputError
from sge2hist.data.generated import CELLS_NAME, KIND, SLIDE_NAME, UNCERTAINTY_NAME, GeneratedSlide
from sge2hist.data.slides.channels import Channels
from sge2hist.data.slides.slide_image import SlideImage
from sge2hist.data.slides.slide_writer import TILE_PX, write_slide
from sge2hist.generation.slide.render import NOTE, uncertainty_note
from sge2hist.generation.slide.table import read_table, writing_table

MUST_AGREE = (
    "slide",
    "model_fingerprint",
    "data_fingerprint",
    "um_per_px",
    "sampler",
    "seed",
    "n_seeds",
    "glass_rgb",
    "edits",
    "channels",
    "lattice",
)
OF_THE_FILE = ("kind", "format_version", "sge2hist_version")


def merge_slides(parts: list[str | Path], output: str | Path, *, overwrite: bool = False) -> Path:
    """Join parts that lie one under the other into one slide. Returns its path; the parts stay.

    Raises
    ------
    InputError
        If a part is missing or is no slide, if they were not drawn alike, or do not meet.
    """
    check_output(output, overwrite=overwrite, kind=KIND)
    slides = sorted(map(GeneratedSlide.open, parts), key=lambda slide: slide.manifest.get("region_px", [0, 0])[1])
    region = _merged_region_px(slides)
    with atomic_directory(output, overwrite=overwrite, kind=KIND) as partial:
        n_seeds = int(slides[0].manifest["n_seeds"])
        _join_images(partial / SLIDE_NAME, [slide.image for slide in slides], slides[0], region, NOTE)
        uncertainty = [slide.uncertainty for slide in slides if slide.uncertainty is not None]
        if len(uncertainty) == len(slides):
            _join_images(partial / UNCERTAINTY_NAME, uncertainty, slides[0], region, uncertainty_note(n_seeds))
        _join_cells(slides, region, partial / CELLS_NAME)
        manifest = {name: value for name, value in slides[0].manifest.items() if name not in OF_THE_FILE}
        manifest.update(part=None, region_px=region, region_um=[value * slides[0].um_per_px for value in region])
        write_manifest(partial, KIND, **manifest)
    return Path(output) / SLIDE_NAME


def _merged_region_px(slides: list[GeneratedSlide]) -> list[int]:
    """The region (x, y, width, height in px) of all parts together."""
    if not slides:
        raise InputError(found="no part", expected="the folders written with --part")
    first = slides[0].manifest
    for slide in slides:
        path, manifest = slide.path, slide.manifest
        if "region_px" not in manifest:
            raise InputError(found="a slide without region_px", where=str(path), expected="one made with --part")
        other = [name for name in MUST_AGREE if manifest.get(name) != first.get(name)]
        if other:
            raise InputError(
                found=f"another {', '.join(other)} than in {slides[0].path}",
                where=str(path),
                expected="parts of one slide, drawn by the same command",
            )
    numbers = [slide.manifest.get("part") or [1, 1] for slide in slides]
    n = numbers[0][1]
    missing = sorted(set(range(1, n + 1)) - {number[0] for number in numbers})
    if missing and len(slides) < n:
        raise InputError(
            found=f"{len(slides)} of {n} parts; missing {', '.join(map(str, missing))}",
            repair="draw them with --part, then merge",
        )
    x, y, width, height = first["region_px"]
    for slide in slides[1:]:
        path, manifest = slide.path, slide.manifest
        if manifest["region_px"][:3] != [x, y + height, width]:
            raise InputError(
                found=f"a part at {manifest['region_px']} px",
                where=str(path),
                expected=f"one at {[x, y + height, width]}: just below the part before it",
            )
        height += manifest["region_px"][3]
    return [x, y, width, height]


def _join_images(
    path: Path, images: list[SlideImage], first: GeneratedSlide, region_px: list[int], description: str
) -> None:
    """Write images that lie one under the other as one slide."""
    channels: Channels = images[0].channels
    shape = (region_px[3], region_px[2])
    write_slide(path, _tiles(images), first.um_per_px, shape=shape, description=description, channels=channels)
    for image in images:
        image.close()


def _tiles(slides: list[SlideImage]) -> Iterator[np.ndarray]:
    """Full tiles of slides that lie one under the other."""
    tops = np.cumsum([0, *(slide.height_px for slide in slides)])
    width = slides[0].width_px
    for top in range(0, int(tops[-1]), TILE_PX):
        for left in range(0, width, TILE_PX):
            tile = np.full((TILE_PX, TILE_PX, len(slides[0].channels)), 255, np.uint8)
            w = min(TILE_PX, width - left)
            for slide, start, stop in zip(slides, tops[:-1], tops[1:], strict=True):
                y0, y1 = max(top, int(start)), min(top + TILE_PX, int(stop))
                if y0 < y1:
                    tile[y0 - top : y1 - top, :w] = slide.read(left, y0 - int(start), w, y1 - y0)
            yield tile


def _join_cells(slides: list[GeneratedSlide], region: list[int], path: Path) -> None:
    """The cells of all parts, one part after the other."""
    with writing_table(path) as table:
        for slide in slides:
            for rows in read_table(slide.path / CELLS_NAME):
                # cells put in are numbered from 0 in every part
                ids = [
                    f"{name}_at_{y:.0f}_{x:.0f}" if name.startswith("added_") else name
                    for name, (x, y) in zip(rows.id_N, rows.xy_um_N2, strict=True)
                ]
                shifted = rows.xy_px_N2 + np.array([0, slide.manifest["region_px"][1] - region[1]])
                table.add(replace(rows, id_N=np.array(ids, object), xy_px_N2=shifted))
