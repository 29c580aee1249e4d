"""`fetch`: a published data set into a folder, in the layout that `prepare` reads.

::

    DIR/
     fetch.json                 what was loaded: address, bytes, sha256; what was unpacked
     <ID>_tissue_image.tif      the H&E image
     downloads/<ID>_*.tar.gz    as loaded
     outs/                      binned_outputs/, spatial/, segmented_outputs/, <ID>_feature_slice.h5

The SHA-256 of each file is recorded when it is first loaded and compared whenever the same command runs again. A folder in
which everything is there needs no network.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sge2hist.data.artifacts import atomic_path, check_folder, read_json, require_disk_space, sha256_of, write_json
from sge2hist.data.errors import InputError
from sge2hist.data.output_lock import output_lock
from sge2hist.download.catalogue import CATALOGUE, PublishedData, WantedFile
from sge2hist.download.transfer import Remote, download, open_session, probe
from sge2hist.download.unpack import unpack
from sge2hist.progress import stages

if TYPE_CHECKING:
    from requests import Session

RECORD_NAME = "fetch.json"
UNPACKED_RATIO = 2.0  # assumed size of an unpacked archive over the packed one, for the check of the disk


@dataclass(frozen=True, kw_only=True)
class PlannedFile:
    """One file: where it goes, and what the server states about it unless it is there."""

    wanted: WantedFile
    path: Path
    remote: Remote | None  # None: the file is there

    @property
    def n_bytes(self) -> int | None:
        """Its size; None: not stated."""
        return self.path.stat().st_size if self.remote is None else self.remote.n_bytes


def published(name: str) -> PublishedData:
    """The entry of the catalogue of this name, or `InputError`."""
    for data in CATALOGUE:
        if data.name == name:
            return data
    raise InputError(
        found=f"no data set {name!r}",
        expected=f"one of {', '.join(data.name for data in CATALOGUE)}",
        repair="`sge2hist fetch --list` describes them",
    )


def fetch(
    data: PublishedData,
    output: str | Path,
    *,
    mirror: str | None = None,
    dry_run: bool = False,
    log: Callable[[str], None] = print,
) -> Path:
    """Load a published data set into `output`, verify and unpack it; the same call goes on with what is missing.

    Parameters
    ----------
    mirror
        Address of another folder with the same files (http, https).
    dry_run
        Show what would be loaded, and its size; write nothing.
    log
        Called with each line for the user.

    Returns
    -------
    The folder ``outs`` to be given to :func:`sge2hist.prepare`.

    Raises
    ------
    InputError
        If a required file does not exist, the server is not reached, the disk is too small, or a file is not as recorded.
    """
    output = check_folder(output)
    address = _checked_address(mirror or data.address)
    if output.exists() and any(output.iterdir()) and not (output / RECORD_NAME).is_file():
        raise InputError(
            found="a folder with other content",
            where=str(output),
            expected=f"a new folder, or one of `sge2hist fetch {data.name}`",
            repair="give another folder",
        )
    log(f"{data.title}\nlicence: {data.licence}\ncite as: {data.citation}\npage: {data.page}")
    with open_session() as session:
        if dry_run:
            _show(_plan(data, address, output, _Record.open(output, data), session), log)
            return output / "outs"
        with output_lock(output):
            record = _Record.open(output, data)
            files = _plan(data, address, output, record, session)
            _show(files, log)
            _require_space(files, output, record)
            output.mkdir(parents=True, exist_ok=True)
            record.save()
            for file in files:
                _load(file, record, session)
            for file in files:
                if file.wanted.unpacked:
                    _unpack(file, output / "outs", record)
    log(f"wrote {output}")
    image = next((file.path for file in files if file.wanted.place == ""), None)
    log(f"next: sge2hist prepare {output / 'outs'} --image {image} -o {data.name}.paired")
    return output / "outs"


class _Record:
    """``fetch.json``: what is known of the files of one folder."""

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        self._path, self._content = path, content
        self.files: dict[str, dict[str, Any]] = content["files"]
        self.absent: list[str] = content["absent"]
        self.unpacked: dict[str, str] = content["unpacked"]

    @classmethod
    def open(cls, output: Path, data: PublishedData) -> _Record:
        path = output / RECORD_NAME
        if not path.is_file():
            about = {"licence": data.licence, "citation": data.citation, "page": data.page}
            return cls(path, {"dataset": data.name, **about, "files": {}, "absent": [], "unpacked": {}})
        content = read_json(path, expected="the record of `sge2hist fetch`")
        known = {"files": dict, "absent": list, "unpacked": dict}
        if content.get("dataset") != data.name or not all(isinstance(content.get(k), t) for k, t in known.items()):
            raise InputError(
                found=f"the record of data set {content.get('dataset')!r}, or a damaged one",
                where=str(path),
                expected=data.name,
                repair="give another folder",
            )
        return cls(path, content)

    def save(self) -> None:
        with atomic_path(self._path) as partial:
            write_json(partial, self._content)


def _plan(data: PublishedData, address: str, output: Path, record: _Record, session: Session) -> list[PlannedFile]:
    """The files in the catalogue's order: those that are there verified, the others with what the server states."""
    files, missing = [], []
    for wanted in data.files:
        names = [data.file_name(name) for name in wanted.names]
        known = next((name for name in names if name in record.files), None)
        if known is not None and (output / wanted.place / known).is_file():
            path = output / wanted.place / known
            _verify(path, record.files[known], first=False)
            files.append(PlannedFile(wanted=wanted, path=path, remote=None))
            continue
        if all(name in record.absent for name in names):
            continue
        found = next(((n, r) for n in names if (r := probe(session, f"{address}/{n}")) is not None), None)
        if found is not None:
            files.append(PlannedFile(wanted=wanted, path=output / wanted.place / found[0], remote=found[1]))
        elif wanted.required:
            missing.append(" or ".join(names))
        else:
            record.absent.extend(name for name in names if name not in record.absent)
    if missing:
        raise InputError(
            found=f"no file {'; no file '.join(missing)}",
            where=address,
            expected=f"the files of {data.title}",
            repair=f"look at {data.page} whether they have moved; --mirror takes another address",
        )
    return files


