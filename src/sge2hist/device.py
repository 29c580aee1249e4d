"""Where a model computes."""

from __future__ import annotations

import torch

from sge2hist.data.errors import InputError


def usable_device(device: str | torch.device) -> torch.device:
    """Return a device that torch can use ("auto": a GPU if there is one), or raise `InputError`."""
    if not isinstance(device, str | torch.device):
        raise InputError(found=f"device={device!r}"[:100], expected="cpu, cuda or auto", repair="device='auto'")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        raise InputError(
            found=f"device {device!r}, which torch cannot use ({str(error).splitlines()[0]})",
            expected="cpu, cuda or auto",
            repair="device='auto' (--device auto) takes a GPU if there is one",
        ) from error
    return found
