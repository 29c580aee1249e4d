"""The published model's pickle: `dict[str -> {"image": HxWx3 uint8, "gene": 1xG or G, "type": int}]`.

It knows neither where a cell lies nor what a gene is called. The pictures are laid out as a mosaic slide, one tile per
cell; a split by spatial blocks is impossible, which the notes state. Only NumPy arrays and plain containers are loaded:
a pickle can otherwise run any program.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from sge2hist.data.errors import InputError
from sge2hist.data.gene_panel import GenePanel
from sge2hist.data.section import Section
from sge2hist.data.slides.slide_image import SlideImage
from sge2hist.data.table.genes import unique_names
from sge2hist.readers.count_rows import grouped_rows
from sge2hist.readers.tables import damaged

NO_POSITIONS = (
    "the pickle holds no positions: cells are laid out as a mosaic and a split by spatial blocks is impossible; "
    "neighbouring cells may fall on both sides of any split, so scores will be optimistic"
)
GAP_PX = 4  # white pixels between pictures: neighbours in different splits share nothing, so none has to be dropped
_ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
    ("_codecs", "encode"),  # how protocols 0 to 2 spell bytes
    ("collections", "OrderedDict"),
}


class _ArraysOnly(pickle.Unpickler):
    """Refuses every name that is not needed to rebuild NumPy arrays and plain containers."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise InputError(
                found=f"a pickle that asks for {module}.{name}",
                expected="NumPy arrays, numbers, strings and dicts only (anything else can run a program)",
                repair="do not open it elsewhere; get the data as h5ad with an image",
            )
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def load_arrays(path: str | Path) -> Any:
    """Unpickle NumPy arrays and plain containers; anything else, and damage, is an `InputError`."""
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(found=f"a file that cannot be opened ({error.strerror})", where=str(path)) from error
    try:
        return _ArraysOnly(io.BytesIO(content)).load()
    except InputError as error:
        raise InputError(found=error.found, where=str(path), expected=error.expected, repair=error.repair) from None
    except Exception as error:  # damaged bytes are a program too: any exception can come out of them
        raise damaged(path, "pickle", error) from error


def read(
    path: str | Path,
    *,
    um_per_px: float | None = None,
    genes: str | Path | None = None,
    gap_px: int = GAP_PX,
    name: str | None = None,
) -> Section:
    """Read the pickle as one section on a mosaic slide.

    Parameters
    ----------
    um_per_px
        Scale of the pictures; the pickle does not state it, so it is required.
    genes
        A csv `gene_id,symbol` with the names in the order of the vectors; "gene_00000" and so on when None.
    gap_px
        White border of each tile of the mosaic.
    """
    path = Path(path)
    cells = load_arrays(path)
    names, images, counts, types = _checked(cells, path)
    if um_per_px is None:
        raise InputError(
            found="no um per px", where=str(path), expected="the scale of the pictures", repair="give --image-um-per-px"
        )
    panel = _panel(genes, counts.shape[1], path)
    mosaic, centre_xy_px, side_px = lay_out(images, gap_px)
    return Section(
        name=name or path.stem,
        technology="Published pickle",
        software="",
        observation="cell",
        observation_um=None,
        obs=pd.DataFrame({"cell_type": [f"type {number}" for number in types]}, index=pd.Index(names, name="cell_id")),
        centre_xy_px=centre_xy_px,
        genes=pd.DataFrame({"symbol": panel.symbols}, index=pd.Index(panel.ids, name="gene_id")),
        image=SlideImage.from_array(mosaic, um_per_px, path.name),
        um_per_px=um_per_px,
        um_per_px_sources={"--image-um-per-px": um_per_px},
        read_counts=grouped_rows(csr_array(counts)),
        notes=[NO_POSITIONS, f"pictures of {side_px} px, {side_px * um_per_px:g} um"],
        max_patch_um=side_px * um_per_px,
    )


