"""AnnData (h5ad) beside an H&E image: `obsm["spatial"]` holds x, y, in a frame that pairing finds out. Counts are streamed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csc_array, csr_array, vstack

from sge2hist.data.errors import InputError
from sge2hist.data.position_frame import FrameFacts, read_facts
from sge2hist.data.section import Section
from sge2hist.data.slides.channels import Channels
from sge2hist.data.slides.slide_image import SlideImage
from sge2hist.data.table_sections import choose_section
from sge2hist.readers.count_rows import CountReader, regrouped, sum_rows
from sge2hist.readers.tables import damaged, unique_names

POSITION_KEYS = ("spatial", "X_spatial")
CHUNK_ENTRIES = 20_000_000  # stored values (or dense cells) decoded at a time
COUNT_LOCATIONS = ("layers/counts", "layers/raw_counts", "X", "raw/X")
ID_COLUMNS = ("gene_ids", "gene_id", "ensembl_id", "ensembl", "feature_id")
SYMBOL_COLUMNS = ("symbol", "gene_symbol", "gene_symbols", "feature_name", "gene_name", "name")
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
    section: str | None = None,
) -> Section:
    """Read one section from an h5ad file and its H&E.

    Parameters
    ----------
    image
        The H&E; required. `obsm["spatial"]` holds x, y in its px, or in another frame (`pairing.alignment.frame`).
    um_per_px
        Scale of that image; needed when neither the file (`uns["spatial"]`, `uns["um_per_px"]`) nor the image does.
    layer
        Name of the layer with raw counts, "X" or "raw/X"; found by itself when None.
    channels
        See `open_sections`.
    section
        Name of one of several sections, in a column such as sample or library_id, or the ending of its barcodes.

    Raises
    ------
    InputError
        If the image, positions, scale or raw counts are missing, the file holds several sections and none is chosen, or it is
        damaged.
    """
    path = Path(path)
    slide = _open_image(image, path, channels)
    with open_h5ad(path) as file:
        obs, var = (_table(file, name, path) for name in ("obs", "var"))
        genes, notes = read_genes(var)
        positions_N2 = _positions(file, path)
        facts, libraries = _stated_frames(file, section, obs.index)
        rows = choose_section(obs, positions_N2, libraries, section, str(path))
        location = find_counts(file, layer, str(path))
        sources = _scales(file, slide, um_per_px)
        count_reader(file, location, (len(obs), len(var)), str(path))  # checks the shape
    if not sources:
        raise InputError(
            found="no um per px, neither in the file nor in the image", where=str(path), repair=REPAIR_SCALE
        )
    read_counts = _reopening_reader(path, location, (len(obs), len(var)))
    if rows is not None:
        observation_of_row = np.full(len(obs), -1, np.int64)
        observation_of_row[rows] = np.arange(len(rows))
        read_counts = regrouped(read_counts, observation_of_row, len(rows))
        notes.append(f"section {section}: {len(rows):,} of {len(obs):,} rows")
        obs, positions_N2 = obs.iloc[rows].copy(), positions_N2[rows]
    obs = obs.drop(columns="cell_id", errors="ignore")  # the name of the index from here on
    obs.index = pd.Index([str(name) for name in obs.index], name="cell_id")
    notes = [f"raw counts taken from {location}", *notes, *slide.notes]
    return Section(
        name=name or (path.stem if rows is None else f"{path.stem}_{section}"),
        technology="AnnData",
        software="",
        observation=observation,
        observation_um=observation_um,
        obs=obs,
        centre_xy_px=positions_N2,
        genes=genes,
        image=slide,
        um_per_px=next(iter(sources.values())),
        um_per_px_sources=sources,
        read_counts=read_counts,
        notes=notes,
        frame_facts=facts,
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


@contextmanager
def open_h5ad(path: Path) -> Iterator[Any]:
    """Yield an h5ad opened for reading; whatever h5py, numpy and anndata raise on damaged bytes becomes one `InputError`."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            yield file
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(found="no such file", where=str(path), expected="an h5ad file") from None
    except Exception as error:
        raise damaged(path, "h5ad file", error) from error


