"""Data sets of the gene model benchmark: counts, known types, positions where there are any, train and test cells."""

from __future__ import annotations

import importlib.util
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array, vstack

from sge2hist.training.gene.data import GeneData
from sge2hist.training.gene.selection import select_columns


@dataclass(frozen=True, kw_only=True)
class GeneSet:
    """Train and test cells of one data set; types are used for scoring alone."""

    name: str
    train: GeneData
    test: GeneData

    @property
    def n_types(self) -> int:
        """Types that occur."""
        return len(np.unique(self.train.type_N[self.train.type_N >= 0]))

    def both(self) -> GeneData:
        """Train, then test cells."""
        parts = [part.read(np.arange(part.n_cells)) for part in (self.train, self.test)]
        return GeneData.from_counts(csr_array(vstack(parts, format="csr")))


def toy(seed: int = 0, side_um: float = 1600.0) -> GeneSet:
    """Toy tissue: stripes of 150 um in x for testing, a gap of 50 um, 350 um for training."""
    from sge2hist.toy.tissue import ToyTissueConfig, simulate

    tissue = simulate(ToyTissueConfig(side_um=side_um), seed=seed)
    x_um = tissue.cells.xy_um[:, 0] % 550
    names = [str(index) for index in range(int(tissue.cells.type_N.max()) + 1)]

    def part(rows: np.ndarray) -> GeneData:
        return GeneData.from_counts(
            csr_array(tissue.counts_NG[rows]),
            symbols=tissue.genes.frame["symbol"].tolist(),
            type_N=tissue.cells.type_N[rows],
            type_names=names,
            centre_um_N2=tissue.cells.xy_um[rows],
        )

    return GeneSet(
        name="toy", train=part(np.flatnonzero(x_um < 350)), test=part(np.flatnonzero((x_um >= 400) & (x_um < 550)))
    )


def pbmc() -> GeneSet:
    """700 blood cells x 765 genes that ship with scanpy; counts are recovered from the log-normalised raw part.

    Its values are log(1 + 10,000 x / n), so x = expm1(value) * n / 10,000, whole up to rounding.
    """
    import anndata

    spec = importlib.util.find_spec("scanpy")
    if spec is None or spec.origin is None:
        raise SystemExit("scanpy is needed for this data set")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata = anndata.read_h5ad(Path(spec.origin).parent / "datasets" / "10x_pbmc68k_reduced.h5ad")
    counts = csr_array(adata.raw.X)
    n_N = np.repeat(adata.obs["n_counts"].to_numpy(), np.diff(counts.indptr))
    counts.data = np.round(np.expm1(counts.data) * n_N / 1e4).astype(np.float32)
    labels = adata.obs["bulk_labels"].cat
    type_N = labels.codes.to_numpy().astype(np.int64)
    test = np.random.default_rng(0).random(len(type_N)) < 0.3

    def part(rows: np.ndarray) -> GeneData:
        return GeneData.from_counts(
            csr_array(counts[rows]),
            symbols=[str(name) for name in adata.raw.var_names],
            type_N=type_N[rows],
            type_names=[str(name) for name in labels.categories],
        )

    return GeneSet(name="pbmc68k_reduced", train=part(np.flatnonzero(~test)), test=part(np.flatnonzero(test)))


def paired(path: str, n_genes: int = 2000, max_cells: int = 20_000) -> GeneSet:
    """A paired dataset with types, its own spatial split, the most informative genes, at most `max_cells` train cells.

    Cells are a contiguous piece of the tissue (smallest x), so that they keep their neighbours. Types are those of the dataset,
    for example scored by markers.
    """
    from sge2hist.data.paired import PairedDataset

    dataset = PairedDataset.open(path)
    rows = {split: dataset.rows(split) for split in ("train", "test")}
    kept = {}
    for split, limit in (("train", max_cells), ("test", max_cells // 2)):
        x = dataset.centre_xy_px[rows[split], 0]
        kept[split] = np.sort(rows[split][np.argsort(x, kind="stable")[:limit]])
    whole = GeneData.from_paired(dataset, kept["train"])
    columns = select_columns(GeneData.from_counts(whole.read(np.arange(whole.n_cells))), n_genes)
    return GeneSet(
        name=Path(os.path.normpath(path)).stem,
        train=GeneData.from_paired(dataset, kept["train"], columns),
        test=GeneData.from_paired(dataset, kept["test"], columns),
    )
