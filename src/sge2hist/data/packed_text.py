"""Text files that may be packed with gzip or zip, recognised by their first bytes: opened without unpacking them on disk."""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from sge2hist.data.errors import InputError

PACKED = (".gz", ".zip")
_GZIP, _ZIP = b"\x1f\x8b", b"PK\x03\x04"
_ERRORS = (OSError, UnicodeDecodeError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError)


def unpacked_name(path: str | Path) -> str:
    """The name of the file without the ending that gzip or zip adds."""
    name = Path(path).name
    return name[: -len(Path(name).suffix)] if name.lower().endswith(PACKED) else name


@contextmanager
def open_text(path: str | Path, *, suffixes: tuple[str, ...], expected: str) -> Iterator[TextIO]:
    """The text of a file (UTF-8, with or without a byte order mark), read piece by piece.

    Parameters
    ----------
    suffixes
        Which file of a zip archive is meant, such as (".geojson", ".json").
    expected
        What the file should be, for messages.

    Raises
    ------
    InputError
        If the file cannot be read, also later while it is read, or an archive holds no such file or several.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            first = file.read(4)
            file.seek(0)
            if first.startswith(_GZIP):
                with gzip.open(file, "rt", encoding="utf-8-sig") as text:
                    yield text
            elif first == _ZIP:
                with zipfile.ZipFile(file) as archive, archive.open(_member(archive, path, suffixes)) as member:
                    yield io.TextIOWrapper(member, encoding="utf-8-sig")
            else:
                yield io.TextIOWrapper(file, encoding="utf-8-sig")
    except _ERRORS as error:
        detail = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(found=f"a file that cannot be read ({detail})", where=str(path), expected=expected) from error


def _member(archive: zipfile.ZipFile, path: Path, suffixes: tuple[str, ...]) -> str:
    names = [name for name in archive.namelist() if not name.endswith("/")]
    own = [name for name in names if not name.startswith("__MACOSX/") and not Path(name).name.startswith(".")]
    found = [name for name in own if name.lower().endswith(suffixes)]
    if len(found) == 1:
        return found[0]
    raise InputError(
        found=f"{len(found)} files ending in {' or '.join(suffixes)} ({', '.join((found or own)[:5]) or 'no file'})",
        where=str(path),
        expected="an archive with one",
        repair="unpack it and give the file",
    )
