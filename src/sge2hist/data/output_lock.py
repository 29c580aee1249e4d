"""One writer per output: a lock file beside it, and what killed runs leave behind.

``.NAME.lock`` lies beside the output NAME while a run writes it, with the run's process id, host and start. It is created
exclusively. A lock whose process has ended (killed, or before the host was started again) is taken over; one of another host, or
of another container, cannot be checked and is refused.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import sys
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import wraps
from inspect import signature
from itertools import count
from pathlib import Path
from typing import ParamSpec, TypeVar

from sge2hist.data.errors import InputError, as_path

P = ParamSpec("P")
R = TypeVar("R")
UNFINISHED, REPLACED = "partial", "replaced"
"""States of a temporary entry: not complete yet; or an earlier output, complete, that is being replaced."""
WRITING_S = 5.0  # a lock file that is empty for longer than this was left by a killed process
MAX_COMMAND = 200  # characters of the command line in a lock file


@dataclass(frozen=True, kw_only=True)
class Owner:
    """A process: its id, and what distinguishes it from others with the same id."""

    pid: int
    host: str
    namespace: str = ""  # of process ids: that of the host, or of a container; "" where there are none
    boot: str = ""  # changes whenever the host is started; "" if unknown
    process_start: str = ""  # in clock ticks since the boot; "" if unknown
    started: str = ""  # local time of the lock, for people
    command: str = ""

    @classmethod
    def this_process(cls) -> Owner:
        """The process that calls this."""
        return cls(
            pid=os.getpid(),
            host=socket.gethostname(),
            namespace=_pid_namespace(),
            boot=_boot_id(),
            process_start=_process_start(os.getpid()) or "",
            started=time.strftime("%Y-%m-%d %H:%M:%S"),
            command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])[:MAX_COMMAND],
        )

    @property
    def place(self) -> str:
        """Eight digits for the host and container in which the process id counts."""
        return f"{zlib.crc32(f'{self.host} {self.namespace}'.encode()):08x}"

    def is_alive(self) -> bool | None:
        """Whether the process runs; None where that cannot be seen from here."""
        here = Owner.this_process()
        if self.place != here.place:
            return None
        return self.boot == here.boot and _is_running(self.pid, self.process_start)


def _pid_namespace() -> str:
    with suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return ""


def _boot_id() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""


def _process_start(pid: int) -> str | None:
    """When a process was started, in clock ticks since the boot; None if it has ended or this is not Linux."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *fields = stat.rpartition(")")[2].split()  # the name before may hold spaces and brackets
    return None if state in "ZX" else fields[18]  # a zombie has ended


def _is_running(pid: int, process_start: str) -> bool:
    """Whether the process runs; another one that got its id meanwhile does not count."""
    if process_start:
        return _process_start(pid) == process_start
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to somebody else
        return True
    return True


# --- the lock ----------------------------------------------------------------------------------------------------------

_held: dict[Path, tuple[int, int]] = {}  # lock file -> (process, thread) that holds it
_guard = threading.Lock()


def lock_path(output: str | Path) -> Path:
    """The lock file of an output."""
    path = Path(os.path.realpath(output))
    return path.with_name(f".{path.name}.lock")


@contextmanager
def output_lock(output: str | Path) -> Iterator[None]:
    """Hold the lock of an output within the block; within another block of the same thread it does nothing.

    Leftovers of killed runs into this output are removed first. Nothing is locked where no file can be created beside the
    output: whether it can be written is checked elsewhere. Of the processes of `accelerate launch` the first holds the lock.

    Raises
    ------
    InputError
        If another run writes this output, or if that cannot be known.
    """
    lock, me = lock_path(output), (os.getpid(), threading.get_ident())
    with _guard:
        nested = _held.get(lock) == me
    if nested or _is_helper_process():
        yield
        return
    made = _make_parents(lock.parent)
    try:
        held = _acquire(lock, Path(output), made is not None)
        try:
            if held:
                with _guard:
                    _held[lock] = me
                remove_leftovers(Path(output))
            yield
        finally:
            if held and os.getpid() == me[0]:  # a fork does not release it
                with _guard:
                    _held.pop(lock, None)
                lock.unlink(missing_ok=True)
    finally:
        for folder in made or ():
            with suppress(OSError):  # it holds the output now
                folder.rmdir()


def locks_output(name: str = "output") -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function that writes its argument `name`: it holds the lock of that path. None: it writes nothing."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        arguments = signature(function)

        @wraps(function)
        def locked(*args: P.args, **kwargs: P.kwargs) -> R:
            output = arguments.bind(*args, **kwargs).arguments.get(name)
            if output is None:
                return function(*args, **kwargs)
            with output_lock(as_path(output, name)):
                return function(*args, **kwargs)

        return locked

    return decorate


def _is_helper_process() -> bool:
    """Whether this is one of several processes of one training, and not the first."""
    distributed = "MASTER_ADDR" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"
    return distributed and os.environ.get("RANK", "0") != "0"


