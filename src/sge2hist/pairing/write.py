"""The files of a paired dataset: slides, cells, and the manifest last."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from sge2hist.data.artifacts import sha256_of, write_manifest
from sge2hist.data.paired import CELLS_NAME, DROPPED, KIND, OUTLINES_KEY, SPLITS, UNKNOWN
from sge2hist.data.section import Section
from sge2hist.data.slides.slide_writer import TILE_PX, write_slide
from sge2hist.data.slides.stain_scale import SQRT
from sge2hist.data.table.proteins import PROTEIN_KEY
from sge2hist.data.virtual_he import MANIFEST_KEY, MARK
from sge2hist.pairing.alignment.map_to_image import ImageMap
from sge2hist.pairing.collect import Cells, Progress, SectionCells
from sge2hist.pairing.config import PrepareConfig
from sge2hist.pairing.labels import Labels


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepared:
    """Everything that is written to the folder."""

    parts: list[SectionCells]
    cells: Cells
    split: np.ndarray
    labels: Labels
    um_per_px: float  # of the stored slides
    gap_um: float
    alignment: list[dict[str, Any]]  # one record per section
    config: PrepareConfig
    maps: list[ImageMap | None]  # that put the cells of each section on its image, where one was given or found


def slide_file(sections: list[Section], number: int) -> str:
    """File name of a slide: the first is ``slide.ome.tif``, further ones carry their id."""
    safe = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in sections[number].name)
    return "slide.ome.tif" if number == 0 else f"slide.{number}.{safe}.ome.tif"


def write_slides(folder: Path, prepared: Prepared, progress: Progress) -> list[dict[str, Any]]:
    """Write every section's image at the common resolution; returns the manifest's entries."""
    sections = [part.section for part in prepared.parts]
    entries = []
    for number, part in enumerate(prepared.parts):
        section = part.section
        (height, width), tiles = section.image.resampled_tiles(section.um_per_px, prepared.um_per_px, TILE_PX)
        n_tiles = -(-height // TILE_PX) * -(-width // TILE_PX)
        path = folder / slide_file(sections, number)
        toy = "TOY TISSUE, simulated; " if prepared.config.toy else ""
        tiles = _with_progress(tiles, n_tiles, f"slide {section.name}", progress)
        description = f"{toy}{section.technology} {section.name}{_describe_scale(section)}"
        pixels = write_slide(
            path, tiles, prepared.um_per_px, (height, width), description, channels=section.image.channels
        )
        entries.append(
            {
                "id": section.name,
                "file": path.name,
                "um_per_px": prepared.um_per_px,
                "width_px": width,
                "height_px": height,
                "source": section.image.path.name,
                "source_um_per_px": section.um_per_px,
                "sha256": sha256_of(path),
                "pixels": pixels,
                "stain": part.tissue.stain(),
            }
            | {name: value for name in ("donor", "staining") if (value := getattr(section, name))}
            | _stain_scale(section)
            | ({MANIFEST_KEY: section.image.virtual_he} if section.image.virtual_he is not None else {})
        )
    return entries


def _describe_scale(section: Section) -> str:
    if section.image.virtual_he is not None:
        return f"; {MARK}"
    scales = section.image.scales if section.image.transform == SQRT else {}
    ranges = ", ".join(f"{name} {scale.low:g} to {scale.high:g}" for name, scale in scales.items())
    return f"; levels 0 to 255 are the square root of light: {ranges}" if ranges else ""


def _stain_scale(section: Section) -> dict[str, Any]:
    """How values of the file became levels of each channel, where that is known."""
    image = section.image
    return {"ranges": image.ranges, "stain_transform": image.transform} if image.ranges else {}


def _with_progress(tiles: Iterator[np.ndarray], total: int, stage: str, progress: Progress) -> Iterator[np.ndarray]:
    for number, tile in enumerate(tiles, start=1):
        progress(stage, number, total)
        yield tile


def type_order(names: np.ndarray) -> list[str]:
    """Types in natural order ("Cluster 2" before "Cluster 10"), without "unknown"."""
    import re

    def key(name: str) -> list[Any]:
        return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]

    return sorted({str(name) for name in names} - {UNKNOWN}, key=key)


def write_cells(folder: Path, prepared: Prepared) -> str:
    """Write ``cells.h5ad`` and return a hash of its content."""
    import anndata
    import pandas as pd

    cells = prepared.cells
    stored_xy_px = stored_positions(prepared)
    obs = cells.obs.copy()
    obs["cell_type"] = pd.Categorical(prepared.labels.names, categories=[*type_order(prepared.labels.names), UNKNOWN])
    obs["split"] = pd.Categorical(prepared.split, categories=[*SPLITS, DROPPED])
    for column in obs.columns:  # text of the instrument may hold missing values, which HDF5 strings cannot
        if obs[column].dtype == object:
            obs[column] = pd.Categorical(obs[column].where(obs[column].notna(), "").astype(str))
    var = pd.DataFrame({"symbol": cells.genes.symbols}, index=pd.Index(cells.genes.ids, name="gene_id"))
    uns = {"sge2hist": {"um_per_px": prepared.um_per_px, "toy": prepared.config.toy}}
    obsm: dict[str, Any] = {"spatial": stored_xy_px}
    if cells.outline_um is not None:
        obsm[OUTLINES_KEY] = cells.outline_um.reshape(len(obs), -1)
    if cells.protein is not None:
        obsm[PROTEIN_KEY] = cells.protein
    table = anndata.AnnData(X=cells.counts_NG, obs=obs, var=var, obsm=obsm, uns=uns)
    table.write_h5ad(folder / CELLS_NAME, compression="lzf")
    digest = blake2b(digest_size=16)
    roles = () if cells.is_centre.all() else (obs["role"],)  # as version 0.1 hashes a dataset without placed cells
    for names in (obs.index, var.index, obs["cell_type"], obs["split"], obs["slide"], *roles):
        digest.update("\n".join(str(name) for name in names).encode())
    outlines = [] if cells.outline_um is None else [cells.outline_um]
    if cells.protein is not None:
        digest.update("\n".join(cells.protein.columns).encode())
        outlines.append(cells.protein.to_numpy())
    for array in (*outlines, stored_xy_px, cells.counts_NG.indptr, cells.counts_NG.indices, cells.counts_NG.data):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def stored_positions(prepared: Prepared) -> np.ndarray:
    """x, y in px of the stored slides: float64 [N, 2]."""
    return prepared.cells.centre_xy_um / prepared.um_per_px


def _describe_proteins(prepared: Prepared) -> dict[str, Any]:
    """The manifest's entry of the proteins; nothing where none were measured."""
    measured = {part.section.name: part.section.proteins for part in prepared.parts}
    known = {name: proteins for name, proteins in measured.items() if proteins is not None}
    if prepared.cells.protein is None or not known:
        return {}
    return {
        PROTEIN_KEY: {
            "names": list(prepared.cells.protein.columns),
            "unit": next(iter(known.values())).unit,
            "slides": {
                name: {"feature_type": proteins.feature_type, "scaling_factor": proteins.scaling_factor}
                for name, proteins in known.items()
            },
        }
    }