def _show(files: list[PlannedFile], log: Callable[[str], None]) -> None:
    for file in files:
        state = "already there" if file.remote is None else _size_text(file.n_bytes)
        log(f"  {file.path.name:<64} {state:>16}")
    sizes = [file.n_bytes for file in files if file.remote is not None]
    unknown = sum(size is None for size in sizes)
    more = f", and {unknown} of unknown size" if unknown else ""
    log(f"to be loaded: {_size_text(sum(size or 0 for size in sizes))}{more}")


def _size_text(n_bytes: int | None) -> str:
    if n_bytes is None:
        return "unknown size"
    return f"{n_bytes / 1e9:,.2f} GB" if n_bytes >= 1e8 else f"{n_bytes / 1e6:,.2f} MB"


def _require_space(files: list[PlannedFile], output: Path, record: _Record) -> None:
    """Raise `InputError` unless what is still to be loaded and unpacked fits on the disk."""
    needed = 0.0
    for file in files:
        n_bytes = file.n_bytes or 0
        part = file.path.with_name(f"{file.path.name}.part")
        if file.remote is not None:
            needed += max(n_bytes - (part.stat().st_size if part.exists() else 0), 0)
        if file.wanted.unpacked and file.path.name not in record.unpacked:
            needed += UNPACKED_RATIO * n_bytes
    require_disk_space(output, int(needed))


def _load(file: PlannedFile, record: _Record, session: Session) -> None:
    """Load a file that is not there, and record or compare its checksum."""
    if file.remote is None:
        return
    name = file.path.name
    if not file.path.is_file():
        with stages() as show:
            total = file.remote.n_bytes
            download(session, file.remote, file.path, progress=lambda n_bytes: show(name, n_bytes, total))
    known = record.files.get(name)
    if known is not None:
        _verify(file.path, known, first=True)
        return
    n_bytes = file.path.stat().st_size
    if file.remote.n_bytes is not None and n_bytes != file.remote.n_bytes:
        raise InputError(
            found=f"a file of {n_bytes:,} bytes",
            where=str(file.path),
            expected=f"{file.remote.n_bytes:,} bytes, as the server states",
            repair="remove it and run the same command again",
        )
    record.files[name] = {
        "url": file.remote.url,
        "n_bytes": n_bytes,
        "sha256": sha256_of(file.path),
        "version": file.remote.version,
    }
    record.save()


def _verify(path: Path, known: dict[str, Any], *, first: bool) -> None:
    """Raise `InputError` if a file is not the one that was recorded. `first`: it was loaded again just now."""
    n_bytes = path.stat().st_size
    if n_bytes == known.get("n_bytes") and sha256_of(path) == known.get("sha256"):
        return
    if first:
        repair = f"if the vendor has replaced the file, fetch the data set into a new folder; else remove {path.name}"
    else:
        repair = "remove this file and run the same command again, which loads it again"
    raise InputError(
        found=f"a file of {n_bytes:,} bytes that is not the one recorded (size or sha256 differs)",
        where=str(path),
        expected=f"{known.get('n_bytes'):,} bytes, sha256 {str(known.get('sha256'))[:16]}",
        repair=repair,
    )


def _unpack(file: PlannedFile, outs: Path, record: _Record) -> None:
    """Unpack an archive to its folder of `outs`, whole or not at all."""
    name, folder = file.path.name, outs / file.wanted.unpacked
    sha256 = record.files[name]["sha256"]
    if folder.is_dir() and record.unpacked.get(name) == sha256:
        return
    if folder.exists():
        raise InputError(
            found="a folder that this archive was not seen to fill",
            where=str(folder),
            expected=f"nothing, or what {name} holds",
            repair="remove or rename it and run the same command again",
        )
    partial = outs / f".{file.wanted.unpacked}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with stages() as show:
            total = file.path.stat().st_size
            unpack(file.path, partial, progress=lambda n_bytes: show(f"unpack {name}", n_bytes, total))
        inner = partial / file.wanted.unpacked
        (inner if inner.is_dir() else partial).rename(folder)
    except InputError:
        del record.files[name]  # its checksum is that of a damaged file: the next one may differ
        record.save()
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    record.unpacked[name] = sha256
    record.save()


def _checked_address(address: str) -> str:
    if not address.startswith(("http://", "https://")):
        raise InputError(found=f"--mirror {address}", expected="an address that starts with https:// or http://")
    return address.rstrip("/")
