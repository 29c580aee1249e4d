"""Render the toy tissue as a fluorescence image: the same cells as in the H&E, one channel per stain.

    DAPI        nuclei: their DNA, proportional to the haematoxylin of the H&E, with a halo of out-of-focus light
    Membrane    borders between cells: strong in epithelium and glands, weak in crowds of immune cells
    Cytoplasm   proportional to eosin, gradient included, outside nuclei

Numbers are 16 bits of a camera: an offset, light that nothing absorbs, and noise that grows with it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from scipy import ndimage

from sge2hist.toy.architecture import Region
from sge2hist.toy.noise import Field
from sge2hist.toy.nuclei import paint_nuclei
from sge2hist.toy.render import nearest_cell
from sge2hist.toy.tissue import ToyTissue

MARKERS = ("DAPI", "Membrane", "Cytoplasm")
GAIN = {"DAPI": 5200.0, "Membrane": 3500.0, "Cytoplasm": 6000.0}  # camera counts per unit of stain
OFFSET, READ_NOISE = 180.0, 9.0  # camera counts
MEMBRANE = {Region.EPITHELIUM: 1.0, Region.GLAND_WALL: 0.8, Region.AGGREGATE: 0.35, Region.MUSCLE: 0.12}
GLOW, GLOW_UM = 0.12, 5.0  # share of the out-of-focus light, and its standard deviation


def fluorescence_image(tissue: ToyTissue, markers: tuple[str, ...] = MARKERS) -> np.ndarray:
    """Camera counts uint16 [height, width, C] of the requested channels, on the pixels of `tissue.image`.

    Raises
    ------
    ValueError
        If a marker is not one of `MARKERS`.
    """
    unknown = [name for name in markers if name not in MARKERS]
    if unknown:
        raise ValueError(f"markers {unknown}: the toy has {', '.join(MARKERS)}")
    # one stream per channel: a channel is the same whichever others are requested
    streams = dict(zip(MARKERS, np.random.default_rng([tissue.seed, 16]).spawn(len(MARKERS)), strict=True))
    nuclei = paint_nuclei(tissue.cells, tissue.architecture.region.shape, tissue.config.um_per_px, streams["DAPI"])
    painted = {
        "DAPI": lambda: nuclei.haematoxylin,
        "Membrane": lambda: _membranes(tissue),
        "Cytoplasm": lambda: tissue.stains.eosin * (1 - np.float32(0.8) * nuclei.coverage),
    }
    return np.stack(
        [_camera(painted[name](), GAIN[name], tissue.config.um_per_px, streams[name]) for name in markers], -1
    )


def write_fluorescence(tissue: ToyTissue, path: Path, markers: tuple[str, ...] = MARKERS) -> None:
    """Write the image as a 16-bit OME-TIFF, tiled, one page per channel, with names and pixel size."""
    um_per_px = tissue.config.um_per_px
    tifffile.imwrite(
        path,
        np.moveaxis(fluorescence_image(tissue, markers), -1, 0),
        ome=True,
        photometric="minisblack",
        tile=(256, 256),
        compression="zlib",
        compressionargs={"level": 1},
        metadata={
            "axes": "CYX",
            "Channel": {"Name": list(markers)},
            "Description": "Simulated fluorescence (toy), not a tissue",
            "PhysicalSizeX": um_per_px,
            "PhysicalSizeXUnit": "µm",
            "PhysicalSizeY": um_per_px,
            "PhysicalSizeYUnit": "µm",
        },
    )


def _membranes(tissue: ToyTissue) -> Field:
    """Borders of the cells' territories, about 1.5 um wide, as bright as the tissue that they lie in."""
    _, border = nearest_cell(tissue.cells, tissue.architecture)
    brightness = np.zeros(len(Region), np.float32)
    for region, value in MEMBRANE.items():
        brightness[region] = value
    line = ndimage.gaussian_filter(border.astype(np.float32), 0.6 / tissue.config.um_per_px)
    return line * brightness[tissue.architecture.region]


def _camera(stain: Field, gain: float, um_per_px: float, rng: np.random.Generator) -> np.ndarray:
    sharp = ndimage.gaussian_filter(stain, 0.45 / um_per_px)
    glow = ndimage.gaussian_filter(stain, GLOW_UM / um_per_px, truncate=3.0)
    counts = gain * ((1 - GLOW) * sharp + GLOW * glow)
    noise = rng.standard_normal(counts.shape, dtype=np.float32)
    counts = OFFSET + counts + noise * np.sqrt(READ_NOISE**2 + 2.0 * counts)
    return np.clip(np.rint(counts), 0, 65535).astype(np.uint16)
