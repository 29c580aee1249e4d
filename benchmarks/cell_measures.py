"""Measures of single cells in patches of fluorescence: what real and generated images show at the place of a known cell.

The same measures read real and generated images, with thresholds fitted on real ones, so that their own errors are on both sides.

Shape letters: B patches of P x P px, C channels, N cells of all patches together, F features, L nuclei.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from scipy.spatial import KDTree
from skimage.draw import polygon as polygon_pixels
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.measure import regionprops_table
from skimage.segmentation import relabel_sequential, watershed

NUCLEAR_RADIUS_UM = 2.0  # of the smoothing; chosen on training patches of a pancreas
MATCH_UM = 4.0  # a nucleus so near to a placed cell is its own
MIN_NUCLEUS_UM2 = 6.0
SHAPES = ("area", "eccentricity", "intensity", "texture")


@dataclass(frozen=True, kw_only=True)
class PatchCells:
    """Cells whose centre lies inside patches, away from their edge."""

    patch_N: np.ndarray  # int64, rising
    xy_px_N2: np.ndarray  # from the patch's top left corner
    row_N: np.ndarray  # rows in the dataset
    outline_px_NV2: np.ndarray | None  # vertices; NaN where unknown


def label_image(cells: PatchCells, patch: int, side_px: int, radius_px: float) -> np.ndarray:
    """Where each cell of a patch lies: number of the cell among those of the patch + 1, int32 [P, P]; discs without outlines."""
    labels = np.zeros((side_px, side_px), np.int32)
    for number, cell in enumerate(np.flatnonzero(cells.patch_N == patch), start=1):
        outline = None if cells.outline_px_NV2 is None else cells.outline_px_NV2[cell]
        if outline is None or not np.isfinite(outline).all():
            angle = np.linspace(0, 2 * np.pi, 16, endpoint=False)
            outline = cells.xy_px_N2[cell] + radius_px * np.stack([np.cos(angle), np.sin(angle)], 1)
        rows, columns = polygon_pixels(outline[:, 1], outline[:, 0], labels.shape)
        labels[rows, columns] = number
    return labels


def stain_means(images: np.ndarray, cells: PatchCells, um_per_px: float) -> np.ndarray:
    """Mean level of each channel inside each cell, float64 [N, C]; NaN for a cell that no pixel shows."""
    found = np.full((len(cells.patch_N), images.shape[3]), np.nan)
    for patch in np.unique(cells.patch_N):
        own = np.flatnonzero(cells.patch_N == patch)
        labels = label_image(cells, patch, images.shape[1], NUCLEAR_RADIUS_UM / um_per_px)
        index = np.arange(1, len(own) + 1)
        size = np.bincount(labels.ravel(), minlength=len(own) + 1)[1:]
        for channel in range(images.shape[3]):
            total = ndimage.sum_labels(images[patch, ..., channel], labels, index)
            found[own, channel] = np.where(size > 0, total / np.maximum(size, 1), np.nan)
    return found


@dataclass(frozen=True, kw_only=True)
class Nuclei:
    """Nuclei of one patch."""

    xy_px_L2: np.ndarray
    shape_L4: np.ndarray  # columns: SHAPES (um2, 0 to 1, grey levels, grey levels)
    angle_L: np.ndarray  # of the long axis, radians, -pi/2 to pi/2
    label_image: np.ndarray  # [P, P], number of the nucleus in these lists + 1; 0: none

    def inside(self, edge_px: float) -> Nuclei:
        """Those whose centre is at least `edge_px` from the edge, with new numbers."""
        side = self.label_image.shape[0]
        return self.some(((self.xy_px_L2 >= edge_px) & (self.xy_px_L2 <= side - edge_px)).all(1))

    def some(self, kept_L: np.ndarray) -> Nuclei:
        """Those of a mask, with new numbers."""
        number = np.concatenate([[0], np.where(kept_L, np.cumsum(kept_L), 0)])
        return Nuclei(
            xy_px_L2=self.xy_px_L2[kept_L],
            shape_L4=self.shape_L4[kept_L],
            angle_L=self.angle_L[kept_L],
            label_image=number[self.label_image],
        )


@dataclass(frozen=True, kw_only=True)
class NucleusFinder:
    """Nuclei as bright blobs of the nuclear stain: peaks of the smoothed stain, each grown over its bright pixels around."""

    um_per_px: float
    threshold: float  # of the smoothed stain, grey levels

    @classmethod
    def fit(cls, images: np.ndarray, um_per_px: float) -> NucleusFinder:
        """The threshold that splits the smoothed nuclear stain (first channel) of real patches in two (Otsu 1979)."""
        return cls(um_per_px=um_per_px, threshold=float(threshold_otsu(_smooth(images[..., 0], um_per_px))))

    def __call__(self, image: np.ndarray) -> Nuclei:
        """Nuclei of a patch, uint8 [P, P, C]."""
        smooth = _smooth(image[None, ..., 0], self.um_per_px)[0]
        peaks = peak_local_max(
            smooth, min_distance=max(1, round(0.75 * NUCLEAR_RADIUS_UM / self.um_per_px)), threshold_abs=self.threshold
        )
        markers = np.zeros(smooth.shape, np.int32)
        markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
        labels = relabel_sequential(watershed(-smooth, markers, mask=smooth > self.threshold))[0]
        names = ("centroid", "area", "eccentricity", "orientation", "image_intensity", "intensity_mean")
        found = regionprops_table(labels, image[..., 0], properties=names)
        texture = [values[values > 0].std() if (values > 0).any() else 0.0 for values in found["image_intensity"]]
        columns = (found["area"] * self.um_per_px**2, found["eccentricity"], found["intensity_mean"], texture)
        shape = np.stack([np.asarray(column, np.float64) for column in columns], 1)
        every = Nuclei(
            xy_px_L2=np.stack([found["centroid-1"], found["centroid-0"]], 1).astype(np.float64),
            shape_L4=shape,
            angle_L=np.asarray(found["orientation"], np.float64),
            label_image=labels,
        )
        return every.some(shape[:, 0] >= MIN_NUCLEUS_UM2)


def _smooth(images_BPP: np.ndarray, um_per_px: float) -> np.ndarray:
    sigma = 0.35 * NUCLEAR_RADIUS_UM / um_per_px
    return ndimage.gaussian_filter(images_BPP.astype(np.float32), (0, sigma, sigma))


def match(first_xy: np.ndarray, second_xy: np.ndarray, limit: float) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of points at most `limit` apart, one to one, of the smallest sum of distances: numbers in the two lists."""
    if not len(first_xy) or not len(second_xy):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    distance = np.linalg.norm(first_xy[:, None] - second_xy[None], axis=2)
    one, other = linear_sum_assignment(np.minimum(distance, 10 * limit))
    near = distance[one, other] <= limit
    return one[near], other[near]


