"""What the page shows besides numbers: galleries of cells, maps over the slide, and the features in two dimensions.

Cells of the galleries are chosen by rule, never by eye: the best, middle and worst ranks of the first set's own
retrieval, and cells sampled with the
evaluation's seed. All sets show the same cells.

Shape letters: N evaluated cells.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from sge2hist.data.generated import GeneratedSlide
from sge2hist.data.slides.channels import Channels, composite, is_rgb
from sge2hist.evaluation.features.descriptors import ImageDescriptors
from sge2hist.evaluation.images import ImageSet
from sge2hist.evaluation.metrics.prdc import squared_distances
from sge2hist.evaluation.metrics.slide_maps import SlideScores
from sge2hist.evaluation.reference import Reference
from sge2hist.evaluation.scores import SetScores

MAX_MAP_CELLS = 6000
MAPPED = ("haematoxylin_mean", "lumen_fraction")  # of H&E
MAX_MAPPED = 3  # channels of fluorescence
OVERVIEW_PX = 700
MAX_POINTS = 1200  # of each source in a scatter


@dataclass(frozen=True, kw_only=True)
class GalleryCell:
    """One column of a gallery: the cell's name, type and seed, its rank, and its images by row label."""

    cell_id: str
    cell_type: str
    seed: int
    rank_share: float
    images: dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class SlideMap:
    """Values of one statistic at the evaluated cells of one slide: real, and by set."""

    slide: str
    statistic: str
    centre_um: np.ndarray
    real: np.ndarray
    sets: dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Everything that the page shows besides numbers.

    Attributes:
        galleries: title -> cells.
        maps: one per slide and statistic.
        projection: source name -> float [n, 2], features of real and generated patches in the plane; {} when not
            asked for.
        type_plane: cell type -> float [n, 2], z1 of the first set that stores it; {} when none does.
        slides: set -> statistic -> (real, generated) maps [R, C] of a whole slide; nan where a window is not scored.
        overviews: set -> (real, generated) uint8 [h, w, 3], a whole slide made small.
    """

    galleries: dict[str, list[GalleryCell]]
    maps: list[SlideMap]
    projection: dict[str, np.ndarray]
    type_plane: dict[str, np.ndarray]
    slides: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]
    overviews: dict[str, tuple[np.ndarray, np.ndarray]]


def gather_pictures(
    reference: Reference,
    sets: list[ImageSet],
    shuffled: dict[str, ImageSet],
    descriptors: dict[str, list[ImageDescriptors]],
    scores_of: dict[str, SetScores],
    slides: dict[str, SlideScores],
) -> Pictures:
    """Return the pictures of a report."""
    first = {name: samples[0] for name, samples in descriptors.items()}
    chosen = gallery_cells(reference, scores_of[sets[0].name].rank_share_N)
    return Pictures(
        galleries={
            title: [shown_cell(reference, sets, shuffled, cell, scores_of) for cell in cells]
            for title, cells in chosen.items()
        },
        maps=slide_maps(reference, first),
        projection=feature_plane(reference, first) if reference.config.umap else {},
        type_plane=next(filter(None, (type_plane(reference, s) for s in sets)), {}) if reference.config.umap else {},
        slides={name: scored_maps(found) for name, found in slides.items()},
        overviews={images.name: overview(reference, images) for images in sets if images.is_slide},
    )


def gallery_cells(reference: Reference, rank_share_N: np.ndarray) -> dict[str, np.ndarray]:
    """Return the positions of the cells in each gallery."""
    count = min(reference.config.gallery, len(rank_share_N) // 4)
    rng = np.random.default_rng([reference.config.seed, 1])
    galleries = {
        f"Sampled at random (seed {reference.config.seed})": np.sort(
            rng.choice(len(rank_share_N), count, replace=False)
        )
    }
    if np.isfinite(rank_share_N).all():
        # Ties are common among the best: they are broken at random, not by place in the file.
        order = np.lexsort((rng.random(len(rank_share_N)), rank_share_N))
        middle = len(order) // 2 - count // 2
        galleries |= {
            "Best": order[:count],
            "Median": order[middle : middle + count],
            "Worst": order[len(order) - count :],
        }
    return galleries


def shown_cell(
    reference: Reference,
    sets: list[ImageSet],
    shuffled: dict[str, ImageSet],
    cell: int,
    scores_of: dict[str, SetScores],
) -> GalleryCell:
    """Return one gallery column: real, each set, and the first set's image for the wrong cell."""
    cells, data = reference.cells, reference.data
    row, first = int(cells.rows_N[cell]), sets[0]
    images = {"real": reference.patches(np.array([row]))[0]}
    for image_set in sets:
        label = "generated" if len(sets) == 1 else image_set.name
        images[label] = image_set.images(cells.images[image_set.name][0][[cell]])[0]
    if first.name in shuffled:
        wrong = shuffled[first.name]
        images["shuffled"] = wrong.images(cells.images[wrong.name][0][[cell]])[0]
    elif cells.own_cells:
        images["shuffled"] = first.images(cells.images[first.name][0][[cells.shuffle_N[cell]]])[0]
    type_index = data.type_of_cell[row]
    return GalleryCell(
        cell_id=str(data.obs.index[row]) if cells.own_cells else "",
        cell_type=data.types[type_index] if type_index >= 0 else "unknown",
        seed=int(first.seed_M[cells.images[first.name][0][cell]]),
        rank_share=float(scores_of[first.name].rank_share_N[cell]),
        images={label: composite(image, data.channels) for label, image in images.items()},
    )