def _table(file: Any, name: str, path: Path) -> pd.DataFrame:
    table = read_element(file, name, str(path))
    if not isinstance(table, pd.DataFrame):
        raise InputError(
            found=f"{name} that is no table", where=str(path), expected="an h5ad written by anndata >= 0.7"
        )
    return table


def _stated_frames(file: Any, section: str | None, names: pd.Index) -> tuple[FrameFacts, list[str]]:
    """What `uns` states about the frames of the positions, and its libraries; of one library if `section` names it."""
    uns = file.get("uns", {})
    spatial: Any = uns.get("spatial") if "spatial" in uns else None
    libraries = [str(name) for name in spatial] if hasattr(spatial, "keys") else []
    if section in libraries:
        return read_facts({"spatial": {section: spatial[section]}}, names), libraries
    return read_facts(uns, names), libraries


def _positions(file: Any, path: Path) -> np.ndarray:
    for key in POSITION_KEYS:
        if "obsm" in file and key in file["obsm"]:
            positions = np.asarray(read_element(file["obsm"], key, str(path)))
            if positions.ndim != 2 or positions.shape[1] < 2 or positions.dtype.kind not in "iuf":
                raise InputError(
                    found=f"obsm[{key!r}] of shape {positions.shape}",
                    where=str(path),
                    expected="[cells, 2]: x, y",
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


def _reopening_reader(path: Path, location: str, shape: tuple[int, int]) -> CountReader:
    """The file is opened for each reading, so that a section can be copied and sent to other processes."""

    def read_counts(group_of_obs: np.ndarray | None = None, n_groups: int | None = None) -> Any:
        with open_h5ad(path) as file:
            return count_reader(file, location, shape, str(path))(group_of_obs, n_groups)

    return read_counts


# One AnnData table on disk, of an h5ad or a SpatialData store: `group` is a `h5py.Group` or a `zarr.Group`.


def read_element(group: Any, name: str, where: str) -> Any:
    """Read one small element (obs, var, an obsm array, uns) through anndata."""
    from anndata.io import read_elem

    if name not in group:
        raise InputError(found=f"no {name}", where=where, expected=f"an AnnData table with {name}")
    return read_elem(group[name])


def read_genes(var: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Gene table of a section (index: unique ids, column symbol) from `var`, and notes."""
    names = [str(name) for name in var.index]
    ids = _first_column(var, ID_COLUMNS)
    symbols = _first_column(var, SYMBOL_COLUMNS)
    unique = unique_names(ids or names)
    n_renamed = sum(new != old for new, old in zip(unique, ids or names, strict=True))
    notes = [f"{n_renamed} repeated gene ids made unique by a suffix"] if n_renamed else []
    return pd.DataFrame({"symbol": symbols or names}, index=pd.Index(unique, name="gene_id")), notes


def _first_column(var: pd.DataFrame, names: tuple[str, ...]) -> list[str] | None:
    for name in names:
        if name in var.columns and not var[name].isna().any():
            return [str(value) for value in var[name]]
    return None


def find_counts(group: Any, layer: str | None, where: str) -> str:
    """Where the raw counts lie: `layer` if given, else the first of `COUNT_LOCATIONS` that holds whole numbers.

    Raises
    ------
    InputError
        If no location holds whole numbers >= 0 (normalised values cannot be turned back into counts).
    """
    if layer is not None:
        location = layer if layer in ("X", "raw/X") else f"layers/{layer}"
        if location not in group:
            known = [*(f"{name}" for name in group["layers"]), "X"] if "layers" in group else ["X"]
            raise InputError(found=f"no layer {layer!r}", where=where, expected=f"one of {', '.join(known)}")
        if not _whole_numbers(group, location):
            raise InputError(
                found=f"values in {layer!r} that are not counts", where=where, expected="whole numbers >= 0"
            )
        return location
    looked = [location for location in COUNT_LOCATIONS if location in group]
    for location in looked:
        if _whole_numbers(group, location):
            return location
    raise InputError(
        found=f"no raw counts ({', '.join(looked) or 'no X'} hold other values, e.g. normalised ones)",
        where=where,
        expected="whole numbers >= 0 in X, raw.X or layers['counts']",
        repair="save the raw counts as layers['counts'], or name their layer",
    )


def _whole_numbers(group: Any, location: str, n_values: int = 1_000_000) -> bool:
    element = group[location]
    if _is_sparse(element):
        values = element["data"][:n_values]
    else:
        values = element[: max(1, n_values // max(1, element.shape[1]))]
    values = np.asarray(values)
    return values.dtype.kind in "iufb" and bool(
        np.isfinite(values).all() and (values >= 0).all() and not (values % 1).any()
    )


def _is_sparse(element: Any) -> bool:
    return not hasattr(element, "shape") or "indptr" in getattr(element, "keys", list)()


def count_reader(group: Any, location: str, shape: tuple[int, int], where: str) -> CountReader:
    """Reader of int32 counts as `Section.read_counts` defines it; rows are streamed in chunks.

    A matrix stored by columns is loaded whole (its rows cannot be streamed); memory is then that of its values.
    """
    _check_shape(group[location], shape, f"{where}:{location}")

    def read_counts(group_of_obs: np.ndarray | None = None, n_groups: int | None = None) -> csr_array:
        chunks = _row_chunks(group[location], shape, f"{where}:{location}")
        if group_of_obs is None:
            whole: csr_array = vstack([chunk for _, chunk in chunks], format="csr")
            return whole
        n_groups = int(group_of_obs.max(initial=-1)) + 1 if n_groups is None else n_groups
        total: Any = csr_array((n_groups, shape[1]), dtype=np.int32)
        for start, chunk in chunks:
            total = csr_array(total + sum_rows(chunk, group_of_obs[start : start + chunk.shape[0]], n_groups))
        return total

    return read_counts


def _check_shape(element: Any, shape: tuple[int, int], where: str) -> None:
    found = tuple(element.attrs["shape"]) if _is_sparse(element) else tuple(element.shape)
    if tuple(map(int, found)) != shape:
        raise InputError(found=f"counts of shape {found}", where=where, expected=f"{shape}, the lengths of obs and var")


def _row_chunks(element: Any, shape: tuple[int, int], where: str) -> Iterator[tuple[int, csr_array]]:
    """(first row, int32 CSR) pieces of at most about CHUNK_ENTRIES values."""
    n_rows, n_genes = shape
    if not _is_sparse(element):
        step = max(1, CHUNK_ENTRIES // max(1, n_genes))
        for start in range(0, n_rows, step):
            yield start, csr_array(_as_counts(element[start : start + step], where))
        return
    indptr = np.asarray(element["indptr"][:], np.int64)
    if str(element.attrs.get("encoding-type", "")).startswith("csc"):
        arrays = (_as_counts(element["data"][:], where), element["indices"][:], indptr)
        yield 0, csr_array(csc_array(arrays, shape=shape))
        return
    if len(indptr) != n_rows + 1 or (np.diff(indptr) < 0).any():
        raise InputError(found="row pointers that do not fit the table", where=where, expected="a sound CSR matrix")
    start = 0
    while start < n_rows:
        stop = int(np.searchsorted(indptr, indptr[start] + CHUNK_ENTRIES, side="right")) - 1
        stop = min(max(stop, start + 1), n_rows)
        first, last = indptr[start], indptr[stop]
        indices = np.asarray(element["indices"][first:last])
        if indices.size and (indices.min() < 0 or indices.max() >= n_genes):
            raise InputError(found="gene indices outside the table", where=where, expected=f"0 to {n_genes - 1}")
        data = _as_counts(element["data"][first:last], where)
        yield start, csr_array((data, indices, indptr[start : stop + 1] - first), shape=(stop - start, n_genes))
        start = stop


def _as_counts(values: Any, where: str) -> np.ndarray:
    values = np.asarray(values)
    if values.dtype.kind not in "iufb" or (values < 0).any() or (values % 1).any():
        raise InputError(found="values that are not counts", where=where, expected="whole numbers >= 0")
    return values.astype(np.int32)
