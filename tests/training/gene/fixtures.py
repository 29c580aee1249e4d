"""A small tissue with known types and neighbourhoods for the tests of the gene stage."""

import numpy as np
import torch
from scipy.sparse import csr_array

from sge2hist.models.gene.vae import GeneModelConfig, GeneVAE
from sge2hist.training.gene.data import GeneData, with_neighbours
from sge2hist.training.gene.mixture_init import init_mixture
from sge2hist.training.gene.stages import GeneStage, GeneStageConfig, build_gene_model

N_GENES, N_TYPES = 60, 3


def make_cells(
    n: int = 400, *, labels: bool = True, positions: bool = True, seed: int = 0, depth: float = 150.0
) -> GeneData:
    """Three types of ten markers each; ten more genes rise with x, the microenvironment."""
    rng = np.random.default_rng(seed)
    type_N = rng.integers(N_TYPES, size=n)
    centre_um_N2 = rng.uniform(0, 400, (n, 2))
    log_rate = np.zeros((n, N_GENES))
    for kind in range(N_TYPES):
        log_rate[type_N == kind, 10 * kind : 10 * kind + 10] = 2.5
    log_rate[:, 30:40] += 3 * (centre_um_N2[:, :1] / 400 - 0.5)
    rate = np.exp(log_rate)
    counts = rng.poisson(rate / rate.sum(1, keepdims=True) * depth)
    return GeneData.from_counts(
        csr_array(counts),
        symbols=[f"GENE{g}" for g in range(N_GENES)],
        type_N=type_N if labels else None,
        type_names=["alpha", "beta", "gamma"] if labels else None,
        centre_um_N2=centre_um_N2 if positions else None,
    )


def train_gene_model(
    data: GeneData, *, n_steps: int = 200, seed: int = 0, use_labels: bool = False, **changes: object
) -> GeneVAE:
    """Pre-train, initialise the mixture, fine-tune: the whole gene stage in a few seconds."""
    has_positions = data.centre_um_N2 is not None
    shape = {"n_type": 4, "n_micro": 4, "hidden": (32,), "n_components": 6, "dropout": 0.0, "n_axes": 8}
    shape |= {"n_composition": 3, "n_neighbour_embedding": 2, "neighbour_um": 50.0} if has_positions else {}
    model = build_gene_model(GeneModelConfig(n_genes=data.n_genes, **(shape | changes)), data, seed=seed)
    data = with_neighbours(data, model)
    config = GeneStageConfig(batch_size=64, warmup_steps=n_steps // 3, use_labels=use_labels, seed=seed)
    stage = GeneStage(model, data, config)
    descend(stage, range(n_steps))
    init_mixture(model, data, seed, use_labels=use_labels, n_restarts=2)
    stage.start_heads()
    descend(GeneStage(model, data, config, name="mixture", targets=stage.targets), range(n_steps // 4), lr=1e-3)
    return model.eval()


def descend(stage: GeneStage, steps: range, lr: float = 5e-3) -> None:
    """Plain AdamW over the given steps."""
    optimiser = torch.optim.AdamW(stage.model.parameters(), lr)
    stage.model.train()
    for step in steps:
        optimiser.zero_grad()
        stage.loss(step)["loss"].backward()
        optimiser.step()
