import numpy as np
import pytest

from sge2hist.data.errors import InputError
from sge2hist.evaluation.cells import choose_cells, derangement
from sge2hist.evaluation.config import EvaluateConfig
from sge2hist.evaluation.images import ImageSet


def image_set(
    name: str, rows: np.ndarray, types: list[str] | None = None, samples: np.ndarray | None = None
) -> ImageSet:
    n = len(rows)
    return ImageSet(
        name=name,
        path=None,  # type: ignore[arg-type]
        files_M=[],
        row_M=rows,
        condition_row_M=rows,
        sample_M=np.zeros(n, np.int64) if samples is None else samples,
        seed_M=np.zeros(n, np.int64),
        type_M=np.array(types if types is not None else [""] * n),
        manifest={},
    )


@pytest.mark.parametrize("n", [2, 3, 100])
def test_derangement_moves_everything(n: int) -> None:
    found = derangement(n, np.random.default_rng(0))
    assert sorted(found) == list(range(n))
    assert (found != np.arange(n)).all()


def test_sets_are_evaluated_on_shared_cells_with_the_right_images(tissue) -> None:
    rng = np.random.default_rng(0)
    test = tissue.data.rows("test")
    a, b = image_set("a", rng.permutation(test[:60])), image_set("b", rng.permutation(test[20:90]))
    found = choose_cells([a, b], tissue.data, EvaluateConfig(), 32.0, rng)
    assert found.rows_N.tolist() == test[20:60].tolist()
    for images in (a, b):
        assert images.row_M[found.images[images.name][0]].tolist() == found.rows_N.tolist()
    assert len(np.intersect1d(found.comparison.rows_K, found.rows_N)) == 0
    assert len(found.comparison.rows_K) == 40
    assert any("largest set shows 70" in note for note in found.notes)


def test_samples_are_separated(tissue) -> None:
    rows = np.repeat(tissue.data.rows("test")[:30], 4)
    images = image_set("a", rows, samples=np.tile(np.arange(4), 30))
    found = choose_cells([images], tissue.data, EvaluateConfig(max_samples=3), 32.0, np.random.default_rng(0))
    assert len(found.images["a"]) == 3
    for number, indices in enumerate(found.images["a"]):
        assert set(images.sample_M[indices]) == {number}


def test_types_without_cells_stand_beside_cells_of_their_type(tissue) -> None:
    names = ["type 0"] * 20 + ["type 2"] * 25
    images = image_set("t", np.full(45, -1), types=names)
    found = choose_cells([images], tissue.data, EvaluateConfig(), 32.0, np.random.default_rng(0))
    assert not found.own_cells
    stood = [tissue.data.types[t] for t in tissue.data.type_of_cell[found.rows_N]]
    assert stood == [names[i] for i in found.images["t"][0]]
    assert found.type_N.tolist() == tissue.data.type_of_cell[found.rows_N].tolist()
    with pytest.raises(InputError, match="one by one"):
        choose_cells([images, images], tissue.data, EvaluateConfig(), 32.0, np.random.default_rng(0))


def test_too_few_common_cells_are_refused(tissue) -> None:
    test = tissue.data.rows("test")
    sets = [image_set("a", test[:30]), image_set("b", test[25:60])]
    with pytest.raises(InputError, match="5 cells in common"):
        choose_cells(sets, tissue.data, EvaluateConfig(), 32.0, np.random.default_rng(0))


def test_training_cells_are_noted(tissue) -> None:
    images = image_set("a", tissue.data.rows("train")[:30])
    found = choose_cells([images], tissue.data, EvaluateConfig(), 32.0, np.random.default_rng(0))
    assert any(note.startswith("Warning: 30 of 30") for note in found.notes)


def test_types_that_the_dataset_does_not_know_are_unknown(tissue) -> None:
    images = image_set("t", np.full(30, -1), types=["neuron"] * 30)
    found = choose_cells([images], tissue.data, EvaluateConfig(), 32.0, np.random.default_rng(0))
    assert set(found.type_N) == {-1}
    assert any("30 images name no type of this dataset (neuron)" in note for note in found.notes)


def test_reference_cells_are_the_same_for_any_cells(tissue) -> None:
    """Their stored features serve again."""
    config = EvaluateConfig(max_train=60, max_val=20)
    test = tissue.data.rows("test")
    found = [
        choose_cells([image_set("a", rows)], tissue.data, config, 32.0, np.random.default_rng(0))
        for rows in (test[:30], test[40:100])
    ]
    assert found[0].train_rows.tolist() == found[1].train_rows.tolist()
    assert found[0].val_rows.tolist() == found[1].val_rows.tolist()
