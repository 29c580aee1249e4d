"""The number format that images are drawn, learnt and looked at in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from accelerate import Accelerator


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is faster than float32 there.

    On a GPU that has it, and on a CPU with AMX. AVX512-BF16 alone multiplies twice as fast as float32 on processors of AMD;
    on those of Intel it is no faster, and converting costs (measured: 1.3 to 1.8 times slower convolutions where a virtual
    machine hides AMX). An older torch does not tell who made the processor: AMX alone counts.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if not hasattr(torch.cpu, "get_capabilities"):
        return bool(torch.cpu._is_amx_tile_supported())
    able = torch.cpu.get_capabilities()
    return bool(able.get("amx_bf16") or (able.get("avx512_bf16") and "AMD" in able.get("cpu_name", "")))


def fast_arithmetic(device: torch.device) -> AbstractContextManager[object]:
    """bfloat16 where the device is faster with it, else float32."""
    return torch.autocast(device.type, torch.bfloat16) if has_fast_bfloat16(device) else nullcontext()


# The device(s) that training runs on, through Accelerate: one process or many, without a change of our code.


def make_accelerator(mixed_precision: str) -> Accelerator:
    """Return an Accelerator; "auto" picks bfloat16 autocast where it is faster."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs

    # Accelerate keeps the precision of a process's first Accelerator for ever; a notebook trains more than one model.
    # The process group (PartialState) stays.
    AcceleratorState._reset_state()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if mixed_precision == "auto":
        mixed_precision = "bf16" if has_fast_bfloat16(device) else "no"
    return Accelerator(
        cpu=device.type == "cpu",
        mixed_precision=mixed_precision,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
