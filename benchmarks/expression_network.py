"""A small convolutional network from a patch to the expression and the type of its central cell, with held-out scores per gene.

It shares nothing with the features of `evaluate` or with the generator: its own layers, from scratch, on real patches alone. One
network is trained per fold of the training blocks, each on the other folds (less the cells whose patches reach into the fold);
the correlation of a gene is that of the held-out predictions. The ensemble of the networks evaluates images of other blocks.

Shape letters: N patches or cells, P side in px, G genes, T types, B patches of a step, K folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.spatial import KDTree
from torch import Tensor, nn
from torch.nn import functional

from sge2hist.data.errors import InputError
from sge2hist.data.paired import PairedDataset
from sge2hist.evaluation.metrics.expression_recovery import gene_correlations, log_normalised
from sge2hist.evaluation.resampling import balanced_groups, spatial_blocks

WIDTHS = (24, 48, 64, 96)
BATCH = 64
LEARNING_RATE = 3e-3
STAIN_JITTER = 0.1  # of the optical density of each channel
FOLD_BLOCK_UM = 1024.0
MIN_COUNTS = 0.05  # mean counts per cell of its type below which a gene is no marker


def marker_genes(dataset: PairedDataset, per_type: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The genes that distinguish each type from the mean of the others among training cells: columns [G], type of each [G]."""
    if len(dataset.types) < 2:
        raise InputError(
            found=f"{len(dataset.types)} types",
            where=str(dataset.path),
            expected="at least two, of which genes are markers",
            repair="prepare with --types",
        )
    dataset.counts_in_memory()
    profile_TG = np.stack([type_profile(dataset, name, rng) for name in dataset.types])
    share_TG = profile_TG / profile_TG.sum(1, keepdims=True)
    others_TG = (share_TG.sum(0) - share_TG) / max(len(share_TG) - 1, 1)
    ratio_TG = np.log2((share_TG + 1e-6) / (others_TG + 1e-6))
    ratio_TG[(profile_TG < MIN_COUNTS) | (share_TG < share_TG.max(0))] = -np.inf
    chosen = [
        (gene, t) for t, ratio_G in enumerate(ratio_TG) for gene in np.argsort(-ratio_G)[:per_type] if ratio_G[gene] > 0
    ]
    genes, types = np.array(sorted(chosen), np.int64).reshape(-1, 2).T
    return genes, types


def type_profile(dataset: PairedDataset, name: str, rng: np.random.Generator) -> np.ndarray:
    """Mean counts per cell of at most 2,000 training cells of a type, [G of the dataset]."""
    rows = dataset.rows("train")
    rows = rows[dataset.type_of_cell[rows] == dataset.types.index(name)]
    if len(rows) == 0:
        raise InputError(
            found=f"no training cell of type {name}", where=str(dataset.path), expected="cells of every type"
        )
    rows = np.sort(rng.choice(rows, min(len(rows), 2000), replace=False))
    return np.asarray(dataset.counts(rows).mean(axis=0)).ravel()


def pooled_expression(dataset: PairedDataset, rows: np.ndarray, genes: np.ndarray, pool_um: float) -> np.ndarray:
    """log1p(counts per 10,000) of the counts of all cells within `pool_um` of each row's cell, float32 [N, G]."""
    counts = dataset.counts_in_memory()
    centre_um = dataset.centre_xy_px * dataset.um_per_px
    row_M, cell_M = [], []
    for slide in np.unique(dataset.slide_of_cell[rows]):
        members = np.flatnonzero(dataset.slide_of_cell == slide)
        own = np.flatnonzero(dataset.slide_of_cell[rows] == slide)
        for row, found in zip(
            own, KDTree(centre_um[members]).query_ball_point(centre_um[rows[own]], pool_um), strict=True
        ):
            row_M += [row] * len(found)
            cell_M += members[found].tolist()
    pool = csr_array((np.ones(len(row_M), np.float32), (row_M, cell_M)), shape=(len(rows), len(dataset)))
    needed = np.unique(cell_M)
    parts = [log_normalised(csr_array(part[:, needed] @ counts[needed]), genes) for part in _row_parts(pool)]
    return np.concatenate(parts)


def _row_parts(matrix: csr_array, size: int = 4096) -> list[csr_array]:
    return [matrix[i : i + size] for i in range(0, matrix.shape[0], size)]


# --- network --------------------------------------------------------------------------------------------------------


