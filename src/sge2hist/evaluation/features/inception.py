"""The Inception network of the original FID (Heusel et al. 2017) in torch, without torchvision.

It is the TensorFlow network of 2015-12-05 with 1,008 outputs as ported by `pytorch-fid` (Seitzer 2020), whose parameter
names are kept: average pools do not count padding, and the last block pools by the maximum. Its weights
(`pt_inception-2015-12-05-6726825d.pth`, Apache 2.0) are not part of this package. Distances of these features are FID in its
first sense; for 64 px patches enlarged to 299 px it measures objects of photographs, so read it beside other extractors.

Shape letters: B images, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sge2hist.data.artifacts import sha256_of
from sge2hist.data.errors import InputError
from sge2hist.devices import fast_arithmetic, has_fast_bfloat16
from sge2hist.evaluation.features.extractor import Extractor
from sge2hist.evaluation.features.weights import fill, given_file, read_tensors

INCEPTION = "inception"
FILE = "pt_inception-2015-12-05-6726825d.pth"
SHA256_START = "6726825d"
INPUT_PX = 299
FEATURES = 2048
BATCH = 16

Pool = Callable[[Tensor], Tensor]


class Convolution(nn.Module):
    """Convolution without bias, batch norm, relu."""

    def __init__(
        self, c_in: int, c_out: int, kernel: int | tuple[int, int], stride: int = 1, padded: bool = True
    ) -> None:
        super().__init__()
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (height // 2, width // 2) if padded else 0
        self.conv = nn.Conv2d(c_in, c_out, (height, width), stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(c_out, eps=0.001)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return [B, C, H, W]."""
        return functional.relu(self.bn(self.conv(x_BCHW)))


def average(x_BCHW: Tensor) -> Tensor:
    """Return means over 3 x 3 pixels; padding does not count."""
    return functional.avg_pool2d(x_BCHW, 3, stride=1, padding=1, count_include_pad=False)


def maximum(x_BCHW: Tensor) -> Tensor:
    """Return maxima over 3 x 3 pixels."""
    return functional.max_pool2d(x_BCHW, 3, stride=1, padding=1)


