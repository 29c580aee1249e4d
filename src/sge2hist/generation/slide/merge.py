"""Parts of a slide, drawn apart (a job array, several machines), joined into one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sge2hist.data.artifacts import atomic_directory, check_output, read_manifest, write_manifest
from sge2hist.data.errors import InputError
from sge2hist.data.generated import CELLS_NAME, KIND
from sge2hist.data.slides.channels import RGB, Channels
from sge2hist.data.slides.slide_image import SlideImage
from sge2hist.data.slides.slide_writer import TILE_PX, write_slide
from sge2hist.generation.slide.render import NOTE, SLIDE_NAME, UNCERTAINTY_NAME, uncertainty_note
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
    known = sorted(
        ((Path(part), read_manifest(part, KIND)) for part in parts),
        key=lambda item: item[1].get("region_px", [0, 0])[1],
    )
    region = _check(known)
    folders = [path for path, _ in known]
    with atomic_directory(output, overwrite=overwrite, kind=KIND) as partial:
        for name in (SLIDE_NAME, UNCERTAINTY_NAME):
            if all((folder / name).is_file() for folder in folders):
                channels: Channels = tuple(known[0][1].get("channels") or RGB) if name == SLIDE_NAME else RGB
                slides = [SlideImage.open(folder / name, channels=channels) for folder in folders]
                um_per_px = float(known[0][1]["um_per_px"])
                note = NOTE if name == SLIDE_NAME else uncertainty_note(int(known[0][1]["n_seeds"]))
                write_slide(
                    partial / name,
                    _tiles(slides),
                    um_per_px,
                    shape=(region[3], region[2]),
                    description=note,
                    channels=channels,
                )
                for slide in slides:
                    slide.close()
        _join_cells(known, region, partial / CELLS_NAME)
        first = {name: value for name, value in known[0][1].items() if name not in OF_THE_FILE}
        um = float(first["um_per_px"])
        first.update(part=None, region_px=region, region_um=[value * um for value in region])
        write_manifest(partial, KIND, **first)
    return Path(output) / SLIDE_NAME


def _check(known: list[tuple[Path, dict[str, Any]]]) -> list[int]:
    """The region (px) of all parts together."""
    if not known:
        raise InputError(found="no part", expected="the folders written with --part")
    first = known[0][1]
    for path, manifest in known:
        if manifest.get("mode") != "slide" or "region_px" not in manifest:
            raise InputError(found="a generated set that is no slide", where=str(path), expected="one made with --part")
        other = [name for name in MUST_AGREE if manifest.get(name) != first.get(name)]
        if other:
            raise InputError(
                found=f"another {', '.join(other)} than in {known[0][0]}",
                where=str(path),
                expected="parts of one slide, drawn by the same command",
            )
    numbers = [manifest.get("part") or [1, 1] for _, manifest in known]
    n = numbers[0][1]
    missing = sorted(set(range(1, n + 1)) - {number[0] for number in numbers})
    if missing and len(known) < n:
        raise InputError(
            found=f"{len(known)} of {n} parts; missing {', '.join(map(str, missing))}",
            repair="draw them with --part, then merge",
        )
    x, y, width, height = first["region_px"]
    for path, manifest in known[1:]:
        if manifest["region_px"][:3] != [x, y + height, width]:
            raise InputError(
                found=f"a part at {manifest['region_px']} px",
                where=str(path),
                expected=f"one at {[x, y + height, width]}: just below the part before it",
            )
        height += manifest["region_px"][3]
    return [x, y, width, height]


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


def _join_cells(known: list[tuple[Path, dict[str, Any]]], region: list[int], path: Path) -> None:
    """The cells of all parts, one part after the other."""
    with writing_table(path) as table:
        for folder, manifest in known:
            for rows in read_table(folder / CELLS_NAME):
                # cells put in are numbered from 0 in every part
                ids = [
                    f"{name}_at_{y:.0f}_{x:.0f}" if name.startswith("added_") else name
                    for name, (x, y) in zip(rows.id_N, rows.xy_um_N2, strict=True)
                ]
                shifted = rows.xy_px_N2 + np.array([0, manifest["region_px"][1] - region[1]])
                table.add(replace(rows, id_N=np.array(ids, object), xy_px_N2=shifted))
