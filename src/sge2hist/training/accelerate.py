"""The device(s) that training runs on, through Accelerate: one process or many, without a change of our code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from accelerate import Accelerator


def has_fast_bfloat16() -> bool:
    """Whether bfloat16 is faster than float32 here: on a GPU that has it, or a CPU with AVX512-BF16 or AMX."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def make_accelerator(mixed_precision: str) -> Accelerator:
    """Return an Accelerator; "auto" picks bfloat16 autocast where :func:`has_fast_bfloat16`."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs

    # Accelerate keeps the precision of a process's first Accelerator for ever; a notebook trains more than one model.
    # The process group (PartialState) stays.
    AcceleratorState._reset_state()
    if mixed_precision == "auto":
        mixed_precision = "bf16" if has_fast_bfloat16() else "no"
    return Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision=mixed_precision,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
