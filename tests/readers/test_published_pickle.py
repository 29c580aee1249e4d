"""The published pickle: what it holds is kept, what it asks to run is refused."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from fixtures.published_pickle import write_hostile_pickle, write_published_pickle
from fixtures.tissue import make_tissue
from sge2hist.data.errors import InputError
from sge2hist.readers import published_pickle


@pytest.mark.parametrize("flat_genes", [False, True])
def test_mosaic_shows_every_picture_at_its_centre(tmp_path: Path, flat_genes: bool) -> None:
    tissue = make_tissue()
    patches = write_published_pickle(tissue, tmp_path / "cells.pkl", flat_genes=flat_genes)
    section = published_pickle.read(tmp_path / "cells.pkl", um_per_px=0.5)
    assert (section.read_counts(None, None).toarray() == tissue.counts_NG).all()
    for centre, patch in zip(section.centre_xy_px, patches, strict=True):
        assert (section.image.read_patch(centre, 8.0, 16, 0.5) == patch).all()
    assert section.obs["cell_type"].nunique() == len(set(tissue.cell_types))


def test_says_that_a_block_split_is_impossible(tmp_path: Path) -> None:
    write_published_pickle(make_tissue(), tmp_path / "cells.pkl")
    section = published_pickle.read(tmp_path / "cells.pkl", um_per_px=0.5)
    assert any("a split by spatial blocks is impossible" in note for note in section.notes)


def test_scale_and_gene_names_come_from_the_user(tmp_path: Path) -> None:
    tissue = make_tissue()
    write_published_pickle(tissue, tmp_path / "cells.pkl")
    with pytest.raises(InputError, match="--image-um-per-px"):
        published_pickle.read(tmp_path / "cells.pkl")
    rows = [f"{gene_id},{symbol}" for gene_id, symbol in zip(tissue.gene_ids, tissue.symbols, strict=True)]
    (tmp_path / "genes.csv").write_text("\n".join(["gene_id,symbol", *rows]))
    section = published_pickle.read(tmp_path / "cells.pkl", um_per_px=0.5, genes=tmp_path / "genes.csv")
    assert list(section.genes.index) == tissue.gene_ids
    (tmp_path / "genes.csv").write_text("\n".join(["gene_id,symbol", *rows[:3]]))
    with pytest.raises(InputError, match="3 gene names for vectors of 8"):
        published_pickle.read(tmp_path / "cells.pkl", um_per_px=0.5, genes=tmp_path / "genes.csv")


def test_a_pickle_that_runs_a_command_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    write_hostile_pickle(tmp_path / "cells.pkl", tmp_path / "witness")
    with pytest.raises(InputError, match=r"asks for (posix|nt|os)\.system"):
        published_pickle.read(tmp_path / "cells.pkl", um_per_px=0.5)
    assert not (tmp_path / "witness").exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_and_the_old_numpy_names_load(tmp_path: Path, protocol: int) -> None:
    content = {"a": {"image": np.zeros((4, 6, 3), np.uint8), "gene": np.arange(3.0), "type": np.int64(1)}}
    data = pickle.dumps(content, protocol=protocol)
    (tmp_path / "new.pkl").write_bytes(data)
    (tmp_path / "old.pkl").write_bytes(_old_names(data))
    for name in ("new.pkl", "old.pkl"):
        loaded = published_pickle.load_arrays(tmp_path / name)
        assert (loaded["a"]["gene"] == [0, 1, 2]).all()
    assert published_pickle.read(tmp_path / "new.pkl", um_per_px=1.0).image.height_px == 6 + published_pickle.GAP_PX


def _old_names(data: bytes) -> bytes:
    """The module names that NumPy 1 wrote (text opcodes only: binary ones carry a length)."""
    return data.replace(b"cnumpy._core.", b"cnumpy.core.")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "a pickled list"),
        ({}, "or nothing"),
        ({"a": {"image": np.zeros((4, 4, 3), np.uint8), "gene": np.ones(3)}}, "cell 'a' with no type"),
        ({"a": {"image": np.zeros((4, 4, 3)), "gene": np.ones(3), "type": 0}}, "an image float64"),
        ({"a": {"image": np.zeros((4, 4, 3), np.uint8), "gene": np.ones((2, 3)), "type": 0}}, "a gene vector"),
        ({"a": {"image": np.zeros((4, 4, 3), np.uint8), "gene": np.full(3, 0.5), "type": 0}}, "not counts"),
    ],
)
def test_other_contents_are_named(tmp_path: Path, content: object, message: str) -> None:
    (tmp_path / "cells.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match=message):
        published_pickle.read(tmp_path / "cells.pkl", um_per_px=1.0)
