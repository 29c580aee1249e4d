"""Training of the nucleus network from labelled tiles: targets, augmentation, loss, loop.

Used by `recipes/train_nuclei.py`; nothing here runs when slides are prepared. Shapes: B batch, C channel, H row, W
column.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn

from sge2hist.data.errors import InputError
from sge2hist.data.he_stain import optical_density_log10
from sge2hist.devices import fast_arithmetic
from sge2hist.pairing.segmentation.network import NucleiUNet


@dataclass(frozen=True)
class LabelledTile:
    """One training image at about 0.5 um/px with the outline of each nucleus."""

    image: np.ndarray  # uint8 [H, W, 3]
    labels: np.ndarray  # int32 [H, W], 0 = no nucleus
    group: str = ""  # tiles of one group come from one slide: never split between training and held-out


@dataclass(frozen=True, kw_only=True)
class NucleiTrainingConfig:
    """Recipe of the network that comes with the package."""

    steps: int = 2400  # the learning rate falls linearly to zero over them
    batch: int = 8  # crops in a step
    crop_px: int = 176  # side of a crop, multiple of 8
    learning_rate: float = 3e-3  # peak, after 20 steps of warm-up
    depth_weight: float = 2.0  # weight of the depth term beside the cross-entropy
    ema: float = 0.98  # decay of the averaged weights that are returned
    scale_range: tuple[float, float] = (0.65, 1.5)  # magnification of a crop against its tile
    stain_jitter: float = 0.15  # standard deviation of the factor on each colour, half of it for their mixing
    seed: int = 0  # of weights, crops and augmentation

    def __post_init__(self) -> None:
        if self.crop_px % 8 or self.crop_px < 32:
            raise InputError(
                found=f"crop_px {self.crop_px}", where="NucleiTrainingConfig", expected="a multiple of 8, at least 32"
            )
        if self.steps < 1 or self.batch < 1:
            raise InputError(found=f"{self}", where="NucleiTrainingConfig", expected="at least one step and one crop")
        if not 0 < self.scale_range[0] <= self.scale_range[1]:
            raise InputError(
                found=f"scale_range {self.scale_range}", where="NucleiTrainingConfig", expected="0 < low <= high"
            )


def normalised_depth(labels: np.ndarray) -> np.ndarray:
    """Distance to the outline of the own nucleus over its maximum there: float32 [H, W] in [0, 1], 0 outside."""
    depth = np.zeros(labels.shape, np.float32)
    for index, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        own = np.pad(labels[box] == index, 1)
        distance = ndimage.distance_transform_edt(own)[1:-1, 1:-1]
        depth[box] += (distance / distance.max()).astype(np.float32)
    return depth


class TileSampler:
    """Random crops of labelled tiles, turned, scaled, mirrored and re-stained; a batch depends on (seed, step) only."""

    def __init__(self, tiles: Sequence[LabelledTile], config: NucleiTrainingConfig) -> None:
        self.config = config
        self.layers = []
        for tile in tiles:
            density = optical_density_log10(tile.image)
            layer = np.concatenate(
                [density, (tile.labels > 0)[..., None], normalised_depth(tile.labels)[..., None]], -1
            )
            self.layers.append(torch.from_numpy(layer.astype(np.float32)).permute(2, 0, 1))
        area = np.array([layer.shape[1] * layer.shape[2] for layer in self.layers], float)
        self.probability = area / area.sum()

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Density [B, 3, S, S], nucleus [B, S, S] in {0, 1} and depth [B, S, S] in [0, 1]."""
        rng = np.random.default_rng((self.config.seed, step))
        crops = torch.stack([self._crop(rng) for _ in range(self.config.batch)])
        density = torch.stack([self._restain(crop[:3], rng) for crop in crops])
        return density, (crops[:, 3] > 0.5).float(), crops[:, 4]

    def _crop(self, rng: np.random.Generator) -> Tensor:
        layer = self.layers[rng.choice(len(self.layers), p=self.probability)]
        height, width = layer.shape[1:]
        low, high = self.config.scale_range
        scale, angle = np.exp(rng.uniform(np.log(low), np.log(high))), rng.uniform(0, 2 * np.pi)
        half_px = self.config.crop_px / 2 / scale
        centre = [rng.uniform(min(half_px, s / 2), max(s - half_px, s / 2)) for s in (width, height)]
        cos, sin, mirror = np.cos(angle) * half_px, np.sin(angle) * half_px, rng.choice([-1, 1])
        # affine_grid wants output [-1, 1] -> input [-1, 1], so pixels are divided by half the side of the tile
        affine = torch.tensor(
            [
                [cos * mirror / (width / 2), -sin / (width / 2), centre[0] / (width / 2) - 1],
                [sin * mirror / (height / 2), cos / (height / 2), centre[1] / (height / 2) - 1],
            ],
            dtype=torch.float32,
        )
        side = self.config.crop_px
        grid = nn.functional.affine_grid(affine[None], [1, 1, side, side], align_corners=False)
        return nn.functional.grid_sample(layer[None], grid, padding_mode="reflection", align_corners=False)[0]

    def _restain(self, density: Tensor, rng: np.random.Generator) -> Tensor:
        jitter = self.config.stain_jitter
        mixing = np.eye(3) + rng.normal(0, jitter / 2, (3, 3)) + np.diag(rng.normal(0, jitter, 3))
        mixing *= np.exp(rng.normal(0, 0.2))
        density = torch.einsum("ij,jhw->ihw", torch.from_numpy(mixing.astype(np.float32)), density)
        density = density + float(rng.normal(0, 0.03))
        if rng.random() < 0.4:
            sigma_px = rng.uniform(0.3, 1.3)
            density = torch.from_numpy(ndimage.gaussian_filter(density.numpy(), (0, sigma_px, sigma_px)))
        noise = rng.normal(0, rng.uniform(0, 0.05), density.shape).astype(np.float32)
        return (density + torch.from_numpy(noise)).clamp(0, 3)