def lay_out(images: list[np.ndarray], gap_px: int = 0) -> tuple[np.ndarray, np.ndarray, int]:
    """Tile pictures uint8 [h, w, 3] on a white slide, each centred in its tile.

    Returns
    -------
    uint8 [H, W, 3], centres float64 [N, 2] in px, and the side of a tile without its gap.
    """
    side_px = max(max(image.shape[:2]) for image in images)
    step_px = side_px + gap_px
    n_columns = int(np.ceil(np.sqrt(len(images))))
    n_rows = -(-len(images) // n_columns)
    mosaic = np.full((n_rows * step_px, n_columns * step_px, 3), 255, np.uint8)
    centre_xy_px = np.empty((len(images), 2))
    for index, image in enumerate(images):
        height, width = image.shape[:2]
        top = (index // n_columns) * step_px + (step_px - height) // 2
        left = (index % n_columns) * step_px + (step_px - width) // 2
        mosaic[top : top + height, left : left + width] = image
        centre_xy_px[index] = left + width / 2, top + height / 2
    return mosaic, centre_xy_px, side_px


def _checked(cells: Any, path: Path) -> tuple[list[str], list[np.ndarray], np.ndarray, list[int]]:
    expected = "dict of {'image': HxWx3 uint8, 'gene': 1xG or G, 'type': int}"
    if not isinstance(cells, dict) or not cells:
        raise InputError(found=f"a pickled {type(cells).__name__}, or nothing", where=str(path), expected=expected)
    images, genes, types = [], [], []
    for name, cell in cells.items():
        problem = _problem(cell)
        if problem:
            raise InputError(found=f"cell {name!r} with {problem}", where=str(path), expected=expected)
        images.append(cell["image"])
        genes.append(np.asarray(cell["gene"]).reshape(-1))
        types.append(int(cell["type"]))
    lengths = sorted({len(gene) for gene in genes})
    if len(lengths) > 1:
        raise InputError(
            found=f"gene vectors of different lengths ({lengths[:4]})", where=str(path), expected="one length"
        )
    counts_NG = np.stack(genes)
    if not np.isfinite(counts_NG).all() or (counts_NG < 0).any() or (counts_NG % 1).any():
        raise InputError(
            found="gene values that are not counts", where=str(path), expected="raw counts (whole numbers >= 0)"
        )
    return unique_names([str(name) for name in cells]), images, counts_NG.astype(np.int32), types


def _problem(cell: Any) -> str:
    if not isinstance(cell, dict):
        return f"a {type(cell).__name__}"
    missing = [key for key in ("image", "gene", "type") if key not in cell]
    if missing:
        return f"no {', '.join(missing)}"
    image, gene = cell["image"], np.asarray(cell["gene"])
    if (
        not isinstance(image, np.ndarray)
        or image.dtype != np.uint8
        or image.ndim != 3
        or image.shape[2] != 3
        or not image.size
    ):
        return f"an image {getattr(image, 'dtype', type(image).__name__)} {getattr(image, 'shape', '')}"
    if (
        gene.dtype.kind not in "iuf"
        or gene.ndim not in (1, 2)
        or (gene.ndim == 2 and gene.shape[0] != 1)
        or not gene.size
    ):
        return f"a gene vector {gene.dtype} {gene.shape}"
    if not isinstance(cell["type"], int | np.integer) and np.asarray(cell["type"]).size != 1:
        return f"a type {cell['type']!r}"
    return ""


def _panel(genes: str | Path | None, n_genes: int, path: Path) -> GenePanel:
    if genes is None:
        names = [f"gene_{index:05d}" for index in range(n_genes)]
        return GenePanel(names)
    panel = GenePanel.from_csv(genes)
    if len(panel) != n_genes:
        raise InputError(
            found=f"{len(panel)} gene names for vectors of {n_genes}", where=str(genes), expected=str(path)
        )
    return panel
