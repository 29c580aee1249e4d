"""Write a toy tissue in the folder layout of Space Ranger for Visium HD, and the truth.

    manifest.json                  kind "toy_visium_hd": marks the folder as simulated; config and seed
    he.tif                         the microscope image (Space Ranger never copies it into outs)
    fluorescence.ome.tif           optional: the same cells in 16-bit fluorescence channels (`toy/fluorescence.py`)
    outs/TOY                       a text that marks the toy
    outs/binned_outputs/square_{008,016}um/
        filtered_feature_bc_matrix.h5
        spatial/{tissue_positions.parquet,scalefactors_json.json,tissue_hires_image.png,tissue_lowres_image.png}
    truth/cells.csv                every cell: position, type, nucleus, stain, gradient, neighbours, transcripts
    truth/genes.csv                every gene: role and coefficients
    truth/types_square_{008,016}um.csv     barcode,cell_type of the bins with transcripts

Readers recognise the toy by `software_version`, which starts with `TOY_SOFTWARE`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import tifffile
from PIL import Image
from scipy import sparse

from sge2hist import __version__
from sge2hist.data.artifacts import atomic_directory, write_manifest
from sge2hist.toy.cell_types import TYPE_NAMES
from sge2hist.toy.fluorescence import write_fluorescence
from sge2hist.toy.tissue import ToyTissue

TOY_SOFTWARE = "sge2hist toy"  # start of `software_version` in the matrix files
MANIFEST_KIND = "toy_visium_hd"
GENOME = "toy"
MAX_HIRES_PX = 2000
MAX_LOWRES_PX = 600


@dataclass(frozen=True, kw_only=True)
class ToyPaths:
    """Paths of the files of `write_visium_hd`."""

    root: Path
    outs: Path  # what `sge2hist prepare` takes
    image: Path  # what `--image` takes
    fluorescence: Path  # what `--image` takes with `--channels`; where requested
    truth: Path
    types_csv: dict[int, Path]  # what `--types` takes, by bin side in um

    @classmethod
    def at(cls, root: str | Path, bins_um: tuple[int, ...] = (8, 16)) -> ToyPaths:
        """The paths under a root folder, whether or not they exist yet."""
        root = Path(root)
        return cls(
            root=root,
            outs=root / "outs",
            image=root / "he.tif",
            fluorescence=root / "fluorescence.ome.tif",
            truth=root / "truth",
            types_csv={bin_um: root / "truth" / f"types_square_{bin_um:03d}um.csv" for bin_um in bins_um},
        )


def write_visium_hd(
    tissue: ToyTissue,
    path: str | Path,
    *,
    bins_um: tuple[int, ...] = (8, 16),
    fluorescence: tuple[str, ...] = (),
    overwrite: bool = False,
) -> ToyPaths:
    """Write the vendor's layout, complete or not at all.

    Parameters
    ----------
    bins_um
        Bin sides to write, each a divisor of 16 (2, 4, 8 or 16).
    fluorescence
        Channels of a fluorescence image to write next to the H&E, of `toy.fluorescence.MARKERS`; none when empty.
    overwrite
        Replace an earlier toy at `path`; any other folder is refused.

    Raises
    ------
    InputError
        If `path` exists and may not be replaced.
    """
    if any(16 % bin_um for bin_um in bins_um):
        raise ValueError(f"bins_um={bins_um}: the array is a whole number of 16 um, give divisors of 16")
    with atomic_directory(Path(path), overwrite=overwrite, kind=MANIFEST_KIND) as folder:
        paths = ToyPaths.at(folder, bins_um)
        paths.truth.mkdir(parents=True)
        for bin_um in bins_um:
            _write_bins(tissue, paths, bin_um)
        (paths.outs / "TOY").write_text("Simulated by sge2hist: no tissue, no patient, no instrument.\n")
        _write_image(tissue, paths.image)
        if fluorescence:
            write_fluorescence(tissue, paths.fluorescence, fluorescence)
        _write_truth(tissue, paths.truth)
        _write_manifest(tissue, paths.root)
    return ToyPaths.at(path, bins_um)


def barcodes_of(row: np.ndarray, column: np.ndarray, bin_um: int) -> list[str]:
    """Space Ranger's names of bins: `s_008um_00012_00345-1`."""
    return [f"s_{bin_um:03d}um_{r:05d}_{c:05d}-1" for r, c in zip(row.tolist(), column.tolist(), strict=True)]


def _write_bins(tissue: ToyTissue, paths: ToyPaths, bin_um: int) -> None:
    folder = paths.outs / "binned_outputs" / f"square_{bin_um:03d}um"
    (folder / "spatial").mkdir(parents=True)
    n = tissue.frame.n_bins(bin_um)
    row, column = np.divmod(np.arange(n * n), n)
    barcodes = barcodes_of(row, column, bin_um)
    in_tissue = tissue.bins_in_tissue(bin_um)
    kept = np.flatnonzero(in_tissue)
    counts = tissue.bin_counts(bin_um)[kept]
    kept_barcodes = [barcodes[i] for i in kept]
    _write_matrix(folder / "filtered_feature_bc_matrix.h5", counts, kept_barcodes, tissue.genes.frame)
    centre_xy_px = tissue.bin_centre_xy_px(bin_um)
    positions = pa.table(
        {
            "barcode": barcodes,
            "in_tissue": in_tissue.astype(np.uint8),
            "array_row": row.astype(np.uint32),
            "array_col": column.astype(np.uint32),
            "pxl_row_in_fullres": centre_xy_px[:, 1],
            "pxl_col_in_fullres": centre_xy_px[:, 0],
        }
    )
    pq.write_table(positions, folder / "spatial" / "tissue_positions.parquet")
    _write_spatial(tissue, folder / "spatial", bin_um)
    bin_types = tissue.bin_types(bin_um)[kept]
    labelled = bin_types >= 0
    pd.DataFrame(
        {
            "barcode": np.asarray(kept_barcodes)[labelled],
            "cell_type": np.asarray(TYPE_NAMES)[bin_types[labelled]],
        }
    ).to_csv(paths.types_csv[bin_um], index=False)


