"""The real side of an evaluation: descriptors of real patches, reference models fitted on training cells, and the scores of
real patches.

Shape letters: N evaluated cells, D features, G genes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.paired import PairedDataset
from sge2hist.evaluation.cells import Cells
from sge2hist.evaluation.config import EvaluateConfig
from sge2hist.evaluation.features.descriptors import (
    THUMBNAIL_PX,
    ImageDescriptors,
    Morphometry,
    Progress,
    describe_images,
)
from sge2hist.evaluation.features.extractor import Extractor
from sge2hist.evaluation.features.row_store import RowStore, store_beside
from sge2hist.evaluation.images import ImageSet
from sge2hist.evaluation.metrics import expression_recovery as recovery
from sge2hist.evaluation.metrics import type_agreement as agreement
from sge2hist.evaluation.metrics.morphometry import fit_morphometry
from sge2hist.evaluation.resampling import Estimate, Resampling, make_resampling, spatial_blocks

PATCHES_FOR_SEGMENTER = 500
MIN_COMPARISON = 20


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Size of the compared patches."""

    patch_um: float
    patch_px: int

    @classmethod
    def shared_by(cls, sets: list[ImageSet], data: PairedDataset) -> Geometry:
        """Return the size of the patches of all sets; raises `InputError` when they differ."""
        sides = {
            images.name: (float(images.manifest.get("patch_um", data.patch_um)), images.image_px) for images in sets
        }
        if len(set(sides.values())) > 1:
            listing = ", ".join(f"{name}: {um:g} um in {px} px" for name, (um, px) in sides.items())
            raise InputError(
                found=listing, expected="patches of one size", repair="evaluate sets of different patch size one by one"
            )
        patch_um, patch_px = next(iter(sides.values()))
        return cls(patch_um=patch_um, patch_px=patch_px)

    @property
    def um_per_px(self) -> float:
        """Resolution of the compared patches."""
        return self.patch_um / self.patch_px


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Everything that generated images are compared with.

    Attributes:
        morphometry: statistics of an image: stain, lumen and nuclei of H&E, light of each channel of fluorescence.
        real: the evaluated cells' own patches.
        comparison: real patches from other places, K of them; the k-th stands opposite evaluated cell `matched[k]`.
        resampling: weights shared by all metrics; comparison_resampling: the same for the K matched cells, None when
            they are fewer than 20.
        types_N: type index of each evaluated cell, -1 = unknown.
        classifier: predicts types from features; None when the data has fewer than two types.
        head: predicts expression from features; measured_NG: measured expression of its best genes.
    """

    data: PairedDataset
    cells: Cells
    config: EvaluateConfig
    geometry: Geometry
    extractor: Extractor
    morphometry: Morphometry
    block_N: np.ndarray
    resampling: Resampling
    comparison_resampling: Resampling | None
    real: ImageDescriptors
    comparison: ImageDescriptors
    types_N: np.ndarray
    classifier: agreement.TypeClassifier | None
    head: recovery.ExpressionHead
    measured_NG: np.ndarray

    @property
    def matched(self) -> np.ndarray:
        """Positions among the evaluated cells that have a comparison patch, int64 [K]."""
        return self.cells.comparison.matched_K

    def patches(self, rows: np.ndarray) -> np.ndarray:
        """Return real patches at the compared size, uint8 [n, P, P, C]."""
        return self.data.patches(rows, side_um=self.geometry.patch_um, out_px=self.geometry.patch_px)

    def describe(
        self, images: ImageSet, indices: np.ndarray, progress: Progress, *, with_thumbnails: bool = True
    ) -> ImageDescriptors:
        """Return the descriptors of the images of a set that belong to the evaluated cells."""
        return describe_images(
            images.images,
            indices,
            self.extractor,
            channels=self.data.channels,
            morphometry=self.morphometry,
            with_thumbnails=with_thumbnails,
            progress=progress,
            stage=images.name,
        )

    @cached_property
    def real_f1(self) -> Estimate:
        """Macro-F1 of the classifier on the cells' own real patches."""
        return agreement.f1_estimate(self.types_N, self.predict_types(self.real.features_ND), self.resampling)

    @cached_property
    def chance_f1(self) -> Estimate:
        """Macro-F1 of the same predictions given to other cells."""
        predicted = self.predict_types(self.real.features_ND)[self.cells.shuffle_N]
        return agreement.f1_estimate(self.types_N, predicted, self.resampling)

    @cached_property
    def real_recovery(self) -> dict[int, Estimate]:
        """Expression recovery from the cells' own real patches."""
        return self.recovered(self.real.features_ND)

    def predict_types(self, features_ND: np.ndarray) -> np.ndarray:
        """Return the type that the classifier predicts for each image."""
        if self.classifier is None:
            raise ValueError("no classifier: fewer than two cell types")
        return self.classifier.predict(features_ND)

    def recovered(self, features_ND: np.ndarray) -> dict[int, Estimate]:
        """Return the expression recovery of one image per evaluated cell."""
        return recovery.recovery_estimates(
            self.head.predict(features_ND), self.measured_NG, np.arange(self.measured_NG.shape[1]), self.resampling
        )