def slide_maps(reference: Reference, sets: dict[str, ImageDescriptors]) -> list[SlideMap]:
    """Return maps of the main statistics for the slide with the most evaluated cells, at most 6,000 cells."""
    if not reference.cells.own_cells:
        return []
    data, rows = reference.data, reference.cells.rows_N
    slides, counts = np.unique(data.slide_of_cell[rows], return_counts=True)
    slide = slides[np.argmax(counts)]
    here = np.flatnonzero(data.slide_of_cell[rows] == slide)
    here = here[np.unique(np.linspace(0, len(here) - 1, min(len(here), MAX_MAP_CELLS)).astype(np.int64))]
    return [
        SlideMap(
            slide=data.slide_ids[slide],
            statistic=statistic,
            centre_um=data.centre_xy_px[rows[here]] * data.um_per_px,
            real=reference.real.morphometry[statistic][here],
            sets={name: descriptors.morphometry[statistic][here] for name, descriptors in sets.items()},
        )
        for statistic in mapped_statistics(data.channels)
    ]


def mapped_statistics(channels: Channels) -> tuple[str, ...]:
    """Return the statistics that are shown as maps."""
    return MAPPED if is_rgb(channels) else tuple(f"{name} light mean" for name in channels[:MAX_MAPPED])


def plane(points_ND: np.ndarray, seed: int) -> np.ndarray:
    """Return the UMAP of standardised points, float64 [N, 2]."""
    with warnings.catch_warnings():
        # numba and umap warn at import and about the fixed seed; neither changes the picture.
        warnings.simplefilter("ignore")
        from umap import UMAP

        scaled = (points_ND - points_ND.mean(axis=0)) / (points_ND.std(axis=0) + 1e-6)
        k = min(15, len(scaled) - 1)
        # umap computes all distances of few points through a slow Python callback: give it the neighbours.
        umap = UMAP(n_neighbors=k, random_state=seed, n_jobs=1, precomputed_knn=(*nearest(scaled, k), None))
        return np.asarray(umap.fit_transform(scaled), np.float64)


def nearest(points_ND: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k nearest points of each point, itself first, and their distances: int32 and float32 [N, k]."""
    squared = squared_distances(points_ND, points_ND)
    np.fill_diagonal(squared, -1.0)
    found = np.argpartition(squared, k - 1, axis=1)[:, :k]
    order = np.argsort(np.take_along_axis(squared, found, axis=1), axis=1, kind="stable")
    found = np.take_along_axis(found, order, axis=1)
    distance = np.sqrt(np.maximum(np.take_along_axis(squared, found, axis=1), 0))
    return found.astype(np.int32), distance.astype(np.float32)


def feature_plane(reference: Reference, sets: dict[str, ImageDescriptors]) -> dict[str, np.ndarray]:
    """Return features of real and generated patches in one plane, float64 [n, 2] by source."""
    n = len(reference.real)
    rng = np.random.default_rng([reference.config.seed, 2])
    chosen = np.sort(rng.choice(n, min(n, MAX_POINTS), replace=False))
    sources = {"real": reference.real, **sets}
    points = plane(np.concatenate([d.features_ND[chosen] for d in sources.values()]), reference.config.seed)
    return dict(zip(sources, np.split(points, len(sources)), strict=True))


def type_plane(reference: Reference, images: ImageSet) -> dict[str, np.ndarray]:
    """Return z1 of the evaluated cells of known type in the plane, float64 [n, 2] by type; {} if the set stores no z1."""
    cells, data = reference.cells, reference.data
    if images.z1 is None or not cells.own_cells:
        return {}
    type_N = data.type_of_cell[cells.rows_N]
    known = np.flatnonzero(type_N >= 0)
    rng = np.random.default_rng([reference.config.seed, 3])
    chosen = np.sort(rng.choice(known, min(len(known), 2 * MAX_POINTS), replace=False))
    if len(chosen) < 50:
        return {}
    points = plane(images.z1[cells.images[images.name][0][chosen]].astype(np.float64), reference.config.seed)
    types = type_N[chosen]
    largest = sorted(np.unique(types), key=lambda t: -int((types == t).sum()))
    return {data.types[t]: points[types == t] for t in largest}


def scored_maps(found: SlideScores) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the maps of a whole slide where they were scored."""
    return {
        name: (np.where(found.counts_RC, found.real[name], np.nan), np.where(found.counts_RC, generated, np.nan))
        for name, generated in found.generated.items()
    }


def overview(reference: Reference, images: ImageSet) -> tuple[np.ndarray, np.ndarray]:
    """Return the real region and the generated slide, as small as the page shows them."""
    data, slide = reference.data, GeneratedSlide.open(images.path)
    generated, _ = slide.image.thumbnail(OVERVIEW_PX)
    x, y, width, height = (value / data.um_per_px for value in slide.region_um)
    real = data.slides[slide.slide_number(data)]
    real_region = real.read_window(x, y, width, height, generated.shape[1], generated.shape[0])
    return composite(real_region, data.channels), composite(generated, data.channels)