def _block(n_in: int, n_out: int) -> nn.Sequential:
    layers = [nn.Conv2d(n_in, n_out, 3, 2, 1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU())


class PatchNetwork(nn.Module):
    """Standardised expression [B, G] and logits of the type [B, T] of the central cell of a patch [B, 3, P, P] in 0 to 1."""

    def __init__(self, n_genes: int, n_types: int) -> None:
        super().__init__()
        self.n_genes = n_genes
        self.stem = nn.Sequential(nn.Conv2d(3, WIDTHS[0], 5, 2, 2), nn.ReLU())
        self.blocks = nn.Sequential(*[_block(*pair) for pair in pairwise(WIDTHS)])
        self.head = nn.Linear(2 * WIDTHS[-1], n_genes + n_types)

    def forward(self, image_BCPP: Tensor) -> tuple[Tensor, Tensor]:
        """Expression and logits."""
        features = self.blocks(self.stem((image_BCPP - 0.7) / 0.2))
        first, last = features.shape[-1] // 4, features.shape[-1] - features.shape[-1] // 4
        centre = features[..., first:last, first:last].mean((2, 3))
        out = self.head(torch.cat([features.mean((2, 3)), centre], 1))
        return out[:, : self.n_genes], out[:, self.n_genes :]


def augmented(image_BCPP: Tensor, generator: torch.Generator) -> Tensor:
    """Each image mirrored and turned by right angles at random; optical density of each channel scaled by 1 +- 0.1 at random."""
    flip = torch.randint(8, (len(image_BCPP),), generator=generator)
    turned = torch.stack(
        [torch.rot90(x.flip(-1) if f >= 4 else x, int(f) % 4, (-2, -1)) for x, f in zip(image_BCPP, flip, strict=True)]
    )
    scale = 1 + STAIN_JITTER * torch.randn(len(turned), 3, 1, 1, generator=generator)
    return turned.clamp(1 / 256, 1) ** scale


def as_tensor(images_NPPC: np.ndarray) -> Tensor:
    """uint8 [N, P, P, 3] as float32 [N, 3, P, P] in 0 to 1."""
    return torch.from_numpy(images_NPPC).permute(0, 3, 1, 2).float() / 255


def train_network(
    images_NPPC: np.ndarray, expression_NG: np.ndarray, type_N: np.ndarray, n_types: int, *, steps: int, seed: int
) -> PatchNetwork:
    """Train on patches; `expression_NG` is standardised, a type of -1 is unknown. Mean squared error plus cross-entropy."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = PatchNetwork(expression_NG.shape[1], n_types).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps)
    network.train()
    for _ in range(steps):
        chosen = rng.integers(0, len(images_NPPC), min(BATCH, len(images_NPPC)))
        image = augmented(as_tensor(images_NPPC[chosen]), generator).to(memory_format=torch.channels_last)
        expression, logits = network(image)
        loss = functional.mse_loss(expression, torch.from_numpy(expression_NG[chosen]).float())
        known = type_N[chosen] >= 0
        if known.any():
            loss = loss + 0.3 * functional.cross_entropy(logits[known], torch.from_numpy(type_N[chosen][known]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return network.eval()


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """Networks of the folds, and what their outputs mean."""

    networks: Sequence[PatchNetwork]
    genes: np.ndarray  # int64 [G], columns of the dataset
    gene_type: np.ndarray  # int64 [G], the type that each gene marks
    mean_G: np.ndarray  # of the measured log expression of the training cells
    sd_G: np.ndarray
    held_out_r_G: np.ndarray  # correlation with measured expression in blocks that a network did not see
    pool_um: float
    fingerprint: str  # of the dataset

    def predict(self, images_NPPC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log expression [N, G] and probability of each type [N, T] of real or generated patches, uint8 [N, P, P, 3]."""
        expression, probability = [], []
        with torch.no_grad():
            for start in range(0, len(images_NPPC), 256):
                image = as_tensor(images_NPPC[start : start + 256]).to(memory_format=torch.channels_last)
                outputs = [network(image) for network in self.networks]
                expression.append(torch.stack([x for x, _ in outputs]).mean(0))
                probability.append(torch.stack([logits.softmax(1) for _, logits in outputs]).mean(0))
        return torch.cat(expression).numpy() * self.sd_G + self.mean_G, torch.cat(probability).numpy()

    def best_genes(self, n_genes: int, min_r: float = 0.1) -> np.ndarray:
        """Positions of the at most n genes with the highest held-out correlation, all of them above `min_r`."""
        order = np.argsort(-np.nan_to_num(self.held_out_r_G, nan=-1))[:n_genes]
        return order[np.nan_to_num(self.held_out_r_G, nan=-1)[order] >= min_r]

    def save(self, path: Path) -> None:
        """Write tensors and numbers alone."""
        arrays = {name: torch.from_numpy(np.asarray(getattr(self, name))) for name in _ARRAYS}
        states = [network.state_dict() for network in self.networks]
        torch.save({"states": states, "pool_um": self.pool_um, "fingerprint": self.fingerprint, **arrays}, path)

    @classmethod
    def load(cls, path: Path, dataset: PairedDataset) -> Ensemble:
        """Open what `save` wrote; `InputError` if it was trained on another dataset."""
        if not path.is_file():
            repair = "train it: python benchmarks/expression_judge.py --network FILE"
            raise InputError(found="no such file", where=str(path), expected="a trained network", repair=repair)
        saved = torch.load(path, weights_only=True)
        if saved["fingerprint"] != dataset.fingerprint:
            raise InputError(
                found=f"a network of dataset {saved['fingerprint']}",
                where=str(path),
                expected=f"one of {dataset.path} ({dataset.fingerprint})",
                repair="give another file, and it is trained again",
            )
        networks = []
        for state in saved["states"]:
            networks.append(PatchNetwork(len(saved["genes"]), len(dataset.types)))
            networks[-1].load_state_dict(state)
            networks[-1].eval().to(memory_format=torch.channels_last)
        arrays = {name: saved[name].numpy() for name in _ARRAYS}
        return cls(networks=networks, pool_um=saved["pool_um"], fingerprint=saved["fingerprint"], **arrays)


_ARRAYS = ("genes", "gene_type", "mean_G", "sd_G", "held_out_r_G")


# --- folds ----------------------------------------------------------------------------------------------------------


def fold_rows(
    centre_um_N2: np.ndarray, slide_N: np.ndarray, patch_um: float, n_folds: int, rng: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Per fold the positions to train on and those held out: whole blocks, and no patch of one shares a pixel with the other."""
    block_N = spatial_blocks(centre_um_N2, slide_N, FOLD_BLOCK_UM)
    if n_folds < 2:
        raise InputError(found=f"{n_folds} folds", expected="at least 2, so that something is held out")
    if block_N.max() + 1 < n_folds:
        raise InputError(
            found=f"{block_N.max() + 1} blocks of {FOLD_BLOCK_UM:g} um", expected=f"at least {n_folds}, one a fold"
        )
    fold_N, folds = balanced_groups(block_N, n_folds, rng), []
    position_N3 = np.column_stack([centre_um_N2, slide_N * 1e9])
    for fold in range(n_folds):
        held, rest = np.flatnonzero(fold_N == fold), np.flatnonzero(fold_N != fold)
        distance, _ = KDTree(position_N3[held]).query(position_N3[rest], p=np.inf, distance_upper_bound=patch_um)
        folds.append((rest[distance >= patch_um], held))
    return folds


def fit_ensemble(
    dataset: PairedDataset, *, per_type: int, n_patches: int, n_folds: int, steps: int, pool_um: float, seed: int
) -> Ensemble:
    """Train one network per fold on at most `n_patches` random training cells; prints a line per fold."""
    rng = np.random.default_rng(seed)
    genes, gene_type = marker_genes(dataset, per_type, rng)
    rows = dataset.rows("train")
    rows = np.sort(rng.choice(rows, min(n_patches, len(rows)), replace=False))
    images, measured = dataset.patches(rows), pooled_expression(dataset, rows, genes, pool_um)
    mean_G, sd_G = measured.mean(0), measured.std(0) + 1e-6
    networks, held_out = [], np.full(measured.shape, np.nan, np.float32)
    centre_um = dataset.centre_xy_px[rows] * dataset.um_per_px
    folds = fold_rows(centre_um, dataset.slide_of_cell[rows], dataset.patch_um, n_folds, rng)
    for number, (train, held) in enumerate(folds):
        network = train_network(
            images[train],
            (measured[train] - mean_G) / sd_G,
            dataset.type_of_cell[rows[train]],
            len(dataset.types),
            steps=steps,
            seed=seed + number,
        )
        networks.append(network)
        one = Ensemble(
            networks=[network],
            genes=genes,
            gene_type=gene_type,
            mean_G=mean_G,
            sd_G=sd_G,
            held_out_r_G=np.zeros(len(genes)),
            pool_um=pool_um,
            fingerprint=dataset.fingerprint,
        )
        held_out[held] = one.predict(images[held])[0]
        r = gene_correlations(held_out[held], measured[held], np.ones((1, len(held))))[0]
        print(
            f"fold {number + 1}: {len(train)} patches, {len(held)} held out, median r {np.nanmedian(r):.3f}", flush=True
        )
    return Ensemble(
        networks=networks,
        genes=genes,
        gene_type=gene_type,
        mean_G=mean_G,
        sd_G=sd_G,
        held_out_r_G=gene_correlations(held_out, measured, np.ones((1, len(rows))))[0],
        pool_um=pool_um,
        fingerprint=dataset.fingerprint,
    )
