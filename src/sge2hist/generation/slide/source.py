"""The cells that a slide is generated from: those of a paired dataset, or of any AnnData with positions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.gene_panel import GenePanel
from sge2hist.data.paired import UNKNOWN, PairedDataset
from sge2hist.data.position_frame import check_positions_option, positions_in_um, read_facts
from sge2hist.data.slides.channels import Channels
from sge2hist.data.slides.slide_image import SlideImage
from sge2hist.data.table.cell_table import CellTable, refuse_with_dataset
from sge2hist.data.table.positions import FULLRES_KEYS, POSITION_KEYS, px_by_name, read_positions
from sge2hist.data.table.proteins import ProteinTable
from sge2hist.data.table_sections import choose_section

if TYPE_CHECKING:
    import anndata
    import pandas as pd
    from scipy.sparse import csr_array

Rectangle = tuple[float, float, float, float]
CELL_TYPE_OBS_COLUMNS = ("cell_type", "sge2hist_type", "celltype", "cell_types")
MAX_EXTENT_MM = 200.0
MARGIN_UM = 64.0  # between the cells of an AnnData and the edge of the slide


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
    um_per_edit_unit: float  # um per unit of an edit's coordinates: px of the slide, or um
    manifest: dict[str, Any]  # fields for the manifest: path and fingerprint of the data
    outline_um_NV2: np.ndarray | None = None  # float32, vertices from each cell's centre; None: points
    image: Callable[[], SlideImage] | None = None  # the real slide, if there is one
    channels: Channels | None = None  # of the real slide
    centre_rows: np.ndarray | None = None  # of 0..N-1: cells whose expression is compared with the model's; None: all
    warnings: tuple[str, ...] = ()  # about the positions
    notes: tuple[str, ...] = ()  # about the counts
    z1_NT: np.ndarray | None = None  # of cells whose type is given, whose counts the model expects
    read_proteins: Callable[[], ProteinTable | None] = lambda: None  # of all N cells

    @cached_property
    def proteins(self) -> ProteinTable | None:
        """Proteins of the cells, read when a model asks for them; None where there are none."""
        return self.read_proteins()

    @cached_property
    def ids(self) -> pd.Index:
        """The ids, for look-ups."""
        import pandas as pd

        return pd.Index(self.id_N)


def open_source(
    data: PairedDataset | anndata.AnnData | str | Path,
    slide: int | None = None,
    *,
    section: str | None = None,
    positions: str = "auto",
    um_per_px: float | None = None,
    layer: str | None = None,
    round_counts: bool = False,
    seed: int = 0,
) -> SlideSource:
    """The cells of one slide of a paired dataset, of an AnnData, or of the path of either.

    Parameters
    ----------
    slide, section
        Which of several slides of a paired dataset: its number from 0, or its name. `section` also chooses one of several
        sections of an AnnData.
    positions, um_per_px, layer, round_counts, seed
        See `source_from_adata`.

    Raises
    ------
    InputError
        If `data` is something else, cannot be read, or has no such slide; if it has several and none is chosen; if the
        positions of an AnnData are not in um and no unit is stated.
    """
    import anndata

    check_positions_option(positions)
    if isinstance(data, str | Path) and Path(data).suffix != ".h5ad":
        data = PairedDataset.open(data)
    if isinstance(data, PairedDataset):
        refuse_with_dataset(str(data.path), layer, round_counts, positions, um_per_px)
        return source_from_paired(data, _slide_number(data, slide, section))
    if not isinstance(data, str | Path | anndata.AnnData):
        raise InputError(
            found=f"cells of type {type(data).__name__}",
            expected="a PairedDataset, an AnnData, or the path of a .paired folder or .h5ad file",
        )
    cells = CellTable.of(data, layer=layer, round_counts=round_counts, seed=seed)
    name = "cells" if isinstance(data, anndata.AnnData) else Path(data).stem
    return source_from_adata(cells, name, section=section, positions=positions, um_per_px=um_per_px)


def _slide_number(dataset: PairedDataset, slide: int | None, section: str | None) -> int:
    names = [str(name) for name in dataset.slide_ids]
    if section is not None:
        if section not in names:
            raise InputError(
                found=f"--section {section}", where=str(dataset.path), expected=f"one of {', '.join(names)}"
            )
        return names.index(section)
    if slide is None and len(names) > 1:
        raise InputError(
            found=f"{len(names)} slides ({', '.join(names)})",
            where=str(dataset.path),
            expected="the name of one",
            repair=f"--section {names[0]} (Python: section={names[0]!r})",
        )
    return slide or 0


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
        um_per_edit_unit=dataset.um_per_px,
        manifest={
            "data_path": str(dataset.path.resolve()),
            "data_fingerprint": dataset.fingerprint,
            "toy": dataset.is_toy,
        },
        outline_um_NV2=None if dataset.outline_um is None else dataset.outline_um[rows],
        image=lambda: dataset.slides[slide],
        channels=dataset.channels,
        centre_rows=np.flatnonzero(dataset.is_centre[rows]),
        read_proteins=lambda: None if dataset.proteins is None else dataset.proteins.take(rows),
    )


def source_from_adata(
    cells: anndata.AnnData | CellTable,
    name: str = "cells",
    *,
    section: str | None = None,
    positions: str = "auto",
    um_per_px: float | None = None,
    layer: str | None = None,
    round_counts: bool = False,
    seed: int = 0,
) -> SlideSource:
    """The cells of an AnnData: raw counts, and positions in obs (x_um, y_um) or ``obsm["spatial"]``.

    Parameters
    ----------
    section
        Which of several sections: a value of a column such as sample or library_id, or an ending of the barcodes.
    positions
        Unit of ``obsm["spatial"]``: "um", "px", "hires", "lowres" (`data.position_frame`), or "auto": um, and refused if
        distances or `uns` show that they are not.
    um_per_px
        Side of a px in um; None: as `uns` states.
    layer, round_counts, seed
        Where the raw counts are, and whether they are rounded, by `seed`
        (:meth:`sge2hist.data.table.cell_table.CellTable.of`).

    Raises
    ------
    InputError
        If it has no cells, no usable positions, no raw counts, or several sections and none is chosen.
    """
    import hashlib
    import json

    if cells.n_obs == 0:
        raise InputError(found="an AnnData without cells", expected="at least one")
    table = CellTable.of(cells, layer=layer, round_counts=round_counts, seed=seed)
    xy_N2, are_um, px_key = _stored_positions(table, positions)
    libraries = [str(key) for key in table.uns.get("spatial") or {}]
    rows = choose_section(table.obs, xy_N2, libraries, section, name)
    if rows is not None:
        table, xy_N2, name = table.take(rows), xy_N2[rows], f"{name}_{section}"
    xy_um_N2, warnings = (xy_N2, []) if are_um else _in_um(table, xy_N2, positions, um_per_px, section, name, px_key)
    extent_mm = (xy_um_N2.max(0) - xy_um_N2.min(0)).max() / 1000
    if extent_mm > MAX_EXTENT_MM:
        raise InputError(
            found=f"positions over {extent_mm:.0f} mm", expected="um", repair="px or nm times their size are um"
        )
    low, high = xy_um_N2.min(0) - MARGIN_UM, xy_um_N2.max(0) + MARGIN_UM
    column = next((column for column in CELL_TYPE_OBS_COLUMNS if column in table.obs), None)
    id_N, genes, counts = table.obs.index.astype(str).to_numpy(), table.genes, table.counts_NG
    type_N = None if column is None else _type_names(table.obs[column])
    digest = hashlib.blake2b(np.ascontiguousarray(xy_um_N2).tobytes(), digest_size=16)
    for part in (counts.data, counts.indices, counts.indptr):
        digest.update(np.ascontiguousarray(part).tobytes())
    if table.proteins is not None:
        digest.update(json.dumps(table.proteins.names).encode())
        digest.update(np.ascontiguousarray(table.proteins.value_NP).tobytes())
    for names in (genes.ids, genes.symbols, id_N, [] if type_N is None else type_N):
        digest.update(json.dumps([str(name) for name in names]).encode())
    x, y = np.floor(low)
    width, height = np.ceil(high) - np.floor(low)
    return SlideSource(
        xy_um_N2=xy_um_N2,
        id_N=id_N,
        type_N=type_N,
        genes=genes,
        read_counts=table.rows,
        read_proteins=lambda: table.proteins,
        bounds_um=(float(x), float(y), float(width), float(height)),
        slide=name,
        um_per_edit_unit=1.0 if positions in ("auto", "um") else um_per_px or read_facts(table.uns).um_per_px or 1.0,
        manifest={
            "data_fingerprint": digest.hexdigest(),
            "toy": False,
            "counts": table.counts,
            **_stated(positions, um_per_px, section),
        },
        warnings=tuple(warnings),
        notes=(table.summary(),),
    )


def _type_names(column: pd.Series) -> np.ndarray:
    """Names of types; missing and empty ones are unknown."""
    text = column.astype(str).str.strip()
    return text.where(column.notna() & (text != "") & (text != "nan"), UNKNOWN).to_numpy()


def _stored_positions(table: CellTable, positions: str) -> tuple[np.ndarray, bool, str | None]:
    """Positions as stored, float64 [N, 2], whether their names say that they are um, and the key that says that they are px."""
    px_key = None
    are_um = positions in ("auto", "um") and {"x_um", "y_um"} <= set(table.obs)
    if are_um:
        xy = table.obs[["x_um", "y_um"]].to_numpy(np.float64)
    elif not any(key in table.obsm for key in (*POSITION_KEYS, *FULLRES_KEYS)):
        raise InputError(
            found=f"no positions (obsm has {', '.join(table.obsm) or 'nothing of that name'})",
            where=table.where,
            expected='columns x_um and y_um in obs, or obsm["spatial"]',
            repair="store them there; px times um/px are um",
        )
    else:
        key, are_px = px_by_name(table.obsm, positions, lambda key: read_positions(table.obsm[key], key, table.where))
        px_key = f"obsm[{key!r}]" if are_px else None
        xy = read_positions(table.obsm[key], key, table.where)
    if not np.isfinite(xy).all():
        raise InputError(found=f"{int((~np.isfinite(xy)).any(1).sum())} cells without a position", expected="numbers")
    return xy, are_um, px_key


def _in_um(
    table: CellTable,
    xy_N2: np.ndarray,
    positions: str,
    um_per_px: float | None,
    section: str | None,
    name: str,
    px_key: str | None,
) -> tuple[np.ndarray, list[str]]:
    uns = table.uns
    spatial = uns.get("spatial") or {}
    facts = read_facts({"spatial": {section: spatial[section]}} if section in spatial else uns, table.obs.index)
    stated_px = None
    if uns.get("sge2hist"):
        stated_px = "uns['sge2hist'] shows: a table of a paired dataset"
    elif any("spot_diameter_fullres" in (library.get("scalefactors") or {}) for library in spatial.values() if library):
        stated_px = "uns['spatial'] shows: a table of Visium"
    elif px_key is not None:
        stated_px = f"{px_key} shows: px of the full-resolution image"
    return positions_in_um(
        xy_N2, positions=positions, facts=facts, um_per_px=um_per_px, stated_px=stated_px, where=name
    )


def _stated(positions: str, um_per_px: float | None, section: str | None) -> dict[str, Any]:
    """What was stated about positions, for the manifest."""
    stated = {"positions": None if positions == "auto" else positions, "image_um_per_px": um_per_px, "section": section}
    return {key: value for key, value in stated.items() if value is not None}


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
