"""Several batches at once on a CPU, one thread each.

Threads that share every operation of the network wait for the slowest of them hundreds of times per batch; threads with batches
of their own never wait. The images are the same: each depends on its cells and its seed alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

import torch

from sge2hist.threads import threads_with_limits

Result = TypeVar("Result")

MIN_IMAGES = 4  # of a part: fewer leave the operations of the network half empty


def parallel_batches(call: Callable[[slice], Result], n: int, batch: int, device: torch.device) -> Iterator[Result]:
    """Yield `call(part)` for slices that cover range(n), in their order; all running parts together hold at most `batch` items.

    On a CPU as many run at once as torch has threads to share among them; on any other device one of `batch` at a time.
    """
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    share = -(-n // threads) if n < batch else batch // threads
    size = min(batch, max(MIN_IMAGES, share))
    workers = min(threads, -(-n // size), batch // size)
    if workers <= 1:
        yield from map(call, _slices(n, batch))
        return
    pool = threads_with_limits(workers, threads // workers, "sge2hist")
    try:
        running: deque[Future[Result]] = deque()
        for part in _slices(n, size):
            if len(running) > workers:
                yield running.popleft().result()
            running.append(pool.submit(call, part))
        while running:
            yield running.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Run the linear algebra of NumPy and SciPy on one thread within the block.

    For matrices of some 1,000 x 1,000: its threads wait for each other in loops that keep the processor busy. Measured on
    two busy cores, scores of 1,000 + 1,000 images: 77 s of processor with two threads, 4.6 s with one, and as fast on idle
    cores.
    """
    import numpy as np  # noqa: F401  (a library that is not loaded yet would not be limited)
    import scipy.linalg  # noqa: F401
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        yield


def _slices(n: int, size: int) -> Iterator[slice]:
    """Slices that cover range(n)."""
    for start in range(0, n, size):
        yield slice(start, min(n, start + size))
