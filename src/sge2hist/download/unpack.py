"""Unpacking of archives that somebody else wrote: files and folders alone, inside the target, within bounds.

`tarfile` reads the archive as a stream and nothing is extracted by it: names are checked, and the bytes of regular files are
copied. Links, devices, absolute names and names with ".." are refused. What an archive may unpack to is bounded by its size,
the number of entries and the free disk space, and is counted while it is read, so that a small archive of zeros stays small.
"""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO

from sge2hist.data.errors import InputError

MAX_RATIO = 30  # bytes of an unpacked archive per packed one; tables of counts and images reach 2 to 5
MIN_BOUND = 100 << 20  # small archives of text may hold more
MAX_ENTRIES = 200_000
MAX_DEPTH = 24
HEADER_BYTES = 4 << 20  # that the names and attributes of one entry may take
SPARE_BYTES = 200 << 20  # left free on the disk
COPY_BYTES = 1 << 20
_DAMAGE = (tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile, ValueError, LookupError, OverflowError)
"""What reading a damaged archive can end in."""


def unpack(
    archive: Path,
    target: Path,
    *,
    max_bytes: int | None = None,
    progress: Callable[[int], None] = lambda n_bytes: None,
) -> int:
    """Unpack a .tar.gz into the new folder `target`; returns the bytes written.

    The caller removes `target` after an error.

    Parameters
    ----------
    max_bytes
        Bound of the files together; default: `MAX_RATIO` times the archive.
    progress
        Called with the packed bytes read so far.

    Raises
    ------
    InputError
        If the archive is damaged, too large, or holds anything but files and folders below its top.
    """
    bound = max_bytes if max_bytes is not None else max(MAX_RATIO * archive.stat().st_size, MIN_BOUND)
    target.mkdir(parents=True)
    written = 0
    try:
        with archive.open("rb") as packed, gzip.GzipFile(fileobj=packed) as plain:
            reader = _Bounded(plain, archive)
            with tarfile.open(fileobj=reader, mode="r|") as tar:  # type: ignore[call-overload]
                n_entries = 0
                while True:
                    reader.allow(HEADER_BYTES)
                    member = tar.next()
                    if member is None:
                        break
                    n_entries += 1
                    path = _place(member, target, archive)
                    if n_entries > MAX_ENTRIES or written + member.size > bound:
                        raise _too_large(archive, bound)
                    if member.isdir():
                        path.mkdir(parents=True, exist_ok=True)
                        continue
                    if member.size > shutil.disk_usage(target).free - SPARE_BYTES:
                        raise InputError(
                            found=f"no space for {member.size:,} more bytes",
                            where=str(target),
                            repair="free some space",
                        )
                    reader.allow(member.size + HEADER_BYTES)
                    _copy(tar.extractfile(member), path, member.size, archive)
                    written += member.size
                    progress(packed.seek(0, 1))  # where it stands
                    tar.members = []  # tarfile keeps every entry otherwise
                reader.allow(MIN_BOUND)
                while reader.read(COPY_BYTES):  # to the end of the stream, whose checksum gzip compares
                    pass
    except _DAMAGE as error:
        raise InputError(
            found=f"a damaged archive ({' '.join(str(error).split())[:120]})",
            where=str(archive),
            expected="a .tar.gz",
            repair="remove it and run the same command again, which loads it again",
        ) from error
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(found=f"two entries of one name ({error.filename})", where=str(archive)) from error
    except OSError as error:
        raise InputError(
            found=f"the disk refused a write ({error.strerror or error})", where=str(target), repair="free some space"
        ) from error
    return written


def _place(member: tarfile.TarInfo, target: Path, archive: Path) -> Path:
    """The path of an entry, or `InputError` if it is no file or folder inside the target."""
    parts = PurePosixPath(member.name).parts
    outside = PurePosixPath(member.name).is_absolute() or ".." in parts or len(parts) > MAX_DEPTH
    strange = any(c in member.name for c in "\\:\0") or not member.name.isprintable()
    if outside or strange or (not parts and not member.isdir()):
        raise InputError(
            found=f"an entry {member.name[:200]!r}",
            where=str(archive),
            expected="names inside the archive's own folder",
            repair="do not use this archive",
        )
    if member.issparse() or not (member.isreg() or member.isdir()):
        what = "link" if member.issym() or member.islnk() else "device, sparse file or other special entry"
        raise InputError(
            found=f"a {what}, {member.name[:200]!r}",
            where=str(archive),
            expected="files and folders alone",
            repair="do not use this archive",
        )
    return target.joinpath(*parts)


def _copy(source: IO[bytes] | None, path: Path, n_bytes: int, archive: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if source is None:
        raise InputError(found=f"an entry without content, {path.name!r}", where=str(archive))
    copied = 0
    with path.open("xb") as file:
        while piece := source.read(COPY_BYTES):
            file.write(piece)
            copied += len(piece)
    if copied != n_bytes:
        raise EOFError(f"{path.name} ends after {copied:,} of {n_bytes:,} bytes")


def _too_large(archive: Path, bound: int) -> InputError:
    return InputError(
        found=f"an archive that unpacks to more than {bound:,} bytes or {MAX_ENTRIES:,} entries",
        where=str(archive),
        expected=f"at most {MAX_RATIO} times its own size",
        repair="do not unpack it",
    )


class _Bounded:
    """Reads from a stream as many bytes as were allowed; more is an `InputError`."""

    def __init__(self, stream: gzip.GzipFile, archive: Path) -> None:
        self._stream, self._archive, self._left = stream, archive, HEADER_BYTES

    def allow(self, n_bytes: int) -> None:
        """Set how many bytes may be read from here on."""
        self._left = n_bytes

    def read(self, n_bytes: int) -> bytes:
        """The next bytes."""
        self._left -= n_bytes
        if self._left < 0:
            raise InputError(
                found="an entry whose name and attributes, or content, are longer than stated",
                where=str(self._archive),
                repair="do not unpack it",
            )
        return self._stream.read(n_bytes)
