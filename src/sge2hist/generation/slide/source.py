"""The cells that a slide is generated from: those of a paired dataset, or of any AnnData with positions in um."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.gene_panel import GenePanel
from sge2hist.data.paired import UNKNOWN, PairedDataset
from sge2hist.data.slides.channels import Channels
from sge2hist.data.slides.slide_image import SlideImage
from sge2hist.generation.embed import panel_of, raw_counts

if TYPE_CHECKING:
    import anndata
    import pandas as pd
    from scipy.sparse import csr_array

Rectangle = tuple[float, float, float, float]
TYPE_COLUMNS = ("cell_type", "sge2hist_type", "celltype", "cell_types")
MARGIN_UM = 64.0  # between the cells of an AnnData and the edge of the slide
MIN_SPACING_UM = 0.5  # of the median distance to the nearest cell


@dataclass(frozen=True, kw_only=True)
class SlideSource:
    """N cells of one slide. Positions are um from the slide's corner (of an AnnData: its own coordinates)."""

    xy_um_N2: np.ndarray  # float64
    id_N: np.ndarray  # str
    type_N: np.ndarray | None  # str, or None: the model predicts them
    genes: GenePanel
    read_counts: Callable[[np.ndarray], csr_array]  # rising positions in 0..N-1 -> raw counts, CSR [n, G]
    bounds_um: Rectangle  # x, y, width, height
    slide: str  # name
    um_per_edit: float  # um per unit of an edit's coordinates: px of the slide, or um
    manifest: dict[str, Any]  # fields for the manifest: path and fingerprint of the data
    image: Callable[[], SlideImage] | None = None  # the real slide, if there is one
    channels: Channels | None = None  # of the real slide


def open_source(data: PairedDataset | anndata.AnnData | str | Path, slide: int = 0) -> SlideSource:
    """The cells of a paired dataset (those of one slide, by its number), of an AnnData, or of the path of either.

    Raises
    ------
    InputError
        If `data` is something else, cannot be read, or has no such slide.
    """
    import anndata

    if isinstance(data, str | Path) and Path(data).suffix != ".h5ad":
        data = PairedDataset.open(data)
    if isinstance(data, PairedDataset):
        return source_from_paired(data, slide)
    if isinstance(data, anndata.AnnData):
        return source_from_adata(data)
    if not isinstance(data, str | Path):
        raise InputError(
            found=f"cells of type {type(data).__name__}",
            expected="a PairedDataset, an AnnData, or the path of a .paired folder or .h5ad file",
        )
    try:
        adata = anndata.read_h5ad(data)
    except Exception as error:  # anndata wraps whatever h5py met in its own error types
        raise InputError(found=f"a file that cannot be read ({error})", where=str(data), expected="an .h5ad") from error
    return source_from_adata(adata, Path(data).stem)


def source_from_paired(dataset: PairedDataset, slide: int = 0) -> SlideSource:
    """The cells of one slide of a paired dataset."""
    if not 0 <= slide < len(dataset.slide_ids):
        raise InputError(
            found=f"slide {slide}", where=str(dataset.path), expected=f"a number from 0 to {len(dataset.slide_ids) - 1}"
        )
    rows = np.flatnonzero(dataset.slide_of_cell == slide)
    stored = dataset.manifest["slides"][slide]
    return SlideSource(
        xy_um_N2=dataset.centre_xy_px[rows] * dataset.um_per_px,
        id_N=dataset.obs.index.astype(str).to_numpy()[rows],
        type_N=dataset.obs["cell_type"].astype(str).to_numpy()[rows],
        genes=dataset.genes,
        read_counts=lambda positions: dataset.counts(rows[positions]),
        bounds_um=(0.0, 0.0, stored["width_px"] * dataset.um_per_px, stored["height_px"] * dataset.um_per_px),
        slide=dataset.slide_ids[slide],
        um_per_edit=dataset.um_per_px,
        manifest={
            "data_path": str(dataset.path.resolve()),
            "data_fingerprint": dataset.fingerprint,
            "toy": dataset.is_toy,
        },
        image=lambda: dataset.slides[slide],
        channels=dataset.channels,
    )