def _write_matrix(path: Path, counts_NG: sparse.csr_array, barcodes: list[str], genes: pd.DataFrame) -> None:
    """10x HDF5 feature-barcode matrix, version 2: CSC of features x barcodes, the CSR of barcodes x features."""
    with h5py.File(path, "w") as file:
        file.attrs["filetype"] = "matrix"
        file.attrs["version"] = 2
        file.attrs["software_version"] = f"{TOY_SOFTWARE} tissue {__version__}"
        matrix = file.create_group("matrix")
        packed = {"compression": "gzip", "compression_opts": 1}
        matrix.create_dataset("barcodes", data=np.asarray(barcodes, dtype="S"), **packed)
        matrix.create_dataset("data", data=counts_NG.data.astype(np.int32), **packed)
        matrix.create_dataset("indices", data=counts_NG.indices.astype(np.int64), **packed)
        matrix.create_dataset("indptr", data=counts_NG.indptr.astype(np.int64), **packed)
        matrix.create_dataset("shape", data=np.asarray(counts_NG.shape[::-1], dtype=np.int32))
        features = matrix.create_group("features")
        features.create_dataset("id", data=genes.index.to_numpy().astype("S"))
        features.create_dataset("name", data=genes["symbol"].to_numpy().astype("S"))
        features.create_dataset("feature_type", data=np.full(len(genes), b"Gene Expression"))
        features.create_dataset("genome", data=np.full(len(genes), GENOME.encode()))
        features.create_dataset("_all_tag_keys", data=np.asarray([b"genome"]))


def _write_spatial(tissue: ToyTissue, folder: Path, bin_um: int) -> None:
    longest_px = max(tissue.image.shape[:2])
    scale = {
        name: min(1.0, target / longest_px) for name, target in (("hires", MAX_HIRES_PX), ("lowres", MAX_LOWRES_PX))
    }
    image = Image.fromarray(tissue.image)
    for name, factor in scale.items():
        size = (round(image.width * factor), round(image.height * factor))
        image.resize(size, Image.Resampling.BOX).save(folder / f"tissue_{name}_image.png", compress_level=1)
    um_per_px = tissue.config.um_per_px
    factors = {
        "spot_diameter_fullres": bin_um / um_per_px,
        "bin_size_um": float(bin_um),
        "microns_per_pixel": um_per_px,
        "regist_target_img_scalef": scale["hires"],
        "tissue_lowres_scalef": scale["lowres"],
        "tissue_hires_scalef": scale["hires"],
        "fiducial_diameter_fullres": 150.0 / um_per_px,
    }
    (folder / "scalefactors_json.json").write_text(json.dumps(factors))


def _write_image(tissue: ToyTissue, path: Path) -> None:
    px_per_cm = 1e4 / tissue.config.um_per_px
    tifffile.imwrite(
        path,
        tissue.image,
        photometric="rgb",
        tile=(256, 256),
        compression="zlib",
        compressionargs={"level": 1},
        resolution=(px_per_cm, px_per_cm),
        resolutionunit="CENTIMETER",
        software="sge2hist toy tissue",
        description="Simulated H&E (toy), not a tissue",
        metadata=None,
    )


def _write_truth(tissue: ToyTissue, folder: Path) -> None:
    cells = tissue.cells.to_frame(tissue.config.um_per_px)
    array_xy_um = tissue.frame.to_array(tissue.cells.xy_um)
    cells["array_x_um"], cells["array_y_um"] = array_xy_um[:, 0], array_xy_um[:, 1]
    cells["n_transcripts"] = np.asarray(tissue.counts_NG.sum(axis=1)).ravel()
    cells.to_csv(folder / "cells.csv", float_format="%.4f")
    genes = tissue.genes.frame.copy()
    genes["base"] = tissue.genes.base_G
    genes["gradient_slope"] = tissue.genes.gradient_slope_G
    genes["neighbourhood_slope"] = tissue.genes.neighbourhood_slope_G
    genes.to_csv(folder / "genes.csv", float_format="%.6g")


def _write_manifest(tissue: ToyTissue, root: Path) -> None:
    write_manifest(
        root,
        MANIFEST_KIND,
        toy=True,
        about="Simulated tissue: image, cells and RNA are sampled at random and belong to nobody.",
        seed=tissue.seed,
        config=asdict(tissue.config),
        cell_types=list(TYPE_NAMES),
        n_cells=len(tissue.cells),
        n_genes=len(tissue.genes),
        n_transcripts=len(tissue.transcripts),
    )
