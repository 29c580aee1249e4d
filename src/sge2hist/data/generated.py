"""A generated set on disk, ``X.generated/``: manifest.json, cells.h5ad (which cell, which seed), images/.

One file per image: PNG for RGB and for a single channel, else OME-TIFF with a page and a name for each channel.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sge2hist.data.artifacts import atomic_directory, read_manifest, write_manifest
from sge2hist.data.errors import InputError
from sge2hist.data.slides.channels import RGB, Channels, is_rgb

if TYPE_CHECKING:
    import pandas as pd

KIND = "generated"
CELLS_NAME, IMAGES_NAME = "cells.h5ad", "images"
NOTE = "synthetic image generated from gene expression; not for diagnosis"
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
    channels
        Names of the C channels of the images.
    """

    def __init__(self, path: Path, manifest: dict[str, Any], obs: pd.DataFrame) -> None:
        self.path, self.manifest, self.obs = path, manifest, obs
        self.channels: Channels = tuple(manifest.get("channels") or RGB)

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
        """Return image i, uint8 [P, P, C]."""
        path = self.path / IMAGES_NAME / str(self.obs["image"].iloc[i])
        try:
            return _read_png(path, self.channels) if path.suffix == ".png" else _read_tiff(path)
        except (OSError, ValueError) as error:
            raise InputError(found=f"an image that cannot be read ({error})", where=str(path)) from error


class SetWriter:
    """Takes images as they come and writes each one in the background."""

    def __init__(self, path: Path, pool: ThreadPoolExecutor, channels: Channels) -> None:
        self._channels = channels
        self._images, self._pool = path / IMAGES_NAME, pool
        self._images.mkdir()
        self._pending: list[Future[None]] = []
        self.n_images = 0

    def add(self, images_BHWC: np.ndarray) -> None:
        """Append images uint8 [B, H, W, C]; their file names are their running numbers."""
        for image in images_BHWC:
            path = self._images / image_name(self.n_images, self._channels)
            self._pending.append(self._pool.submit(_write, path, image, self._channels))
            self.n_images += 1
        while len(self._pending) > MAX_PENDING:
            self._pending.pop(0).result()

    def finish(self) -> None:
        """Wait for the disk; raises what a write raised."""
        for future in self._pending:
            future.result()
        self._pending.clear()


def image_name(number: int, channels: Channels = RGB) -> str:
    """File name of the image with a running number."""
    return f"{number:06d}.{'png' if is_rgb(channels) or len(channels) == 1 else 'ome.tif'}"


def _write(path: Path, image_HWC: np.ndarray, channels: Channels) -> None:
    if path.suffix == ".png":
        _write_png(path, image_HWC if is_rgb(channels) else image_HWC[..., 0])
    else:
        _write_tiff(path, image_HWC, channels)


def _write_png(path: Path, image: np.ndarray) -> None:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Software", "sge2hist")
    info.add_text("Comment", NOTE)
    Image.fromarray(image).save(path, pnginfo=info, compress_level=3)


def _read_png(path: Path, channels: Channels) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")) if is_rgb(channels) else np.asarray(picture.convert("L"))[..., None]


def _write_tiff(path: Path, image_HWC: np.ndarray, channels: Channels) -> None:
    import tifffile

    metadata = {"axes": "CYX", "Channel": {"Name": list(channels)}, "Description": NOTE}
    planes = np.ascontiguousarray(np.moveaxis(image_HWC, -1, 0))
    tifffile.imwrite(path, planes, ome=True, photometric="minisblack", compression="adobe_deflate", metadata=metadata)


def _read_tiff(path: Path) -> np.ndarray:
    import tifffile

    return np.moveaxis(tifffile.imread(path), 0, -1)


@contextmanager
def writing(
    path: str | Path, obs: pd.DataFrame, latents_NZ: dict[str, np.ndarray], manifest: dict[str, Any], *, overwrite: bool
) -> Iterator[SetWriter]:
    """Write a generated set: the block adds one image per row of `obs`; nothing stays when it fails.

    `manifest["channels"]` names the channels of the images; RGB when it is not there.

    `latents_NZ`: arrays for ``obsm`` of cells.h5ad, one row per image.
    """
    import anndata
    from scipy.sparse import csr_matrix

    channels: Channels = tuple(manifest.get("channels") or RGB)
    with atomic_directory(path, overwrite=overwrite, kind=KIND) as partial:
        with ThreadPoolExecutor(2) as pool:
            writer = SetWriter(partial, pool, channels)
            yield writer
            writer.finish()
        if writer.n_images != len(obs):
            raise RuntimeError(f"{writer.n_images} images written for {len(obs)} rows")
        obs = obs.assign(image=[image_name(i, channels) for i in range(len(obs))])
        obs.index = obs.index.astype(str)
        table = anndata.AnnData(X=csr_matrix(np.zeros((len(obs), 0), np.float32)), obs=obs)
        for name, values in latents_NZ.items():
            table.obsm[name] = values
        table.write_h5ad(partial / CELLS_NAME)
        write_manifest(partial, KIND, synthetic=True, n_images=len(obs), **manifest)
