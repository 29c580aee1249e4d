import dataclasses
import errno
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pairing.sections import make_section
from sge2hist.data.errors import InputError
from sge2hist.data.paired import PairedDataset
from sge2hist.data.slides import slide_writer
from sge2hist.data.slides.slide_image import SlideImage
from sge2hist.pairing import prepare as module
from sge2hist.pairing.config import PrepareConfig
from sge2hist.pairing.prepare import prepare

CONFIG = PrepareConfig(patch_um=40.0, patch_px=20, types="region", split_block_um=150.0, min_counts=5, min_genes=3)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> PairedDataset:
    return prepare([make_section()], tmp_path_factory.mktemp("p") / "one.paired", config=CONFIG)


@pytest.fixture(autouse=True)
def _without_report(request, monkeypatch):
    """The report takes most of the time: only the dataset of the module has one."""
    request.getfixturevalue("dataset")
    monkeypatch.setattr(module, "write_report", lambda path, inputs: path.write_bytes(b"not written"))


def test_cells_counts_and_positions_are_those_of_the_section(dataset) -> None:
    section = make_section()
    truth = pd.DataFrame(section.read_counts(None, None).toarray(), index=section.obs.index)
    at = section.obs.index.get_indexer(dataset.obs.index)
    np.testing.assert_array_equal(dataset.counts_in_memory().toarray(), truth.iloc[at].to_numpy())
    np.testing.assert_allclose(dataset.centre_xy_px, section.centre_xy_px[at])
    assert dataset.genes.symbols[:2] == ["G0", "G1"]
    assert [dataset.types[t] for t in dataset.type_of_cell] == section.obs["region"].iloc[at].tolist()


def test_manifest_records_what_was_done(dataset) -> None:
    manifest = dataset.manifest
    removed = sum(line["removed"] for line in manifest["qc"]["cells"]["one"])
    n_centre = int(dataset.is_centre.sum())
    assert manifest["qc"]["read"]["one"] == manifest["qc"]["placed"]["one"] == manifest["n_cells"] == len(dataset)
    assert manifest["qc"]["read"]["one"] - removed == manifest["n_centre"] == n_centre < len(dataset)
    assert sum(manifest["split"]["counts"].values()) == n_centre
    assert manifest["split"]["gap_um"] == 44.0
    assert manifest["alignment"][0]["measured_shift"]["length_um"] < 4
    assert manifest["um_per_px"] == 2.0
    assert not manifest["toy"]
    assert {"density_mean", "haematoxylin_std"} <= set(manifest["slides"][0]["stain"])
    assert sorted(path.name for path in dataset.path.iterdir()) == [
        "alignment.png",
        "cells.h5ad",
        "manifest.json",
        "slide.ome.tif",
    ]


def test_slide_is_stored_without_loss_and_patches_are_crops_of_the_source(dataset) -> None:
    source = make_section().image
    np.testing.assert_array_equal(dataset.slides[0].as_array(), source.as_array())
    np.testing.assert_array_equal(dataset.patch(7), source.read_patch(dataset.centre_xy_px[7], 40.0, 20, 2.0))


def test_no_patch_pixel_is_shared_between_splits(dataset) -> None:
    """Paint the patches of each split on the slide: no pixel may carry two."""
    half = 10
    painted = {name: np.zeros((440, 540), bool) for name in ("train", "val", "test")}
    for name, canvas in painted.items():
        for x, y in np.floor(dataset.centre_xy_px[dataset.rows(name)] - half + 0.5).astype(int):
            canvas[y : y + 2 * half, x : x + 2 * half] = True
    assert not (painted["train"] & painted["val"]).any()
    assert not (painted["train"] & painted["test"]).any()
    assert not (painted["val"] & painted["test"]).any()


def test_same_seed_same_fingerprint_other_seed_another(dataset, tmp_path) -> None:
    again = prepare([make_section()], tmp_path / "a.paired", config=CONFIG)
    other = prepare([make_section()], tmp_path / "b.paired", config=dataclasses.replace(CONFIG, seed=1))
    assert again.fingerprint == dataset.fingerprint != other.fingerprint


def test_another_resolution_keeps_positions_in_um(dataset, tmp_path) -> None:
    fine = prepare([make_section()], tmp_path / "a.paired", config=dataclasses.replace(CONFIG, um_per_px=4.0))
    assert fine.um_per_px == 4.0
    assert (fine.slides[0].width_px, fine.slides[0].height_px) == (250, 200)
    shared = fine.obs.index.intersection(dataset.obs.index)
    np.testing.assert_allclose(
        fine.centre_xy_px[fine.obs.index.get_indexer(shared)] * 4.0,
        dataset.centre_xy_px[dataset.obs.index.get_indexer(shared)] * 2.0,
    )
    inner = int(dataset.rows("all")[7])  # its patch lies inside the image
    small = dataset.patch(inner, side_um=40.0, out_px=10).astype(int)
    row = fine.obs.index.get_loc(dataset.obs.index[inner])
    assert np.abs(fine.patch(row, side_um=40.0, out_px=10).astype(int) - small).mean() < 6


