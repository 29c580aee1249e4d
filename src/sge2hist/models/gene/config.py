"""Hyper-parameters of the gene model.

Sizes, likelihood and weights of :class:`sge2hist.models.gene.vae.GeneVAE`, checked when the object is built.
"""

from __future__ import annotations

from dataclasses import dataclass

LIKELIHOODS = ("nb", "mse")
LAYERS = ("norm", "plain")


@dataclass(frozen=True, kw_only=True)
class GeneModelConfig:
    """Architecture and loss of the gene model. All likelihood and KL terms are in nats."""

    n_genes: int  # genes of the panel
    hidden: tuple[int, ...] = (256, 128)  # widths of the encoder; the decoder mirrors them
    n_type: int = 16  # dims of z1, the cell type
    n_micro: int = 48  # dims of z2, the microenvironment
    n_components: int = 24  # Gaussians of the mixture prior of z1 before pruning
    likelihood: str = "nb"  # "nb" on raw counts, "mse" on log1p of counts per 10,000
    layers: str = (
        "norm"  # "norm": layer norm, SiLU, dropout on log-normalised counts; "plain": ReLU on raw counts (published)
    )
    dropout: float = 0.1  # of hidden units, in encoder and decoder
    gene_dropout: float = 0.5  # share of mask groups of a batch whose encoder sees only a random part of the genes
    min_observed: float = 0.02  # lowest share of genes that such a group keeps
    n_mask_groups: int = 8  # different gene masks in one batch
    micro_dropout: float = 0.3  # share of cells decoded with z2 = 0, so that z1 alone must explain them
    centre_micro: bool = False  # subtract from z2 its mean among the cells of the same components
    kl_type_weight: float = 1.0  # weight of KL(z1, c); 1 is the evidence lower bound
    kl_micro_weight: float = 1.0  # weight of KL(z2); 1 is the evidence lower bound
    free_nats: float = 0.1  # KL per latent dim (batch mean) that costs nothing; prevents dead units
    independence_weight: float = 5.0  # weight of the R2 of the type from z2, see auxiliary_losses.py
    label_weight: float = 5.0  # weight of the cross-entropy of labelled cells under the responsibilities
    n_axes: int = 0  # principal axes of expression that the encoder reads beside the counts; 0 = none
    neighbour_um: float = 0.0  # radius of the neighbours whose mean expression enters the posterior of z2; 0 = none
    pool_um: float = 0.0  # radius of the bins whose posteriors are pooled when types are fitted and assigned; 0 = none
    neighbour_dropout: float = 0.25  # share of training cells whose neighbours are hidden from the encoder
    n_composition: int = 0  # classes of the neighbourhood composition; 0 = no neighbourhood heads
    n_neighbour_embedding: int = 0  # dims of the neighbours' mean expression embedding
    neighbourhood_weight: float = 10.0  # weight of the neighbourhood loss (nats), once the mixture is initialised
    n_proteins: int = 0  # proteins that the encoder reads beside the counts; 0 = none
    protein_dropout: float = (
        0.3  # share of training cells whose proteins are hidden, so that cells without can be encoded
    )

    def __post_init__(self) -> None:
        """Raise ValueError naming every value outside its range."""
        positive = ("n_genes", "n_type", "n_micro", "n_components", "n_mask_groups")
        wrong = [f"{name}={getattr(self, name)} must be at least 1" for name in positive if getattr(self, name) < 1]
        at_least_zero = (
            "kl_type_weight",
            "kl_micro_weight",
            "free_nats",
            "independence_weight",
            "label_weight",
            "n_axes",
            "neighbour_um",
            "pool_um",
            "n_composition",
            "n_neighbour_embedding",
            "neighbourhood_weight",
            "n_proteins",
        )
        wrong += [
            f"{name}={getattr(self, name)} must not be negative" for name in at_least_zero if getattr(self, name) < 0
        ]
        shares = ("dropout", "gene_dropout", "micro_dropout", "min_observed", "neighbour_dropout", "protein_dropout")
        wrong += [
            f"{name}={getattr(self, name)} must be in [0, 1]" for name in shares if not 0 <= getattr(self, name) <= 1
        ]
        if not self.hidden or min(self.hidden) < 1:
            wrong.append(f"hidden={self.hidden} needs at least one positive width")
        if self.likelihood not in LIKELIHOODS:
            wrong.append(f"likelihood={self.likelihood!r} must be one of {LIKELIHOODS}")
        if self.layers not in LAYERS:
            wrong.append(f"layers={self.layers!r} must be one of {LAYERS}")
        if (self.n_composition == 0) != (self.n_neighbour_embedding == 0):
            wrong.append("n_composition and n_neighbour_embedding must both be 0 or both be positive")
        if self.neighbour_um > 0 and self.n_axes == 0:
            wrong.append("neighbour_um needs n_axes of at least 1: neighbourhood features are means on the axes")
        if wrong:
            raise ValueError("GeneModelConfig: " + "; ".join(wrong))

    @property
    def n_latent(self) -> int:
        """Dims of z = (z1, z2)."""
        return self.n_type + self.n_micro

    @property
    def n_neighbour_features(self) -> int:
        """Neighbourhood features A that the encoder reads (mean on each axis, and whether known); 0 = none."""
        return self.n_axes + 1 if self.neighbour_um > 0 else 0

    @property
    def has_neighbourhood(self) -> bool:
        """Whether z2 is also trained to predict the neighbours."""
        return self.n_composition > 0
