"""Features and latents in the plane, by UMAP (McInnes et al. 2018). Shape letters: N cells, D dims."""

from __future__ import annotations

import warnings

import numpy as np

from sge2hist.evaluation.features.descriptors import ImageDescriptors
from sge2hist.evaluation.image_sets import ImageSet
from sge2hist.evaluation.reference import Reference

MAX_POINTS = 1200


def plane(points_ND: np.ndarray, seed: int) -> np.ndarray:
    """Return the UMAP of standardised points, float64 [N, 2]."""
    with warnings.catch_warnings():
        # numba and umap warn at import and about the fixed seed; neither changes the picture.
        warnings.simplefilter("ignore")
        from umap import UMAP

        scaled = (points_ND - points_ND.mean(axis=0)) / (points_ND.std(axis=0) + 1e-6)
        umap = UMAP(n_neighbors=min(15, len(scaled) - 1), random_state=seed, n_jobs=1)
        return np.asarray(umap.fit_transform(scaled), np.float64)


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