def source_from_adata(adata: anndata.AnnData, name: str = "cells") -> SlideSource:
    """The cells of an AnnData: raw counts, and positions in um in obs (x_um, y_um) or ``obsm["spatial"]``.

    Raises
    ------
    InputError
        If it has no cells, no usable positions, or no raw counts.
    """
    import hashlib
    import json

    counts = raw_counts(adata)
    xy_um_N2 = _positions(adata)
    low, high = xy_um_N2.min(0) - MARGIN_UM, xy_um_N2.max(0) + MARGIN_UM
    column = next((column for column in TYPE_COLUMNS if column in adata.obs), None)
    id_N, genes = adata.obs_names.astype(str).to_numpy(), panel_of(adata)
    type_N = None if column is None else _type_names(adata.obs[column])
    digest = hashlib.blake2b(np.ascontiguousarray(xy_um_N2).tobytes(), digest_size=16)
    for part in (counts.data, counts.indices, counts.indptr):
        digest.update(np.ascontiguousarray(part).tobytes())
    for names in (genes.ids, genes.symbols, id_N, [] if type_N is None else type_N):
        digest.update(json.dumps([str(name) for name in names]).encode())
    x, y = np.floor(low)
    width, height = np.ceil(high) - np.floor(low)
    return SlideSource(
        xy_um_N2=xy_um_N2,
        id_N=id_N,
        type_N=type_N,
        genes=genes,
        read_counts=lambda positions: counts[positions],
        bounds_um=(float(x), float(y), float(width), float(height)),
        slide=name,
        um_per_edit=1.0,
        manifest={"data_fingerprint": digest.hexdigest(), "toy": False},
    )


def _type_names(column: pd.Series) -> np.ndarray:
    """Names of types; missing and empty ones are unknown."""
    text = column.astype(str).str.strip()
    return text.where(column.notna() & (text != "") & (text != "nan"), UNKNOWN).to_numpy()


def _positions(adata: anndata.AnnData) -> np.ndarray:
    if adata.n_obs == 0:
        raise InputError(found="an AnnData without cells", expected="at least one")
    if {"x_um", "y_um"} <= set(adata.obs):
        xy = adata.obs[["x_um", "y_um"]].to_numpy(np.float64)
    elif "spatial" in adata.obsm:
        _check_unit(adata)
        xy = np.asarray(adata.obsm["spatial"], np.float64)[:, :2]
    else:
        raise InputError(
            found="no positions",
            expected='columns x_um and y_um in obs, or obsm["spatial"] in um',
            repair="store them there; px times um/px are um",
        )
    if not np.isfinite(xy).all():
        raise InputError(found=f"{int((~np.isfinite(xy)).any(1).sum())} cells without a position", expected="numbers")
    extent_mm = (xy.max(0) - xy.min(0)).max() / 1000
    if extent_mm > 200:
        raise InputError(
            found=f"positions over {extent_mm:.0f} mm", expected="um", repair="px or nm times their size are um"
        )
    _check_spacing(xy)
    return xy


def _check_unit(adata: anndata.AnnData) -> None:
    """Raise `InputError` if ``obsm["spatial"]`` is known to be in px: in our own tables, and as scanpy reads Visium."""
    libraries = adata.uns.get("spatial") or {}
    visium = any("spot_diameter_fullres" in (library.get("scalefactors") or {}) for library in libraries.values())
    for name, origin, found in (
        ("sge2hist", "a paired dataset", adata.uns.get("sge2hist")),
        ("spatial", "Visium", visium),
    ):
        if found:
            raise InputError(
                found=f"positions in px, as uns[{name!r}] shows: a table of {origin}",
                expected="positions in um",
                repair="give the paired dataset itself as --data, or store px times um/px as columns x_um and y_um of obs",
            )


def _check_spacing(xy_um_N2: np.ndarray) -> None:
    """Raise `InputError` if cells are closer together than real ones: positions in mm or the like."""
    from scipy.spatial import cKDTree

    positions = np.unique(xy_um_N2, axis=0)  # several cells may share a spot
    if len(positions) < 3:
        return
    some = positions[:: max(1, len(positions) // 2000)]
    distance_um_N2, _ = cKDTree(positions).query(some, 2)
    nearest_um = float(np.median(np.asarray(distance_um_N2)[:, 1]))
    if nearest_um < MIN_SPACING_UM:
        raise InputError(
            found=f"cells that lie {nearest_um:.2g} um apart (median distance to the nearest)",
            expected="positions in um: cells are some 4 to 20 apart, bins and spots as far as their pitch",
            repair="mm times 1,000 are um; px times um/px are um",
        )


def region_px(source: SlideSource, region_um: Rectangle | None, um_per_px: float) -> tuple[int, int, int, int]:
    """A region (default: all) in px (x, y, width, height) of `um_per_px` from the origin of the positions.

    Raises
    ------
    InputError
        If it is empty or extends beyond the slide.
    """
    left, top, full_width, full_height = source.bounds_um
    x, y, width, height = region_um or source.bounds_um
    right, bottom = left + full_width + 1, top + full_height + 1
    if width <= 0 or height <= 0 or x < left or y < top or x + width > right or y + height > bottom:
        where = "" if (left, top) == (0, 0) else f" that starts at {left:g},{top:g}"
        raise InputError(
            found=f"--region {x:g},{y:g},{width:g},{height:g}",
            expected=f"x,y,width,height in um on a slide of {full_width:g} x {full_height:g} um{where}",
        )
    first_x, first_y = round(x / um_per_px), round(y / um_per_px)
    return first_x, first_y, max(1, round(width / um_per_px)), max(1, round(height / um_per_px))
