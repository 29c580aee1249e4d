"""Images to be judged: a generated set, a generated slide, or anybody's folder of PNG/TIFF files with a table that names the
cell of each.

All become an `ImageSet`.

Shape letters: M images, P pixels of the side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sge2hist.data.artifacts import MANIFEST_NAME
from sge2hist.data.errors import InputError, Problems
from sge2hist.data.generated import PREDICTED_TYPE, SLIDE_MODE, GeneratedSet, is_generated_slide, read_image
from sge2hist.data.slides.channels import RGB, Channels, require_same_channels

if TYPE_CHECKING:
    import pandas as pd

    from sge2hist.data.paired import PairedDataset


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Images with the cell that each claims to show.

    Attributes:
        name: as it appears in tables.
        path: folder, or table, that it was read from.
        files_M: image files; [] when `read` is given.
        row_M: int64 row of the cell in the paired dataset, -1 = none in particular.
        condition_row_M: row whose expression the image was made from (equal to `row_M` unless shuffled on purpose).
        sample_M: number of the sample of that cell.
        seed_M: seed of the image, -1 = unknown.
        type_M: name of the cell type asked for or of the cell, "" = unknown.
        manifest: what the maker wrote about it ({} for a folder).
        note: what a reader should know about how its cells were found, or "".
        channels: names of the C channels of the images.
        z1, z2: latent means [M, T], [M, Z], if stored.
        predicted_type_M: type that the model gives to the cell whose expression was used, if stored.
        read: int64 [n] -> uint8 [n, P, P, 3], for images that are cut from a slide.
    """

    name: str
    path: Path
    files_M: list[Path]
    row_M: np.ndarray
    condition_row_M: np.ndarray
    sample_M: np.ndarray
    seed_M: np.ndarray
    type_M: np.ndarray
    manifest: dict[str, Any]
    channels: Channels = RGB
    z1: np.ndarray | None = None
    z2: np.ndarray | None = None
    predicted_type_M: np.ndarray | None = None
    note: str = ""
    read: Callable[[np.ndarray], np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.row_M)

    @property
    def is_slide(self) -> bool:
        """Whether the images are windows of a generated slide."""
        return self.manifest.get("mode") == SLIDE_MODE

    @property
    def is_toy(self) -> bool:
        """Whether its maker says that it comes from toy data."""
        return bool(self.manifest.get("toy", False))

    @property
    def is_shuffled(self) -> bool:
        """Whether the images were made from other cells' expression on purpose."""
        paired = self.row_M >= 0
        return bool(paired.any() and (self.condition_row_M[paired] != self.row_M[paired]).mean() > 0.5)

    @property
    def names_cells(self) -> bool:
        """Whether every image belongs to a cell."""
        return bool((self.row_M >= 0).all())

    @cached_property
    def image_px(self) -> int:
        """Side of the images."""
        return len(read_image(self.files_M[0], self.channels) if self.read is None else self.read(np.array([0]))[0])

    def images(self, indices: np.ndarray) -> np.ndarray:
        """Return uint8 [n, P, P, C]; raises `InputError` for an image of another size."""
        if self.read is not None:
            return self.read(indices)
        out = np.empty((len(indices), self.image_px, self.image_px, len(self.channels)), np.uint8)
        for position, index in enumerate(indices):
            image = read_image(self.files_M[index], self.channels)
            if image.shape != out.shape[1:]:
                raise InputError(
                    found=f"an image of {image.shape[1]} x {image.shape[0]} px",
                    where=str(self.files_M[index]),
                    expected=f"{self.image_px} x {self.image_px} px, as the first one",
                )
            out[position] = image
        return out


def open_image_set(path: str | Path, data: PairedDataset, name: str | None = None, split: str = "test") -> ImageSet:
    """Open a generated set (folder with manifest.json), or a csv table of images
    (`image,cell_id[,sample][,seed][,condition_cell_id][,cell_type]`). Of a generated slide the windows at cells of `split`.

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
            from sge2hist.evaluation.slide_windows import read_slide

            return read_slide(path, data, name, split)
        with readable(path):
            return read_generated(path, data, name)
    table = find_table(path)
    with readable(table):
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
            repair="give the paired dataset that the images belong to with --against",
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
    require_same_channels(
        images.channels, data.channels, where=where, repair="give the dataset that they were made for"
    )
    if images.image_px != len(images.images(np.array([0]))[0]):
        raise InputError(found="an image that is not square", where=str(images.files_M[0]), expected="square patches")
    return images


# Whatever is wrong with a file of a set becomes one clear error.


@contextmanager
def readable(path: Path) -> Iterator[None]:
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
