"""What was computed of real patches is found again, and a cache that cannot be used only costs time."""

from pathlib import Path

import numpy as np
import pytest

from sge2hist.evaluation.config import EvaluateConfig
from sge2hist.evaluation.evaluate import evaluate
from sge2hist.evaluation.features import row_store
from sge2hist.evaluation.features.extractor import Extractor
from sge2hist.evaluation.features.extractors import texture_extractor
from sge2hist.evaluation.features.row_store import RowStore, store_beside


def squares(rows: np.ndarray, asked: list[int]):
    def compute(missing: np.ndarray) -> np.ndarray:
        asked.extend(rows[missing].tolist())
        return (rows[missing, None] ** 2).astype(np.float32)

    return compute


def test_only_what_is_missing_is_computed_and_the_file_grows(tmp_path: Path) -> None:
    path, asked = tmp_path / "cache" / "a.npz", []
    for rows in ([5, 2], [2, 9, 5], [9]):
        store = RowStore(path)
        found = store.complete(np.array(rows), squares(np.array(rows), asked))
        assert found[:, 0].tolist() == [row**2 for row in rows]
        store.save()
    assert asked == [5, 2, 9]
    assert [file.name for file in path.parent.iterdir()] == ["a.npz"]


@pytest.mark.parametrize("content", [b"", b"PK broken", b"x" * 100])
def test_a_damaged_file_is_replaced(tmp_path: Path, content: bytes) -> None:
    path, rows, asked = tmp_path / "a.npz", np.array([1, 2]), []
    path.write_bytes(content)
    store = RowStore(path)
    store.complete(rows, squares(rows, asked))
    store.save()
    assert RowStore(path).lookup(rows)[0].all()


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    store, rows = store_beside(tmp_path, "features", {"a": 1}), np.array([1])
    store.complete(rows, squares(rows, []))
    store.save()
    assert store.lookup(rows)[0].all()


def test_a_file_that_would_be_too_large_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_store, "MAX_BYTES", 4)
    store, rows = RowStore(tmp_path / "a.npz"), np.array([1, 2])
    store.complete(rows, squares(rows, []))
    store.save()
    assert not (tmp_path / "a.npz").exists()


N_SMALL_CHANGES = 3  # whose features are not stored


def test_other_keys_are_another_file(tmp_path: Path) -> None:
    paths = {store_beside(tmp_path, "features", {"sha256": key}).path for key in ("a", "b", "a")}
    assert len(paths) == 2
    assert store_beside(tmp_path, "features", None).path is None


def test_a_second_evaluation_describes_no_real_patch_again(tissue, tmp_path: Path, monkeypatch) -> None:
    """An extractor with a hash is stored; the report is the same, also without the cache."""
    seen: list[int] = []
    texture = texture_extractor()

    def compute(images: np.ndarray) -> np.ndarray:
        seen.append(len(images))
        return texture.compute(images)

    def extractor(sha256: str) -> Extractor:
        return Extractor(name="counted", compute=compute, details={"sha256": sha256}, bright_field=True)

    rows = tissue.data.rows("test")[:60]
    path = tissue.write(tmp_path / "a", tissue.fresh(rows, 0), rows)
    reports, counts = [], []
    for sha256, cache in (("a", False), ("a", True), ("a", True), ("b", True)):
        monkeypatch.setattr("sge2hist.evaluation.evaluate.resolve_extractors", lambda *a, s=sha256, **k: [extractor(s)])
        seen.clear()
        config = EvaluateConfig(n_bootstrap=5, max_train=100, umap=False, cache=cache)
        reports.append(evaluate(path, tissue.data, config=config)["metrics"])
        counts.append(sum(seen))
    assert counts[0] == counts[1] == counts[3]
    assert counts[2] == len(rows) * (1 + N_SMALL_CHANGES)  # the generated patches, and real ones under small changes
    assert reports[0] == reports[1] == reports[2]