@dataclass(frozen=True, kw_only=True)
class CellNuclei:
    """Nuclei of all patches beside the placed cells."""

    shape_N4: np.ndarray  # of the nucleus of each cell; NaN: none was found at its place
    angle_N: np.ndarray  # of its long axis, radians
    within_N: np.ndarray  # share of its pixels that lie in the cell's own outline
    n_found_B: np.ndarray
    n_matched_B: np.ndarray
    n_cells_B: np.ndarray
    found: list[Nuclei]  # of each patch, away from its edge

    @property
    def f1(self) -> float:
        """Of nuclei found against cells placed."""
        return float(2 * self.n_matched_B.sum() / max(self.n_found_B.sum() + self.n_cells_B.sum(), 1))


def nuclei_of_cells(images: np.ndarray, cells: PatchCells, finder: NucleusFinder, edge_px: float) -> CellNuclei:
    """Find nuclei in every patch and give each to the placed cell at its place; nearer than `edge_px` to the edge none counts."""
    N = len(cells.patch_N)
    shape, angle, within = np.full((N, len(SHAPES)), np.nan), np.full(N, np.nan), np.full(N, np.nan)
    counts, every = np.zeros((3, len(images)), np.int64), []
    limit = MATCH_UM / finder.um_per_px
    for patch, image in enumerate(images):
        own, found = np.flatnonzero(cells.patch_N == patch), finder(image).inside(edge_px)
        one, other = match(cells.xy_px_N2[own], found.xy_px_L2, limit)
        shape[own[one]], angle[own[one]] = found.shape_L4[other], found.angle_L[other]
        places = label_image(cells, patch, image.shape[0], NUCLEAR_RADIUS_UM / finder.um_per_px)
        inside = places[None] == (one + 1)[:, None, None]
        nucleus = found.label_image[None] == (other + 1)[:, None, None]
        within[own[one]] = (inside & nucleus).sum((1, 2)) / np.maximum(nucleus.sum((1, 2)), 1)
        counts[:, patch] = len(found.xy_px_L2), len(one), len(own)
        every.append(found)
    return CellNuclei(
        shape_N4=shape,
        angle_N=angle,
        within_N=within,
        n_found_B=counts[0],
        n_matched_B=counts[1],
        n_cells_B=counts[2],
        found=every,
    )