class BlockA(nn.Module):
    """Branches of 1 x 1, 5 x 5, twice 3 x 3, and pooling, at 35 x 35."""

    def __init__(self, c_in: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = Convolution(c_in, 64, 1)
        self.branch5x5_1 = Convolution(c_in, 48, 1)
        self.branch5x5_2 = Convolution(48, 64, 5)
        self.branch3x3dbl_1 = Convolution(c_in, 64, 1)
        self.branch3x3dbl_2 = Convolution(64, 96, 3)
        self.branch3x3dbl_3 = Convolution(96, 96, 3)
        self.branch_pool = Convolution(c_in, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, C, H, W]."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        five = self.branch5x5_2(self.branch5x5_1(x))
        return torch.cat([self.branch1x1(x), five, double, self.branch_pool(average(x))], dim=1)


class BlockB(nn.Module):
    """From 35 x 35 to 17 x 17."""

    def __init__(self, c_in: int) -> None:
        super().__init__()
        self.branch3x3 = Convolution(c_in, 384, 3, 2, padded=False)
        self.branch3x3dbl_1 = Convolution(c_in, 64, 1)
        self.branch3x3dbl_2 = Convolution(64, 96, 3)
        self.branch3x3dbl_3 = Convolution(96, 96, 3, 2, padded=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, C, H, W]."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, functional.max_pool2d(x, 3, stride=2)], dim=1)


class BlockC(nn.Module):
    """Branches of 1 x 1, 7 x 7 by its sides, twice that, and pooling, at 17 x 17."""

    def __init__(self, c_in: int, c_7x7: int) -> None:
        super().__init__()
        c, row, column = c_7x7, (1, 7), (7, 1)
        self.branch1x1 = Convolution(c_in, 192, 1)
        self.branch7x7_1 = Convolution(c_in, c, 1)
        self.branch7x7_2 = Convolution(c, c, row)
        self.branch7x7_3 = Convolution(c, 192, column)
        self.branch7x7dbl_1 = Convolution(c_in, c, 1)
        self.branch7x7dbl_2 = Convolution(c, c, column)
        self.branch7x7dbl_3 = Convolution(c, c, row)
        self.branch7x7dbl_4 = Convolution(c, c, column)
        self.branch7x7dbl_5 = Convolution(c, 192, row)
        self.branch_pool = Convolution(c_in, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, C, H, W]."""
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(average(x))], dim=1)


class BlockD(nn.Module):
    """From 17 x 17 to 8 x 8."""

    def __init__(self, c_in: int) -> None:
        super().__init__()
        self.branch3x3_1 = Convolution(c_in, 192, 1)
        self.branch3x3_2 = Convolution(192, 320, 3, 2, padded=False)
        self.branch7x7x3_1 = Convolution(c_in, 192, 1)
        self.branch7x7x3_2 = Convolution(192, 192, (1, 7))
        self.branch7x7x3_3 = Convolution(192, 192, (7, 1))
        self.branch7x7x3_4 = Convolution(192, 192, 3, 2, padded=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, C, H, W]."""
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        three = self.branch3x3_2(self.branch3x3_1(x))
        return torch.cat([three, self.branch7x7x3_4(seven), functional.max_pool2d(x, 3, stride=2)], dim=1)


class BlockE(nn.Module):
    """Branches that end in 1 x 3 beside 3 x 1, at 8 x 8."""

    def __init__(self, c_in: int, pool: Pool) -> None:
        super().__init__()
        self.pool = pool
        self.branch1x1 = Convolution(c_in, 320, 1)
        self.branch3x3_1 = Convolution(c_in, 384, 1)
        self.branch3x3_2a = Convolution(384, 384, (1, 3))
        self.branch3x3_2b = Convolution(384, 384, (3, 1))
        self.branch3x3dbl_1 = Convolution(c_in, 448, 1)
        self.branch3x3dbl_2 = Convolution(448, 384, 3)
        self.branch3x3dbl_3a = Convolution(384, 384, (1, 3))
        self.branch3x3dbl_3b = Convolution(384, 384, (3, 1))
        self.branch_pool = Convolution(c_in, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, C, H, W]."""
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        return torch.cat(
            [
                self.branch1x1(x),
                self.branch3x3_2a(three),
                self.branch3x3_2b(three),
                self.branch3x3dbl_3a(double),
                self.branch3x3dbl_3b(double),
                self.branch_pool(self.pool(x)),
            ],
            dim=1,
        )


class Inception(nn.Module):
    """Input: float [B, 3, 299, 299] in [-1, 1]. Output: pooled features [B, 2048]."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, 3, 2, padded=False)
        self.Conv2d_2a_3x3 = Convolution(32, 32, 3, padded=False)
        self.Conv2d_2b_3x3 = Convolution(32, 64, 3)
        self.Conv2d_3b_1x1 = Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = Convolution(80, 192, 3, padded=False)
        self.Mixed_5b = BlockA(192, 32)
        self.Mixed_5c = BlockA(256, 64)
        self.Mixed_5d = BlockA(288, 64)
        self.Mixed_6a = BlockB(288)
        self.Mixed_6b = BlockC(768, 128)
        self.Mixed_6c = BlockC(768, 160)
        self.Mixed_6d = BlockC(768, 160)
        self.Mixed_6e = BlockC(768, 192)
        self.Mixed_7a = BlockD(768)
        self.Mixed_7b = BlockE(1280, average)
        self.Mixed_7c = BlockE(2048, maximum)
        self.fc = nn.Linear(FEATURES, 1008)  # in the file; the features are its input

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return [B, 2048]."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x_BCHW)))
        x = functional.max_pool2d(x, 3, stride=2)
        x = functional.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, stride=2)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        return x.mean(dim=(2, 3))


def inception_extractor(weights: str | None, input_px: int | None = None) -> Extractor:
    """Return the Inception network as extractor; `weights` is the path of its file, which no repository of the hub holds."""
    where = f"--extractor {INCEPTION}"
    if weights is None:
        raise InputError(
            found="no weights",
            where=where,
            expected=f"{FILE}, which the release page of pytorch-fid (mseitzer/pytorch-fid on GitHub) offers",
            repair=f"--extractor-weights {INCEPTION}={FILE}",
        )
    if input_px not in (None, INPUT_PX):
        raise InputError(found=f"an extractor input of {input_px} px", where=where, expected=f"{INPUT_PX} px")
    path = given_file(INCEPTION, weights)
    tensors = read_tensors(path)
    with torch.device("meta"):
        network = Inception()
    model = fill(network, {k: v for k, v in tensors.items() if not k.startswith("AuxLogits.")}, path, INCEPTION)
    device = torch.device("cpu")
    digest = sha256_of(path)

    def compute(image_NHWC: np.ndarray) -> np.ndarray:
        batch = torch.from_numpy(np.ascontiguousarray(image_NHWC)).permute(0, 3, 1, 2).float() / 255
        batch = functional.interpolate(batch, size=(INPUT_PX, INPUT_PX), mode="bilinear", align_corners=False)
        with torch.inference_mode(), fast_arithmetic(device):
            return model(2 * batch - 1).float().numpy()

    details = {
        "dim": FEATURES,
        "input_px": INPUT_PX,
        "weights": path.name,
        "sha256": digest,
        "licence": "Apache 2.0",
        "scaling": "bilinear without antialiasing, [-1, 1], as in pytorch-fid",
        "precision": "bfloat16" if has_fast_bfloat16(device) else "float32",
    }
    note = (
        ""
        if digest.startswith(SHA256_START)
        else f"{path.name} is not the published {FILE}: no FID in its first sense."
    )
    return Extractor(name=INCEPTION, compute=compute, details=details, note=note, is_torch=True, batch=BATCH)
