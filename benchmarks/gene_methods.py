"""Methods of the gene model benchmark. Each fits on train cells and returns clusters of the test cells and a reconstruction."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from gene_sets import GeneSet
from scipy.sparse import csr_array, csr_matrix

from sge2hist.data.spatial_index import CellIndex
from sge2hist.models.gene.cell_types import group_components
from sge2hist.models.gene.encode import EncodedCells, component_posterior, dense_counts
from sge2hist.models.gene.vae import GeneModelConfig, GeneVAE
from sge2hist.training.gene.data import GeneData, encode_data, with_neighbours
from sge2hist.training.gene.mixture_em import centre_micro, refit_mixture
from sge2hist.training.gene.mixture_init import init_mixture
from sge2hist.training.gene.stages import GeneStage, GeneStageConfig, build_gene_model, decoder_alone, max_steps

BATCH = 128  # cells per step of every network
N_COMPONENTS = 48  # of our mixture, before pruning
N_POSTERIOR_SAMPLES = 25  # of the posterior, whose predictions are averaged


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """Result of one method with one seed."""

    cluster_N: np.ndarray  # of the test cells
    proportions: Callable[[csr_array], np.ndarray]  # counts -> predicted gene proportions
    seconds: float
    theta_G: np.ndarray | None = None  # inverse dispersion, of methods that predict counts
    zeros: Callable[[csr_array], np.ndarray] | None = None  # counts -> probability of zeros on top, if inflated
    data: GeneSet | None = None  # the cells as the model reads them
    model: GeneVAE | None = None
    encoded: EncodedCells | None = None  # of the test cells
    extra: dict[str, float] = field(default_factory=dict)


def ours(data: GeneSet, seed: int, n_steps: int) -> Fitted:
    """The gene model without labels, its components grouped into as many groups as there are types."""
    return _grouped(_fit_vae(data, _our_config(data), seed, n_steps, learning_rate=3e-3), data)


def ours_neighbours(data: GeneSet, seed: int, n_steps: int) -> Fitted:
    """The same; types fitted to and predicted from a bin and its eight neighbours together."""
    config = replace(_our_config(data), pool_um=_eight_neighbours(data.train)[1])
    return _grouped(_fit_vae(data, config, seed, n_steps, learning_rate=3e-3), data)


def _grouped(fitted: Fitted, data: GeneSet) -> Fitted:
    """Components -> groups, as in `sge2hist types --groups`; a cell belongs to the group of its likeliest component."""
    assert fitted.model is not None
    assert fitted.encoded is not None
    mixture = fitted.model.mixture
    component_N = component_posterior(fitted.model, encode_data(fitted.model, data.train)).argmax(1)
    n_cells_K = np.bincount(component_N, minlength=mixture.n_components)
    n_groups = min(data.n_types, int((n_cells_K > 0).sum()))
    means_KT, vars_KT = mixture.means_KT.detach().numpy(), mixture.log_vars_KT.detach().exp().numpy()
    group_K = group_components(means_KT, vars_KT, n_cells_K, n_groups)
    posterior_NK = component_posterior(fitted.model, fitted.encoded)
    return replace(fitted, cluster_N=group_K[posterior_NK.argmax(1)])


def _eight_neighbours(cells: GeneData) -> tuple[CellIndex, float]:
    """Index of the cells, and one and a half times their spacing: on a lattice of bins the eight neighbours are within it."""
    index = cells.index
    if index is None:
        raise SystemExit("a method that reads neighbours needs positions")
    return index, 1.5 * index.spacing_um()


def labelled(data: GeneSet, seed: int, n_steps: int) -> Fitted:
    """The gene model with the labels of the train cells, as it is usually trained."""
    config = replace(_our_config(data), n_components=N_COMPONENTS // 2)
    return _fit_vae(data, config, seed, n_steps, learning_rate=3e-3, use_labels=True)


def _our_config(data: GeneSet) -> GeneModelConfig:
    spatial = data.train.centre_um_N2 is not None
    return GeneModelConfig(
        n_genes=data.train.n_genes,
        n_components=N_COMPONENTS,
        n_composition=12 if spatial else 0,
        n_neighbour_embedding=16 if spatial else 0,
        n_axes=32,
        centre_micro=True,
        neighbour_um=50.0 if spatial else 0.0,
    )


def paper(data: GeneSet, seed: int, n_steps: int) -> Fitted:
    """The published configuration, repaired: squared error on log1p(CP10k), 24 + 104 dims, no heads, no masks."""
    config = GeneModelConfig(
        n_genes=data.train.n_genes,
        hidden=(2048, 512),
        n_type=24,
        n_micro=104,
        n_components=data.n_types,
        likelihood="mse",
        gene_dropout=0.0,
        micro_dropout=0.0,
        independence_weight=0.0,
        free_nats=0.0,
    )
    return _fit_vae(data, config, seed, n_steps, learning_rate=1e-3, learns_on=False)


def _fit_vae(
    data: GeneSet,
    config: GeneModelConfig,
    seed: int,
    n_steps: int,
    learning_rate: float,
    *,
    use_labels: bool = False,
    learns_on: bool = True,
) -> Fitted:
    started = time.perf_counter()
    model = build_gene_model(config, data.train, seed=seed)
    data = replace(data, train=with_neighbours(data.train, model), test=with_neighbours(data.test, model))
    n_steps = min(n_steps, max_steps(data.train.n_cells, BATCH))
    stage_config = GeneStageConfig(use_labels=use_labels, warmup_steps=n_steps // 3, seed=seed, batch_size=BATCH)
    stage = GeneStage(model, data.train, stage_config)
    descend(stage, n_steps, learning_rate)
    init_mixture(model, data.train, seed, use_labels=use_labels)
    stage.start_heads()
    descend(
        GeneStage(model, data.train, stage_config, name="mixture", targets=stage.targets),
        n_steps // 2,
        learning_rate / 3,
    )
    init_mixture(model, data.train, seed, use_labels=use_labels)  # the closing fit, as in training
    refit_mixture(model, data.train)
    if learns_on:
        config_alone = replace(stage_config, use_labels=False, warmup_steps=0)
        with decoder_alone(model):
            descend(GeneStage(model, data.train, config_alone, name="expression"), n_steps, learning_rate / 2)
        centre_micro(model, data.train)
    seconds = time.perf_counter() - started
    encoded = encode_data(model, data.test)
    model.eval()

    @torch.no_grad()
    def proportions(counts: csr_array) -> np.ndarray:
        posterior, generator = model.encode(dense_counts(counts)), torch.Generator().manual_seed(0)
        return np.mean([model.decode(posterior.sample(generator)).numpy() for _ in range(N_POSTERIOR_SAMPLES)], 0)

    theta_G = model.log_theta_G.detach().exp().numpy() if config.likelihood != "mse" else None

    active = encoded.mean_NZ.var(0) > 0.01
    return Fitted(
        cluster_N=component_posterior(model, encoded).argmax(1),
        proportions=proportions,
        theta_G=theta_G,
        seconds=seconds,
        data=data,
        model=model,
        encoded=encoded,
        extra={
            "active_z1": float(active[: config.n_type].mean()),
            "active_z2": float(active[config.n_type :].mean()),
        },
    )


def descend(stage: GeneStage, n_steps: int, learning_rate: float) -> None:
    """AdamW with a short rise and half a cosine, as the training stages do."""
    trained = [value for value in stage.model.parameters() if value.requires_grad]
    optimiser = torch.optim.AdamW(trained, learning_rate, betas=(0.9, 0.99))
    stage.model.train()
    for step in range(n_steps):
        share = step / n_steps
        for group in optimiser.param_groups:
            group["lr"] = (
                learning_rate * min(1.0, (share + 1e-3) / 0.02) * (0.5 + 0.5 * np.cos(np.pi * max(0, 2 * share - 1)))
            )
        optimiser.zero_grad(set_to_none=True)
        stage.loss(step)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(trained, 1e3)
        optimiser.step()


def log_normalised(data: GeneData | csr_array, scale: float) -> np.ndarray:
    """log(1 + scale * counts / library), dense [N, G]: the sets of this benchmark are small."""
    counts = data.read(np.arange(data.n_cells)) if isinstance(data, GeneData) else data
    dense = counts.toarray()
    return np.log1p(dense * (scale / dense.sum(1, keepdims=True).clip(1)))


def _pca(data: GeneSet, seed: int, n_dims: int = 20) -> tuple[object, float, np.ndarray, np.ndarray]:
    from sklearn.decomposition import PCA

    counts = data.train.read(np.arange(data.train.n_cells))
    scale = float(np.median(np.asarray(counts.sum(1))))
    pca = PCA(n_dims, svd_solver="randomized", random_state=seed).fit(log_normalised(counts, scale))
    return pca, scale, pca.transform(log_normalised(data.train, scale)), pca.transform(log_normalised(data.test, scale))


def _pca_proportions(pca: object, scale: float) -> Callable[[csr_array], np.ndarray]:
    def proportions(counts: csr_array) -> np.ndarray:
        back = pca.inverse_transform(pca.transform(log_normalised(counts, scale)))  # type: ignore[attr-defined]
        positive = np.expm1(back.clip(1e-4))
        return positive / positive.sum(1, keepdims=True)

    return proportions


def pca_gmm(data: GeneSet, seed: int, n_steps: int) -> Fitted:
    """20 principal components and a diagonal Gaussian mixture, best of 5 starts."""
    from sklearn.mixture import GaussianMixture

    started = time.perf_counter()
    pca, scale, train, test = _pca(data, seed)
    mixture = GaussianMixture(data.n_types, covariance_type="diag", n_init=5, random_state=seed, reg_covar=1e-4).fit(
        train
    )
    seconds = time.perf_counter() - started
    return Fitted(cluster_N=mixture.predict(test), proportions=_pca_proportions(pca, scale), seconds=seconds)


def pca_leiden(data: GeneSet, seed: int, n_steps: int) -> Fitted:
    """20 principal components and Leiden on train and test cells together, at the matched number of clusters."""
    started = time.perf_counter()
    pca, scale, train, test = _pca(data, seed)
    cluster_N = leiden(np.concatenate([train, test]), data.n_types, seed)[len(train) :]
    seconds = time.perf_counter() - started
    return Fitted(cluster_N=cluster_N, proportions=_pca_proportions(pca, scale), seconds=seconds)


def pca_leiden_neighbours(data: GeneSet, seed: int, n_steps: int) -> Fitted:
    """The same, the components of a bin averaged with those of its eight neighbours."""
    started = time.perf_counter()
    pca, scale, *parts = _pca(data, seed)
    means = []
    for cells, own in zip((data.train, data.test), parts, strict=True):
        index, radius_um = _eight_neighbours(cells)
        around = index.neighbour_weights(np.arange(cells.n_cells), radius_um)
        n_neighbours = np.diff(around.indptr)[:, None]
        means.append((own + n_neighbours * (around @ own)) / (1 + n_neighbours))
    cluster_N = leiden(np.concatenate(means), data.n_types, seed)[data.train.n_cells :]
    seconds = time.perf_counter() - started
    return Fitted(cluster_N=cluster_N, proportions=_pca_proportions(pca, scale), seconds=seconds)


def leiden(latent_ND: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    """Leiden labels whose number is as close to `n_clusters` as 12 bisections of the resolution get."""
    import anndata
    import scanpy as sc
    from umap.umap_ import fuzzy_simplicial_set

    adata = anndata.AnnData(latent_ND)
    graph = fuzzy_simplicial_set(latent_ND, 15, np.random.RandomState(seed), "euclidean")[0]
    low, high, best = 0.01, 4.0, (10**9, np.zeros(len(latent_ND), int))
    for _ in range(12):
        middle = (low * high) ** 0.5
        sc.tl.leiden(adata, middle, adjacency=graph, random_state=seed, flavor="igraph", n_iterations=2, directed=False)
        labels = adata.obs["leiden"].astype(int).to_numpy()
        found = labels.max() + 1
        best = min(best, (abs(found - n_clusters), labels), key=lambda pair: pair[0])
        if found == n_clusters:
            break
        low, high = (middle, high) if found < n_clusters else (low, middle)
    return best[1]


def scvi(data: GeneSet, seed: int, n_steps: int) -> Fitted:
    """scvi-tools' SCVI with its defaults (10 dims, 128 hidden), diagonal Gaussian mixture on its latent; optional extra."""
    import anndata
    import scvi as scvi_tools
    from sklearn.mixture import GaussianMixture

    scvi_tools.settings.seed = seed
    started = time.perf_counter()
    train = anndata.AnnData(csr_matrix(data.train.read(np.arange(data.train.n_cells))))
    scvi_tools.model.SCVI.setup_anndata(train)
    model = scvi_tools.model.SCVI(train)
    per_epoch = max(1, int(np.ceil(0.9 * data.train.n_cells / BATCH)))
    model.train(max_epochs=max(1, round(1.5 * n_steps / per_epoch)), accelerator="cpu", enable_progress_bar=False)
    latent = model.get_latent_representation()
    mixture = GaussianMixture(data.n_types, covariance_type="diag", n_init=5, random_state=seed).fit(latent)
    seconds = time.perf_counter() - started

    def proportions(counts: csr_array) -> np.ndarray:
        adata = anndata.AnnData(csr_matrix(counts))
        found = model.get_normalized_expression(adata, library_size=1, n_samples=N_POSTERIOR_SAMPLES, return_numpy=True)
        return np.asarray(found)  # the mean over samples

    def zeros(counts: csr_array) -> np.ndarray:
        likelihood = model.get_likelihood_parameters(
            anndata.AnnData(csr_matrix(counts)), n_samples=N_POSTERIOR_SAMPLES, give_mean=True
        )
        return np.asarray(likelihood["dropout"])

    test = anndata.AnnData(csr_matrix(data.test.read(np.arange(data.test.n_cells))))
    return Fitted(
        cluster_N=mixture.predict(model.get_latent_representation(test)),
        proportions=proportions,
        seconds=seconds,
        theta_G=np.exp(model.module.px_r.detach().cpu().numpy()),
        zeros=zeros,
    )


METHODS: dict[str, Callable[[GeneSet, int, int], Fitted]] = {
    "ours": ours,
    "ours-labelled": labelled,
    "ours-neighbours": ours_neighbours,
    "paper": paper,
    "pca-leiden": pca_leiden,
    "pca-leiden-neighbours": pca_leiden_neighbours,
    "pca-gmm": pca_gmm,
    "scvi": scvi,
}
