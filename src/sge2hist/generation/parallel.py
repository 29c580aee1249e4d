"""Several batches at once on a CPU, one thread each.

Threads that share every operation of the network wait for each other hundreds of times per batch, for the slowest each time. Of
threads that have batches of their own, none waits. The images are the same: each depends on its cells and its seed alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

from sge2hist.generation.windows import batches

Result = TypeVar("Result")

LEAST = 4  # images of a part: fewer do not fill the operations of the network


def parallel_batches(call: Callable[[slice], Result], n: int, batch: int, device: torch.device) -> Iterator[Result]:
    """Yield `call(part)` for slices that cover range(n), in their order; the parts under way are `batch` long together.

    On a CPU as many are under way as torch has threads to share among them; on any other device one of `batch` at a time.
    """
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    share = -(-n // threads) if n < batch else batch // threads
    size = min(batch, max(LEAST, share))
    workers = min(threads, -(-n // size), batch // size)
    if workers <= 1:
        yield from map(call, batches(n, batch))
        return
    # the initializer sets the number for its own thread, and for those that start later: hence set once more below
    pool = ThreadPoolExecutor(workers, "draw", torch.set_num_threads, (threads // workers,))
    try:
        under_way: deque[Future[Result]] = deque()
        for part in batches(n, size):
            if len(under_way) > workers:
                yield under_way.popleft().result()
            under_way.append(pool.submit(call, part))
            torch.set_num_threads(threads)
        while under_way:
            yield under_way.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
