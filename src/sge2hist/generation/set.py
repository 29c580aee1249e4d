"""A generated set on disk, ``X.generated/``: manifest.json, cells.h5ad (which cell, which seed), images/*.png."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.files import atomic_directory, read_manifest, write_manifest

if TYPE_CHECKING:
    import pandas as pd

KIND = "generated"
CELLS_NAME, IMAGES_NAME = "cells.h5ad", "images"
MAX_PENDING = 64  # pictures waiting for the disk


class GeneratedSet:
    """A generated set opened for reading.

    Attributes
    ----------
    path, manifest
        The folder and its manifest.
    obs
        DataFrame, one row per image: cell_id, row (in the paired dataset, -1 = none), condition_row (whose expression was
        used), cell_type, sample, seed, image (file name).
    """

    def __init__(self, path: Path, manifest: dict[str, Any], obs: pd.DataFrame) -> None:
        self.path, self.manifest, self.obs = path, manifest, obs

    @classmethod
    def open(cls, path: str | Path) -> GeneratedSet:
        """Open a folder written by :func:`writing`.

        Raises
        ------
        InputError
            If the folder is missing, of another kind, or damaged.
        """
        import anndata

        path = Path(path)
        manifest = read_manifest(path, KIND)
        try:
            obs = anndata.read_h5ad(path / CELLS_NAME).obs
        except Exception as error:  # anndata wraps whatever h5py met in its own error types
            raise InputError(
                found=f"a table that cannot be read ({error})", where=str(path / CELLS_NAME), repair="generate again"
            ) from error
        return cls(path, manifest, obs)

    def __len__(self) -> int:
        return len(self.obs)

    def image(self, i: int) -> np.ndarray:
        """Return image i, uint8 [P, P, 3]."""
        from PIL import Image

        path = self.path / IMAGES_NAME / str(self.obs["image"].iloc[i])
        try:
            with Image.open(path) as picture:
                return np.asarray(picture.convert("RGB"))
        except OSError as error:
            raise InputError(found=f"an image that cannot be read ({error})", where=str(path)) from error


class SetWriter:
    """Takes images as they come and writes each one as a PNG in the background."""

    def __init__(self, path: Path, pool: ThreadPoolExecutor) -> None:
        self._images, self._pool = path / IMAGES_NAME, pool
        self._images.mkdir()
        self._pending: list[Future[None]] = []
        self.n_images = 0

    def add(self, images_BHWC: np.ndarray) -> None:
        """Append images uint8 [B, H, W, 3]; their file names are their running numbers."""
        for image in images_BHWC:
            path = self._images / image_name(self.n_images)
            self._pending.append(self._pool.submit(_write_png, path, image))
            self.n_images += 1
        while len(self._pending) > MAX_PENDING:
            self._pending.pop(0).result()

    def finish(self) -> None:
        """Wait for the disk; raises what a write raised."""
        for future in self._pending:
            future.result()
        self._pending.clear()


def image_name(number: int) -> str:
    """File name of the image with a running number."""
    return f"{number:06d}.png"


def _write_png(path: Path, image_HWC: np.ndarray) -> None:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Software", "sge2hist")
    info.add_text("Comment", "synthetic image generated from gene expression; not for diagnosis")
    Image.fromarray(image_HWC).save(path, pnginfo=info, compress_level=3)


@contextmanager
def writing(
    path: str | Path, obs: pd.DataFrame, latents_NZ: dict[str, np.ndarray], manifest: dict[str, Any], *, overwrite: bool
) -> Iterator[SetWriter]:
    """Write a generated set: the block adds one image per row of `obs`; nothing stays when it fails.

    `latents_NZ`: arrays for ``obsm`` of cells.h5ad, one row per image.
    """
    import anndata
    from scipy.sparse import csr_matrix

    with atomic_directory(path, overwrite=overwrite) as partial:
        with ThreadPoolExecutor(2) as pool:
            writer = SetWriter(partial, pool)
            yield writer
            writer.finish()
        if writer.n_images != len(obs):
            raise RuntimeError(f"{writer.n_images} images written for {len(obs)} rows")
        obs = obs.assign(image=[image_name(i) for i in range(len(obs))])
        obs.index = obs.index.astype(str)
        table = anndata.AnnData(X=csr_matrix(np.zeros((len(obs), 0), np.float32)), obs=obs)
        for name, values in latents_NZ.items():
            table.obsm[name] = values
        table.write_h5ad(partial / CELLS_NAME)
        write_manifest(partial, KIND, synthetic=True, n_images=len(obs), **manifest)
