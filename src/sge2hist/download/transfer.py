"""One file over HTTP: its size before anything is loaded, then a download that resumes where it broke off.

What has arrived stays in ``NAME.part``, with the server's mark of the version (ETag or date) in ``NAME.part.json``: a later
attempt, or a later run, asks for the rest by a Range request of that version, and starts again where the server ignores the
range or has another version. Requests and responses are left to `requests`; downloaders of `pooch` do not resume.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sge2hist.data.errors import InputError

if TYPE_CHECKING:
    from requests import Response, Session

CHUNK = 1 << 14  # bytes; what arrived of an incomplete piece is lost when a connection breaks
MIN_GAIN = 1 << 20  # bytes by which an attempt must come farther than all before, or it counts as failed
MAX_FAILED = 5  # attempts in a row without such a gain
TIMEOUT_S = (20.0, 60.0)  # to connect, and between two pieces
BACKOFF_S = 1.0  # before the second attempt; doubled before each further one
BUSY = (408, 425, 429, 500, 502, 503, 504)
"""Answers after which the same request may succeed."""
ABSENT = (403, 404, 410)
"""Answers of a server without this file; stores of objects answer 403 where nothing may be listed."""


@dataclass(frozen=True, kw_only=True)
class Remote:
    """What a server states about a file before it is loaded."""

    url: str
    n_bytes: int | None  # None: not stated
    version: str = ""  # ETag, else date of change; "": not stated


class _Retry(Exception):
    """An attempt that failed in a way that another may not."""


def open_session() -> Session:
    """A session that asks for files as they are stored, without compression on the way."""
    import requests

    session = requests.Session()
    session.headers.update({"Accept-Encoding": "identity", "User-Agent": "sge2hist"})
    return session


def probe(session: Session, url: str, *, pause: Callable[[float], Any] = time.sleep) -> Remote | None:
    """Ask for the size of a file; None if the server has no such file.

    Raises
    ------
    InputError
        If the server is not reached or answers otherwise, also after several attempts.
    """

    def ask() -> Remote | None:
        answer = _request(session, "HEAD", url, {})
        with answer:
            if answer.status_code in ABSENT:
                return None
            if answer.status_code in (405, 501):  # no HEAD here: the size is found when the file is loaded
                return Remote(url=url, n_bytes=None)
            _require_ok(answer, url)
            return Remote(url=url, n_bytes=_whole(answer.headers.get("Content-Length")), version=_version(answer))

    return _persistently(ask, url, pause)


def download(
    session: Session,
    remote: Remote,
    path: Path,
    *,
    progress: Callable[[int], None] = lambda n_bytes: None,
    pause: Callable[[float], Any] = time.sleep,
) -> None:
    """Load a file to `path`, complete or not at all; what arrived of it stays beside it for the next attempt.

    Parameters
    ----------
    progress
        Called with the number of bytes that are there.
    pause
        Waits between attempts, seconds.

    Raises
    ------
    InputError
        If the file does not come whole after several attempts, or is not as long as was stated.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part, mark = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.part.json")
    _forget_other_version(part, mark, remote)
    farthest = part.stat().st_size if part.exists() else 0

    def attempt() -> None:
        _append(session, remote, part, progress)

    def gained() -> bool:
        nonlocal farthest
        arrived = part.stat().st_size if part.exists() else 0
        more, farthest = arrived - farthest, max(arrived, farthest)
        return more >= MIN_GAIN

    _persistently(attempt, remote.url, pause, gained)
    part.replace(path)
    mark.unlink(missing_ok=True)