def nuclei_loss(maps_BCHW: Tensor, nucleus_BHW: Tensor, depth_BHW: Tensor, *, depth_weight: float) -> Tensor:
    """Cross-entropy and soft Dice of the nucleus map, squared error of the depth (ten times as much inside nuclei)."""
    logit, deep = maps_BCHW[:, 0], maps_BCHW[:, 1]
    entropy = nn.functional.binary_cross_entropy_with_logits(logit, nucleus_BHW)
    probability = torch.sigmoid(logit)
    dice = 1 - (2 * (probability * nucleus_BHW).sum() + 1) / (probability.sum() + nucleus_BHW.sum() + 1)
    weight = 0.1 + 0.9 * nucleus_BHW
    squared = (weight * (deep - depth_BHW).square()).sum() / weight.sum()
    return entropy + 0.5 * dice + depth_weight * squared


def train_nuclei_network(
    tiles: Sequence[LabelledTile],
    *,
    config: NucleiTrainingConfig,
    log: Callable[[int, float, float], None] = lambda step, seconds, loss: None,
) -> NucleiUNet:
    """Train on labelled tiles and return the network with averaged weights; `log(step, seconds, running loss)`."""
    if not tiles:
        raise InputError(found="no labelled tiles", where="train_nuclei_network", expected="at least one")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)  # inside fork_rng: the caller's random state is untouched
        network = NucleiUNet(normalised=True).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(config.ema), use_buffers=True
    )
    optimiser = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=1e-3)
    sampler, start, running = TileSampler(tiles, config), time.monotonic(), 0.0
    for step in range(config.steps):
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * min(1.0, (step + 1) / 20) * (1 - step / config.steps)
        density, nucleus, depth = sampler.batch(step)
        with fast_arithmetic(torch.device("cpu")):
            maps = network.train()(density.to(memory_format=torch.channels_last)).float()
        loss = nuclei_loss(maps, nucleus, depth, depth_weight=config.depth_weight)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        average.update_parameters(network)
        running = loss.item() if step == 0 else 0.95 * running + 0.05 * loss.item()
        if step % 50 == 0:
            log(step, time.monotonic() - start, running)
    network.load_state_dict(average.module.state_dict())
    return network
