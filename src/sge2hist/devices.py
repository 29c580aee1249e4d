"""Devices: where bfloat16 is faster than float32, and the accelerator that training runs on."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from accelerate import Accelerator

WAIT_FOR_OTHERS = timedelta(hours=3)
"""How long one process of several waits for another: the first writes the model alone, which may take long."""


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is faster than float32 there.

    True for a GPU with native bfloat16 and a CPU with AMX. AVX512-BF16 alone multiplies twice as fast as float32 on AMD
    processors; on Intel ones it is no faster, and conversion costs (measured: 1.3 to 1.8 times slower convolutions where a
    virtual machine hides AMX). An older torch does not report the vendor of the processor: AMX alone counts.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if not hasattr(torch.cpu, "get_capabilities"):
        return bool(torch.cpu._is_amx_tile_supported())
    cpu = torch.cpu.get_capabilities()
    return bool(cpu.get("amx_bf16") or (cpu.get("avx512_bf16") and "AMD" in cpu.get("cpu_name", "")))


def fast_arithmetic(device: torch.device) -> AbstractContextManager[object]:
    """Return a context of bfloat16 autocast where that is faster, else of float32."""
    return torch.autocast(device.type, torch.bfloat16) if has_fast_bfloat16(device) else nullcontext()


def make_accelerator(mixed_precision: str) -> Accelerator:
    """Return the Accelerator of a training run, on one process or many.

    Parameters
    ----------
    mixed_precision : "no", "fp16", "bf16", or "auto": bfloat16 autocast where it is faster.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

    # Accelerate keeps the precision of the first Accelerator of a process, but a notebook may train several models;
    # the process group (PartialState) is kept
    AcceleratorState._reset_state()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if mixed_precision == "auto":
        mixed_precision = "bf16" if has_fast_bfloat16(device) else "no"
    return Accelerator(
        cpu=device.type == "cpu",
        mixed_precision=mixed_precision,
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=True),
            InitProcessGroupKwargs(timeout=WAIT_FOR_OTHERS),
        ],
    )
