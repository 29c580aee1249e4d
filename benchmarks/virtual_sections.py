"""Images of virtual H&E whose map from the cells is known, and the attempt to find it: shared by the benchmarks of registration.

The stains are computed from the morphology image of a Xenium folder (Giacomelli et al. 2016); the image is turned and mirrored at
random, with another scale, shear, crop, blur, stain and noise, and optionally stretched as tissue is between two stainings.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HAEMATOXYLIN, EOSIN = np.array([0.65, 0.70, 0.29]), np.array([0.07, 0.99, 0.11])  # Ruifrok and Johnston 2001
SOURCE_UM_PER_PX = 0.85
UM_PER_PX = (0.9, 3.4)
SIDE_UM = (1200.0, 4000.0)
MAX_SHEAR = 0.03
WARP_SCALE_UM = 300.0  # standard deviation of the Gaussian that smooths a random stretch
WARP_STEP_UM = 50.0


class Truth:
    """The folder: stains at reduced resolution, positions in um, the DAPI image."""

    def __init__(self, folder: Path) -> None:
        from sge2hist.data.slides.channels import ALL
        from sge2hist.data.slides.slide_image import SlideImage
        from sge2hist.readers.tables import read_parquet

        columns = read_parquet(folder / "cells.parquet", ["cell_id", "x_centroid", "y_centroid"])
        self.xy_um = np.stack([columns["x_centroid"], columns["y_centroid"]], axis=1)
        self.pixel_um = json.loads((folder / "experiment.xenium").read_text())["pixel_size"]
        self.dapi = SlideImage.open(folder / "morphology_focus" / "morphology_focus_0000.ome.tif", channels=ALL)
        light = self.dapi.as_array(self.pixel_um, SOURCE_UM_PER_PX).astype(np.float32)
        nuclei = light[..., 0] / 60
        rest = light[..., 1:] @ np.array([0.35 / 150, 0.6 / 195, 0.3 / 150], np.float32)
        self.stains = [np.clip(stain, 0, 2.5) for stain in (nuclei, rest)]
        self.size_um = np.array([self.dapi.width_px, self.dapi.height_px]) * self.pixel_um


@dataclass(frozen=True)
class VirtualImage:
    """An image and where it shows what."""

    pixels_HWC: np.ndarray  # uint8
    matrix: np.ndarray  # float64 [3, 3]: um -> px, without the stretch
    um_per_px: float
    stretch: Callable[[np.ndarray], np.ndarray]  # um [N, 2] -> um [N, 2]: where the tissue lies after stretching

    def place(self, xy_um: np.ndarray) -> np.ndarray:
        """Positions on the image, px [N, 2]."""
        return self.stretch(xy_um) @ self.matrix[:2, :2].T + self.matrix[:2, 2]


def virtual_image(
    truth: Truth,
    seed: int,
    *,
    size_um: tuple[float, float] | None = None,
    centre_um: Any = None,
    warp_um: float = 0.0,
) -> VirtualImage:
    """An image by its seed; `warp_um` is the root mean square of a smooth random stretch."""
    from scipy.ndimage import gaussian_filter, map_coordinates

    rng = np.random.default_rng(seed)
    um_per_px = float(np.exp(rng.uniform(*np.log(UM_PER_PX))))
    size = np.array(size_um or rng.uniform(*SIDE_UM, 2))
    centre = rng.uniform(0.3, 0.7, 2) * truth.size_um if centre_um is None else np.array(centre_um)
    angle, mirror = rng.uniform(0, 2 * np.pi), rng.choice([-1.0, 1.0])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.diag([mirror, 1])
    linear = turn @ (np.eye(2) + rng.uniform(-MAX_SHEAR, MAX_SHEAR, (2, 2))) / um_per_px
    width, height = (size / um_per_px).astype(int)
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = linear, np.array([width, height]) / 2 - linear @ centre
    ratio, blur_um = um_per_px / SOURCE_UM_PER_PX, rng.uniform(0, 1.5)
    shift = _random_shift(truth, seed, warp_um)
    y, x = np.mgrid[0:height, 0:width] + 0.5
    back = np.linalg.inv(matrix)
    at_um = np.stack([x, y], axis=-1) @ back[:2, :2].T + back[:2, 2]
    index = ((at_um + shift(at_um)) / SOURCE_UM_PER_PX - 0.5)[..., ::-1].transpose(2, 0, 1)
    amounts = []
    for stain in truth.stains:
        smooth = gaussian_filter(stain, np.hypot(0.45 * max(ratio, 1), blur_um / SOURCE_UM_PER_PX), truncate=3)
        amounts.append(map_coordinates(smooth, index, order=1, mode="constant"))
    colours = [
        vector * rng.uniform(0.8, 1.2, 3) * strength
        for vector, strength in ((HAEMATOXYLIN, rng.uniform(0.6, 1.5)), (EOSIN, rng.uniform(0.3, 0.9)))
    ]
    density = sum(amount[..., None] * colour for amount, colour in zip(amounts, colours, strict=True))
    light = 255 * np.exp(-density) + rng.normal(0, 3, (height, width, 1))

    def stretch(xy_um: np.ndarray) -> np.ndarray:
        place = xy_um
        for _ in range(4):  # the pixel at u shows the tissue of u + shift(u)
            place = xy_um - shift(place)
        return place

    return VirtualImage(light.clip(0, 255).astype(np.uint8), matrix, um_per_px, stretch)


def _random_shift(truth: Truth, seed: int, rms_um: float) -> Callable[[np.ndarray], np.ndarray]:
    """A smooth random displacement field over the section, um [..., 2] -> um [..., 2]."""
    from scipy.ndimage import gaussian_filter, map_coordinates

    if rms_um == 0:
        return np.zeros_like
    rng = np.random.default_rng([seed, 1])
    width, height = (int(side / WARP_STEP_UM) + 2 for side in truth.size_um)
    fields = [gaussian_filter(rng.normal(size=(height, width)), WARP_SCALE_UM / WARP_STEP_UM) for _ in range(2)]
    scale = rms_um / np.sqrt(sum(float((field**2).mean()) for field in fields))

    def shift(xy_um: np.ndarray) -> np.ndarray:
        index = np.moveaxis(xy_um[..., ::-1] / WARP_STEP_UM, -1, 0)
        return scale * np.stack([map_coordinates(f, index, order=3, mode="nearest") for f in fields], axis=-1)

    return shift


def attempt(
    pixels: np.ndarray, um_per_px: float, cells: Any, *, n_cells: int, stated: bool
) -> tuple[Any, str, float, float]:
    """The registration or None, the reason of a refusal, seconds of processor and of the clock."""
    from sge2hist.data.errors import InputError
    from sge2hist.data.slides.slide_image import SlideImage
    from sge2hist.pairing.alignment.automatic import register
    from sge2hist.pairing.alignment.nuclear_map import ImageNuclei

    image = ImageNuclei(SlideImage.from_array(pixels, um_per_px), um_per_px)
    cpu, wall = time.process_time(), time.perf_counter()
    found, reason = None, ""
    try:
        found = register(cells, image, n_cells=n_cells, scale_is_stated=stated, where="benchmark")
    except InputError as error:
        reason = error.found
    return found, reason, time.process_time() - cpu, time.perf_counter() - wall


def errors_um(matrix: np.ndarray, image: VirtualImage, truth: Truth) -> Any:
    """How far a map (um -> px) puts the cells that lie on the image from where they are, in um, and their number."""
    where, there = truth.xy_um @ matrix[:2, :2].T + matrix[:2, 2], image.place(truth.xy_um)
    inside = ((there >= 0) & (there < image.pixels_HWC.shape[1::-1])).all(axis=1)
    return np.linalg.norm(where - there, axis=1)[inside] * image.um_per_px, int(inside.sum())


def records(path: Path) -> list[dict[str, Any]]:
    """What earlier runs wrote; none where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def save(record: dict[str, Any], output: Path) -> None:
    """Append a record, and print it without its evidence."""
    with open(output, "a") as file:
        file.write(json.dumps(record) + "\n")
    print(json.dumps({key: value for key, value in record.items() if key != "evidence"}), flush=True)