def _make_parents(folder: Path) -> list[Path] | None:
    """Create a folder; returns what was created, innermost first, or None if it cannot be."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return missing


def _acquire(lock: Path, output: Path, possible: bool) -> bool:
    """Create the lock file, or take over that of a process that has ended; whether there is a lock now."""
    content = json.dumps(asdict(Owner.this_process())) + "\n"
    while possible:
        try:
            file = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            if _take_over(lock, output, content):
                return True
            continue
        except OSError:
            return False
        with os.fdopen(file, "w", encoding="utf-8") as opened:
            opened.write(content)
        return True
    return False


def _take_over(lock: Path, output: Path, content: str) -> bool:
    """Write `content` into the lock file of a process that has ended; False: it has just been released, try again.

    The file is rewritten in place while it is locked by the operating system: of two that find it stale, one wins.
    """
    try:
        opened = open(lock, "r+", encoding="utf-8")  # noqa: SIM115  (closed below)
    except FileNotFoundError:
        return False
    except OSError:
        raise _refusal(None, lock, output) from None
    with opened:
        _lock_by_system(opened.fileno())
        text = opened.read()
        try:
            same = os.path.samestat(os.fstat(opened.fileno()), lock.stat())
        except FileNotFoundError:
            same = False
        if not same:
            return False
        owner = _owner_in(text)
        if not text and time.time() - lock.stat().st_mtime < WRITING_S:
            time.sleep(0.05)  # it is being written
            return False
        if text and (owner is None or owner.is_alive() is not False):
            raise _refusal(owner, lock, output)
        opened.seek(0)
        opened.truncate()
        opened.write(content)
    return True


def _lock_by_system(descriptor: int) -> None:
    with suppress(ImportError, OSError):  # Windows, some network file systems
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _owner_in(text: str) -> Owner | None:
    try:
        values = json.loads(text)
        return Owner(**{**values, "pid": int(values["pid"])})
    except (ValueError, TypeError, KeyError):
        return None


def _refusal(owner: Owner | None, lock: Path, output: Path) -> InputError:
    if owner is None:
        return InputError(
            found=f"a lock file that cannot be read, {lock}",
            where=str(output),
            expected="an output that no other run writes",
            repair=f"if none does: rm {shlex.quote(str(lock))}; else another output name",
        )
    alive = owner.is_alive()
    another = "" if alive else f" on another host or in another container, {owner.host}"
    return InputError(
        found=f"another run that writes it: process {owner.pid}{another}, since {owner.started} ({owner.command})",
        where=str(output),
        expected="one run at a time",
        repair="wait until it has ended, or give another output name"
        if alive
        else f"give another output name, or if that run has ended: rm {shlex.quote(str(lock))}",
    )


# --- temporary entries -------------------------------------------------------------------------------------------------

_number = count()


def owner_tag() -> str:
    """Part of the name of a temporary entry: it names this process, and no other entry has it."""
    me = Owner.this_process()
    return f"{me.place}-{me.boot[:8] or 'x'}-{me.pid}-{me.process_start or 0}-{next(_number)}"


def is_left_over(tag: str) -> bool | None:
    """Whether the process of an :func:`owner_tag` has ended; None where that cannot be seen from here."""
    parts = tag.rsplit("-", 4)
    if len(parts) != 5 or not parts[2].isdecimal():
        return None
    place, boot, pid, start, _ = parts
    me = Owner.this_process()
    if place != me.place:
        return None
    return boot != (me.boot[:8] or "x") or not _is_running(int(pid), "" if start == "0" else start)


def remove_leftovers(output: Path) -> None:
    """Remove what killed runs left of an output, and bring back an earlier one that they were about to replace.

    An entry whose process cannot be seen from here is named in a warning and kept.
    """
    for entry in sorted(output.absolute().parent.glob(f".{_escaped(output.name)}.*")):
        tag, _, state = entry.name[len(output.name) + 2 :].rpartition(".")
        if state not in (UNFINISHED, REPLACED):
            continue
        over = is_left_over(tag)
        if over is None:
            warnings.warn(
                f"{entry} is unfinished work on {output.name} of an earlier version, another host or another container; "
                "remove it if no such run is going on",
                stacklevel=2,
            )
        elif over and state == REPLACED and not os.path.lexists(output):
            entry.rename(output)
        elif over:
            shutil.rmtree(entry, ignore_errors=True)


def remove_partial_files(folder: Path) -> None:
    """Remove files in a folder of ours that killed runs were about to write (see `atomic_path`)."""
    for entry in folder.rglob(f".*.{UNFINISHED}.*"):
        if is_left_over(entry.name[1:].split(f".{UNFINISHED}.")[0]):
            entry.unlink(missing_ok=True)


def _escaped(name: str) -> str:
    """A name in which no character is a wildcard."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
