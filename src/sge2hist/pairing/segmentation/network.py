"""A small U-Net that outlines nuclei in H&E, with weights that come with the package.

The network sees optical density at 0.5 um/px and predicts, for each pixel, whether it lies in a nucleus and how deep
inside (0 at the outline, 1 at the deepest point of that nucleus). Touching nuclei meet where the depth is low, so the
pixels deeper than a threshold fall apart into one seed per nucleus, and a watershed on the depth gives the outlines.
This is the star-convex idea of StarDist (Schmidt et al. 2018) and the distance maps of HoVer-Net (Graham et al. 2019)
reduced to what a CPU runs at about a megapixel per second.

Shapes: B batch, C channel, H row, W column.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sge2hist.data.errors import InputError
from sge2hist.data.he_stain import optical_density_log10
from sge2hist.pairing.segmentation.classical import NucleiConfig, labels_of_seeds

NETWORK_UM_PER_PX = 0.5
MULTIPLE_PX = 8  # the coarsest level of the network is 1/8 of the image
WEIGHTS_FILE = Path(__file__).parent / "weights" / "nuclei_he.safetensors"


class ConvBlock(nn.Module):
    """Two 3x3 convolutions with ReLU; batch normalisation while training only, folded into the weights for use."""

    def __init__(self, n_in: int, n_out: int, *, normalised: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, padding=1)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1)
        self.norm1: nn.Module = nn.BatchNorm2d(n_out) if normalised else nn.Identity()
        self.norm2: nn.Module = nn.BatchNorm2d(n_out) if normalised else nn.Identity()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """[B, n_in, H, W] -> [B, n_out, H, W]."""
        x_BCHW = torch.relu(self.norm1(self.conv1(x_BCHW)))
        return torch.relu(self.norm2(self.conv2(x_BCHW)))


class NucleiUNet(nn.Module):
    """Optical density [B, 3, H, W] -> nucleus logit and depth [B, 2, H, W]; H and W multiples of 8.

    Pixels are folded 2 x 2 into channels first and unfolded last: three quarters of the cost of a full-resolution
    level is saved, and the outline is still predicted at full resolution.
    """

    def __init__(self, widths: tuple[int, int, int] = (24, 48, 96), *, normalised: bool = False) -> None:
        super().__init__()
        a, b, c = widths
        self.widths = widths
        self.fine = ConvBlock(12, a, normalised=normalised)
        self.middle = ConvBlock(a, b, normalised=normalised)
        self.coarse = ConvBlock(b, c, normalised=normalised)
        self.up_middle = ConvBlock(c + b, b, normalised=normalised)
        self.up_fine = ConvBlock(b + a, a, normalised=normalised)
        self.head = nn.Conv2d(a, 8, 1)

    def forward(self, density_BCHW: Tensor) -> Tensor:
        """[B, 3, H, W] optical density -> [B, 2, H, W]: logit of being nucleus, and depth (trained towards [0, 1])."""
        fine = self.fine(nn.functional.pixel_unshuffle(density_BCHW, 2))
        middle = self.middle(nn.functional.max_pool2d(fine, 2))
        coarse = self.coarse(nn.functional.max_pool2d(middle, 2))
        middle = self.up_middle(torch.cat([nn.functional.interpolate(coarse, scale_factor=2), middle], 1))
        fine = self.up_fine(torch.cat([nn.functional.interpolate(middle, scale_factor=2), fine], 1))
        return nn.functional.pixel_shuffle(self.head(fine), 2)


def folded(network: NucleiUNet) -> NucleiUNet:
    """The same function without batch normalisation, in evaluation mode (the form that is stored and run)."""
    plain = NucleiUNet(network.widths).eval()
    network = network.eval()
    with torch.no_grad():
        for name, block in network.named_children():
            target = getattr(plain, name)
            if not isinstance(block, ConvBlock):
                target.load_state_dict(block.state_dict())
                continue
            for index in ("1", "2"):
                conv, norm = getattr(block, f"conv{index}"), getattr(block, f"norm{index}")
                if isinstance(norm, nn.BatchNorm2d):
                    conv = nn.utils.fusion.fuse_conv_bn_eval(conv, norm)
                getattr(target, f"conv{index}").load_state_dict(conv.state_dict())
    return plain


def save_weights(network: NucleiUNet, path: Path, *, metadata: dict[str, str]) -> None:
    """Write a folded network as float16 safetensors; `metadata` states the origin of the weights (data, recipe)."""
    tensors = {name: value.half().contiguous() for name, value in folded(network).state_dict().items()}
    widths = ",".join(str(width) for width in network.widths)
    save_file(tensors, str(path), metadata={"kind": "sge2hist-nuclei-unet", "widths": widths, **metadata})


def load_network(path: Path | None = None) -> NucleiUNet:
    """Open stored weights (the built-in ones by default).

    Raises
    ------
    InputError
        The file is absent, damaged or holds another network.
    """
    path = WEIGHTS_FILE if path is None else Path(path)
    expected = "safetensors weights of the nucleus network"
    if not path.is_file():
        raise InputError(
            found="no weights file", where=str(path), expected=expected, repair="reinstall, or give another file"
        )
    try:
        with safe_open(str(path), framework="pt") as stored:
            metadata = stored.metadata() or {}
            if metadata.get("kind") != "sge2hist-nuclei-unet":
                raise InputError(found=f"kind {metadata.get('kind')!r}", where=str(path), expected=expected)
            a, b, c = (int(width) for width in metadata["widths"].split(","))
            network = NucleiUNet((a, b, c))
            network.load_state_dict({name: stored.get_tensor(name).float() for name in stored.keys()})  # noqa: SIM118
    except InputError:
        raise
    except Exception as error:  # safetensors and load_state_dict raise several types on a damaged file
        raise InputError(found=f"weights that cannot be read ({error})", where=str(path), expected=expected) from error
    return network.eval()


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """How the network's maps become nuclei."""

    nucleus_probability: float = 0.5  # pixels above belong to a nucleus
    seed_depth: float = 0.5  # pixels deeper than this start a nucleus of their own
    window_px: int = 1152  # side of the windows that pass the network one at a time (bounds memory)

    def __post_init__(self) -> None:
        if not 0 < self.nucleus_probability < 1 or not 0 < self.seed_depth < 1:
            raise InputError(found=f"{self}", where="NetworkConfig", expected="probability and depth between 0 and 1")
        if self.window_px < 64 or self.window_px % MULTIPLE_PX:
            raise InputError(
                found=f"window_px {self.window_px}", where="NetworkConfig", expected="a multiple of 8, at least 64"
            )


