"""Threads of the numerical libraries: how many, and how long one that waits for the others keeps its core busy.

Read before torch is loaded, because OpenMP reads its settings once: `import sge2hist` calls :func:`set_thread_defaults`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from threading import Barrier
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

SPIN_COUNT = 20_000
"""Turns of the loop in which a thread of GNU OpenMP waits before it sleeps (its own default: 300,000, milliseconds).

Measured with `benchmarks/threads.py`: as fast on idle cores, and twice as fast or more where other processes share them.
"""
LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
CGROUPS = Path("/sys/fs/cgroup")


def available_threads() -> int:
    """CPU threads to use: the least of OMP_NUM_THREADS, the cores this process may run on, and its cgroup quota; 1 or more."""
    found = [_allowed_cores(), _omp_num_threads(), _cgroup_quota(Path("/proc/self/cgroup"), CGROUPS)]
    return max(1, min(n for n in found if n is not None))


def set_thread_defaults() -> None:
    """Set what OpenMP reads when torch is loaded; later, or where the user has set it, nothing is changed.

    GOMP_SPINCOUNT, unless that or OMP_WAIT_POLICY is set; OMP_NUM_THREADS, where fewer threads are available than OpenMP
    would start.
    """
    if "torch" in sys.modules:
        return
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPIN_COUNT))
    n = available_threads()
    if n < (_omp_num_threads() or _allowed_cores()):
        os.environ["OMP_NUM_THREADS"] = str(n)


def use_threads(n: int) -> None:
    """Limit torch to n CPU threads, and likewise BLAS and the processes started from here."""
    for name in LIMITS:
        os.environ[name] = str(n)
    if "torch" in sys.modules:  # else it reads the environment when it is imported
        sys.modules["torch"].set_num_threads(n)


def limit_this_thread(n: int) -> None:
    """Limit torch to n CPU threads in the operations of the calling thread; also in those of threads that first use torch later.

    torch counts per thread, and its first operation in a thread sets the count that was set last in any thread. So that one comes
    first: else the limit would last until the first operation.
    """
    import torch

    torch.get_num_threads()
    torch.set_num_threads(n)


def threads_with_limits(workers: int, n: int, name: str) -> ThreadPoolExecutor:
    """A pool of threads that torch is limited to n threads in; no other thread changes."""
    from concurrent.futures import ThreadPoolExecutor

    import torch

    before, begun = torch.get_num_threads(), Barrier(workers + 1)

    def begin() -> None:
        limit_this_thread(n)
        begun.wait()

    pool = ThreadPoolExecutor(workers, name, begin)
    for _ in range(workers):  # each starts a thread: none is idle before all have begun
        pool.submit(int)
    begun.wait()
    torch.set_num_threads(before)  # of threads that first use torch later
    return pool


def _allowed_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _omp_num_threads() -> int | None:
    """The value of OMP_NUM_THREADS, of its first level where it has several; None if it is not set to a number."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else None


def _cgroup_quota(own_groups: Path, root: Path) -> int | None:
    """Cores' worth of time that the control groups of this process allow, rounded up; None: no limit, or not Linux.

    Groups are nested and the tightest counts. Within a container the path may be that of the host: then the group mounted at
    the root is the container's own.
    """
    try:
        lines = own_groups.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    quotas = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2
            tree, version = root, 2
        elif "cpu" in controllers.split(","):
            tree, version = root / controllers, 1
            tree = tree if tree.is_dir() else root / "cpu"
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        groups = [tree.joinpath(*parts[:n]) for n in range(len(parts) + 1)]
        quotas += [cores for group in groups if (cores := _quota_of(group, version)) is not None]
    return None if not quotas else max(1, -int(-min(quotas) // 1))


def _quota_of(group: Path, version: int) -> float | None:
    try:
        if version == 2:
            quota, period = (group / "cpu.max").read_text(encoding="ascii").split()[:2]
        else:
            quota = (group / "cpu.cfs_quota_us").read_text(encoding="ascii")
            period = (group / "cpu.cfs_period_us").read_text(encoding="ascii")
        return float(quota) / float(period) if float(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # no such file, or "max"
        return None