def test_several_slides_and_holdout(tmp_path) -> None:
    two = make_section(name="two", seed=5, um_per_px=2.5, width_px=300, height_px=300)
    genes = two.genes.iloc[:30]  # another panel: the union is kept, unseen genes are zero

    def fewer(group, n_groups):
        return make_section(name="two", seed=5, um_per_px=2.5, width_px=300, height_px=300).read_counts(
            group, n_groups
        )[:, :30]

    two = dataclasses.replace(two, genes=genes, read_counts=fewer)
    config = dataclasses.replace(CONFIG, holdout_slides=("two",), fractions=(0.6, 0.2, 0.2))
    data = prepare([make_section(), two], tmp_path / "a.paired", config=config)
    assert data.slide_ids == ["one", "two"]
    assert data.um_per_px == 2.5
    assert set(data.obs["slide"].iloc[data.rows("test")]) == {"two"}
    assert set(data.obs["slide"].iloc[data.rows("train")]) == {"one"}
    assert len(data.genes) == 40
    assert data.counts(data.rows("test"))[:, 30:].sum() == 0
    assert data.obs.index.is_unique
    assert data.patch(int(data.rows("test")[0])).shape == (20, 20, 3)
    assert (data.path / "alignment.1.png").is_file()


def test_toy_sections_mark_the_dataset(tmp_path) -> None:
    data = prepare([make_section(software="sge2hist toy tissue 0")], tmp_path / "a.paired", config=CONFIG)
    assert data.is_toy


def full_disk(*_args: object, **_options: object) -> str:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("step", ["write_cells", "write_slides", "write_report", "write_paired_manifest"])
def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch, step) -> None:
    monkeypatch.setattr(module, step, full_disk)
    with pytest.raises(InputError, match="No space left"):
        prepare([make_section()], tmp_path / "a.paired", config=CONFIG)
    assert list(tmp_path.iterdir()) == []


def test_disk_space_is_checked_before_writing(tmp_path, monkeypatch) -> None:
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    monkeypatch.setattr(slide_writer, "write_slide", full_disk)
    with pytest.raises(InputError, match="GB free"):
        prepare([make_section()], tmp_path / "a.paired", config=CONFIG)


def test_bad_requests_stop_before_work(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module, "check_image", full_disk)  # nothing may get as far as this
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "x").write_text("x")
    with pytest.raises(InputError, match="existing output"):
        prepare([make_section()], tmp_path / "old", config=CONFIG)
    with pytest.raises(InputError, match="did not write"):
        prepare([make_section()], tmp_path / "old", config=CONFIG, overwrite=True)
    with pytest.raises(InputError, match="no input"):
        prepare([], tmp_path / "a.paired", config=CONFIG)
    for held, message in ((("x",), "--holdout-slide x"), (("one",), "every slide")):
        with pytest.raises(InputError, match=message):
            prepare([make_section()], tmp_path / "a.paired", config=dataclasses.replace(CONFIG, holdout_slides=held))


def test_gross_shift_is_refused_and_corrected(tmp_path) -> None:
    shifted = make_section(shift_um=(70.0, -10.0), width_px=700, height_px=600)
    with pytest.raises(InputError, match=r"--shift-um (69|70|71),-(9|10|11)"):
        prepare([shifted], tmp_path / "a.paired", config=CONFIG)
    config = dataclasses.replace(CONFIG, shift_um=(70.0, -10.0))
    data = prepare([shifted], tmp_path / "a.paired", config=config)
    assert data.manifest["alignment"][0]["measured_shift"]["length_um"] < 4
    assert data.manifest["alignment"][0]["applied_shift_um"] == [70.0, -10.0]


def test_progress_is_reported(tmp_path) -> None:
    calls: list[tuple[str, int, int]] = []
    prepare([make_section()], tmp_path / "a.paired", config=CONFIG, progress=lambda *call: calls.append(call))
    stages = list(dict.fromkeys(stage for stage, _, _ in calls))
    assert stages == ["reading counts", "splitting and labelling", "slide one", "cells", "alignment report"]
    assert all(done <= total for _, done, total in calls)


def test_counts_are_streamed_by_group(tmp_path) -> None:
    """Only the cells on the image are read, with or without enough counts."""
    section, requested = make_section().moved(lambda centre_xy_px: centre_xy_px + np.array([30.0, 0.0])), []

    def spy(group, n_groups):
        requested.append((group.copy(), n_groups))
        return section.read_counts(group, n_groups)

    prepare(
        [dataclasses.replace(section, read_counts=spy)], tmp_path / "a.paired", config=CONFIG, check_alignment=False
    )
    ((group, n_groups),) = requested
    inside = section.centre_xy_px[:, 0] < 500
    assert np.array_equal(group >= 0, inside)
    assert n_groups == inside.sum() < section.n_obs


def test_written_cells_open_in_scanpy(dataset) -> None:
    import anndata

    table = anndata.read_h5ad(dataset.path / "cells.h5ad")
    assert table.X.dtype == np.int32
    assert {"cell_type", "split", "slide", "n_counts", "n_genes", "tissue_fraction"} <= set(table.obs.columns)
    np.testing.assert_array_equal(np.asarray(table.X.sum(axis=1)).ravel(), table.obs["n_counts"])


def test_source_image_may_be_a_file(tmp_path: Path) -> None:
    import tifffile

    section = make_section()
    tifffile.imwrite(tmp_path / "he.tif", section.image.as_array(), photometric="rgb", tile=(64, 64))
    section = dataclasses.replace(section, image=SlideImage.open(tmp_path / "he.tif"))
    data = prepare([section], tmp_path / "a.paired", config=CONFIG)
    assert data.manifest["slides"][0]["source"] == "he.tif"
