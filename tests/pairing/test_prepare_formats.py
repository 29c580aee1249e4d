"""The same tissue through every vendor format becomes the same paired dataset."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fixtures.anndata_image import write_anndata
from fixtures.cosmx import write_cosmx
from fixtures.legacy_st import write_legacy_st
from fixtures.merscope import write_merscope
from fixtures.paired import write_tiny_paired
from fixtures.published_pickle import write_published_pickle
from fixtures.stereoseq import write_stereoseq
from fixtures.tissue import make_tissue, write_image
from fixtures.visium_hd import write_visium_hd
from fixtures.xenium import write_xenium
from sge2hist.data.errors import InputError
from sge2hist.data.paired import PairedDataset
from sge2hist.pairing.config import PrepareConfig
from sge2hist.pairing.export_spatialdata import export_spatialdata
from sge2hist.pairing.prepare import prepare
from sge2hist.readers import open_sections

TISSUE = make_tissue()
EVERYTHING = PrepareConfig(
    patch_um=8,
    patch_px=16,
    min_counts=0,
    min_genes=0,
    min_cells_per_gene=0,
    min_tissue_fraction=0,
    keep_border=True,
    types="none",
    fractions=(1, 0, 0),
    check_alignment=False,
)

Opened = dict[str, object]
WRITERS: dict[str, Callable[[Path], Opened]] = {
    "visium_hd_segmented": lambda f: {
        "path": f,
        "image": write_visium_hd(TISSUE, f, version="4.0.1").image,
        "format": "visium_hd_segmented",
    },
    "xenium": lambda f: {"path": write_xenium(TISSUE, f / "x").folder},
    "stereoseq": lambda f: {"path": write_stereoseq(TISSUE, f / "x").folder},
    "anndata": lambda f: dict(zip(("path", "image"), write_anndata(TISSUE, f), strict=True)) | {"um_per_px": 0.5},
}


@pytest.mark.parametrize("name", WRITERS)
def test_cells_patches_and_counts_are_those_of_the_tissue(tmp_path: Path, name: str) -> None:
    sections = open_sections(**WRITERS[name](tmp_path))  # type: ignore[arg-type]
    dataset = prepare(sections, tmp_path / "x.paired", config=EVERYTHING)
    n_cells = len(dataset)
    assert n_cells in (24, 23)  # Space Ranger's filtered matrix lacks the last cell
    assert (dataset.counts_in_memory().toarray() == TISSUE.counts_NG[:n_cells]).all()
    assert np.abs(dataset.centre_xy_px - TISSUE.centre_xy_px[:n_cells]).max() < 1.0
    assert (dataset.slides[0].as_array() == TISSUE.image).all()
    assert dataset.um_per_px == pytest.approx(0.5)
    assert dataset.genes.ids == TISSUE.gene_ids


@pytest.mark.parametrize("writer", [write_cosmx, write_merscope])
def test_pictures_of_a_run_become_a_dataset_of_stains_or_of_virtual_he(tmp_path: Path, writer) -> None:
    folder = writer(TISSUE, tmp_path / "x").folder
    stains = PrepareConfig(**vars(EVERYTHING) | {"channels": "all"})
    dataset = prepare(folder, tmp_path / "stains.paired", stains)
    assert "DAPI" in dataset.channels
    assert (dataset.counts_in_memory().toarray() == TISSUE.counts_NG).all()
    assert np.abs(dataset.centre_xy_px - TISSUE.centre_xy_px).max() < 1e-3
    virtual = prepare(folder, tmp_path / "he.paired", EVERYTHING, images="virtual-he")
    assert virtual.slides[0].as_array().shape[2] == 3


@pytest.mark.parametrize("writer", [write_cosmx, write_merscope])
def test_an_he_apart_from_the_run_needs_a_map(tmp_path: Path, writer) -> None:
    folder = writer(TISSUE, tmp_path / "x").folder
    he = write_image(TISSUE, tmp_path / "he.tif")
    with pytest.raises(InputError, match=r"an image that is none of the run.*--alignment auto"):
        prepare(folder, tmp_path / "x.paired", EVERYTHING, images=he)
    mapped = PrepareConfig(**vars(EVERYTHING) | {"alignment": "identity"})
    dataset = prepare(folder, tmp_path / "x.paired", mapped, images=he)
    assert (dataset.counts_in_memory().toarray() == TISSUE.counts_NG).all()
    assert dataset.um_per_px == pytest.approx(0.5)


def test_sections_of_a_legacy_folder_become_the_slides_of_one_dataset(tmp_path: Path) -> None:
    truths = write_legacy_st(tmp_path / "st", ("A1", "A2", "A3"))
    dataset = prepare(open_sections(tmp_path / "st"), tmp_path / "x.paired", config=EVERYTHING)
    assert dataset.slide_ids == ["A1", "A2", "A3"]
    for number, truth in enumerate(truths):
        mine = np.flatnonzero(dataset.slide_of_cell == number)
        assert (dataset.counts(mine).toarray() == truth.tissue.counts_NG).all()
    held = PrepareConfig(**vars(EVERYTHING) | {"holdout_slides": ("A3",), "fractions": (0.8, 0, 0.2)})
    dataset = prepare(open_sections(tmp_path / "st"), tmp_path / "held.paired", config=held)
    assert set(dataset.slide_of_cell[dataset.rows("test")]) == {2}
    assert 2 not in dataset.slide_of_cell[dataset.rows("train")]


def test_an_export_prepared_again_gives_the_same_cells(tmp_path: Path) -> None:
    first = write_tiny_paired(tmp_path / "tiny.paired", side=12)
    store = export_spatialdata(first, tmp_path / "tiny.zarr")
    config = PrepareConfig(**vars(EVERYTHING) | {"patch_um": first.patch_um, "patch_px": first.patch_px})
    again = prepare(open_sections(store), tmp_path / "again.paired", config=config)
    assert list(again.obs.index) == list(first.obs.index)
    assert (again.counts_in_memory() != first.counts_in_memory()).nnz == 0
    assert (again.patch(5) == first.patch(5)).all()


def test_pictures_of_the_published_pickle_are_kept_and_none_is_lost_to_the_gap(tmp_path: Path) -> None:
    patches = write_published_pickle(TISSUE, tmp_path / "cells.pkl")
    sections = open_sections(tmp_path / "cells.pkl", um_per_px=0.5)
    config = PrepareConfig(**vars(EVERYTHING) | {"fractions": (0.6, 0.2, 0.2), "split_block_um": 9.0})
    dataset = prepare(sections, tmp_path / "x.paired", config=config)
    assert len(dataset) == len(TISSUE)
    assert sum(len(dataset.rows(split)) for split in ("train", "val", "test")) == len(TISSUE)
    assert (dataset.patches(np.arange(len(TISSUE))) == patches).all()
    notes = dataset.manifest["notes"]["cells"]
    assert any("a split by spatial blocks is impossible" in note for note in notes)


def test_patches_wider_than_the_pictures_of_the_pickle_are_refused(tmp_path: Path) -> None:
    """Beyond its own picture a cell's patch would show those that happen to follow it in the file."""
    write_published_pickle(TISSUE, tmp_path / "cells.pkl")
    config = PrepareConfig(**vars(EVERYTHING) | {"patch_um": 16.0})
    with pytest.raises(InputError, match=r"--patch-um 16 with pictures of 8 um.*--patch-um 8 --patch-px 16"):
        prepare(open_sections(tmp_path / "cells.pkl", um_per_px=0.5), tmp_path / "x.paired", config=config)


def test_damage_found_while_counts_are_read_leaves_nothing_behind(tmp_path: Path) -> None:
    truth = write_visium_hd(TISSUE, tmp_path, bin_um=(8,))
    sections = open_sections(tmp_path, image=truth.image)
    matrix = next(truth.outs.rglob("filtered_feature_bc_matrix.h5"))
    matrix.write_bytes(matrix.read_bytes()[:-2000])  # cut after it was opened
    with pytest.raises(InputError, match="cannot be read"):
        prepare(sections, tmp_path / "x.paired", config=EVERYTHING)
    assert [child.name for child in tmp_path.iterdir() if "paired" in child.name] == []


def test_the_dataset_opens_as_its_class(tmp_path: Path) -> None:
    folder = write_xenium(TISSUE, tmp_path / "x").folder
    prepare(open_sections(folder), tmp_path / "x.paired", config=EVERYTHING)
    assert len(PairedDataset.open(tmp_path / "x.paired")) == 24
