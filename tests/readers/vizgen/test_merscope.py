"""MERSCOPE: counts, places, outlines and mosaic images are those of the tissue."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fixtures.merscope import write_merscope
from fixtures.tissue import make_tissue, write_image
from sge2hist.data.errors import InputError
from sge2hist.data.slides.channels import ALL
from sge2hist.readers import open_sections
from sge2hist.readers.vizgen import merscope

TISSUE = make_tissue()


@pytest.mark.parametrize("boundaries", ["parquet", "hdf5", "none"])
@pytest.mark.parametrize("id_column", ["EntityID", "X", ""])
def test_everything_is_that_of_the_tissue(tmp_path: Path, boundaries, id_column) -> None:
    truth = write_merscope(TISSUE, tmp_path / "region_0", boundaries=boundaries, id_column=id_column)
    (section,) = open_sections(truth.folder, channels=ALL)
    assert section.technology == "MERSCOPE"
    assert list(section.obs.index) == truth.cell_ids
    assert section.image.channels == ("DAPI", "PolyT")
    assert (section.image.levels[0].values.region(0, 0, 200, 260) == truth.stains).all()  # type: ignore[attr-defined]
    assert section.centre_xy_px == pytest.approx(TISSUE.centre_xy_px, abs=1e-6)
    assert section.um_per_px == pytest.approx(TISSUE.um_per_px)
    assert (section.read_counts(None, None).toarray() == TISSUE.counts_NG).all()
    assert list(section.genes["symbol"]) == TISSUE.symbols
    if boundaries == "none":
        assert section.outline_px is None
    else:
        radius = np.linalg.norm(section.outline_px, axis=2)
        assert radius == pytest.approx(TISSUE.radius_um / TISSUE.um_per_px, rel=1e-3)


def test_an_image_apart_from_the_run_waits_for_a_map(tmp_path: Path) -> None:
    truth = write_merscope(TISSUE, tmp_path / "a")
    with pytest.raises(InputError, match=r"fluorescence \(DAPI, PolyT\).*--channels all"):
        merscope.read(truth.folder)
    he = write_image(TISSUE, tmp_path / "he.tif")
    section = merscope.read(truth.folder, image=he)
    assert section.needs_map == "px of the mosaic images"
    bare = write_merscope(TISSUE, tmp_path / "b", images=False)
    with pytest.raises(InputError, match="no images/mosaic_"):
        merscope.read(bare.folder, channels=ALL)
    section = merscope.read(bare.folder, image=he)
    assert (section.needs_map, section.um_per_px) == ("um", 1.0)
    assert section.centre_xy_px == pytest.approx(bare.centre_um)


def test_tables_of_two_runs_and_damage_are_refused(tmp_path: Path) -> None:
    truth = write_merscope(TISSUE, tmp_path / "a")
    counts = truth.folder / "cell_by_gene.csv"
    lines = counts.read_text().splitlines()
    counts.write_text("\n".join(lines[:-2]) + "\n")
    with pytest.raises(InputError, match="no counts of 2 of 24 cells"):
        merscope.read(truth.folder, channels=ALL).read_counts(None, None)
    counts.write_text("\n".join([*lines, lines[-1]]) + "\n")
    with pytest.raises(InputError, match="a cell in two rows"):
        merscope.read(truth.folder, channels=ALL).read_counts(None, None)
    (truth.folder / "images" / "micron_to_mosaic_pixel_transform.csv").write_text("1 0 0\n0 0 0\n0 0 1\n")
    with pytest.raises(InputError, match="no map"):
        merscope.read(truth.folder, channels=ALL)


def test_counts_agree_with_spatialdata_io(tmp_path: Path) -> None:
    import warnings

    merscope_io = pytest.importorskip("spatialdata_io").merscope
    truth = write_merscope(TISSUE, tmp_path / "region_0")
    counts = truth.folder / "cell_by_gene.csv"
    lines = counts.read_text().splitlines()
    counts.write_text("\n".join([lines[0], *lines[:0:-1]]) + "\n")  # that reader joins by row, not by id
    section = merscope.read(truth.folder, channels=ALL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = merscope_io(truth.folder, transcripts=False, cells_boundaries=False, mosaic_images=False)["table"]
    assert (section.read_counts(None, None).toarray() == np.asarray(table.X)).all()
    assert table.obsm["spatial"] == pytest.approx(truth.centre_um)
