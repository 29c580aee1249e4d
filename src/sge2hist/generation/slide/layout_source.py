"""A slide from a layout: cells by type and position, whose expression the gene model itself expects.

z1 of a cell is a sample of what cells of its component have among such cells as are around it (in models that do not know that,
of the component). Its counts are those that the decoder expects of it at the median depth: they are encoded as measured counts
are, with those of its neighbours, so that z2 follows from the composition around the cell.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from sge2hist.data.errors import InputError
from sge2hist.data.paired import PairedDataset
from sge2hist.data.spatial_index import CellIndex
from sge2hist.generation.applicability import training_spacing_um
from sge2hist.generation.slide.layout import Layout, is_layout, layout_of_table, read_layout, read_layout_table
from sge2hist.generation.slide.source import SlideSource, open_source
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.niches import neighbour_shares

if TYPE_CHECKING:
    import anndata
    from scipy.sparse import csr_array

LAYOUT_STREAM = 92
MARGIN_UM = 32.0  # of the slide around the outermost cells
DECODED_AT_ONCE = 512


def open_cells(
    bundle: ModelBundle,
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
    """The cells that a slide is generated from: measured ones (:func:`open_source`), or those of a layout.

    A layout is a .csv, .tsv or .geojson file, or an AnnData without genes (:mod:`sge2hist.generation.slide.layout`).
    `um_per_px`: of annotations, um per unit of its coordinates.
    """
    import anndata

    table, name = None, "layout"
    if isinstance(data, str | Path):
        name = Path(data).name.split(".")[0]
        if is_layout(data):
            _refuse_options(data, section=section, positions=positions, layer=layer, round_counts=round_counts)
            spacing_um = training_spacing_um(bundle) or bundle.config.image.condition.splat_um
            layout = read_layout(data, um_per_unit=um_per_px, spacing_um=spacing_um, seed=seed)
            return source_from_layout(bundle, layout, name, seed=seed)
        if Path(data).suffix == ".h5ad":
            table = read_layout_table(Path(data))
    elif isinstance(data, anndata.AnnData) and data.n_vars == 0:
        table = data.obs
    if table is not None:
        return source_from_layout(bundle, layout_of_table(table, name), name, seed=seed)
    return open_source(
        data,
        slide,
        section=section,
        positions=positions,
        um_per_px=um_per_px,
        layer=layer,
        round_counts=round_counts,
        seed=seed,
    )


def _refuse_options(
    path: str | Path, *, section: str | None, positions: str, layer: str | None, round_counts: bool
) -> None:
    given = [f"--section {section}"] if section is not None else []
    given += [f"--positions {positions}"] if positions != "auto" else []
    given += [f"--layer {layer}"] if layer is not None else []
    given += ["--round-counts"] if round_counts else []
    if given:
        raise InputError(found=f"{' and '.join(given)} with a layout", where=str(path), repair="omit it")


def source_from_layout(bundle: ModelBundle, layout: Layout, name: str = "layout", *, seed: int = 0) -> SlideSource:
    """The cells of a layout as a source of :func:`~sge2hist.generation.slide.render.generate_slide`.

    `seed`: of z1 of each cell, and of the component where a type has several.

    Raises
    ------
    InputError
        If the layout names types that the model does not know: all of them at once.
    """
    component_N = _components(bundle, layout.type_N, name, seed)
    z1_NT = z1_among(bundle, component_N, layout.xy_um_N2, seed)

    def read_counts(rows: np.ndarray) -> csr_array:
        from scipy.sparse import csr_array, vstack

        parts = [rows[i : i + DECODED_AT_ONCE] for i in range(0, len(rows), DECODED_AT_ONCE)] or [rows]
        return csr_array(vstack([expected_counts(bundle, component_N[part], z1_NT[part]) for part in parts]))

    low, high = layout.xy_um_N2.min(0) - MARGIN_UM, layout.xy_um_N2.max(0) + MARGIN_UM
    x, y = np.floor(low)
    width, height = np.ceil(high) - np.floor(low)
    return SlideSource(
        xy_um_N2=layout.xy_um_N2,
        id_N=layout.id_N,
        type_N=np.array([bundle.canonical_type_name(str(name)) for name in layout.type_N], object),
        genes=bundle.genes,
        read_counts=read_counts,
        bounds_um=(float(x), float(y), float(width), float(height)),
        slide=name,
        um_per_edit_unit=1.0,
        manifest={"data_fingerprint": _fingerprint(layout, seed), "toy": False, "layout": True},
        outline_um_NV2=layout.outline_um_NV2,
        z1_NT=z1_NT,
    )


def _components(bundle: ModelBundle, type_N: np.ndarray, where: str, seed: int) -> np.ndarray:
    """Component of each cell: one of its type, by the shares of cells that these have."""
    uniform_N = np.random.default_rng([seed, LAYOUT_STREAM, 0]).random(len(type_N))
    component_N = np.empty(len(type_N), np.int64)
    unknown = []
    for name in dict.fromkeys(map(str, type_N)):
        try:
            components, weights = bundle.types.components(name)
        except KeyError:
            unknown.append(name)
            continue
        own = np.flatnonzero(type_N.astype(str) == name)
        cumulative = np.cumsum(weights) / np.sum(weights)
        chosen = np.searchsorted(cumulative, uniform_N[own], side="right")
        component_N[own] = components[chosen.clip(max=len(components) - 1)]
    if unknown:
        raise InputError(
            found=f"{len(unknown)} unknown cell types ({', '.join(unknown[:8])})",
            where=where,
            expected=f"types of the model: {', '.join(bundle.types.names)}",
            repair="rename them in the layout",
        )
    return component_N


def z1_among(bundle: ModelBundle, component_N: np.ndarray, xy_um_N2: np.ndarray, seed: int) -> np.ndarray:
    """A sample of z1 of cells of given components at given places, float32 [N, T]."""
    if bundle.niches is not None:
        index = CellIndex(xy_um_N2, np.zeros(len(xy_um_N2), np.int64))
        shares_NC = neighbour_shares(
            index, np.arange(len(xy_um_N2)), component_N, bundle.model.gene.mixture.n_components
        )
        z1_NT = bundle.niches.sample_z1(component_N, shares_NC, np.random.default_rng([seed, LAYOUT_STREAM, 1]))
        if z1_NT is not None:
            return z1_NT
    return sampled_z1(bundle, component_N, seed)


@torch.no_grad()
def sampled_z1(bundle: ModelBundle, component_N: np.ndarray, seed: int) -> np.ndarray:
    """A sample of z1 from the component of each cell, float32 [N, T]."""
    mixture = bundle.model.gene.mixture
    means_KT, std_KT = mixture.means_KT.cpu().numpy(), (0.5 * mixture.log_vars_KT).exp().cpu().numpy()
    noise = np.random.default_rng([seed, LAYOUT_STREAM, 1])
    return (
        means_KT[component_N]
        + std_KT[component_N] * noise.standard_normal((len(component_N), means_KT.shape[1]), np.float32)
    ).astype(np.float32)


@torch.no_grad()
def expected_counts(bundle: ModelBundle, component_n: np.ndarray, z1_nT: np.ndarray) -> csr_array:
    """Counts that the decoder expects of cells at the median depth, z2 at the mean of their component: float32 CSR [n, G]."""
    from scipy.sparse import csr_array

    gene = bundle.model.gene
    device = gene.mixture.means_KT.device
    z2 = gene.micro.means_KM[torch.from_numpy(component_n).to(device)]
    was_training = gene.training
    gene.eval()
    proportions = gene.decode(torch.cat([torch.from_numpy(z1_nT).to(device), z2], 1))
    gene.train(was_training)
    return csr_array((proportions * gene.encoder.scale).float().cpu().numpy())


def _fingerprint(layout: Layout, seed: int) -> str:
    digest = hashlib.blake2b(digest_size=16)
    digest.update(np.ascontiguousarray(layout.xy_um_N2).tobytes())
    digest.update("\n".join(map(str, layout.type_N)).encode())
    if layout.outline_um_NV2 is not None:
        digest.update(np.ascontiguousarray(layout.outline_um_NV2).tobytes())
    digest.update(str(seed).encode())
    return digest.hexdigest()
