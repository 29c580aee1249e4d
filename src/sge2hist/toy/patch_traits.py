"""Traits measured in a toy patch, and their true values.

The toy's own stain vectors are known, so the stains are unmixed exactly; a nucleus is a connected component of haematoxylin.
The same rule is applied to rendered and to generated patches: its errors (touching nuclei) are the same on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from sge2hist.toy.render import EOSIN, GLASS_RGB, HAEMATOXYLIN

NUCLEUS_DENSITY = 0.34  # optical density of haematoxylin above which a pixel is nucleus
MIN_NUCLEUS_UM2 = 8.0
WHITE_DENSITY = 0.05  # a pixel with less stain than this is lumen, cleft or glass
CENTRE_UM = 20.0  # the middle of a patch, where the cell itself is


@dataclass(frozen=True, kw_only=True)
class PatchTraits:
    """Traits of n patches, float64 [n] each; nan where a patch has no nucleus."""

    nuclei_per_mm2: np.ndarray
    nucleus_area_um2: np.ndarray  # mean over the nuclei of the patch
    nucleus_haematoxylin: np.ndarray  # optical density inside nuclei
    eosin: np.ndarray  # optical density of tissue outside nuclei

    def __len__(self) -> int:
        return len(self.nuclei_per_mm2)


TRAIT_NAMES: tuple[str, ...] = tuple(field.name for field in fields(PatchTraits))


def unmix(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Haematoxylin and eosin of uint8 images [..., 3] by least squares on the toy's own vectors, float32 [...]."""
    density_of_value = -np.log10(np.maximum(np.arange(256, dtype=np.float32), 1.0)[:, None] / GLASS_RGB)
    inverse = np.linalg.pinv(np.stack([HAEMATOXYLIN, EOSIN], axis=1)).astype(np.float32)  # [2, 3]
    haematoxylin, eosin = 0.0, 0.0
    for channel in range(3):
        density = density_of_value[:, channel].astype(np.float32)[images[..., channel]]
        haematoxylin = haematoxylin + inverse[0, channel] * density
        eosin = eosin + inverse[1, channel] * density
    return np.asarray(haematoxylin), np.asarray(eosin)


def measure_patches(images: np.ndarray, um_per_px: float) -> PatchTraits:
    """Measure patches by threshold and connected components.

    Parameters: `images` uint8 [n, height, width, 3], `um_per_px` of those images.
    """
    haematoxylin, eosin = unmix(images)
    sigma_px = 0.5 / um_per_px
    nucleus = ndimage.gaussian_filter(haematoxylin, (0.0, sigma_px, sigma_px)) > NUCLEUS_DENSITY
    in_plane = np.zeros((3, 3, 3), dtype=bool)
    in_plane[1] = True  # components of different patches stay separate
    components, _ = ndimage.label(nucleus, structure=in_plane)
    area_um2 = np.bincount(components.ravel()) * um_per_px**2
    is_nucleus = area_um2 >= MIN_NUCLEUS_UM2
    is_nucleus[0] = False
    patch_of = np.zeros(len(area_um2), dtype=np.int64)
    where = np.nonzero(components)
    patch_of[components[where]] = where[0]
    n_patches, pixels = images.shape[0], (1, 2)
    count = np.bincount(patch_of[is_nucleus], minlength=n_patches)
    total_um2 = np.bincount(patch_of[is_nucleus], weights=area_um2[is_nucleus], minlength=n_patches)
    patch_mm2 = images.shape[1] * images.shape[2] * (um_per_px / 1000.0) ** 2
    tissue = ~nucleus & (haematoxylin + eosin > WHITE_DENSITY)
    return PatchTraits(
        nuclei_per_mm2=count / patch_mm2,
        nucleus_area_um2=_ratio(total_um2, count),
        nucleus_haematoxylin=_ratio((haematoxylin * nucleus).sum(axis=pixels), nucleus.sum(axis=pixels)),
        eosin=_ratio((eosin * tissue).sum(axis=pixels), tissue.sum(axis=pixels)),
    )


def true_patches(
    cells_xy_um: np.ndarray, cell_traits: dict[str, np.ndarray], centre_xy_um: np.ndarray, side_um: float
) -> PatchTraits:
    """True traits of square patches.

    Parameters
    ----------
    cells_xy_um, cell_traits
        Positions [m, 2] and columns `nucleus_area_um2`, `nucleus_haematoxylin`, `cytoplasm_eosin` [m] of
        `truth/cells.csv`.
    centre_xy_um, side_um
        Centres [n, 2] and side of the patches.
    """
    members = cKDTree(cells_xy_um).query_ball_point(centre_xy_um, side_um / 2.0, p=np.inf)
    count = np.array([len(member) for member in members])
    flat = np.concatenate([np.asarray(member, dtype=np.int64) for member in members]) if len(members) else count
    patch_of = np.repeat(np.arange(len(members)), count)

    def mean_of(name: str) -> np.ndarray:
        return _ratio(np.bincount(patch_of, weights=cell_traits[name][flat], minlength=len(members)), count)

    return PatchTraits(
        nuclei_per_mm2=count / (side_um / 1000.0) ** 2,
        nucleus_area_um2=mean_of("nucleus_area_um2"),
        nucleus_haematoxylin=mean_of("nucleus_haematoxylin"),
        eosin=mean_of("cytoplasm_eosin"),
    )


def patch_features(images: np.ndarray, um_per_px: float) -> np.ndarray:
    """Features [n, F] that predict the type of a patch: stains and whiteness of its middle and of all of it.

    Mean, spread and fine texture of both stains, share of nucleus and of white, in the central `CENTRE_UM` and in the
    whole patch; alignment of the stains' gradients (fibres against rings and sheets).
    """
    haematoxylin, eosin = unmix(images)
    extent_px = max(1, round(CENTRE_UM / um_per_px / 2.0))
    middle = slice(max(0, images.shape[1] // 2 - extent_px), images.shape[1] // 2 + extent_px)
    columns = []
    for rows in (middle, slice(None)):
        for stain in (haematoxylin[:, rows, rows], eosin[:, rows, rows]):
            steps = np.abs(np.diff(stain, axis=1)).mean(axis=(1, 2)), np.abs(np.diff(stain, axis=2)).mean(axis=(1, 2))
            columns += [stain.mean(axis=(1, 2)), stain.std(axis=(1, 2)), steps[0] + steps[1]]
        dark, pale = haematoxylin[:, rows, rows], (haematoxylin + eosin)[:, rows, rows]
        columns += [(dark > NUCLEUS_DENSITY).mean(axis=(1, 2)), (dark > 0.75).mean(axis=(1, 2))]
        columns += [(pale < WHITE_DENSITY).mean(axis=(1, 2))]
    down, right = np.gradient(ndimage.gaussian_filter(eosin, (0.0, 0.7, 0.7)), axis=(1, 2))
    energy = (down**2 + right**2).mean(axis=(1, 2)) + 1e-12
    twist = np.hypot((down**2 - right**2).mean(axis=(1, 2)), 2.0 * (down * right).mean(axis=(1, 2)))
    return np.stack([*columns, twist / energy], axis=1).astype(np.float64)


def _ratio(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float64)
