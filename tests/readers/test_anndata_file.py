"""AnnData beside an image: counts from wherever they are raw, positions and scale as stated."""

from pathlib import Path

import anndata
import numpy as np
import pytest

from fixtures.anndata_image import write_anndata
from fixtures.tissue import make_tissue
from sge2hist.data.errors import InputError
from sge2hist.readers import anndata_file
from sge2hist.readers import anndata_file as anndata_table


@pytest.mark.parametrize("layout", ["csr", "csc", "dense"])
@pytest.mark.parametrize("counts_in", ["X", "raw", "layers/counts"])
def test_counts_and_positions_equal_what_was_written(
    tmp_path: Path, layout: str, counts_in: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anndata_table, "CHUNK_ENTRIES", 40)  # several chunks, one row longer than a chunk is fine
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
