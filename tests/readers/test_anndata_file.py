"""AnnData beside an image: counts from wherever they are raw, positions and scale as stated."""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from fixtures.anndata_image import write_anndata
from fixtures.tissue import make_tissue
from sge2hist.data.errors import InputError
from sge2hist.data.table import stored_matrix
from sge2hist.data.table.cell_table import CellTable
from sge2hist.readers import anndata_file


@pytest.mark.parametrize("layout", ["csr", "csc", "dense"])
@pytest.mark.parametrize("counts_in", ["X", "raw", "layers/counts"])
def test_counts_and_positions_equal_what_was_written(
    tmp_path: Path, layout: str, counts_in: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_matrix, "CHUNK_ENTRIES", 40)  # several chunks, one row longer than a chunk is fine
    tissue = make_tissue()
    path, image = write_anndata(tissue, tmp_path, layout=layout, counts_in=counts_in)  # type: ignore[arg-type]
    section = anndata_file.read(path, image=image, um_per_px=0.5)
    assert (section.read_counts(None, None).toarray() == tissue.counts_NG).all()
    assert section.centre_xy_px == pytest.approx(tissue.centre_xy_px)
    assert list(section.genes.index) == tissue.gene_ids
    assert list(section.obs["cell_type"]) == tissue.cell_types
    group = np.arange(len(tissue)) % 5 - 1
    expected = np.stack([tissue.counts_NG[group == index].sum(axis=0) for index in range(4)])
    assert (section.read_counts(group, 4).toarray() == expected).all()


def test_scales_are_listed_and_the_users_goes_first(tmp_path: Path) -> None:
    path, image = write_anndata(make_tissue(), tmp_path)
    with pytest.raises(InputError, match=r"no um per px.*--image-um-per-px"):
        anndata_file.read(path, image=image)
    adata = anndata.read_h5ad(path)
    adata.uns["spatial"] = {"lib": {"scalefactors": {"microns_per_pixel": 0.48}}}
    adata.write_h5ad(path)
    assert anndata_file.read(path, image=image).um_per_px == pytest.approx(0.48)
    section = anndata_file.read(path, image=image, um_per_px=0.5)
    assert section.um_per_px == 0.5
    assert len(section.um_per_px_sources) == 2


def test_normalised_values_alone_are_refused(tmp_path: Path) -> None:
    path, image = write_anndata(make_tissue(), tmp_path, counts_in="layers/lognorm")
    with pytest.raises(InputError, match=r"no layer 'wrong'.*lognorm"):
        anndata_file.read(path, image=image, um_per_px=0.5, layer="wrong")
    assert "layers/lognorm" in anndata_file.read(path, image=image, um_per_px=0.5, layer="lognorm").notes[0]
    with pytest.raises(InputError, match=r"no raw counts.*layers\['counts'\]"):
        anndata_file.read(path, image=image, um_per_px=0.5)


def test_several_slides_in_one_file_are_refused(tmp_path: Path) -> None:
    path, image = write_anndata(make_tissue(), tmp_path)
    adata = anndata.read_h5ad(path)
    adata.obs["library_id"] = ["a"] * 12 + ["b"] * 12
    adata.write_h5ad(path)
    with pytest.raises(InputError, match="2 slides in one file"):
        anndata_file.read(path, image=image, um_per_px=0.5)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    path, image = write_anndata(make_tissue(), tmp_path)
    with pytest.raises(InputError, match=r"no H&E image.*--image"):
        anndata_file.read(path, um_per_px=0.5)
    with pytest.raises(InputError, match="no such file"):
        anndata_file.read(tmp_path / "none.h5ad", image=image, um_per_px=0.5)
    with pytest.raises(InputError, match="cannot be read"):
        anndata_file.read(image, image=image, um_per_px=0.5)
    adata = anndata.read_h5ad(path)
    del adata.obsm["spatial"]
    adata.write_h5ad(path)
    with pytest.raises(InputError, match="no positions"):
        anndata_file.read(path, image=image, um_per_px=0.5)


