"""Seamless? Gradient energy across the borders of tiles over gradient energy elsewhere, on a generated slide.

A slide generated in tiles shows its grid when neighbouring tiles do not agree: the squared difference between the two
pixels on either side of a border is
then larger than between any other two neighbours. 1.0 is perfect; below 1 means borders smoother than the tissue
(blended too much).

Shape letters: H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from sge2hist.evaluation.resampling import Estimate


def border_energies(
    image_HWC: np.ndarray, tile_px: int, origin_xy_px: tuple[int, int] = (0, 0), grid_px: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean squared differences of neighbouring pixels: on each border line, and on each line elsewhere.

    Parameters
    ----------
    image_HWC
        uint8 or float [H, W, 3].
    tile_px
        Distance of the borders (the stride of the tiles, if they overlap).
    origin_xy_px
        A corner of the grid.
    grid_px
        Distance of the lines elsewhere, which are counted from the borders: every line by default. A network that halves its
        image leaves lines of its own, with or without borders; a comparison with those lines only separates the two.
    """
    if tile_px < 2:
        raise ValueError(f"tiles must be at least 2 px wide, got {tile_px}")
    if tile_px % grid_px:
        raise ValueError(f"tiles of {tile_px} px are no multiple of {grid_px} px")
    values = image_HWC.astype(np.float64)
    borders, elsewhere = [], []
    for axis, origin in ((1, origin_xy_px[0]), (0, origin_xy_px[1])):
        line_energy = (np.diff(values, axis=axis) ** 2).mean(axis=(1 - axis, 2))
        # Difference number i lies between pixels i and i + 1: a border runs there when i + 1 is a multiple of the tile.
        line = (np.arange(len(line_energy)) + 1 - origin) % tile_px
        borders.append(line_energy[line == 0])
        elsewhere.append(line_energy[(line != 0) & (line % grid_px == 0)])
    return np.concatenate(borders), np.concatenate(elsewhere)


def seam_score(
    images: Iterable[np.ndarray],
    tile_px: int,
    origin_xy_px: tuple[int, int] = (0, 0),
    grid_px: int = 1,
    *,
    n_bootstrap: int = 200,
    seed: int = 0,
) -> Estimate:
    """Return the ratio of energies over regions of a slide that share the grid, with a bootstrap over border lines.

    The parameters are those of :func:`border_energies`.

    Raises `ValueError` when no border crosses the images.
    """
    found = [border_energies(image, tile_px, origin_xy_px, grid_px) for image in images]
    borders = np.concatenate([border for border, _ in found])
    elsewhere = np.concatenate([rest for _, rest in found])
    if len(borders) == 0 or elsewhere.sum() == 0:
        raise ValueError(f"no border of {tile_px} px tiles, or nothing but flat colour, in the images")
    rng = np.random.default_rng(seed)
    replicates = [
        rng.choice(borders, len(borders)).mean() / rng.choice(elsewhere, len(elsewhere)).mean()
        for _ in range(n_bootstrap)
    ]
    return Estimate(
        value=float(borders.mean() / elsewhere.mean()),
        replicates=np.array(replicates),
        method="bootstrap",
        n=len(borders),
        unit="border lines",
    )
