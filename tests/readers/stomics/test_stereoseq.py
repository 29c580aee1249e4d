"""Stereo-seq: cells and square bins are those of the chip, whether positions count from its corner or from the offset."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from fixtures.stereoseq import write_stereoseq
from fixtures.tissue import make_tissue, write_image
from sge2hist.data.errors import InputError
from sge2hist.readers import open_sections
from sge2hist.readers.detect import detect_format
from sge2hist.readers.stomics import gef_bins, gef_cells, stereoseq

TISSUE = make_tissue()


@pytest.mark.parametrize("absolute", [False, True])
def test_cells(tmp_path: Path, absolute: bool, monkeypatch) -> None:
    monkeypatch.setattr(gef_cells, "ROWS_AT_ONCE", 40)
    truth = write_stereoseq(TISSUE, tmp_path / "x", absolute=absolute)
    assert detect_format(truth.folder).format == "stereoseq"
    (section,) = open_sections(truth.folder)
    assert (section.read_counts(None, None).toarray() == TISSUE.counts_NG).all()
    group = np.arange(len(TISSUE)) % 3 - 1
    summed = np.stack([TISSUE.counts_NG[group == i].sum(axis=0) for i in (0, 1)])
    assert (section.read_counts(group, 2).toarray() == summed).all()
    assert (section.centre_xy_px == truth.centre_dnb + 0.5).all()
    assert list(section.genes.index) == TISSUE.gene_ids
    assert section.um_per_px == 0.5
    assert section.needs_map is None
    assert np.linalg.norm(section.outline_px, axis=2) == pytest.approx(10, abs=0.71)
    assert (section.image.as_array() == TISSUE.image).all()


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("bin_um", [2, 10])
def test_bins(tmp_path: Path, absolute: bool, bin_um: int, monkeypatch) -> None:
    monkeypatch.setattr(gef_bins, "ROWS_AT_ONCE", 500)
    truth = write_stereoseq(TISSUE, tmp_path / "x", absolute=absolute)
    (section,) = open_sections(truth.folder, bin_um=bin_um)
    side = 2 * bin_um
    expected: dict[tuple[int, int], np.ndarray] = {}
    for x, y, gene, count in truth.dots:
        expected.setdefault((y // side, x // side), np.zeros(len(TISSUE.symbols), int))[gene] += count
    names = list(zip(section.obs["array_row"], section.obs["array_col"], strict=True))
    assert sorted(expected) == names
    assert (section.read_counts(None, None).toarray() == np.stack([expected[one] for one in names])).all()
    centre = (np.array(names)[:, ::-1] + 0.5) * side
    assert (section.centre_xy_px == centre).all()
    assert (section.observation, section.observation_um) == ("bin", bin_um)
    group = np.zeros(len(names), np.int64)
    assert section.read_counts(group, 1).sum() == truth.dots[:, 3].sum()


def test_images_and_sizes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    truth = write_stereoseq(TISSUE, tmp_path / "x")
    gef = truth.folder / "outs/feature_expression/A1.tissue.gef"
    with h5py.File(gef, "a") as file:
        file.move("geneExp/bin1", "geneExp/bin20")
        file["geneExp/bin20/expression"][...] = file["geneExp/bin20/expression"][...]
    with pytest.raises(InputError, match=r"--bin-um 3.*a multiple of the bins stored: 10 um"):
        stereoseq.read(truth.folder, bin_um=3)
    registered = truth.folder / "outs/image/A1_HE_regist.tif"
    other = write_image(make_tissue(width_px=300), tmp_path / "he.tif")
    assert stereoseq.read(truth.folder, image=other).needs_map == "DNB of the chip"
    registered.unlink()
    with pytest.raises(InputError, match=r"no registered H&E.*--image FILE"):
        stereoseq.read(truth.folder)
    cells = truth.folder / "outs/feature_expression/A1.cellbin.gef"
    cells.write_bytes(cells.read_bytes()[:-3000])
    with pytest.raises(InputError, match=r"cannot be read|damaged"):
        stereoseq.read(truth.folder, image=other)
