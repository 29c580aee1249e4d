"""Artifacts on disk: written under a temporary name and renamed when complete, described by a manifest."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sge2hist
from sge2hist.data.errors import InputError
from sge2hist.data.output_lock import REPLACED, UNFINISHED, output_lock, owner_tag
from sge2hist.data.packed_text import open_text

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
MADE_BY = {
    "paired": "sge2hist prepare OUTS --image HE -o X.paired",
    "generated": "sge2hist generate MODEL --data X.paired -o X.generated",
}
"""Kind of an artifact -> the command that makes it."""
ARTIFACT_MARKS = (MANIFEST_NAME, "config.json")


def _sibling(path: Path, state: str) -> Path:
    return path.with_name(f".{path.name}.{owner_tag()}.{state}")


def _disk_error(error: OSError, path: Path) -> InputError:
    return InputError(
        found=f"the disk refused a write ({error.strerror or error})",
        where=str(path),
        expected="free space and write permission",
        repair="free some space or choose another output folder",
    )


def is_artifact(path: Path) -> bool:
    """Whether `path` looks like a folder written by this package (it has a manifest.json or a config.json)."""
    return path.is_dir() and any((path / mark).is_file() for mark in ARTIFACT_MARKS)


def artifact_kind(path: Path) -> str | None:
    """The kind stated by a folder that this package wrote, or None: other programs write files of these names too."""
    for mark in ARTIFACT_MARKS:
        try:
            content = json.loads((path / mark).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(content, dict) and "format_version" in content and isinstance(content.get("kind"), str):
            return str(content["kind"])
    return None


def check_output(path: str | Path, *, overwrite: bool = False, kind: str | None = None) -> Path:
    """Raise `InputError` unless an artifact may be written at `path`; call it before any slow work.

    `overwrite` replaces an artifact of the same `kind` (None: of any kind) or an empty folder, and nothing else.
    """
    path = Path(path)
    if not os.path.lexists(path):
        return check_folder(path)
    if not overwrite:
        raise InputError(
            found="an existing output",
            where=str(path),
            expected="a free name",
            repair="give another name" if kind is None else "give --overwrite or another name",
        )
    if path.is_dir() and not any(path.iterdir()):
        return path
    stated = artifact_kind(path)
    if stated is None or (kind is not None and stated != kind):
        raise InputError(
            found="something that this program did not write" if stated is None else f"a folder of kind {stated!r}",
            where=str(path),
            expected="an artifact of this program to replace"
            if kind is None
            else f"a folder of kind {kind!r} to replace",
            repair="choose another output name; it is never removed by --overwrite",
        )
    return path


def check_folder(path: str | Path) -> Path:
    """Raise `InputError` unless `path` is a folder, or can become one, that this process may write to."""
    path = Path(path)
    nearest = path.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir():
        raise InputError(found="a file where a folder is needed", where=str(nearest), repair="choose another output")
    if not os.access(nearest, os.W_OK):
        raise InputError(found="no permission to write", where=str(nearest), repair="choose another output")
    return path


@contextmanager
def atomic_directory(path: str | Path, overwrite: bool = False, kind: str | None = None) -> Iterator[Path]:
    """Yield a temporary sibling folder that becomes `path` when the block succeeds and vanishes when it fails.

    Raises
    ------
    InputError
        If `path` exists and `overwrite` is false; if it is not an artifact of this `kind`; if another run writes it; if the
        disk is full.
    """
    with output_lock(path):
        path = check_output(path, overwrite=overwrite, kind=kind)
        partial = _sibling(path, UNFINISHED)
        try:
            path.absolute().parent.mkdir(parents=True, exist_ok=True)
            partial.mkdir()
            yield partial
            _swap_in(partial, path)
        except OSError as error:
            raise _disk_error(error, path) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _swap_in(partial: Path, path: Path) -> None:
    if not os.path.lexists(path):
        partial.rename(path)
        return
    old = _sibling(path, REPLACED)
    path.rename(old)  # two renames: after a crash between them the next run brings the old artifact back
    try:
        partial.rename(path)
    except OSError:
        old.rename(path)
        raise
    shutil.rmtree(old)


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary sibling file name that replaces `path` when the block succeeds."""
    path = Path(path)
    path.absolute().parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: writers choose their format by it.
    partial = path.with_name(f".{owner_tag()}.{UNFINISHED}.{path.name}")
    try:
        partial.touch()
        mode = partial.stat().st_mode  # that of the user's other files: some writers let nobody else read theirs
        partial.unlink()
        yield partial
        partial.chmod(mode)
        partial.replace(path)
    except OSError as error:
        raise _disk_error(error, path) from error
    finally:
        partial.unlink(missing_ok=True)


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def write_json(path: str | Path, value: Any) -> None:
    """Write indented JSON; NumPy scalars and arrays become plain numbers and lists, NaN is refused."""
    Path(path).write_text(json.dumps(value, indent=1, default=_plain, allow_nan=False) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"cannot write {type(value).__name__} to JSON")


def read_json(path: str | Path, *, expected: str = "a JSON object") -> dict[str, Any]:
    """Read a JSON object, plain or gzipped; anything else in the file is an `InputError`."""
    if not Path(path).exists():
        raise InputError(found="no such file", where=str(path), expected=expected)
    with open_text(path, suffixes=(".json",), expected=expected) as file:
        try:
            value = json.loads(file.read())
        except (json.JSONDecodeError, RecursionError) as error:
            raise InputError(
                found=f"a file that is not JSON ({error})", where=str(path), expected=expected, repair="copy it again"
            ) from error
    if not isinstance(value, dict):
        raise InputError(found=f"a JSON {type(value).__name__}", where=str(path), expected=expected)
    return value


def write_manifest(directory: str | Path, kind: str, **fields: Any) -> None:
    """Write `manifest.json` with the kind, the format version and this package's version first."""
    manifest = {"kind": kind, "format_version": FORMAT_VERSION, "sge2hist_version": sge2hist.__version__, **fields}
    write_json(Path(directory) / MANIFEST_NAME, manifest)


def read_manifest(directory: str | Path, kind: str) -> dict[str, Any]:
    """Read the manifest of an artifact of the given kind; another kind or format version is an `InputError`."""
    directory = Path(directory)
    if not directory.is_dir():
        repair = f"check the path, or make it with `{MADE_BY[kind]}`" if kind in MADE_BY else ""
        raise InputError(
            found="no such folder", where=str(directory), expected=f"a folder of kind '{kind}'", repair=repair
        )
    manifest = read_json(directory / MANIFEST_NAME, expected=f"the manifest of a folder of kind '{kind}'")
    if manifest.get("kind") != kind:
        raise InputError(
            found=f"a folder of kind {manifest.get('kind')!r}", where=str(directory), expected=f"one of kind {kind!r}"
        )
    if manifest.get("format_version") != FORMAT_VERSION:
        raise InputError(
            found=f"format version {manifest.get('format_version')!r}",
            where=str(directory),
            expected=f"version {FORMAT_VERSION}",
            repair="make it again with this version of sge2hist, or install the version that wrote it",
        )
    return manifest


def require_disk_space(path: str | Path, n_bytes: int) -> None:
    """Raise `InputError` if the file system that will hold `path` has less than `n_bytes` free."""
    parent = Path(path).absolute()
    while not parent.exists():
        parent = parent.parent
    free = shutil.disk_usage(parent).free
    if free < n_bytes:
        raise InputError(
            found=f"{free / 1e9:.2f} GB free",
            where=str(parent),
            expected=f"about {n_bytes / 1e9:.2f} GB",
            repair="free some space or choose another output folder",
        )
