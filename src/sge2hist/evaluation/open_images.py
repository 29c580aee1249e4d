"""Open the images to evaluate: a generated set, a generated slide, or anybody's folder of PNG/TIFF files with a table that
names the cell of each. All become an `ImageSet`.

Shape letters: M images, P pixels of the side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sge2hist.data.artifacts import MANIFEST_NAME
from sge2hist.data.coverage import MIN_COVERED, REACH_UM, Coverage
from sge2hist.data.errors import InputError, Problems
from sge2hist.data.generated import (
    PREDICTED_TYPE,
    GeneratedSet,
    GeneratedSlide,
    is_generated_slide,
)
from sge2hist.data.slides.channels import is_rgb, require_same_channels
from sge2hist.data.virtual_he import MANIFEST_KEY, MARK, REQUEST
from sge2hist.evaluation.images import ImageSet

if TYPE_CHECKING:
    import pandas as pd

    from sge2hist.data.paired import PairedDataset

ImageSource = str | Path | GeneratedSet | GeneratedSlide


def open_image_sets(
    sources: ImageSource | Sequence[ImageSource] | Mapping[str, ImageSource], data: PairedDataset, split: str = "test"
) -> list[ImageSet]:
    """Open one or several sets; names come from a mapping, from `name=path`, or from the path.

    Raises
    ------
    InputError
        When there is no set, two have the same name, one is of an unknown type, or one does not open.
    """
    named: list[tuple[str | None, ImageSource]]
    if isinstance(sources, Mapping):
        named = list(sources.items())
    elif isinstance(sources, str | Path | GeneratedSet | GeneratedSlide):
        named = [split_name(sources)]
    else:
        named = [split_name(source) for source in as_list(sources)]
    if not named:
        raise InputError(found="no set of images", expected="at least one generated set or folder of images")
    sets = [open_image_set(source_path(source), data, name, split) for name, source in named]
    names = [images.name for images in sets]
    if len(set(names)) < len(names):
        raise InputError(
            found=f"sets of equal name: {', '.join(names)}", expected="different names", repair="give them as name=path"
        )
    return sets


def as_list(sources: object) -> list[Any]:
    """Return several sources as a list; `InputError` for anything that is not a sequence."""
    if not isinstance(sources, Sequence):
        raise InputError(
            found=f"images of type {type(sources).__name__}",
            where="evaluate",
            expected="a generated set, a path, or a list or dict of them",
        )
    return list(sources)


def split_name(source: ImageSource) -> tuple[str | None, ImageSource]:
    """Return name and path of `name=path`; the name is None where none is given."""
    if isinstance(source, str) and "=" in source and not Path(source).exists():
        name, _, path = source.partition("=")
        return name, path
    return None, source


def source_path(source: ImageSource) -> Path:
    """Return the path of a set that is given as path or opened."""
    if isinstance(source, GeneratedSet | GeneratedSlide):
        return source.path
    if isinstance(source, str | Path):
        return Path(source)
    raise InputError(
        found=f"images of type {type(source).__name__}",
        where="evaluate",
        expected="a GeneratedSet, a GeneratedSlide, or a path",
    )


def open_image_set(path: str | Path, data: PairedDataset, name: str | None = None, split: str = "test") -> ImageSet:
    """Open a generated set (folder with manifest.json), or a csv table of images
    (`image,cell_id[,sample][,seed][,condition_cell_id][,cell_type]`). Of a generated slide the windows at cells of
    `split`.

    A folder without a manifest is searched for its table: `images.csv`, else the only csv in it. Image names are
        relative to the table.

    Raises
    ------
    InputError
        When nothing usable is there, an image file is missing, a cell is unknown, or the set was made from another
        dataset.
    """
    path = Path(path)
    if path.is_dir() and (path / MANIFEST_NAME).is_file():
        name = name or path.name.removesuffix(".generated")
        if is_generated_slide(path):
            return read_slide(path, data, name, split)
        with clear_errors(path):
            return read_generated(path, data, name)
    table = find_table(path)
    with clear_errors(table):
        return read_table(table, data, name or (path.stem if path.is_file() else path.name))


def find_table(path: Path) -> Path:
    """Return the csv that describes a folder of images."""
    if path.is_file():
        return path
    tables = sorted(path.glob("*.csv")) if path.is_dir() else []
    named = [table for table in tables if table.name == "images.csv"]
    if len(named or tables) == 1:
        return (named or tables)[0]
    raise InputError(
        found=f"{len(tables)} csv tables and no {MANIFEST_NAME}" if path.is_dir() else "no such file or folder",
        where=str(path),
        expected="a generated set, or a folder with images.csv (columns image, cell_id)",
        repair="write images.csv, or give the path of the table",
    )


def read_generated(path: Path, data: PairedDataset, name: str) -> ImageSet:
    """Read a generated set."""
    generated = GeneratedSet.open(path)
    manifest, obs = generated.manifest, generated.obs
    rows = obs["row"].to_numpy(np.int64) if "row" in obs else rows_of(obs["cell_id"], data, path)
    conditions, note = integers(obs, "condition_row", rows), ""
    made_from = manifest.get("data_fingerprint", data.fingerprint)
    if (rows >= 0).any() and made_from != data.fingerprint:
        # Row numbers are those of the other preparation; only whether both rows are the same cell still means something.
        same, rows = conditions == rows, rows_of(obs["cell_id"], data, path)
        conditions = np.where(same, rows, -1)
        note = (
            f"Warning: {name} was made from another dataset (fingerprint {made_from}); its cells were matched by name. "
            "Names such as bin barcodes repeat between slides: make sure that it is the same tissue."
        )
    types = obs["cell_type"].astype(str).to_numpy() if "cell_type" in obs else np.full(len(obs), "")
    return checked(
        ImageSet(
            name=name,
            path=path,
            files_M=[generated.image_path(i) for i in range(len(generated))],
            row_M=rows,
            condition_row_M=conditions,
            sample_M=integers(obs, "sample", np.zeros(len(obs), np.int64)),
            seed_M=integers(obs, "seed", np.full(len(obs), -1, np.int64)),
            type_M=types,
            manifest=manifest,
            channels=generated.channels,
            note=note,
            z1=generated.latents.get("z1"),
            z2=generated.latents.get("z2"),
            predicted_type_M=obs[PREDICTED_TYPE].astype(str).to_numpy() if PREDICTED_TYPE in obs else None,
        ),
        data,
    )


def read_slide(path: Path, data: PairedDataset, name: str, split: str = "test") -> ImageSet:
    """Read a generated slide: its whole windows at the cells of a split, as large as the real patches.

    Windows at the margin of the cells, where the slide is glass by rule and the real one need not be, are not evaluated.

    Raises
    ------
    InputError
        If it is no slide of the dataset, or no such cell lies on it.
    """
    slide = GeneratedSlide.open(path)
    x, y, width, height = slide.region_um
    um = slide.um_per_px
    rows = data.rows(split)
    rows = rows[data.slide_of_cell[rows] == slide.slide_number(data)]
    centre_um_M2 = data.centre_xy_px[rows] * data.um_per_px - (x, y)
    half = data.patch_um / 2
    whole = ((centre_um_M2 >= half) & (centre_um_M2 <= np.array([width, height]) - half)).all(1)
    rows, centre_xy_px_M2 = rows[whole], centre_um_M2[whole] / um
    if len(rows) == 0:
        raise InputError(
            found=f"no cell of split {split} with a whole window of {data.patch_um:g} um",
            where=str(path),
            expected="a slide of held-out tissue",
            repair="generate a larger region, or use another --split",
        )
    of_slide = data.slide_of_cell == slide.slide_number(data)
    coverage = Coverage(data.centre_xy_px[of_slide] * data.um_per_px - (x, y), (width, height))
    covered = coverage.share_of(centre_um_M2[whole], data.patch_um) >= MIN_COVERED
    note, n_windows = "", len(rows)
    if not covered.all():
        rows, centre_xy_px_M2 = rows[covered], centre_xy_px_M2[covered]
        note = (
            f"{name}: {n_windows - len(rows):,} of {n_windows:,} windows are not evaluated: less than {MIN_COVERED:.0%} of them "
            f"lies within {REACH_UM:g} um of a cell, and beyond a generated slide is glass by rule"
        )
        if len(rows) == 0:
            raise InputError(
                found=note, where=str(path), expected="windows that cells cover", repair="generate a larger region"
            )
    side_px = round(data.patch_um / um)

    def read(indices: np.ndarray) -> np.ndarray:
        return np.stack([slide.image.read_patch(centre_xy_px_M2[i], data.patch_um, side_px, um) for i in indices])

    return ImageSet(
        name=name,
        path=path,
        files_M=[],
        row_M=rows,
        condition_row_M=rows,
        sample_M=np.zeros(len(rows), np.int64),
        seed_M=np.full(len(rows), slide.seed),
        type_M=data.obs["cell_type"].astype(str).to_numpy()[rows],
        manifest=slide.manifest,
        note=note,
        read=read,
        channels=data.channels,
    )


def read_table(table: Path, data: PairedDataset, name: str) -> ImageSet:
    """Read a csv of images."""
    import pandas as pd

    obs = pd.read_csv(table, dtype={"image": str, "cell_id": str, "condition_cell_id": str, "cell_type": str})
    if "image" not in obs or ("cell_id" not in obs and "cell_type" not in obs):
        raise InputError(
            found=f"columns {', '.join(obs.columns)}",
            where=str(table),
            expected="columns image, cell_id (or cell_type)",
        )
    rows = rows_of(obs["cell_id"], data, table) if "cell_id" in obs else np.full(len(obs), -1, np.int64)
    conditions = rows_of(obs["condition_cell_id"], data, table) if "condition_cell_id" in obs else rows
    types = obs["cell_type"].fillna("").to_numpy(str) if "cell_type" in obs else np.full(len(obs), "")
    return checked(
        ImageSet(
            name=name,
            path=table,
            files_M=[table.parent / str(file) for file in obs["image"]],
            row_M=rows,
            condition_row_M=conditions,
            sample_M=integers(obs, "sample", repeats(rows)),
            seed_M=integers(obs, "seed", np.full(len(obs), -1, np.int64)),
            type_M=types,
            manifest={},
            channels=data.channels,
        ),
        data,
    )


def repeats(rows: np.ndarray) -> np.ndarray:
    """Return, for each image, how many images of the same cell come before it (0 for images that name no cell)."""
    import pandas as pd

    before = pd.Series(rows).groupby(rows).cumcount().to_numpy(np.int64)
    return np.where(rows >= 0, before, 0)


def integers(obs: pd.DataFrame, column: str, default: np.ndarray) -> np.ndarray:
    """Return an integer column, or the default when it is absent."""
    return obs[column].to_numpy(np.int64) if column in obs else default


def rows_of(cell_ids: pd.Series, data: PairedDataset, where: Path) -> np.ndarray:
    """Return the rows of cells named by id; raises `InputError` for unknown names."""
    import pandas as pd

    rows = data.obs.index.get_indexer(pd.Index(cell_ids.astype(str)))
    unknown = cell_ids[rows < 0].astype(str).tolist()
    if unknown:
        raise InputError(
            found=f"{len(unknown)} unknown cells, such as {', '.join(unknown[:3])}",
            where=str(where),
            expected=f"cell ids of {data.path}, such as {data.obs.index[0]}",
            repair="give the paired dataset that the images belong to with --data",
        )
    return rows.astype(np.int64)


def checked(images: ImageSet, data: PairedDataset) -> ImageSet:
    """Return the set after looking for missing files, bad rows and an empty table; all problems are raised together."""
    problems = Problems()
    where = str(images.path)
    if len(images) == 0:
        problems.add(found="no images", where=where, expected="at least one row in the table")
    missing = [file for file in images.files_M if not file.is_file()]
    if missing:
        problems.add(
            found=f"{len(missing)} missing image files, such as {missing[0].name}",
            where=where,
            expected="every image in the table",
        )
    if len(images) and (images.row_M.max() >= len(data) or images.row_M.min() < -1):
        problems.add(found=f"row {images.row_M.max()}", where=where, expected=f"rows of {data.path}, below {len(data)}")
    problems.raise_if_any()
    repair = "give the dataset that they were made for"
    if images.manifest.get(MANIFEST_KEY) and not data.is_virtual_he:
        repair = f"prepare the data with --image {REQUEST}, or generate without --render"
        if is_rgb(data.channels):
            raise InputError(found=f"images of {MARK}", where=where, expected="images of H&E", repair=repair)
    require_same_channels(images.channels, data.channels, where=where, repair=repair)
    transform = images.manifest.get("stain_transform", data.stain_transform)
    if transform != data.stain_transform:
        raise InputError(
            found=f"levels of a {transform} scale",
            where=where,
            expected=f"levels of a {data.stain_transform} scale, as in the dataset",
            repair=f"prepare the data with --stain-transform {transform}",
        )
    if images.image_px != len(images.images(np.array([0]))[0]):
        raise InputError(found="an image that is not square", where=str(images.files_M[0]), expected="square patches")
    return images


@contextmanager
def clear_errors(path: Path) -> Iterator[None]:
    """Turn what readers of tables raise (a damaged file, text for a number, a missing column) into `InputError`."""
    try:
        with np.errstate(invalid="raise"):  # an empty field in a column of whole numbers
            yield
    except (OSError, ValueError, KeyError, TypeError, FloatingPointError) as error:
        raise InputError(
            found=f"a table that cannot be read ({type(error).__name__}: {error})",
            where=str(path),
            expected="UTF-8, columns image, cell_id[, sample, seed as whole numbers]; or a generated set as it was written",
        ) from error
