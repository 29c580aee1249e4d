"""Xenium (onboard analysis 1 to 4): cells segmented by the instrument, on an H&E stained after the run.

```
outs/                           (files downloaded one by one carry a prefix <ID>_)
 experiment.xenium              JSON: pixel_size (um per px of the DAPI image), analysis_sw_version
 cells.parquet                  cell_id (bytes, text or integer), x_centroid, y_centroid in um, cell_area, nucleus_area
 cell_feature_matrix.h5         10x matrix; controls have another feature_type than "Gene Expression"
 cell_boundaries.parquet        cell_id, vertex_x, vertex_y in um: the outlines of the cells (where it is there)
 nucleus_boundaries.parquet, cells.zarr.zip, transcripts.parquet, ...           (not needed)
 morphology_focus/morphology_focus_0000.ome.tif (1 to 4 files), morphology_focus/ch0000_dapi.ome.tif ... (analysis 4),
 morphology_focus.ome.tif, morphology_mip.ome.tif (analysis 1)                   fluorescence of the run, in px of the DAPI image
 analysis/clustering/gene_expression_graphclust/clusters.csv                    (when analysis.tar.gz is unpacked)
*_he_image.ome.tif              H&E, from the user
*_he_imagealignment.csv         headerless 3x3: H&E px -> DAPI px; or keypoints, see `xenium_alignment`
```
`he_px = inv(M) @ (um / pixel_size, 1)` and um/px of the H&E = pixel_size * sqrt(|det M[:2, :2]|).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from sge2hist.data.artifacts import read_json
from sge2hist.data.errors import InputError
from sge2hist.data.section import Section
from sge2hist.data.slides.channels import ALL, Channels
from sge2hist.data.slides.slide_image import SlideImage
from sge2hist.data.virtual_he import REQUEST
from sge2hist.readers.alignment_file import refuse_other_reading
from sge2hist.readers.tables import as_float, as_text, read_parquet
from sge2hist.readers.tenx import space_ranger
from sge2hist.readers.tenx.proteins import proteins_of
from sge2hist.readers.tenx.tenx_matrix import TenxMatrix
from sge2hist.readers.tenx.visium_hd_folder import one_file
from sge2hist.readers.tenx.xenium_alignment import XeniumAlignment, find_alignment, read_alignment
from sge2hist.readers.tenx.xenium_boundaries import read_boundaries

SPECIFICATION = "experiment.xenium"
MORPHOLOGY_IMAGES = (
    "ch0000_dapi.ome.tif",
    "morphology_focus_0000.ome.tif",
    "morphology_focus.ome.tif",
    "morphology_mip.ome.tif",
)
"""Onboard analysis 4; 2 and 3; 1. Of several files the first, which names the others."""
CELL_COLUMNS = {
    "cell_area": "area_um2",
    "nucleus_area": "nucleus_area_um2",
    "transcript_counts": "n_transcripts",
    "segmentation_method": "segmentation_method",
}


def read(
    folder: str | Path,
    *,
    image: str | Path | None = None,
    alignment: str | Path | None = None,
    um_per_px: float | None = None,
    name: str | None = None,
    channels: Channels | None = None,
) -> Section:
    """Read one Xenium region with its H&E, or with a morphology image.

    Parameters
    ----------
    image
        The H&E; found in the folder as `*he_image.ome.tif` when None.
    alignment
        A file of `readers.alignment_file`, or "identity" when the H&E is already in px of the DAPI image; found beside the
        image when None.
    um_per_px
        Overrides the scale that the alignment gives.
    channels
        Channels of a morphology image (that of the run when `image` is None), which is in px of the DAPI image unless
        `alignment` is given; None: an H&E.

    Raises
    ------
    InputError
        If a file is missing or damaged, ids disagree, or the cells do not lie on the H&E.
    """
    given, folder = Path(folder), find_outs(folder)
    specification = read_json(_file(folder, SPECIFICATION), expected="the description of a Xenium run")
    pixel_size_um = _pixel_size(specification, folder)
    image_path = Path(image) if image is not None else _find_image(given, channels)
    if channels is None:
        slide = SlideImage.open(image_path)
    else:
        slide = _open_channels(image_path, channels, of_run=image is None)
    if alignment is None:
        alignment = find_alignment(folder, image_path) if channels is None else "identity"
    mapping = read_alignment(alignment)
    matrix = TenxMatrix.open(_file(folder, "cell_feature_matrix.h5"))
    obs, centre_um, n_missing = _cells(_file(folder, "cells.parquet"), as_text(matrix.barcodes))
    centre_xy_px = mapping.to_he(centre_um / pixel_size_um)
    outline_px = None
    if (boundaries := _file(folder, "cell_boundaries.parquet")).is_file():
        vertices_um = read_boundaries(boundaries, obs.index)
        vertices_px = mapping.to_he(vertices_um.reshape(-1, 2) / pixel_size_um).reshape(vertices_um.shape)
        outline_px = (vertices_px - centre_xy_px[:, None]).astype(np.float32)
    _refuse_inverse(centre_um / pixel_size_um, mapping, slide)
    sources = {"alignment": pixel_size_um * mapping.scale}
    if slide.um_per_px is not None:
        sources["image metadata"] = slide.um_per_px
    if um_per_px is not None:
        sources["--image-um-per-px"] = um_per_px
    notes = [f"DAPI image at {pixel_size_um:g} um/px; image aligned by {mapping.description}"]
    if n_missing:
        notes.append(f"{n_missing} cells of cells.parquet are not in the matrix")
    if (clusters := space_ranger.clusters_of(folder, obs.index, notes)) is not None:
        obs["cluster"] = clusters
    return Section(
        name=name or str(specification.get("region_name") or folder.name).replace(" ", "_"),
        technology="Xenium",
        software=str(specification.get("analysis_sw_version", "")).replace("xenium-", "Xenium Onboard Analysis "),
        observation="cell",
        observation_um=None,
        obs=obs,
        centre_xy_px=centre_xy_px,
        outline_px=outline_px,
        genes=matrix.genes,
        image=slide,
        um_per_px=um_per_px if um_per_px is not None else sources["alignment"],
        um_per_px_sources=sources,
        read_counts=matrix.read_counts,
        proteins=proteins_of(matrix),
        notes=[*notes, *matrix.notes, *slide.notes],
    )


def find_outs(path: str | Path) -> Path:
    """The folder that holds `experiment.xenium`: `path`, or `outs` in it."""
    path = Path(path)
    for folder in (path, path / "outs"):
        if folder.is_dir() and one_file(folder, SPECIFICATION) is not None:
            return folder
    return path


def _file(folder: Path, name: str) -> Path:
    """`folder/name`, or `<ID>_name` as files downloaded one by one are called."""
    return (one_file(folder, name) if folder.is_dir() else None) or folder / name


def _pixel_size(specification: dict[str, object], folder: Path) -> float:
    value = specification.get("pixel_size")
    if not isinstance(value, int | float) or not 0.01 < value < 10:
        raise InputError(
            found=f"pixel_size {value!r}", where=str(folder / SPECIFICATION), expected="um per px, usually 0.2125"
        )
    return float(value)


def _find_image(folder: Path, channels: Channels | None) -> Path:
    morphology = find_morphology(folder)
    if channels is not None:
        if morphology is None:
            raise InputError(
                found=f"no morphology image ({', '.join(MORPHOLOGY_IMAGES)})",
                where=str(folder),
                expected="the fluorescence of the run",
                repair="--image FILE",
            )
        return morphology
    found = sorted(
        path for path in folder.rglob("*") if path.name.lower().endswith(("he_image.ome.tif", "he_image.tif"))
    )
    if len(found) == 1:
        return found[0]
    virtual = f"; or --image {REQUEST}: H&E colours computed from {morphology.name}" if morphology else ""
    raise InputError(
        found=f"{len(found)} H&E images ({', '.join(path.name for path in found[:4]) or 'no *he_image.ome.tif'})",
        where=str(folder),
        expected="the H&E stained after the run (the morphology images are fluorescence)",
        repair=f"give --image, and --alignment with the csv exported by Xenium Explorer, or auto{virtual}",
    )


def find_morphology(folder: Path) -> Path | None:
    """The fluorescence image of a run in one focal plane; of several files, the first of the set; None without one."""
    for name in MORPHOLOGY_IMAGES:
        found = sorted(path for path in folder.rglob(f"*{name}") if path.is_file())
        if found:
            return found[0]
    return None


def _open_channels(path: Path, channels: Channels, *, of_run: bool) -> SlideImage:
    """Open a fluorescence image; the one of an old run without names of channels is DAPI."""
    try:
        return SlideImage.open(path, channels=channels)
    except InputError:
        if not of_run or channels != ALL:
            raise
        try:
            return SlideImage.open(path, channels=("DAPI",))
        except InputError:
            pass
        raise


def _cells(path: Path, barcodes: np.ndarray) -> tuple[pd.DataFrame, np.ndarray, int]:
    """Cells in the order of the matrix: obs, centres in um [N, 2], number of cells that the matrix lacks."""
    columns = read_parquet(path, ["cell_id", "x_centroid", "y_centroid"], optional=list(CELL_COLUMNS))
    ids = pd.Index(as_text(columns["cell_id"]))
    if not ids.is_unique:
        raise InputError(found=f"cell {ids[ids.duplicated()][0]!r} twice", where=str(path), expected="unique cell ids")
    row = ids.get_indexer(pd.Index(barcodes))
    if (row < 0).any():
        examples = ", ".join(map(str, barcodes[row < 0][:3]))
        raise InputError(
            found=f"{(row < 0).sum()} cells of the matrix without a position (e.g. {examples})",
            where=str(path),
            expected="the cells.parquet of the same run",
        )
    centre_um = np.stack([as_float(columns[name], name, path)[row] for name in ("x_centroid", "y_centroid")], axis=1)
    shown = {new: columns[old][row] for old, new in CELL_COLUMNS.items() if old in columns}
    if "segmentation_method" in shown:
        shown["segmentation_method"] = as_text(shown["segmentation_method"])
    obs = pd.DataFrame(shown, index=pd.Index(barcodes, dtype=object, name="cell_id"))
    return obs, centre_um, len(ids) - len(barcodes)


def _refuse_inverse(dapi_xy_px: np.ndarray, mapping: XeniumAlignment, slide: SlideImage) -> None:
    """The commonest mistakes with the matrix: none of the cells lies on the H&E, but all do when it is read otherwise."""
    size_px = np.array([slide.width_px, slide.height_px])

    def lands(he_to_dapi: np.ndarray) -> float:
        he_xy_px = XeniumAlignment(he_to_dapi=he_to_dapi, description="").to_he(dapi_xy_px)
        return float(((he_xy_px >= 0) & (he_xy_px < size_px)).all(axis=1).mean())

    refuse_other_reading(lands, mapping.he_to_dapi, mapping.description)
