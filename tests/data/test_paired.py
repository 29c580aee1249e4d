import numpy as np
import pytest

from fixtures.paired import write_tiny_paired
from sge2hist.data.artifacts import read_json, write_json
from sge2hist.data.errors import InputError
from sge2hist.data.paired import PairedDataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> PairedDataset:
    return write_tiny_paired(tmp_path_factory.mktemp("paired") / "tiny.paired")


def test_items_are_what_the_published_code_expects(dataset) -> None:
    item = dataset[3]
    assert item["image"].shape == (32, 32, 3)
    assert item["image"].dtype == np.uint8
    assert item["gene"].dtype == np.float32
    assert isinstance(item["type"], int)
    assert dataset.types[item["type"]] == dataset.obs["cell_type"].iloc[3]
    np.testing.assert_array_equal(dataset[-1]["gene"], dataset[len(dataset) - 1]["gene"])
    with pytest.raises(IndexError):
        dataset[len(dataset)]


def test_counts_agree_with_anndata(dataset) -> None:
    table = dataset.adata()
    rows = np.array([5, 0, 5, 1599])
    np.testing.assert_array_equal(dataset.counts(rows).toarray(), table.X[rows].toarray())
    fresh = PairedDataset.open(dataset.path)
    np.testing.assert_array_equal(fresh.counts_in_memory()[rows].toarray(), fresh.counts(rows).toarray())
    np.testing.assert_array_equal(table.obsm["spatial"], dataset.centre_xy_px)


def test_splits(dataset) -> None:
    sizes = {name: len(dataset.rows(name)) for name in ("train", "val", "test", "all")}
    assert sizes["all"] == len(dataset)
    assert sizes["train"] + sizes["val"] + sizes["test"] < sizes["all"]  # some are dropped
    with pytest.raises(InputError, match="one of train"):
        dataset.rows("dev")


def test_empty_split_says_how_to_repair(dataset) -> None:
    fresh = PairedDataset.open(dataset.path)
    fresh._split = np.full(len(fresh), "train")
    with pytest.raises(InputError, match="--fractions"):
        fresh.rows("test")


def test_patches_agree_with_a_crop_of_the_slide(dataset) -> None:
    whole = dataset.slides[0].as_array()
    row = len(dataset) // 2 + 20
    x, y = (int(np.floor(c - 16 + 0.5)) for c in dataset.centre_xy_px[row])
    expected = np.pad(whole, ((20, 20), (20, 20), (0, 0)), constant_values=255)[y + 20 : y + 52, x + 20 : x + 52]
    np.testing.assert_array_equal(dataset.patch(row), expected)
    np.testing.assert_array_equal(dataset.patches(np.array([row, row]))[1], expected)
    assert dataset.patch(row, side_um=20.0, out_px=10).shape == (10, 10, 3)


def test_damaged_folders_are_input_errors(dataset, tmp_path) -> None:
    import shutil

    for number, name in enumerate(["cells.h5ad", "slide.ome.tif", "manifest.json"]):
        copy = tmp_path / f"{number}.paired"
        shutil.copytree(dataset.path, copy)
        (copy / name).unlink()
        with pytest.raises(InputError):
            PairedDataset.open(copy)
    copy = tmp_path / "half.paired"
    shutil.copytree(dataset.path, copy)
    content = (copy / "cells.h5ad").read_bytes()
    (copy / "cells.h5ad").write_bytes(content[: len(content) // 3])
    with pytest.raises(InputError, match=r"cells\.h5ad"):
        PairedDataset.open(copy)
    copy = tmp_path / "key.paired"
    shutil.copytree(dataset.path, copy)
    manifest = read_json(copy / "manifest.json")
    del manifest["um_per_px"]
    write_json(copy / "manifest.json", manifest)
    with pytest.raises(InputError, match="um_per_px"):
        PairedDataset.open(copy)
