import errno
import hashlib
from pathlib import Path

import numpy as np
import pytest

from sge2hist.data import artifacts
from sge2hist.data.errors import InputError


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_directory_appears_only_when_complete(tmp_path: Path) -> None:
    target = tmp_path / "a.paired"
    with artifacts.atomic_directory(target) as partial:
        artifacts.write_manifest(partial, "paired", value=1)
        assert not target.exists()
    assert artifacts.read_manifest(target, "paired")["value"] == 1
    assert entries(tmp_path) == ["a.paired"]


def test_failure_leaves_nothing_and_keeps_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "a.paired"
    with pytest.raises(ZeroDivisionError), artifacts.atomic_directory(target) as partial:
        _ = (partial / "x").write_text("x") / 0
    assert entries(tmp_path) == []
    with artifacts.atomic_directory(target) as partial:
        artifacts.write_manifest(partial, "paired", value="old")
    with pytest.raises(ZeroDivisionError), artifacts.atomic_directory(target, overwrite=True) as partial:
        _ = 1 / 0
    assert artifacts.read_manifest(target, "paired")["value"] == "old"
    assert entries(tmp_path) == ["a.paired"]


def test_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No space left"), artifacts.atomic_directory(tmp_path / "a") as partial:
        raise OSError(errno.ENOSPC, "No space left on device", str(partial))
    with pytest.raises(InputError, match="No space left"), artifacts.atomic_path(tmp_path / "b") as path:
        raise OSError(path.write_text("half") and errno.ENOSPC, "No space left on device")
    assert entries(tmp_path) == []


def test_existing_output_needs_overwrite(tmp_path: Path) -> None:
    target = tmp_path / "a"
    with artifacts.atomic_directory(target) as partial:
        artifacts.write_manifest(partial, "paired", value=1)
    with pytest.raises(InputError, match="--overwrite"):
        artifacts.check_output(target, kind="paired")
    with pytest.raises(InputError, match="give another name"):
        artifacts.check_output(target)
    with artifacts.atomic_directory(target, overwrite=True) as partial:
        artifacts.write_manifest(partial, "paired", value=2)
    assert artifacts.read_manifest(target, "paired")["value"] == 2


def test_foreign_folder_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("cat")
    (tmp_path / "file").write_text("x")
    for name in ("photos", "file"):
        with pytest.raises(InputError, match="did not write"):
            artifacts.check_output(tmp_path / name, overwrite=True)
    assert (tmp_path / "photos" / "cat.jpg").read_text() == "cat"


def test_folders_of_other_programs_and_kinds_are_never_replaced(tmp_path: Path) -> None:
    for content in ("{}", "[]", "not json", '{"kind": "model"}', '{"kind": 3, "format_version": 1}'):
        folder = tmp_path / "other"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(content)
        with pytest.raises(InputError, match="did not write"):
            artifacts.check_output(folder, overwrite=True)
    with artifacts.atomic_directory(tmp_path / "a.paired") as partial:
        artifacts.write_manifest(partial, "paired")
    with (
        pytest.raises(InputError, match="'paired'"),
        artifacts.atomic_directory(tmp_path / "a.paired", True, "generated"),
    ):
        raise AssertionError("written in place of a dataset")
    assert artifacts.read_manifest(tmp_path / "a.paired", "paired")
    assert artifacts.check_output(tmp_path / "a.paired", overwrite=True, kind="paired")


def test_files_get_the_permissions_of_the_users_own(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("")
    with artifacts.atomic_path(tmp_path / "weights") as partial:
        partial.write_text("w")
        partial.chmod(0o600)
    assert (tmp_path / "weights").stat().st_mode == (tmp_path / "own").stat().st_mode


def test_manifest_of_another_kind_or_version_is_refused(tmp_path: Path) -> None:
    artifacts.write_manifest(tmp_path, "generated")
    with pytest.raises(InputError, match="generated"):
        artifacts.read_manifest(tmp_path, "paired")
    artifacts.write_json(tmp_path / "manifest.json", {"kind": "paired", "format_version": 99})
    with pytest.raises(InputError, match="version 99"):
        artifacts.read_manifest(tmp_path, "paired")
    with pytest.raises(InputError, match="no such folder"):
        artifacts.read_manifest(tmp_path / "none", "paired")


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "\x00", "[" * 100_000])
def test_broken_json_is_an_input_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=r"a\.json"):
        artifacts.read_json(tmp_path / "a.json")


def test_json_takes_numpy_and_paths_but_no_nan(tmp_path: Path) -> None:
    artifacts.write_json(tmp_path / "a.json", {"a": np.float32(1.5), "b": np.arange(2), "c": Path("x")})
    assert artifacts.read_json(tmp_path / "a.json") == {"a": 1.5, "b": [0, 1], "c": "x"}
    with pytest.raises(ValueError, match="JSON"):
        artifacts.write_json(tmp_path / "b.json", float("nan"))


def test_sha256_agrees_with_hashlib(tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(3_000_000)
    (tmp_path / "a").write_bytes(content)
    assert artifacts.sha256_of(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_disk_space_is_checked_beforehand(tmp_path: Path) -> None:
    artifacts.require_disk_space(tmp_path / "not" / "yet", 1)
    with pytest.raises(InputError, match="free"):
        artifacts.require_disk_space(tmp_path, 10**18)
