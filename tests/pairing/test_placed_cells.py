"""Cells that fail a filter stay in the dataset as placed cells; centre cells are exactly those of a dataset without them."""

import dataclasses

import numpy as np
import pytest

from pairing.sections import make_section
from sge2hist.cli.inspect import artifact_facts
from sge2hist.data.errors import InputError
from sge2hist.data.paired import PairedDataset
from sge2hist.data.section import Section
from sge2hist.pairing.config import DEFAULT_FILTERS, PrepareConfig
from sge2hist.pairing.prepare import prepare
from sge2hist.pairing.split import split_placed

OPTIONS = {
    "patch_um": 40.0,
    "patch_px": 20,
    "types": "region",
    "split_block_um": 150.0,
    "min_genes": 3,
    "log": lambda _: None,
}
MIN_COUNTS = 40


def without(section: Section, keep: np.ndarray) -> Section:
    """The section as if the other observations had never been measured."""
    rows = np.flatnonzero(keep)

    def read_counts(group, n_groups):
        counts = section.read_counts(None, None)[rows]
        if group is None:
            return counts
        from sge2hist.readers.count_rows import grouped_rows

        return grouped_rows(counts)(group, n_groups)

    return dataclasses.replace(
        section, obs=section.obs.iloc[rows], centre_xy_px=section.centre_xy_px[rows], read_counts=read_counts
    )


@pytest.fixture(scope="module")
def section() -> Section:
    return make_section(um_per_px=2.0)


@pytest.fixture(scope="module")
def data(section, tmp_path_factory) -> PairedDataset:
    return prepare(section, tmp_path_factory.mktemp("placed") / "p.paired", min_counts=MIN_COUNTS, **OPTIONS)


def test_every_cell_on_the_image_is_there(data, section) -> None:
    n_counts = section.read_counts(None, None).sum(axis=1)
    assert list(data.obs.index) == list(section.obs.index)
    x, y = section.centre_xy_px.T
    inside = (x >= 10) & (y >= 10) & (x <= 490) & (y <= 390)  # half a patch from the border, in px of 2 um
    assert np.array_equal(data.is_centre, inside & (n_counts >= MIN_COUNTS))
    assert 0.2 < data.is_centre.mean() < 0.9
    assert np.array_equal(data.obs["role"] == "placed", ~data.is_centre)
    assert np.array_equal(data.counts(np.arange(len(data))).sum(axis=1), n_counts)  # their counts are kept
    assert data.manifest["n_centre"] == data.is_centre.sum()
    assert data.manifest["qc"]["placed"] == {"one": section.n_obs}


def test_splits_hold_centre_cells_only(data) -> None:
    rows = [data.rows(split) for split in ("train", "val", "test")]
    assert all(data.is_centre[some].all() for some in rows)
    assert np.array_equal(data.rows("all"), np.flatnonzero(data.is_centre))
    assert sum(data.manifest["split"]["counts"].values()) == data.is_centre.sum()
    assert data.manifest["split"]["counts"]["test"] == len(rows[2])


def test_centre_cells_are_those_of_a_dataset_without_placed_cells(data, section, tmp_path) -> None:
    """What a filter removed before, and keeps in place now, changes nothing of the others: split, type, genes, counts."""
    alone = prepare(without(section, data.is_centre), tmp_path / "a.paired", min_counts=0, **OPTIONS)
    assert alone.is_centre.all()
    ours = data.obs[data.is_centre]
    assert list(ours.index) == list(alone.obs.index)
    for column in ("split", "cell_type", "n_counts"):
        assert np.array_equal(ours[column].astype(str), alone.obs[column].astype(str)), column
    assert data.genes == alone.genes
    found, expected = data.counts(data.rows("all")), alone.counts(np.arange(len(alone)))
    assert (found != expected).nnz == 0


def test_placed_cells_have_types_and_are_neighbours_of_training_cells_alone(data) -> None:
    placed = data.obs[~data.is_centre]
    assert set(placed["split"].astype(str)) == {"train", "dropped"}
    assert (placed["cell_type"].astype(str) == placed["region"].astype(str)).all()
    held_out = data.centre_xy_px[np.concatenate([data.rows("val"), data.rows("test")])]
    near_train = data.centre_xy_px[(~data.is_centre) & (data.obs["split"] == "train").to_numpy()]
    distance = np.abs(near_train[:, None] - held_out[None]).max(axis=-1).min(axis=1)
    assert distance.min() * data.um_per_px >= data.patch_um


def test_split_of_placed_cells() -> None:
    x = np.array([0.0, 10, 200, 210, 95, 400, 30])
    centre_xy = np.column_stack([x, np.zeros(7)])
    is_centre = np.array([True, False, True, False, False, False, False])
    slide = np.array([0, 0, 0, 0, 0, 1, 0])
    split = split_placed(np.array(["train", "test"], object), is_centre, centre_xy, slide, 110.0)
    assert split.tolist() == ["train", "train", "test", "dropped", "dropped", "dropped", "train"]


def test_cells_outside_the_quality_control_of_the_vendor_stay_placed(section, tmp_path) -> None:
    passes = np.arange(section.n_obs) % 3 > 0
    flagged = dataclasses.replace(section, obs=section.obs.assign(passes_qc=passes))
    data = prepare(flagged, tmp_path / "q.paired", min_counts=0, **OPTIONS)
    assert len(data) == section.n_obs
    assert not data.is_centre[~passes].any()
    assert "quality control of the vendor" in [line["filter"] for line in data.manifest["qc"]["cells"]["one"]]


def test_a_verdict_in_words_is_refused(section, tmp_path) -> None:
    flagged = dataclasses.replace(section, obs=section.obs.assign(passes_qc="False"))
    with pytest.raises(InputError, match=r"column passes_qc of (object|str).*true or false"):
        prepare(flagged, tmp_path / "w.paired", **OPTIONS)


def test_default_filters_go_by_platform(section, tmp_path) -> None:
    config = PrepareConfig()
    assert config.filters_of("bin") == config.filters_of("spot") == DEFAULT_FILTERS["bin"]
    assert config.filters_of("bin").min_counts == 20
    assert config.filters_of("cell").min_tissue_fraction == 0
    assert PrepareConfig(min_counts=7).filters_of("cell").min_counts == 7
    assert PrepareConfig(min_counts=0).filters_of("bin").min_counts == 0
    cells = dataclasses.replace(section, observation="cell", observation_um=None)
    data = prepare(cells, tmp_path / "c.paired", **{**OPTIONS, "min_genes": None})
    assert data.manifest["qc"]["filters"]["one"] == {"min_counts": 5, "min_genes": 3, "min_tissue_fraction": 0.0}


def test_how_many_are_placed_and_used_is_said(data) -> None:
    n_centre, n_placed = int(data.is_centre.sum()), int((~data.is_centre).sum())
    facts = dict(artifact_facts(data.path))
    assert facts["centre cells"] == f"{n_centre:,} pass the filters; {n_placed:,} are placed only"
    assert f"({n_placed:,} of them placed only)" in repr(data)


def test_a_dataset_without_roles_has_centre_cells_only(tiny_paired) -> None:
    assert "role" not in tiny_paired.obs
    assert tiny_paired.is_centre.all()
    assert np.array_equal(tiny_paired.rows("all"), np.arange(len(tiny_paired)))
