"""Weights of published networks: a file that the user names, or the model hub. Nothing in a file is ever run.

Hub: Hugging Face; gated repositories need an account that was granted access, and its token (`hf auth login`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sge2hist.data.errors import InputError

FILES = ("model.safetensors", "pytorch_model.bin")
"""Names of the weights in a repository of the hub, the preferred one first."""
SHOWN = 3


def find_weights(name: str, repository: str, given: str | None) -> Path:
    """Return the path of an encoder's weights: the file given, or that of its repository on the hub (cached there).

    Raises
    ------
    InputError
        When there is no such file, access was not granted, or the hub is out of reach.
    """
    if given is not None:
        return given_file(name, given)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    reason = f"no {' or '.join(FILES)} in the repository"
    for file in FILES:
        try:
            return Path(hf_hub_download(repository, file))
        except LocalEntryNotFoundError:
            reason = "the hub is out of reach, and nothing is cached"
            break
        except EntryNotFoundError:
            continue
        except (HfHubHTTPError, OSError, ValueError) as error:
            reason = (
                f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no access'}"
            )
            break
    raise InputError(
        found=f"no weights of {name} ({reason})",
        where=f"--extractor {name}",
        expected=f"access to {repository} on the Hugging Face hub, or a file",
        repair=f"ask for access on the page of {repository}, then run `hf auth login`; without internet copy one of "
        f"{', '.join(FILES)} here and add --extractor-weights {name}=FILE",
    )


def given_file(name: str, given: str) -> Path:
    """Return the path of a file that the user names."""
    path = Path(given).expanduser()
    if not path.is_file():
        raise InputError(
            found="no such file", where=f"--extractor-weights {name}={given}", expected=f"the weights of {name}"
        )
    return path


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors in a file of weights by name: safetensors, or what `torch.save` wrote of tensors alone.

    Raises
    ------
    InputError
        When it is neither. Pickled objects other than tensors are refused, not run.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors, zip, pickle and torch raise their own types
        raise InputError(
            found=f"a file that cannot be read as tensors ({type(error).__name__})",
            where=str(path),
            expected="safetensors, or a PyTorch file that holds tensors alone",
            repair="convert it with safetensors.torch.save_file(state_dict, FILE) where you trust its origin",
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors = content if isinstance(content, dict) else {}
    named = {str(k).removeprefix("module."): v for k, v in tensors.items() if isinstance(v, Tensor)}
    if not named:
        raise InputError(found="no tensors by name", where=str(path), expected="the state dict of a network")
    return named


def fill(network: nn.Module, weights: dict[str, Tensor], path: Path, name: str) -> nn.Module:
    """Return a network, made on the meta device, with these weights in float32 and evaluation mode.

    Raises
    ------
    InputError
        When names or shapes differ: the file is of another network.
    """
    wanted = network.state_dict()
    counters = {key: torch.zeros((), dtype=torch.long) for key in wanted if key.endswith("num_batches_tracked")}
    weights = counters | weights  # older files lack the counters of batch norms, which nothing reads
    wrong = [
        f"{key} {tuple(weights[key].shape)} in place of {tuple(wanted[key].shape)}" if key in weights else f"no {key}"
        for key in wanted
        if key not in weights or weights[key].shape != wanted[key].shape
    ]
    wrong += [f"{key}, unknown" for key in weights if key not in wanted]
    if wrong:
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise InputError(
            found="weights of another network: " + "; ".join(wrong[:SHOWN]) + more,
            where=str(path),
            expected=f"the {len(wanted)} tensors of {name}",
            repair=f"give the published file of {name}",
        )
    floats = {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in weights.items()}
    network.load_state_dict(floats, assign=True)
    return network.eval().requires_grad_(False)