class NetworkSegmenter:
    """Callable of an H&E image at 0.5 um/px: uint8 [H, W, 3] -> int32 labels [H, W], 0 = no nucleus."""

    um_per_px = NETWORK_UM_PER_PX
    parallel = True

    def __init__(
        self,
        network: NucleiUNet | None = None,
        *,
        config: NetworkConfig | None = None,
        nuclei: NucleiConfig | None = None,
    ) -> None:
        self.network = load_network() if network is None else network
        self.network = self.network.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.config = config or NetworkConfig()
        self.nuclei = nuclei or NucleiConfig()

    def maps(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Probability of nucleus and depth, float32 [H, W] each.

        Windows overlap by the receptive radius of the network (about 44 px), so the maps do not depend on the windows.
        """
        height, width = image.shape[:2]
        probability, depth = np.zeros((2, height, width), np.float32)
        margin, window = 48, self.config.window_px
        for top in range(0, height, window):
            for left in range(0, width, window):
                y0, x0 = max(top - margin, 0), max(left - margin, 0)
                bottom, right = min(top + window, height), min(left + window, width)
                part = image[y0 : min(bottom + margin, height), x0 : min(right + margin, width)]
                logit, deep = self._predict(part)
                inner = np.s_[top - y0 : bottom - y0, left - x0 : right - x0]
                probability[top:bottom, left:right] = 1 / (1 + np.exp(-logit[inner].clip(-30, 30)))
                depth[top:bottom, left:right] = deep[inner]
        return probability, depth

    def _predict(self, image: np.ndarray) -> np.ndarray:
        pad = [(0, -side % MULTIPLE_PX) for side in image.shape[:2]]
        padded = np.pad(image, [*pad, (0, 0)], mode="edge")
        density = torch.from_numpy(optical_density_log10(padded)).permute(2, 0, 1)[None]
        with torch.inference_mode():
            maps = self.network(density.to(memory_format=torch.channels_last))[0].numpy()
        return maps[:, : image.shape[0], : image.shape[1]]

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Label the nuclei of one image or tile at 0.5 um/px."""
        probability, depth = self.maps(image)
        return labels_of_maps(probability, depth, config=self.config, nuclei=self.nuclei)


def labels_of_maps(
    probability: np.ndarray, depth: np.ndarray, *, config: NetworkConfig, nuclei: NucleiConfig
) -> np.ndarray:
    """Turn the two maps [H, W] into int32 labels [H, W]: seeds where deep, watershed on the depth, area limits."""
    inside = probability > config.nucleus_probability
    return labels_of_seeds(
        inside, depth, inside & (depth > config.seed_depth), um_per_px=NETWORK_UM_PER_PX, config=nuclei
    )
