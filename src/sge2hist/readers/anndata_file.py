"""AnnData (h5ad) beside an H&E image: `obsm["spatial"]` holds x, y in px of that image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sge2hist.data.channels import Channels
from sge2hist.data.errors import InputError
from sge2hist.data.section import Section
from sge2hist.data.slide_image import SlideImage
from sge2hist.readers.anndata_table import count_reader, find_counts, read_element, read_genes
from sge2hist.readers.count_rows import CountReader
from sge2hist.readers.tables import damaged

POSITION_KEYS = ("spatial", "X_spatial")
SLIDE_COLUMNS = ("slide", "library_id", "slide_id")
REPAIR_SCALE = "give --image-um-per-px (side of one pixel of the H&E in um)"


def read(
    path: str | Path,
    *,
    image: str | Path | None = None,
    um_per_px: float | None = None,
    layer: str | None = None,
    name: str | None = None,
    observation: str = "cell",
    observation_um: float | None = None,
    channels: Channels | None = None,
) -> Section:
    """Read one section from an h5ad file and its H&E.

    Parameters
    ----------
    image
        The H&E whose px `obsm["spatial"]` counts in; required.
    um_per_px
        Scale of that image; needed when neither the file (`uns["spatial"]`, `uns["um_per_px"]`) nor the image does.
    layer
        Name of the layer with raw counts, "X" or "raw/X"; found by itself when None.
    channels
        See `open_sections`.

    Raises
    ------
    InputError
        If the image, positions, scale or raw counts are missing, several slides share the file, or it is damaged.
    """
    path = Path(path)
    slide = _open_image(image, path, channels)
    with opened(path) as file:
        obs, var = (_table(file, name, path) for name in ("obs", "var"))
        _refuse_several_slides(obs, path)
        genes, notes = read_genes(var)
        centre_xy_px = _positions(file, path)
        place = find_counts(file, layer, str(path))
        sources = _scales(file, slide, um_per_px)
        count_reader(
            file, place, (len(obs), len(var)), str(path)
        )  # checks the shape now, not in the middle of the work
    if not sources:
        raise InputError(
            found="no um per px, neither in the file nor in the image", where=str(path), repair=REPAIR_SCALE
        )
    obs = obs.drop(columns="cell_id", errors="ignore")  # the name of the index from here on
    obs.index = pd.Index([str(name) for name in obs.index], name="cell_id")
    notes = [f"raw counts taken from {place}", *notes, *slide.notes]
    return Section(
        name=name or path.stem,
        technology="AnnData",
        software="",
        observation=observation,
        observation_um=observation_um,
        obs=obs,
        centre_xy_px=centre_xy_px,
        genes=genes,
        image=slide,
        um_per_px=next(iter(sources.values())),
        um_per_px_sources=sources,
        read_counts=_reopening_reader(path, place, (len(obs), len(var))),
        notes=notes,
    )


def _open_image(image: str | Path | None, path: Path, channels: Channels | None) -> SlideImage:
    if image is None:
        raise InputError(
            found="no H&E image",
            where=str(path),
            expected="the image that obsm['spatial'] is in px of",
            repair="give --image",
        )
    return SlideImage.open(image, channels=channels)


class opened:
    """An h5ad opened for reading; whatever the HDF5 library says of a damaged file becomes one InputError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Any:
        import h5py

        try:
            self.file = h5py.File(self.path, "r")
        except FileNotFoundError:
            raise InputError(found="no such file", where=str(self.path), expected="an h5ad file") from None
        except OSError as error:
            raise damaged(self.path, "h5ad file", error) from error
        return self.file

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.file.close()
        # h5py, numpy and anndata each raise their own types on damaged bytes; our own errors pass.
        if isinstance(error, Exception) and not isinstance(error, InputError):
            raise damaged(self.path, "h5ad file", error) from error


def _table(file: Any, name: str, path: Path) -> pd.DataFrame:
    table = read_element(file, name, str(path))
    if not isinstance(table, pd.DataFrame):
        raise InputError(
            found=f"{name} that is no table", where=str(path), expected="an h5ad written by anndata >= 0.7"
        )
    return table


def _refuse_several_slides(obs: pd.DataFrame, path: Path) -> None:
    for column in SLIDE_COLUMNS:
        if column in obs.columns and obs[column].nunique() > 1:
            names = ", ".join(map(str, obs[column].unique()[:4]))
            raise InputError(
                found=f"{obs[column].nunique()} slides in one file ({column}: {names})",
                where=str(path),
                expected="one slide, since one image is given",
                repair=f"save adata[adata.obs[{column!r}] == ...] to one file per slide and prepare them together",
            )


def _positions(file: Any, path: Path) -> np.ndarray:
    for key in POSITION_KEYS:
        if "obsm" in file and key in file["obsm"]:
            positions = np.asarray(read_element(file["obsm"], key, str(path)))
            if positions.ndim != 2 or positions.shape[1] < 2 or positions.dtype.kind not in "iuf":
                raise InputError(
                    found=f"obsm[{key!r}] of shape {positions.shape}",
                    where=str(path),
                    expected="[cells, 2]: x, y in px",
                )
            return positions[:, :2].astype(np.float64)
    raise InputError(
        found="no positions", where=str(path), expected="obsm['spatial'] with x, y in px of the image given"
    )


def _scales(file: Any, slide: SlideImage, um_per_px: float | None) -> dict[str, float]:
    """Every um/px found, the one to use first: the user's, the file's, the image's."""
    sources = {} if um_per_px is None else {"--image-um-per-px": um_per_px}
    uns = file.get("uns", {})
    stated = {"uns['um_per_px']": uns["um_per_px"]} if "um_per_px" in uns else {}
    if "spatial" in uns and hasattr(uns["spatial"], "keys"):
        for library in uns["spatial"]:
            factors = uns["spatial"][library].get("scalefactors") if hasattr(uns["spatial"][library], "get") else None
            if factors is not None and "microns_per_pixel" in factors:
                stated[f"uns['spatial'][{library!r}] microns_per_pixel"] = factors["microns_per_pixel"]
    sources |= {name: float(np.asarray(value[()])) for name, value in stated.items()}
    if slide.um_per_px is not None:
        sources["image metadata"] = slide.um_per_px
    return {name: value for name, value in sources.items() if np.isfinite(value) and value > 0}


def _reopening_reader(path: Path, place: str, shape: tuple[int, int]) -> CountReader:
    """The file is opened anew for each reading, so that a section can be kept, copied and sent to other processes."""

    def read_counts(group_of_obs: np.ndarray | None = None, n_groups: int | None = None) -> Any:
        with opened(path) as file:
            return count_reader(file, place, shape, str(path))(group_of_obs, n_groups)

    return read_counts
