"""A paired dataset written as SpatialData: read back by our reader, and by spatialdata itself."""

import sys
from pathlib import Path

import numpy as np
import pytest

from fixtures.paired import write_tiny_paired
from sge2hist.data.errors import InputError
from sge2hist.data.paired import PairedDataset
from sge2hist.pairing.export_spatialdata import export_spatialdata
from sge2hist.readers.spatialdata.store import read_all


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> PairedDataset:
    return write_tiny_paired(tmp_path_factory.mktemp("data") / "tiny.paired", side=12)


def test_round_trip(dataset: PairedDataset, tmp_path: Path) -> None:
    path = export_spatialdata(dataset, tmp_path / "tiny.zarr")
    (section,) = read_all(path)
    assert list(section.obs.index) == list(dataset.obs.index)
    assert section.centre_xy_px == pytest.approx(dataset.centre_xy_px)
    assert (section.read_counts(None, None) != dataset.counts_in_memory()).nnz == 0
    assert list(section.genes.index) == dataset.genes.ids
    assert list(section.genes["symbol"]) == dataset.genes.symbols
    assert section.um_per_px == dataset.um_per_px
    assert (section.image.as_array() == dataset.slides[0].as_array()).all()
    assert list(section.obs["cell_type"]) == list(dataset.obs["cell_type"])


def test_levels_keep_the_pyramid(dataset: PairedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sge2hist.pairing.export_spatialdata.CHUNK_PX", 40)  # several chunks, the last ones cut
    path = export_spatialdata(dataset, tmp_path / "tiny.zarr")
    (section,) = read_all(path)
    assert len(section.image.levels) == len(dataset.slides[0].levels)
    for ours, theirs in zip(section.image.levels, dataset.slides[0].levels, strict=True):
        whole = (0, 0, theirs.height_px, theirs.width_px)
        assert (ours.region(*whole) == theirs.region(*whole)).all()


def test_an_export_is_never_replaced_and_needs_the_suffix(dataset: PairedDataset, tmp_path: Path) -> None:
    export_spatialdata(dataset, tmp_path / "tiny.zarr")
    with pytest.raises(InputError, match="an existing output"):
        export_spatialdata(dataset, tmp_path / "tiny.zarr")
    with pytest.raises(InputError, match=r"ends in \.zarr"):
        export_spatialdata(dataset, tmp_path / "tiny")
    assert sorted(child.name for child in tmp_path.iterdir()) == ["tiny.zarr"]


@pytest.mark.filterwarnings("ignore")
def test_spatialdata_opens_it(dataset: PairedDataset, tmp_path: Path) -> None:
    spatialdata = pytest.importorskip("spatialdata")
    path = export_spatialdata(dataset, tmp_path / "tiny.zarr")
    store = spatialdata.read_zarr(path)
    assert store["s1_full_image"].shape == (3, *dataset.slides[0].as_array().shape[:2])
    circles, table = spatialdata.join_spatialelement_table(
        sdata=store, spatial_element_names="s1_cells", table_name="table"
    )
    assert (dataset.counts_in_memory() != table.X).nnz == 0
    points = circles["s1_cells"].geometry
    assert np.stack([points.x, points.y], axis=1) == pytest.approx(dataset.centre_xy_px)
    assert circles["s1_cells"].radius.to_numpy() == pytest.approx(8.0 / dataset.um_per_px)
    store.write(tmp_path / "again.zarr")
    (section,) = read_all(tmp_path / "again.zarr", um_per_px=dataset.um_per_px)
    assert section.centre_xy_px == pytest.approx(dataset.centre_xy_px)


def test_the_missing_package_is_named(dataset: PairedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = export_spatialdata(dataset, tmp_path / "tiny.zarr")
    monkeypatch.setitem(sys.modules, "spatialdata", None)  # importing it raises ImportError
    for call in (lambda: read_all(path), lambda: export_spatialdata(dataset, tmp_path / "b.zarr")):
        with pytest.raises(InputError, match=r'pip install "sge2hist\[spatialdata\]"'):
            call()
    assert not (tmp_path / "b.zarr").exists()
