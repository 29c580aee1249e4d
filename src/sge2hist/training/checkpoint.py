"""Checkpoints: every tensor of a stage in one safetensors file, its position in the file's header. No pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sge2hist.data.artifacts import atomic_path
from sge2hist.data.errors import InputError


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's state as flat named tensors ("<parameter number>.<name>")."""
    flat = {}
    for number, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            flat[f"{number}.{name}"] = torch.as_tensor(value)
    return flat


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, flat: dict[str, Tensor]) -> None:
    """Restore what :func:`optimizer_tensors` returned; learning rates and groups do not change."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in flat.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def save_checkpoint(path: Path, sections: dict[str, dict[str, Tensor]], position: dict[str, Any]) -> None:
    """Write named groups of tensors and a JSON position (stage, step, elapsed seconds), atomically."""
    from safetensors.torch import save_file

    flat = {
        f"{section}/{name}": value.detach().to("cpu", copy=True).contiguous()
        for section, tensors in sections.items()
        for name, value in tensors.items()
    }
    with atomic_path(path) as partial:
        save_file(flat, partial, metadata={"position": json.dumps(position)})


def load_checkpoint(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Read what :func:`save_checkpoint` wrote.

    Raises
    ------
    InputError
        If the file is damaged or of another program.
    """
    from safetensors import SafetensorError, safe_open

    sections: dict[str, dict[str, Tensor]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            position = json.loads(file.metadata()["position"])
            for key in file.keys():  # noqa: SIM118  (a safetensors handle is not iterable)
                section, name = key.split("/", 1)
                sections.setdefault(section, {})[name] = file.get_tensor(key)
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise InputError(
            found=f"a damaged checkpoint ({error})", where=str(path), repair="train again with --overwrite"
        ) from error
    return sections, position


class Ema:
    """Exponential moving average of the parameters of a module that are trained at its start; buffers are not averaged.

    The decay rises with the step t as in Karras et al. 2024 (power function, gamma = 6 by default): early, poor weights
    are forgotten. ``decay_t = min(max_decay, (1 - 1 / (t + 1)) ** (gamma + 1))``.
    """

    def __init__(self, module: nn.Module, *, max_decay: float = 0.9995, gamma: float = 6.0) -> None:
        self.max_decay, self.gamma = max_decay, gamma
        self.average = {
            name: value.detach().clone().float() for name, value in module.named_parameters() if value.requires_grad
        }

    def restore(self, average: dict[str, Tensor]) -> None:
        """Resume from a saved average."""
        self.average = {name: average[name].to(value) for name, value in self.average.items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move the average towards the module's parameters after step `step` (0, 1, ...)."""
        decay = min(self.max_decay, (1 - 1 / (step + 1)) ** (self.gamma + 1))
        values = {name: value.detach().float() for name, value in module.named_parameters() if name in self.average}
        torch._foreach_lerp_([self.average[name] for name in values], list(values.values()), 1 - decay)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Overwrite the module's parameters with the average."""
        for name, value in module.named_parameters():
            if name in self.average:
                value.copy_(self.average[name])