def test_counts_of_raw_come_with_its_genes_in_the_layout_of_cellxgene(tmp_path: Path) -> None:
    tissue = make_tissue()
    path, image = write_anndata(tissue, tmp_path, counts_in="raw")
    adata = anndata.read_h5ad(path)
    adata = adata[:, 2:5].copy()  # variable genes; raw keeps all
    adata.write_h5ad(path)
    section = anndata_file.read(path, image=image, um_per_px=0.5)
    assert list(section.genes.index) == tissue.gene_ids
    assert (section.read_counts(None, None).toarray() == tissue.counts_NG).all()
    assert "raw counts taken from raw/X (whole numbers up to" in section.notes[0]
    named = anndata_file.read(path, image=image, um_per_px=0.5, layer="raw")
    assert (named.read_counts(None, None).toarray() == tissue.counts_NG).all()


def test_a_table_of_positions_is_read_by_its_names(tmp_path: Path) -> None:
    tissue = make_tissue()
    path, image = write_anndata(tissue, tmp_path)
    adata = anndata.read_h5ad(path)
    x, y = tissue.centre_xy_px.T
    adata.obsm["spatial"] = pd.DataFrame({"pxl_row_in_fullres": y, "pxl_col_in_fullres": x}, index=adata.obs_names)
    adata.write_h5ad(path)
    assert anndata_file.read(path, image=image, um_per_px=0.5).centre_xy_px == pytest.approx(tissue.centre_xy_px)
    adata.obsm["spatial"].columns = ["a", "b"]
    adata.write_h5ad(path)
    with pytest.raises(InputError, match=r"columns a, b: no x and y"):
        anndata_file.read(path, image=image, um_per_px=0.5)


def test_positions_in_px_by_name_are_preferred_unless_another_unit_is_stated(tmp_path: Path) -> None:
    tissue = make_tissue()
    path, image = write_anndata(tissue, tmp_path)
    adata = anndata.read_h5ad(path)
    adata.obsm["spatial_fullres"] = tissue.centre_xy_px
    adata.obsm["spatial"] = tissue.centre_xy_px * 0.5  # um
    adata.write_h5ad(path)
    section = anndata_file.read(path, image=image, um_per_px=0.5)
    assert section.centre_xy_px == pytest.approx(tissue.centre_xy_px)
    assert "obsm['spatial_fullres'], in px" in section.notes[-1]
    in_um = anndata_file.read(path, image=image, um_per_px=0.5, positions="um")
    assert in_um.centre_xy_px == pytest.approx(tissue.centre_xy_px * 0.5)


@pytest.mark.parametrize("layout", ["csr", "csc", "dense"])
def test_corrected_counts_are_rounded_the_same_whole_and_by_group(
    tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tissue = make_tissue()
    path, image = write_anndata(tissue, tmp_path, layout=layout)  # type: ignore[arg-type]
    adata = anndata.read_h5ad(path)
    factor = np.random.default_rng(0).uniform(0.6, 1, adata.shape)
    dense = adata.X if layout == "dense" else adata.X.toarray()
    corrected = np.where(tissue.counts_NG > 0, dense * factor, 0)
    adata.X = {"csr": sp.csr_matrix, "csc": sp.csc_matrix, "dense": np.asarray}[layout](corrected)
    adata.write_h5ad(path)
    with pytest.raises(InputError, match="--round-counts"):
        anndata_file.read(path, image=image, um_per_px=0.5)
    monkeypatch.setattr(stored_matrix, "CHUNK_ENTRIES", 40)
    section = anndata_file.read(path, image=image, um_per_px=0.5, rounding_seed=7)
    whole = section.read_counts(None, None).toarray()
    assert (np.abs(whole - corrected) < 1).all()
    assert (whole == CellTable.of(path, round_counts=True, seed=7).counts_NG.toarray()).all()
    group = np.arange(len(tissue)) % 5 - 1
    expected = np.stack([whole[group == index].sum(axis=0) for index in range(4)])
    assert (section.read_counts(group, 4).toarray() == expected).all()
    assert any("rounded at random, seed 7" in note for note in section.notes)
