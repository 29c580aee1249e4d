"""The number format that images are drawn in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def fast_arithmetic(device: torch.device) -> AbstractContextManager[object]:
    """bfloat16 where the device is faster with it, else float32."""
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported()
    else:
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.autocast(device.type, torch.bfloat16) if fast else nullcontext()