def _persistently(attempt: Callable[[], Any], url: str, pause: Callable[[float], Any], gained: Any = None) -> Any:
    """Repeat an attempt until it succeeds or has failed too often without coming farther; wait longer each time."""
    import requests

    n_failed = 0
    while True:
        try:
            return attempt()
        except (_Retry, requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            n_failed = 1 if gained is not None and gained() else n_failed + 1
            if n_failed >= MAX_FAILED:
                raise InputError(
                    found=f"no complete answer in {MAX_FAILED} attempts ({_reason(error)})",
                    where=url,
                    expected="a connection to the server",
                    repair="try again later, with the same command: what has arrived is kept",
                ) from error
            pause(BACKOFF_S * 2 ** (n_failed - 1))
        except requests.RequestException as error:
            raise InputError(found=f"an address that cannot be read ({_reason(error)})", where=url) from error


def _append(session: Session, remote: Remote, part: Path, progress: Callable[[int], None]) -> None:
    """Load the rest of a file, or all of it where the server gives no parts."""
    start = part.stat().st_size if part.exists() else 0
    if remote.n_bytes is not None and start == remote.n_bytes:
        return
    headers = {}
    if start:
        headers["Range"] = f"bytes={start}-"
        if remote.version and not remote.version.startswith("W/"):  # a weak tag names no exact bytes
            headers["If-Range"] = remote.version
    answer = _request(session, "GET", remote.url, headers)
    with answer:
        if answer.status_code == 416:
            part.unlink(missing_ok=True)
            raise _Retry("the server refused the rest of the file")
        _require_ok(answer, remote.url)
        first, total = _extent(answer, start)
        if first != start:
            start = first
        if remote.n_bytes is not None and total is not None and total != remote.n_bytes:
            raise InputError(
                found=f"two sizes of one file: {remote.n_bytes:,} and {total:,} bytes",
                where=remote.url,
                repair="try again later; if it stays so, load the file by hand and put it in the place of the download",
            )
        with part.open("r+b" if start else "wb") as file:
            file.seek(start)
            file.truncate()
            n_bytes = _write(answer, file, start, remote, progress)
    if total is not None and n_bytes < total:
        raise _Retry(f"the connection ended after {n_bytes:,} of {total:,} bytes")


def _write(answer: Response, file: Any, n_bytes: int, remote: Remote, progress: Callable[[int], None]) -> int:
    for piece in answer.iter_content(CHUNK):
        n_bytes += len(piece)
        if remote.n_bytes is not None and n_bytes > remote.n_bytes:
            file.truncate(0)
            raise InputError(found=f"more than the {remote.n_bytes:,} bytes that were stated", where=remote.url)
        try:
            file.write(piece)
        except OSError as error:
            raise InputError(
                found=f"the disk refused a write ({error.strerror})", where=str(file.name), repair="free some space"
            ) from error
        progress(n_bytes)
    return n_bytes


def _extent(answer: Response, start: int) -> tuple[int, int | None]:
    """First byte of an answer, and the length of the whole file if it is stated."""
    if answer.status_code == 206:
        stated = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", answer.headers.get("Content-Range", "").strip())
        if stated is None or int(stated[1]) != start:
            raise InputError(
                found=f"an answer with other bytes than asked for ({answer.headers.get('Content-Range')!r})",
                where=answer.url,
                expected=f"bytes from {start:,} on",
                repair="remove the file .part and try again",
            )
        return start, _whole(stated[3])
    return 0, _whole(answer.headers.get("Content-Length"))


def _request(session: Session, method: str, url: str, headers: dict[str, str]) -> Response:
    return session.request(method, url, headers=headers, stream=True, timeout=TIMEOUT_S, allow_redirects=True)


def _require_ok(answer: Response, url: str) -> None:
    if answer.status_code in BUSY:
        raise _Retry(f"answer {answer.status_code} {answer.reason}")
    if answer.status_code not in (200, 206):
        raise InputError(
            found=f"answer {answer.status_code} {answer.reason}",
            where=url,
            expected="the file",
            repair="look on the vendor's page whether the file has moved; --mirror takes another address",
        )


def _forget_other_version(part: Path, mark: Path, remote: Remote) -> None:
    """Remove what arrived of another version of the file, and note the version that is loaded now."""
    identity = {"url": remote.url, "n_bytes": remote.n_bytes, "version": remote.version}
    try:
        known = json.loads(mark.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = None
    if known != identity or (remote.n_bytes is not None and part.exists() and part.stat().st_size > remote.n_bytes):
        part.unlink(missing_ok=True)
    mark.write_text(json.dumps(identity), encoding="utf-8")


def _version(answer: Response) -> str:
    return answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def _reason(error: Exception) -> str:
    """The innermost reason of an error of requests, which wraps several others."""
    while isinstance(error.args[0] if error.args else None, Exception):
        error = error.args[0]
    return " ".join(str(getattr(error, "reason", None) or error).split())[-160:]
