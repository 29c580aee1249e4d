"""What images say about single cells: stains, nuclei, and types and genes read by models fitted on real training patches.

The same readers look at real and at generated images, so that their own errors are on both sides.

Shape letters: N cells, T types, G genes that enough cells express.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from cell_measures import (
    CellNuclei,
    NucleusFinder,
    PatchCells,
    cell_features,
    columns_up_to,
    nuclei_of_cells,
    stain_means,
)
from cell_patches import Setting
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

WINDOWS_PX = {28: 3.0, 64: 6.0}  # side of what a type classifier sees, in px: sigma of its widest filter
WIDE_PX = 64
GENE_MIN_SHARE = 0.05  # of cells that express a gene


@dataclass(frozen=True, kw_only=True)
class Readers:
    """Models fitted on real training patches.

    Attributes:
        types: by the side of the window; classes are codes of the dataset's types.
        genes: log1p counts of some genes, columns `gene_G` of the dataset, from a window of 64 px.
    """

    finder: NucleusFinder
    edge_px: float
    types: dict[int, Pipeline]
    genes: Pipeline
    gene_G: np.ndarray

    @classmethod
    def fit(cls, setting: Setting) -> Readers:
        """Fit all on the training patches."""
        data, cells, images = setting.data, setting.train_cells, setting.real(setting.train_centres)
        features = cell_features(images, cells, max_sigma=WINDOWS_PX[WIDE_PX])
        code = data.type_of_cell[cells.row_N]
        types = {}
        for px in WINDOWS_PX:
            model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300, class_weight="balanced"))
            types[px] = model.fit(_seen(features, px, images.shape[3])[code >= 0], code[code >= 0])
        logs = log_counts(setting, cells)
        common = np.flatnonzero((logs > 0).mean(0) >= GENE_MIN_SHARE)
        genes = make_pipeline(StandardScaler(), Ridge(alpha=300.0)).fit(features, logs[:, common])
        finder = NucleusFinder.fit(images, setting.um)
        return cls(finder=finder, edge_px=setting.edge_px, types=types, genes=genes, gene_G=common)


def log_counts(setting: Setting, cells: PatchCells) -> np.ndarray:
    """log1p of the counts of each cell, float32 [N, all genes]."""
    rows, at = np.unique(cells.row_N, return_inverse=True)
    return np.log1p(setting.data.counts(rows).toarray().astype(np.float32))[at]


def _seen(features: np.ndarray, px: int, n_channels: int) -> np.ndarray:
    return features[:, columns_up_to(WINDOWS_PX[px], of=WINDOWS_PX[WIDE_PX], n_channels=n_channels)]


@dataclass(frozen=True)
class Look:
    """What patches, uint8 [B, P, P, C], show at the places of some cells."""

    images: np.ndarray
    cells: PatchCells
    readers: Readers

    @cached_property
    def features(self) -> np.ndarray:
        """float32 [N, F]."""
        return cell_features(self.images, self.cells, max_sigma=WINDOWS_PX[WIDE_PX])

    @cached_property
    def stains(self) -> np.ndarray:
        """Mean level of each stain inside each cell, [N, C]."""
        return stain_means(self.images, self.cells, self.readers.finder.um_per_px)

    @cached_property
    def nuclei(self) -> CellNuclei:
        """Nuclei beside the cells."""
        return nuclei_of_cells(self.images, self.cells, self.readers.finder, self.readers.edge_px)

    def types(self, px: int = WIDE_PX) -> np.ndarray:
        """Code of the type that is read off at each cell, int64 [N]."""
        return self.readers.types[px].predict(_seen(self.features, px, self.images.shape[3]))

    def probability(self, code: int, px: int = WIDE_PX) -> np.ndarray:
        """Probability of a type at each cell, [N]; zero for a type that no training patch holds."""
        model = self.readers.types[px]
        found = model.predict_proba(_seen(self.features, px, self.images.shape[3]))
        return found @ (model.classes_ == code)

    @cached_property
    def genes(self) -> np.ndarray:
        """log1p counts that are read off, [N, G]."""
        return self.readers.genes.predict(self.features)
