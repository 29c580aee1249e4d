"""The device(s) that training runs on, through Accelerate: one process or many, without a change of our code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sge2hist.arithmetic import has_fast_bfloat16

if TYPE_CHECKING:
    from accelerate import Accelerator


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
