"""Batches that run at once, one thread each."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from sge2hist.generation.patches import image_batches
from sge2hist.generation.requests import request_from_paired
from sge2hist.models.bundle import ModelBundle
from sge2hist.parallel import MIN_IMAGES, one_blas_thread, parallel_batches

CPU = torch.device("cpu")


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("n", [0, 1, 8, 50])
@pytest.mark.parametrize("batch", [1, 6, 64])
def test_parts_cover_all_in_order_with_at_most_a_batch_running(threads, n, batch):
    lock, running, peak, threads_seen = threading.Lock(), 0, 0, []

    def call(part: slice) -> list[int]:
        nonlocal running, peak
        with lock:
            running += part.stop - part.start
            peak = max(peak, running)
        time.sleep(0.002)  # long enough that parts overlap, and that the caller goes on
        threads_seen.append(torch.get_num_threads())
        with lock:
            running -= part.stop - part.start
        return list(range(part.start, part.stop))

    found = [i for part in parallel_batches(call, n, batch, CPU) for i in part]
    assert found == list(range(n))
    assert peak <= batch
    assert torch.get_num_threads() == threads
    if n >= MIN_IMAGES * threads and batch >= MIN_IMAGES * threads:
        assert set(threads_seen) == {1}


def test_as_many_parts_run_as_there_are_threads(threads):
    meet = threading.Barrier(threads)

    def call(part: slice) -> int:
        meet.wait(timeout=20)  # an error unless all of them are under way
        return part.stop - part.start

    assert list(parallel_batches(call, 8 * threads, 8 * threads, CPU)) == [8] * threads


def test_another_device_has_one_batch_at_a_time(threads):
    assert list(parallel_batches(lambda part: part.stop - part.start, 20, 8, torch.device("meta"))) == [8, 8, 4]


def test_an_error_stops_all_parts_and_restores_the_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)

    def call(part: slice) -> int:
        if part.start >= 8:
            raise ValueError("no such cell")
        return part.start

    try:
        with pytest.raises(ValueError, match="no such cell"):
            list(parallel_batches(call, 100, 8, CPU))
        assert torch.get_num_threads() == 2
        torch.set_num_threads(2)
        first = parallel_batches(call, 100, 8, CPU)
        next(first)
        first.close()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_images_do_not_depend_on_the_threads(tiny_model, tiny_paired):
    tiny_bundle = ModelBundle.load(tiny_model)
    request = request_from_paired(tiny_bundle, tiny_paired, tiny_paired.rows("test")[:11])
    sampler = replace(tiny_bundle.config.sampler, n_steps=2)
    before = torch.get_num_threads()
    try:
        generated = []
        for n in (1, 2, 4):
            torch.set_num_threads(n)
            generated.append(np.concatenate(list(image_batches(tiny_bundle, request, sampler))).astype(int))
    finally:
        torch.set_num_threads(before)
    assert len(generated[0]) == 11
    for images in generated[1:]:
        assert np.abs(images - generated[0]).max() <= 1


def test_linear_algebra_is_limited_within_the_block_alone() -> None:
    from threadpoolctl import threadpool_info

    def blas_threads() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    with one_blas_thread():
        assert set(blas_threads()) == {1}
        inside = len(blas_threads())
    before = blas_threads()
    with one_blas_thread():
        pass
    assert blas_threads() == before
    assert len(before) == inside