SIGMAS_PX = (0.7, 1.5, 3.0, 6.0, 12.0)
FEATURES_PER_SIGMA = 5


def columns_up_to(max_sigma: float, *, of: float, n_channels: int) -> np.ndarray:
    """Columns of `cell_features` up to `of` that those up to `max_sigma` have."""
    sigmas = np.array([sigma for sigma in SIGMAS_PX if sigma <= of])
    return np.flatnonzero(np.tile(np.repeat(sigmas <= max_sigma, FEATURES_PER_SIGMA), n_channels))


def cell_features(images: np.ndarray, cells: PatchCells, *, max_sigma: float) -> np.ndarray:
    """What an image shows around each cell: blurred stains, edges and blobs at its centre, and stains on rings; float32 [N, F].

    `max_sigma`, px: of the widest blur. A classifier or regression on them is fitted on real cells.
    """
    sigmas = [sigma for sigma in SIGMAS_PX if sigma <= max_sigma]
    angle = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    ring = np.stack([np.sin(angle), np.cos(angle)], 1)
    parts = []
    for patch in np.unique(cells.patch_N):
        own = np.flatnonzero(cells.patch_N == patch)
        yx = cells.xy_px_N2[own][:, ::-1]
        columns = []
        for channel in range(images.shape[3]):
            plane = images[patch, ..., channel].astype(np.float32) / 255
            blurred = [ndimage.gaussian_filter(plane, sigma) for sigma in sigmas]
            for sigma, low in zip(sigmas, blurred, strict=True):
                edges = ndimage.gaussian_gradient_magnitude(plane, sigma)
                around = np.stack([_at(low, yx + 2 * sigma * offset) for offset in ring], 1)
                spread = np.sqrt(np.maximum(ndimage.gaussian_filter(plane**2, sigma) - low**2, 0))
                columns += [_at(low, yx), _at(edges, yx), _at(spread, yx), around.mean(1), around.std(1)]
        parts.append(np.stack(columns, 1))
    return np.concatenate(parts).astype(np.float32)


def _at(plane: np.ndarray, yx_N2: np.ndarray) -> np.ndarray:
    return ndimage.map_coordinates(plane, yx_N2.T, order=1, mode="nearest")


def spread_patches(
    xy_um_N2: np.ndarray,
    rows: np.ndarray,
    n: int,
    apart_um: float,
    rng: np.random.Generator,
    group_N: np.ndarray | None = None,
) -> np.ndarray:
    """Up to `n` of the rows at random whose square patches of side `apart_um` do not overlap, so that no cell counts twice.

    `group_N` (types of all cells): the groups take turns, so that rare ones are there.
    """
    chosen: list[int] = []
    for row in taking_turns(rng.permutation(rows), group_N):
        if len(chosen) == n:
            break
        gap = np.abs(xy_um_N2[chosen] - xy_um_N2[row]).max(1) if chosen else np.zeros(0)
        if (gap >= apart_um).all():
            chosen.append(int(row))
    return np.sort(np.array(chosen, np.int64))


def taking_turns(rows: np.ndarray, group_N: np.ndarray | None) -> np.ndarray:
    """The rows in an order in which the groups take turns, the order within a group kept."""
    if group_N is None:
        return rows
    turn = np.zeros(len(rows), np.int64)
    for group in np.unique(group_N[rows]):
        own = np.flatnonzero(group_N[rows] == group)
        turn[own] = np.arange(len(own))
    return rows[np.argsort(turn, kind="stable")]


def cells_in_patches(
    xy_um_N2: np.ndarray,
    outline_um_NV2: np.ndarray | None,
    centre_rows: np.ndarray,
    *,
    side_px: int,
    um_per_px: float,
    edge_px: float,
) -> PatchCells:
    """All cells whose centre lies in the patches around some cells, at least `edge_px` from the edge (one slide)."""
    half_um = (side_px / 2 - edge_px) * um_per_px
    near = KDTree(xy_um_N2).query_ball_point(xy_um_N2[centre_rows], half_um, p=np.inf, return_sorted=True)
    patch_N = np.repeat(np.arange(len(centre_rows)), [len(rows) for rows in near])
    row_N = np.concatenate([np.asarray(rows, np.int64) for rows in near])
    xy_px = (xy_um_N2[row_N] - xy_um_N2[centre_rows][patch_N]) / um_per_px + side_px / 2
    outline = None if outline_um_NV2 is None else outline_um_NV2[row_N] / um_per_px + xy_px[:, None]
    return PatchCells(patch_N=patch_N, xy_px_N2=xy_px, row_N=row_N, outline_px_NV2=outline)