def write_paired_manifest(folder: Path, prepared: Prepared, slides: list[dict[str, Any]], cells_hash: str) -> None:
    """Write ``manifest.json`` last: a folder without it is no dataset."""
    config, cells, first = prepared.config, prepared.cells, prepared.parts[0].section
    centre_split = prepared.split[cells.is_centre]
    fingerprint = blake2b("|".join([cells_hash, *(s["pixels"] for s in slides)]).encode(), digest_size=16).hexdigest()
    write_manifest(
        folder,
        KIND,
        fingerprint=fingerprint,
        toy=config.toy,
        technology=first.technology,
        software=first.software,
        slides=slides,
        um_per_px=prepared.um_per_px,
        observation=first.observation,
        observation_um=first.observation_um,
        channels=first.image.channels,
        **({MANIFEST_KEY: True} if first.image.virtual_he is not None else {}),
        patch_um=config.patch_um,
        patch_px=config.patch_px,
        n_cells=len(cells.obs),
        n_centre=int(cells.is_centre.sum()),
        n_genes=len(cells.genes),
        **_describe_proteins(prepared),
        qc={
            "cells": {part.section.name: part.removals for part in prepared.parts},
            "genes": cells.gene_removals,
            "placed": {part.section.name: len(part.rows) for part in prepared.parts},
            "filters": {
                part.section.name: dataclasses.asdict(config.filters_of(part.section.observation))
                for part in prepared.parts
            },
            "read": {part.section.name: part.section.n_obs for part in prepared.parts},
        },
        split={
            "seed": config.seed,
            "block_um": config.block_um,
            "gap_um": prepared.gap_um,
            "fractions": config.fractions,
            "holdout_slides": config.holdout_slides,
            "holdout_donors": config.holdout_donors,
            "counts": {name: int((centre_split == name).sum()) for name in (*SPLITS, DROPPED)},
        },
        types={
            "source": prepared.labels.source,
            "names": type_order(prepared.labels.names),
            "unknown": int((prepared.labels.names[cells.is_centre] == UNKNOWN).sum()),
        },
        alignment=prepared.alignment,
        notes={part.section.name: part.section.notes for part in prepared.parts},
        seed=config.seed,
        config=dataclasses.asdict(config),
    )
