"""A folder ``X.generated/``: patches, or a whole slide, as this package writes and opens it.

::

    patches                             a whole slide (mode "slide")
     manifest.json                       manifest.json: also slide, region_um, um_per_px
     cells.h5ad: one row per image,      cells.h5ad: the cells on the slide,
       latents in obsm                     px in obsm["spatial"]
     images/000000.png, ...              slide.ome.tif
                                         uncertainty.ome.tif: spread over seeds, where there are several

A patch of RGB or of a single channel is a PNG, of several channels an OME-TIFF with one named page per channel.

Shape letters: N images, H x W pixels, C channels, Z latent dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sge2hist.data.artifacts import MANIFEST_NAME, atomic_directory, read_manifest, write_manifest
from sge2hist.data.errors import InputError, as_path
from sge2hist.data.slides.channels import RGB, Channels, is_rgb, require_same_channels
from sge2hist.data.slides.colour_space import on_white
from sge2hist.data.slides.slide_image import SlideImage
from sge2hist.data.virtual_he import mark_of

if TYPE_CHECKING:
    import anndata
    import pandas as pd

    from sge2hist.data.paired import PairedDataset

KIND = "generated"
CELLS_NAME, IMAGES_NAME = "cells.h5ad", "images"
SLIDE_NAME, UNCERTAINTY_NAME = "slide.ome.tif", "uncertainty.ome.tif"
SLIDE_MODE = "slide"  # `mode` in the manifest of a whole slide
LATENT_KEYS = {"z1": "X_sge2hist_z1", "z2": "X_sge2hist_z2"}  # in obsm of cells.h5ad
PREDICTED_TYPE = "sge2hist_type"  # column of obs: the type that the model predicts for the cell
NOTE = "synthetic image generated from gene expression by sge2hist; not for diagnosis"
APPLICABILITY = (
    "applicability"  # in the manifest: whether the cells are such as the model knows (`generation.applicability`)
)
MAX_PENDING = 64  # images waiting for the disk


def note_of(manifest: Mapping[str, Any]) -> str:
    """The sentence that every file of a generated set or slide carries."""
    mark = mark_of(manifest)
    return NOTE + (f"; {mark}" if mark else "")


def is_generated_slide(path: str | Path) -> bool:
    """Whether a folder holds a generated slide rather than patches; `InputError` if it is no generated folder."""
    return read_manifest(path, KIND).get("mode") == SLIDE_MODE


def applicability_headline(found: dict[str, Any] | None) -> str | None:
    """One sentence from `APPLICABILITY` of a manifest; None where nothing is stored (types by name, version 0.1).

    >>> applicability_headline({"verdict": "known", "figures": []})
    'The cells are such as the model was trained on.'
    """
    if not found:
        return None
    figures = sorted(found["figures"], key=lambda figure: -figure["level"])
    reasons = "; ".join(figure["text"] for figure in figures if figure["level"])
    if found["verdict"] == "known":
        return "The cells are such as the model was trained on."
    if found["verdict"] == "doubtful":
        return f"The cells differ from those that the model was trained on: {reasons}."
    return f"The model does not know such cells, and its images show no such tissue: {reasons}."


class GeneratedSet:
    """Generated patches opened for reading.

    Attributes
    ----------
    path, manifest
        The folder and its manifest.
    obs
        DataFrame, one row per image: cell_id, row (in the paired dataset, -1 = none), condition_row (whose expression was
        used), cell_type, sample, seed, image (file name).
    latents
        The latent means used for each image, float32 [N, Z], by name ("z1", "z2"); {} when none are stored.
    channels
        Names of the C channels of the images.
    """

    def __init__(
        self, path: Path, manifest: dict[str, Any], obs: pd.DataFrame, latents: dict[str, np.ndarray] | None = None
    ) -> None:
        self.path, self.manifest, self.obs, self.latents = path, manifest, obs, latents or {}
        self.channels: Channels = tuple(manifest.get("channels") or RGB)

    @classmethod
    def open(cls, path: str | Path) -> GeneratedSet:
        """Open a folder written by :func:`generated_set_writer`; images stay on disk.

        Raises
        ------
        InputError
            If the folder is missing, of another kind, a generated slide, or damaged.
        """
        path = as_path(path, "path")
        manifest = read_manifest(path, KIND)
        if manifest.get("mode") == SLIDE_MODE:
            raise InputError(
                found="a generated slide", where=str(path), expected="patches", repair="use GeneratedSlide.open"
            )
        cells = _read_cells(path)
        latents = {name: np.asarray(cells.obsm[key]) for name, key in LATENT_KEYS.items() if key in cells.obsm}
        return cls(path, manifest, cells.obs, latents)

    def __len__(self) -> int:
        return len(self.obs)

    def image_path(self, i: int) -> Path:
        """File of image i."""
        return self.path / IMAGES_NAME / str(self.obs["image"].iloc[i])

    def image(self, i: int) -> np.ndarray:
        """Return image i, uint8 [H, W, C]."""
        return read_image(self.image_path(i), self.channels)


@dataclass(frozen=True, kw_only=True)
class GeneratedSlide:
    """A generated slide opened for reading.

    Attributes
    ----------
    path, manifest
        The folder and its manifest.
    slide_id
        Name of the slide of the source that was generated.
    region_um
        x, y, width, height of the generated rectangle, in um of that slide.
    um_per_px
        Side of a pixel of the generated image.
    channels
        Names of the C channels.
    """

    path: Path
    manifest: dict[str, Any]
    slide_id: str
    region_um: tuple[float, float, float, float]
    um_per_px: float
    channels: Channels

    @classmethod
    def open(cls, path: str | Path) -> GeneratedSlide:
        """Open a folder written by ``sge2hist generate-slide``; pixels and cells stay on disk.

        Raises
        ------
        InputError
            If the folder is missing, holds no slide, or its manifest is damaged.
        """
        path = as_path(path, "path")
        manifest = read_manifest(path, KIND)
        if manifest.get("mode") != SLIDE_MODE or not (path / SLIDE_NAME).is_file():
            raise InputError(
                found="generated patches" if manifest.get("mode") != SLIDE_MODE else f"no {SLIDE_NAME}",
                where=str(path),
                expected="a generated slide",
                repair="make one with `sge2hist generate-slide MODEL --data X.paired -o X.generated`",
            )
        try:
            x, y, width, height = (float(value) for value in manifest["region_um"])
            return cls(
                path=path,
                manifest=manifest,
                slide_id=str(manifest["slide"]),
                region_um=(x, y, width, height),
                um_per_px=float(manifest["um_per_px"]),
                channels=tuple(manifest.get("channels") or RGB),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                found=f"an incomplete manifest ({error!r})",
                where=str(path / MANIFEST_NAME),
                expected="slide, region_um and um_per_px",
                repair="generate the slide again",
            ) from error

    @property
    def seed(self) -> int:
        """Seed of the image; -1 when the manifest states none."""
        return int(self.manifest.get("seed", -1))

    @property
    def is_toy(self) -> bool:
        """Whether model or cells come from toy tissue."""
        return bool(self.manifest.get("toy", False))

    @cached_property
    def image(self) -> SlideImage:
        """The generated image, opened lazily."""
        return SlideImage.open(self.path / SLIDE_NAME, channels=self.channels)

    @cached_property
    def uncertainty(self) -> SlideImage | None:
        """The spread over seeds, in grey (`uncertainty_scale` of the manifest is levels per grey level); None for one seed."""
        path = self.path / UNCERTAINTY_NAME
        return SlideImage.open(path) if path.is_file() else None

    def cells(self) -> anndata.AnnData | None:
        """The cells on the slide: obs cell_type, ...; px of the image in ``obsm["spatial"]``. None where none are stored."""
        return _read_cells(self.path) if (self.path / CELLS_NAME).is_file() else None

    def slide_number(self, data: PairedDataset, channels: Channels | None = None) -> int:
        """Index into `data.slides` of the real slide, which has to have `channels` (default: those of this one).

        Raises
        ------
        InputError
            If `data` has no such slide, or its slides have other channels.
        """
        if self.slide_id not in data.slide_ids:
            raise InputError(
                found=f"no slide {self.slide_id!r}",
                where=str(data.path),
                expected=f"one of {', '.join(data.slide_ids)}",
                repair=f"give the paired dataset that {self.path.name} was generated from",
            )
        require_same_channels(channels or self.channels, data.channels, where=str(self.path))
        return data.slide_ids.index(self.slide_id)


def _read_cells(path: Path) -> anndata.AnnData:
    import anndata

    try:
        return anndata.read_h5ad(path / CELLS_NAME)
    except Exception as error:  # anndata wraps whatever h5py met in its own error types
        raise InputError(
            found=f"a table of cells that cannot be read ({error})",
            where=str(path / CELLS_NAME),
            repair="generate again",
        ) from error


def read_image(path: Path, channels: Channels = RGB) -> np.ndarray:
    """Return a PNG, TIFF or JPEG as uint8 [H, W, C]; RGBA is composited on white, 16 bits and other channels are refused.

    Channels of a fluorescence TIFF may come first or last.
    """
    import tifffile
    from PIL import Image

    is_tiff = path.suffix.lower() in (".tif", ".tiff")
    if is_tiff and is_rgb(channels):
        return SlideImage.open(path).as_array()
    try:
        if is_tiff:
            pixels = tifffile.imread(path)
        else:
            with Image.open(path) as opened:
                transparent = opened.mode == "RGBA" or "transparency" in opened.info
                mode = "RGBA" if transparent else "RGB" if opened.mode == "P" else None
                pixels = np.asarray(opened.convert(mode) if mode else opened)
    except (OSError, ValueError) as error:
        raise InputError(
            found=f"an image that cannot be read ({error})", where=str(path), expected="a complete PNG, TIFF or JPEG"
        ) from error
    if is_rgb(channels):
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] not in (3, 4):
            raise InputError(found=f"{pixels.dtype} of shape {pixels.shape}", where=str(path), expected="8-bit RGB")
        return on_white(pixels) if pixels.shape[-1] == 4 else pixels
    return _channels_last(pixels, channels, path)


def _channels_last(pixels: np.ndarray, channels: Channels, path: Path) -> np.ndarray:
    n = len(channels)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim == 3 and pixels.shape[-1] != n:
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] != n:
        raise InputError(
            found=f"{pixels.dtype} of shape {pixels.shape}",
            where=str(path),
            expected=f"8 bits, {n} channel(s): {', '.join(channels)}",
        )
    return pixels


@contextmanager
def generated_set_writer(
    path: str | Path, obs: pd.DataFrame, latents_NZ: dict[str, np.ndarray], manifest: dict[str, Any], *, overwrite: bool
) -> Iterator[GeneratedSetWriter]:
    """Write generated patches: the block adds one image per row of `obs`; nothing stays on disk when it fails.

    Parameters
    ----------
    latents_NZ
        Arrays for ``obsm`` of cells.h5ad, one row per image.
    manifest
        Fields of the manifest; ``manifest["channels"]`` names the channels of the images, RGB when it is absent.
    """
    import anndata
    from scipy.sparse import csr_matrix

    channels: Channels = tuple(manifest.get("channels") or RGB)
    with atomic_directory(path, overwrite=overwrite, kind=KIND) as partial:
        with ThreadPoolExecutor(2) as pool:
            writer = GeneratedSetWriter(partial, pool, channels, note_of(manifest))
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


class GeneratedSetWriter:
    """Writes each image in the background as it is added."""

    def __init__(self, path: Path, pool: ThreadPoolExecutor, channels: Channels, note: str = NOTE) -> None:
        self._channels, self._note = channels, note
        self._images, self._pool = path / IMAGES_NAME, pool
        self._images.mkdir()
        self._pending: list[Future[None]] = []
        self.n_images = 0

    def add(self, images_BHWC: np.ndarray) -> None:
        """Append images uint8 [B, H, W, C]; files are numbered in the order of adding."""
        for image in images_BHWC:
            path = self._images / image_name(self.n_images, self._channels)
            self._pending.append(self._pool.submit(_write, path, image, self._channels, self._note))
            self.n_images += 1
        while len(self._pending) > MAX_PENDING:
            self._pending.pop(0).result()

    def finish(self) -> None:
        """Wait for the disk; raises what a write raised."""
        for future in self._pending:
            future.result()
        self._pending.clear()


def image_name(number: int, channels: Channels = RGB) -> str:
    """File name of image number `number`."""
    return f"{number:06d}.{'png' if is_rgb(channels) or len(channels) == 1 else 'ome.tif'}"


def _write(path: Path, image_HWC: np.ndarray, channels: Channels, note: str) -> None:
    if path.suffix == ".png":
        _write_png(path, image_HWC if is_rgb(channels) else image_HWC[..., 0], note)
    else:
        _write_tiff(path, image_HWC, channels, note)


def _write_png(path: Path, image: np.ndarray, note: str) -> None:
    from PIL import Image

    Image.fromarray(image).save(path, **png_options(note))


def png_options(note: str = NOTE) -> dict[str, Any]:
    """Options of Pillow for the PNG of a generated image: the note that it is synthetic, and the compression."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Software", "sge2hist")
    info.add_text("Comment", note)
    return {"pnginfo": info, "compress_level": 3}


def _write_tiff(path: Path, image_HWC: np.ndarray, channels: Channels, note: str) -> None:
    import tifffile

    metadata = {"axes": "CYX", "Channel": {"Name": list(channels)}, "Description": note}
    planes = np.ascontiguousarray(np.moveaxis(image_HWC, -1, 0))
    tifffile.imwrite(path, planes, ome=True, photometric="minisblack", compression="adobe_deflate", metadata=metadata)
