"""MERSCOPE (Vizgen): cells segmented by the instrument or by the vendor's post-processing tool, on its mosaic images.

```
region_0/                                       (files downloaded one by one carry a prefix <ID>_)
 cell_by_gene.csv                               rows: cells; columns: `cell`, genes, blanks ("Blank-1")
 cell_metadata.csv                              the id (unnamed, `EntityID`, `X`); center_x, center_y in um, volume, fov
 cell_boundaries.parquet, cell_boundaries/*.hdf5                see `merscope_boundaries`
 images/micron_to_mosaic_pixel_transform.csv    3x3, separated by blanks: um -> px of the mosaic
 images/mosaic_<stain>_z<plane>.tif             16 bits, one file per stain and focal plane
 detected_transcripts.csv, *.vzg                (not needed)
```
Ids have up to 19 digits: they are text here, so that none is rounded. Rows of both tables come in any order.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from sge2hist.data.errors import InputError
from sge2hist.data.section import Section
from sge2hist.data.slides.channels import Channels
from sge2hist.data.slides.slide_image import SlideImage
from sge2hist.readers.dense_counts import DenseCounts
from sge2hist.readers.tables import as_float, read_delimited
from sge2hist.readers.vizgen.merscope_boundaries import read_boundaries

COUNTS, CELLS = "cell_by_gene.csv", "cell_metadata.csv"
TRANSFORM = "micron_to_mosaic_pixel_transform.csv"
MIDDLE_PLANE = 3  # of the usual seven
CELL_COLUMNS = {"fov": "fov", "volume": "volume_um3"}
_MOSAIC = re.compile(r"mosaic_(?P<stain>.+)_z(?P<plane>\d+)\.tiff?$", re.I)


def read(
    folder: str | Path,
    *,
    image: str | Path | None = None,
    um_per_px: float | None = None,
    channels: Channels | None = None,
) -> Section:
    """Read one region with its mosaic images, or with an image that was made apart from the run.

    Parameters
    ----------
    image
        An H&E (or, with `channels`, fluorescence) of the same section: positions stay in px of the mosaic, or in um without a
        transform, until a map puts them on it (`Section.needs_map`). None: the mosaic images, which are fluorescence.
    um_per_px
        Overrides the scale that the transform gives.
    channels
        Stains of the mosaic, or `channels.ALL`; required for it.

    Raises
    ------
    InputError
        If a file is missing or damaged, or the tables are of different runs.
    """
    folder = Path(folder)
    counts = DenseCounts.open(
        table_in(folder, COUNTS), id_columns=("cell", "EntityID", "X"), is_control=is_blank, n_ids=1
    )
    obs, centre_um = _cells(table_in(folder, CELLS))
    um_to_px = _transform(folder)
    mosaics, plane = find_mosaics(folder)
    if image is None:
        slide = _open_mosaic(folder, mosaics, channels)
        if um_to_px is None:
            raise InputError(
                found=f"no images/{TRANSFORM}", where=str(folder), expected="um -> px of the mosaic, 3 x 3 numbers"
            )
    else:
        slide = SlideImage.open(image, channels=channels)
    move, scale = _placement(um_to_px)
    sources = {"transform" if um_to_px is not None else "positions in um": scale}
    if um_per_px is not None:
        sources = {"--image-um-per-px": um_per_px, **sources}
    if slide.um_per_px is not None:
        sources["image metadata"] = slide.um_per_px
    centre_xy_px = move(centre_um)
    notes = [
        f"focal plane {plane}" if image is None else "positions are in the frame of the run until a map is applied"
    ]
    outline_px = None
    if (outlines := read_boundaries(folder, obs.index, plane)) is not None:
        vertices_um, name = outlines
        vertices_px = move(vertices_um.reshape(-1, 2)).reshape(vertices_um.shape)
        outline_px = (vertices_px - centre_xy_px[:, None]).astype(np.float32)
        notes.append(f"outlines by {name}")
    row_of_id = pd.Index(obs.index)
    return Section(
        name=folder.resolve().name,
        technology="MERSCOPE",
        software="",
        observation="cell",
        observation_um=None,
        obs=obs,
        centre_xy_px=centre_xy_px,
        outline_px=outline_px,
        genes=counts.genes,
        image=slide,
        um_per_px=scale if image is not None else next(iter(sources.values())),
        um_per_px_sources=sources,
        read_counts=counts.reader(lambda ids: row_of_id.get_indexer(pd.Index(next(iter(ids.values())))), len(obs)),
        notes=[*notes, *counts.notes, *slide.notes],
        needs_map=None if image is None else ("um" if um_to_px is None else "px of the mosaic images"),
    )


def table_in(folder: Path, name: str) -> Path:
    """`folder/name`, `<ID>_name`, or either gzipped.

    Raises
    ------
    InputError
        If there is none, or several.
    """
    found = [folder / given for given in (name, f"{name}.gz") if (folder / given).is_file()]
    found = found or sorted({*folder.glob(f"*_{name}"), *folder.glob(f"*_{name}.gz")})
    if len(found) != 1:
        raise InputError(
            found=f"{len(found)} files {name} ({', '.join(path.name for path in found[:4]) or 'none'})",
            where=str(folder),
            expected="the folder of one region",
        )
    return found[0]


def is_blank(name: str) -> bool:
    """Whether a column counts a code that no gene has: Blank-1, blank_2, ..."""
    return name.casefold().startswith("blank")


def _cells(path: Path) -> tuple[pd.DataFrame, np.ndarray]:
    """Table of the cells by id, and their centres in um [N, 2]."""
    table = read_delimited(path, separator=",", dtype={0: str}, encoding="utf-8-sig")
    ids = "EntityID" if "EntityID" in table.columns else table.columns[0]
    missing = [name for name in ("center_x", "center_y") if name not in table.columns]
    if missing or ids in ("center_x", "center_y", "fov"):
        raise InputError(
            found=f"a table with columns {', '.join(map(str, table.columns[:8]))}",
            where=str(path),
            expected="an id in the first column, center_x and center_y in um",
        )
    if ids != table.columns[0]:  # 19 digits are more than a float holds
        table[ids] = read_delimited(path, separator=",", usecols=[ids], dtype=str, encoding="utf-8-sig")[ids]
    index = pd.Index(table[ids].astype(str), name="cell_id", dtype=object)
    if not index.is_unique:
        raise InputError(found=f"cell {index[index.duplicated()][0]!r} twice", where=str(path), expected="unique ids")
    centre_um = np.stack([as_float(table[name].to_numpy(), name, path) for name in ("center_x", "center_y")], 1)
    shown = {new: table[old].to_numpy() for old, new in CELL_COLUMNS.items() if old in table.columns}
    return pd.DataFrame(shown, index=index), centre_um


def _transform(folder: Path) -> np.ndarray | None:
    found = sorted({*(folder / "images").glob(f"*{TRANSFORM}"), *folder.glob(f"*{TRANSFORM}")})
    if not found:
        return None
    table = read_delimited(found[0], separator=r"[\s,]+", header=None, engine="python").to_numpy()
    matrix = as_float(table, "an entry", found[0])
    square = matrix.shape == (3, 3) and np.isfinite(matrix).all() and np.allclose(matrix[2], [0, 0, 1])
    if not square or abs(np.linalg.det(matrix[:2, :2])) < 1e-9:
        raise InputError(
            found=f"a table of shape {matrix.shape}, no map",
            where=str(found[0]),
            expected="um -> px of the mosaic, 3 x 3",
        )
    return matrix


def _placement(um_to_px: np.ndarray | None) -> tuple[Callable[[np.ndarray], np.ndarray], float]:
    """The map of positions in um, and um per px of where it leads."""
    if um_to_px is None:
        return (lambda xy_um: xy_um), 1.0
    linear, shift = um_to_px[:2, :2], um_to_px[:2, 2]
    return (lambda xy_um: xy_um @ linear.T + shift), float(1 / np.sqrt(abs(np.linalg.det(linear))))


def find_mosaics(folder: Path) -> tuple[dict[str, Path], int]:
    """Mosaic image of each stain in one focal plane, DAPI first: the middle one of the usual seven where all stains have it.

    Returns
    -------
    Files by stain ({} without images), and the number of the plane.
    """
    by_plane: dict[int, dict[str, Path]] = {}
    for path in sorted((folder / "images").glob("*")):
        if match := _MOSAIC.search(path.name):
            by_plane.setdefault(int(match["plane"]), {})[match["stain"]] = path
    if not by_plane:
        return {}, MIDDLE_PLANE
    most = max(len(stains) for stains in by_plane.values())
    complete = sorted(plane for plane, stains in by_plane.items() if len(stains) == most)
    plane = MIDDLE_PLANE if MIDDLE_PLANE in complete else complete[len(complete) // 2]
    stains = by_plane[plane]
    order = sorted(stains, key=lambda stain: (stain.casefold() != "dapi", stain))
    return {stain: stains[stain] for stain in order}, plane


def _open_mosaic(folder: Path, mosaics: dict[str, Path], channels: Channels | None) -> SlideImage:
    if not mosaics:
        raise InputError(
            found="no images/mosaic_<stain>_z<plane>.tif",
            where=str(folder),
            expected="the mosaic images of the run, or an image of the same section",
            repair="--image FILE with --alignment auto or FILE",
        )
    if channels is None:
        raise InputError(
            found=f"no H&E; the mosaic images are fluorescence ({', '.join(mosaics)})",
            where=str(folder / "images"),
            expected="which stains to take, or an H&E",
            repair="--channels all, --image virtual-he, or --image HE.tif with --alignment auto or FILE",
        )
    return SlideImage.open_stains(mosaics, channels)
