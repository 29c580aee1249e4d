"""A folder in which the names of the user guide exist: a toy run of each instrument, an image, tables and annotations."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import anndata
import numpy as np
import pandas as pd

from fixtures.tissue import Tissue
from fixtures.xenium import write_xenium
from sge2hist.data.section import Section
from sge2hist.readers import open_sections
from sge2hist.toy.tissue import ToyTissueConfig, simulate
from sge2hist.toy.visium_hd_folder import ToyPaths, write_visium_hd


def write_toy_folder(folder: Path) -> Path:
    """Write everything that a command of the guide reads and no earlier command of it writes."""
    paths = write_visium_hd(simulate(ToyTissueConfig.tiny(), seed=0), folder / "toy", fluorescence=("DAPI", "Membrane"))
    (folder / "run").mkdir()
    (folder / "run" / "outs").symlink_to(paths.outs, target_is_directory=True)
    (folder / "he.tif").symlink_to(paths.image)
    shutil.copy(paths.types_csv[16], folder / "types.csv")
    (section,) = open_sections(paths.outs, image=paths.image, bin_um=16)
    _write_h5ad(folder / "cells.h5ad", section)
    _write_xenium(folder, section)
    _write_areas(folder / "areas.geojson", {}, (0, 0, 40, 40))
    _write_areas(folder / "annotations.geojson", {"classification": {"name": "remove"}}, (150, 150, 250, 250))
    return folder


def gene_of_toy(folder: Path) -> str:
    """Return the symbol of a gene of the toy."""
    (section,) = open_sections(ToyPaths.at(folder / "toy").outs, image=folder / "he.tif", bin_um=16)
    return str(section.genes["symbol"].iloc[0])


def _write_h5ad(path: Path, section: Section) -> None:
    xy_um = section.centre_xy_px * section.um_per_px
    obs = pd.DataFrame({"x_um": xy_um[:, 0], "y_um": xy_um[:, 1]}, index=section.obs.index.astype(str))
    counts_NG = section.read_counts(None, None)
    anndata.AnnData(X=counts_NG.astype(np.float32), obs=obs, var=section.genes).write_h5ad(path)


def _write_xenium(folder: Path, section: Section) -> None:
    tissue = Tissue(
        image=section.image.as_array(),
        um_per_px=section.um_per_px,
        centre_xy_px=section.centre_xy_px,
        counts_NG=section.read_counts(None, None).toarray().astype(np.int32),
        gene_ids=[str(gene) for gene in section.genes.index],
        symbols=[str(symbol) for symbol in section.genes["symbol"]],
        cell_types=["cell"] * section.n_obs,
        radius_um=4.0,
    )
    truth = write_xenium(tissue, folder / "xenium_run", axes="YXS")
    shutil.copy(truth.image, folder / "he_image.ome.tif")
    shutil.copy(truth.folder / "fixture_he_imagealignment.csv", folder / "he_imagealignment.csv")


def _write_areas(path: Path, properties: dict[str, object], corners_px: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = corners_px
    ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    area = {"type": "Feature", "properties": properties, "geometry": {"type": "Polygon", "coordinates": [ring]}}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [area]}))