def build_reference(
    data: PairedDataset,
    cells: Cells,
    config: EvaluateConfig,
    geometry: Geometry,
    extractor: Extractor,
    rng: np.random.Generator,
    progress: Progress,
) -> Reference:
    """Describe the real patches and fit the reference models, on training cells; penalties and genes are chosen on
    validation cells.
    """

    def read(rows: np.ndarray) -> np.ndarray:
        return data.patches(rows, side_um=geometry.patch_um, out_px=geometry.patch_px)

    some_train = rng.choice(cells.train_rows, min(PATCHES_FOR_SEGMENTER, len(cells.train_rows)), replace=False)
    morphometry = fit_morphometry(read(np.sort(some_train)), geometry.um_per_px, data.channels)

    def look(
        rows: np.ndarray, stage: str, *, measured: bool = False, with_thumbnails: bool = False
    ) -> ImageDescriptors:
        return describe_images(
            read,
            rows,
            extractor,
            channels=data.channels,
            morphometry=morphometry if measured else None,
            with_thumbnails=with_thumbnails,
            stored=stored,
            progress=progress,
            stage=stage,
        )

    stored = stored_features(data, config, geometry, extractor)
    real = look(cells.rows_N, "real patches", measured=True, with_thumbnails=True)
    comparison = look(cells.comparison.rows_K, "comparison patches", measured=True)
    train = look(cells.train_rows, "training patches").features_ND
    val = look(cells.val_rows, "validation patches").features_ND
    stored.save()
    progress("fit reference models", 0, 1)
    types = data.type_of_cell
    classifier = agreement.fit_type_classifier(train, types[cells.train_rows], val, types[cells.val_rows])
    head, measured = fit_best_genes(data, cells, config, train, val)
    progress("fit reference models", 1, 1)
    side_um = config.block_um or 2 * geometry.patch_um
    block_N = spatial_blocks(
        data.centre_xy_px[cells.rows_N] * data.um_per_px, data.slide_of_cell[cells.rows_N], side_um
    )
    matched = cells.comparison.matched_K
    return Reference(
        data=data,
        cells=cells,
        config=config,
        geometry=geometry,
        extractor=extractor,
        morphometry=morphometry,
        block_N=block_N,
        resampling=make_resampling(block_N, n_replicates=config.n_bootstrap, n_groups=config.n_groups, rng=rng),
        comparison_resampling=None
        if len(matched) < MIN_COMPARISON
        else make_resampling(block_N[matched], n_replicates=config.n_bootstrap, n_groups=config.n_groups, rng=rng),
        real=real,
        comparison=comparison,
        types_N=cells.type_N,
        classifier=classifier,
        head=head,
        measured_NG=measured,
    )


def patch_keys(data: PairedDataset, geometry: Geometry) -> dict[str, Any]:
    """Return what determines the pixels of the real patches."""
    return {
        "dataset": data.fingerprint,
        "n_cells": len(data),
        "um_per_px": data.um_per_px,
        "patch": asdict(geometry),
        "channels": data.channels,
    }


def stored_features(data: PairedDataset, config: EvaluateConfig, geometry: Geometry, extractor: Extractor) -> RowStore:
    """Return the features of real patches that earlier evaluations kept; only of extractors with a hash of their weights."""
    is_known = config.cache and extractor.details.get("sha256")
    keys = {"extractor": extractor.name, **extractor.details, **patch_keys(data, geometry)} if is_known else None
    return store_beside(data.path, "features", keys)


def stored_thumbnails(data: PairedDataset, config: EvaluateConfig, geometry: Geometry) -> RowStore:
    """Return the thumbnails of training patches that earlier evaluations kept."""
    keys = {"thumbnail_px": THUMBNAIL_PX, **patch_keys(data, geometry)} if config.cache else None
    return store_beside(data.path, "thumbnails", keys)


def fit_best_genes(
    data: PairedDataset, cells: Cells, config: EvaluateConfig, train_ND: np.ndarray, val_ND: np.ndarray
) -> tuple[recovery.ExpressionHead, np.ndarray]:
    """Return the expression head, cut down to its best genes (best first), and their measured expression in the
    evaluated cells.
    """
    counts = data.counts(cells.train_rows)
    genes = recovery.frequent_genes(counts, config.n_genes)
    head = recovery.fit_expression_head(
        train_ND,
        recovery.log_normalised(counts, genes),
        val_ND,
        recovery.log_normalised(data.counts(cells.val_rows), genes),
    )
    best = head.order_G[: recovery.BEST_GENES[-1]]
    cut = recovery.ExpressionHead(
        mean_D=head.mean_D,
        scale_D=head.scale_D,
        weights_DG=head.weights_DG[:, best],
        offsets_G=head.offsets_G[best],
        order_G=best,
        penalty=head.penalty,
    )
    return cut, recovery.log_normalised(data.counts(cells.rows_N), genes[best])
