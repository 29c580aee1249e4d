"""The gene model: counts x -> z = (z1 type, z2 microenvironment) -> gene proportions (scVI likelihood, VaDE prior).

| symbol | code | shape |
| --- | --- | --- |
| x | `counts_NG` | cells x genes, raw |
| q(z given x) | `Posterior.mean_NZ`, `Posterior.log_var_NZ` | z1 first, then z2 |
| rho | `decode(z_NZ)` | gene proportions, rows sum to 1 |
| theta | `log_theta_G` | inverse dispersion |
| gamma | `mixture.best_responsibilities` | N x K |

The loss is the negative evidence lower bound (likelihood summed over genes, KL over dims, mean over the batch) plus
named terms.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sge2hist.models.gene.auxiliary_losses import Neighbourhood, NeighbourhoodHeads, dependence
from sge2hist.models.gene.config import GeneModelConfig
from sge2hist.models.gene.likelihoods import gaussian_log_prob, negative_binomial_log_prob
from sge2hist.models.gene.micro_statistics import MicroStatistics
from sge2hist.models.gene.mixture_prior import MixturePrior
from sge2hist.models.gene.networks import GeneDecoder, GeneEncoder, library_size, log_normalised
from sge2hist.models.gene.novelty import NoveltyReference, fit_score, latent_score
from sge2hist.models.gene.proteins import hide_proteins, protein_loss

__all__ = ["GeneLoss", "GeneModelConfig", "GeneStatistics", "GeneVAE", "Neighbourhood", "Posterior"]

COUNTS_PER = 10_000.0  # log1p(counts per 10,000) is the scale of the mse likelihood


@dataclass(frozen=True, kw_only=True)
class Posterior:
    """q(z | x) = N(mean, diag exp(log_var)) of N cells."""

    mean_NZ: Tensor
    log_var_NZ: Tensor
    n_type: int

    @property
    def z1(self) -> Tensor:
        """Mean of the cell type block [N, T]."""
        return self.mean_NZ[:, : self.n_type]

    @property
    def z2(self) -> Tensor:
        """Mean of the microenvironment block [N, M]."""
        return self.mean_NZ[:, self.n_type :]

    def sample(self, generator: torch.Generator | None = None, noise_NZ: Tensor | None = None) -> Tensor:
        """Sample z [N, Z]; `noise_NZ` is standard normal noise, sampled on the generator's device if None."""
        if noise_NZ is None:
            noise_NZ = torch.randn(self.mean_NZ.shape, generator=generator, device=_device_of(generator, self.mean_NZ))
        return self.mean_NZ + (0.5 * self.log_var_NZ).exp() * noise_NZ.to(self.mean_NZ.device)


@dataclass(frozen=True, kw_only=True)
class GeneStatistics:
    """Training-set statistics from which a new model is initialised."""

    median_library: float  # median counts per cell on the panel
    mean_proportion_G: Tensor  # mean over cells of counts / library
    mean_input_G: Tensor  # mean over cells of log1p(counts / library * median_library)
    mean_log1p_G: Tensor  # mean over cells of log1p(counts / library * 10,000)
    axis_GE: Tensor | None = None  # principal axes of log1p(counts / library * median_library), orthonormal
    axis_spread_E: Tensor | None = None  # standard deviation of the cells along each
    mean_protein_P: Tensor | None = None  # mean of log1p of each protein over the cells in which it was measured
    sd_protein_P: Tensor | None = None  # standard deviation of the same


@dataclass(frozen=True, kw_only=True)
class GeneLoss:
    """Result of one training pass."""

    terms: dict[str, Tensor]  # scalars; "loss" carries the gradient
    posterior: Posterior
    z_NZ: Tensor  # the sample that was decoded (before z2 dropout)


class GeneVAE(nn.Module):
    """Variational autoencoder of expression with a mixture prior on z1 and a normal prior on z2."""

    def __init__(self, config: GeneModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = GeneEncoder(
            config.n_genes,
            config.hidden,
            config.n_type,
            config.n_micro,
            config.dropout,
            n_axes=config.n_axes,
            n_neighbour_features=config.n_neighbour_features,
            n_proteins=config.n_proteins,
            plain=config.layers == "plain",
        )
        self.decoder = GeneDecoder(
            config.n_genes, config.hidden, config.n_latent, config.dropout, plain=config.layers == "plain"
        )
        self.mixture = MixturePrior(config.n_components, config.n_type)
        self.micro = MicroStatistics(config.n_components, config.n_micro)
        self.novelty = NoveltyReference()
        self.log_theta_G = nn.Parameter(torch.full((config.n_genes,), 2.0))
        self.protein_decoder = nn.Linear(config.n_latent, config.n_proteins) if config.n_proteins else None
        self.heads = None
        if config.has_neighbourhood:
            self.heads = NeighbourhoodHeads(
                config.n_components, config.n_micro, config.n_composition, config.n_neighbour_embedding
            )

    def initialise_mixture(
        self, weights_K: Tensor, means_KT: Tensor, vars_KT: Tensor, type_of_component_K: Tensor | None = None
    ) -> None:
        """Copy a fitted mixture (see :meth:`MixturePrior.initialise`) and reset the statistics of z2 to its components."""
        self.mixture.initialise(weights_K, means_KT, vars_KT, type_of_component_K)
        self.micro.reset(self.mixture.n_components)

    @torch.no_grad()
    def set_statistics(self, statistics: GeneStatistics) -> None:
        """Initialise from the training set: scale and centre of the inputs, and the decoder at the mean cell."""
        self.encoder.scale.fill_(statistics.median_library)
        self.encoder.mean_proportion_G.copy_(statistics.mean_proportion_G)
        self.encoder.mean_input_G.copy_(statistics.mean_input_G)
        if statistics.axis_GE is not None and statistics.axis_spread_E is not None:
            self.encoder.start_on_axes(statistics.axis_GE, statistics.axis_spread_E)
        if self.encoder.from_proteins is not None:
            assert statistics.mean_protein_P is not None
            assert statistics.sd_protein_P is not None
            self.encoder.from_proteins.mean_P.copy_(statistics.mean_protein_P)
            self.encoder.from_proteins.sd_P.copy_(statistics.sd_protein_P)
        start_G = statistics.mean_proportion_G.clamp_min(1e-8).log()
        self.decoder.bias_G.copy_(statistics.mean_log1p_G if self.config.likelihood == "mse" else start_G)

    def encode(
        self,
        counts_NG: Tensor,
        observed_G: Tensor | None = None,
        neighbour_NA: Tensor | None = None,
        protein_NP: Tensor | None = None,
    ) -> Posterior:
        """Posterior q(z | x).

        With `centre_micro`, z2 is centred on the mean of its components, z2 - sum_c gamma_c centre_c, so that no linear predictor
        finds the component in it. In training mode the centres follow the batch.

        Parameters
        ----------
        counts_NG : raw counts.
        observed_G : bool [G] or [N, G]; False = not measured (which is not a zero); None = all measured.
        neighbour_NA : neighbourhood features of the cells (`neighbour_features`); None = neighbours unknown.
        protein_NP : proteins of the cells, NaN = not measured; None = none was.
        """
        mean_NZ, log_var_NZ = self.encoder(counts_NG, observed_G, neighbour_NA, protein_NP)
        if self.config.centre_micro and self.mixture.initialised:
            n_type = self.config.n_type
            gamma_NK = self.mixture.best_responsibilities(mean_NZ[:, :n_type], log_var_NZ[:, :n_type]).detach()
            if self.training:
                self.micro.follow_centres(mean_NZ[:, n_type:].detach(), gamma_NK)
            mean_NZ = mean_NZ - F.pad(gamma_NK @ self.micro.centres_KM, (n_type, 0))
        return Posterior(mean_NZ=mean_NZ, log_var_NZ=log_var_NZ, n_type=self.config.n_type)

    def decode(self, z_NZ: Tensor) -> Tensor:
        """Expected gene proportions of a cell with latent z, [N, G], rows sum to 1."""
        out_NG = self.decoder(z_NZ)
        if self.config.likelihood == "mse":
            positive_NG = torch.expm1(out_NG.clamp(1e-6, 12.0))
            return positive_NG / positive_NG.sum(1, keepdim=True)
        return torch.softmax(out_NG, 1)

    def novelty_scores(
        self, counts_NG: Tensor, posterior: Posterior, observed_G: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Fit and latent score of each cell (see novelty.py), [N] each; low is unusual."""
        proportions_NG = self.decode(posterior.mean_NZ)
        if observed_G is not None:
            counts_NG, proportions_NG = counts_NG[:, observed_G], proportions_NG[:, observed_G]
            proportions_NG = proportions_NG / proportions_NG.sum(1, keepdim=True)
        latent_N = latent_score(self.mixture.log_prob(posterior.z1), posterior.z2)
        return fit_score(counts_NG, proportions_NG), latent_N

    def log_likelihood(self, counts_NG: Tensor, z_NZ: Tensor, observed_G: Tensor | None = None) -> Tensor:
        """log p(x | z) over the observed genes (bool [G]), [N], nats. Empty cells count 0."""
        counts_NG = counts_NG.float()
        out_NG = self.decoder(z_NZ)
        log_theta_G: Tensor = self.log_theta_G
        if observed_G is not None:
            counts_NG, out_NG, log_theta_G = counts_NG[:, observed_G], out_NG[:, observed_G], log_theta_G[observed_G]
        if self.config.likelihood == "mse":
            return gaussian_log_prob(log_normalised(counts_NG, COUNTS_PER), out_NG)
        log_mean_NG = torch.log_softmax(out_NG, 1) + library_size(counts_NG).log()
        return negative_binomial_log_prob(counts_NG, log_mean_NG, log_theta_G) * (counts_NG.sum(1) > 0)

    def training_pass(
        self,
        counts_NG: Tensor,
        *,
        kl_weight: float = 1.0,
        type_N: Tensor | None = None,
        neighbour_NA: Tensor | None = None,
        protein_NP: Tensor | None = None,
        neighbourhood: Neighbourhood | None = None,
        generator: torch.Generator | None = None,
    ) -> GeneLoss:
        """Encode (with random gene masks), sample, decode, and weigh all terms of the loss.

        Parameters
        ----------
        counts_NG : raw counts of N training cells on the whole panel.
        kl_weight : 0 to 1, warm-up of both KL terms and of the independence term.
        type_N : type index of labelled cells, -1 = unlabelled; None = no labels.
        neighbour_NA : neighbourhood features (see :meth:`encode`), hidden from some cells; None = neighbours unknown.
        protein_NP : proteins (see :meth:`encode`), hidden from the encoder in some cells; z reproduces them.
        neighbourhood : targets of the z2 heads, used once the mixture is initialised; None = heads off.
        generator : of all random choices of the pass; may be on the CPU for any device.
        """
        counts_NG = counts_NG.float()
        config = self.config
        observed_NG = self._gene_mask(counts_NG, generator) if self.training else None
        neighbour_NA = self._hide_neighbours(neighbour_NA, generator)
        shown_NP = protein_NP
        if protein_NP is not None and self.training:
            shown_NP = hide_proteins(protein_NP, config.protein_dropout, generator)
        posterior = self.encode(counts_NG, observed_NG, neighbour_NA, shown_NP)
        z_NZ = posterior.sample(generator)
        decoded_NZ = self._drop_micro(z_NZ, generator)
        reconstruction = -self.log_likelihood(counts_NG, decoded_NZ).mean()
        kl_type, kl_micro, gamma_NK = self._kl_terms(posterior, type_N)
        mixed = bool(self.mixture.initialised)
        type_in_z2, z2_in_z1 = dependence(posterior.z1, posterior.z2, gamma_NK if mixed else None)
        labels = self._label_term(posterior, type_N)
        neighbours = reconstruction.new_zeros(())
        if self.heads is not None and neighbourhood is not None and mixed:
            # not earlier: without components, z2 would have to encode what the type alone predicts of the neighbours
            neighbours = self.heads.loss(gamma_NK, z_NZ[:, config.n_type :], neighbourhood)
        loss = (
            reconstruction
            + kl_weight * (config.kl_type_weight * kl_type + config.kl_micro_weight * kl_micro)
            + kl_weight * config.independence_weight * type_in_z2
            + config.label_weight * labels
            + config.neighbourhood_weight * neighbours
        )
        of_proteins = {}
        if self.protein_decoder is not None and self.encoder.from_proteins is not None and protein_NP is not None:
            own = self.encoder.from_proteins.standardised(protein_NP)
            of_proteins["proteins"] = protein_loss(self.protein_decoder(decoded_NZ), *own)
            loss = loss + of_proteins["proteins"]
        terms = {"loss": loss, "reconstruction": reconstruction, "kl_type": kl_type, "kl_micro": kl_micro} | of_proteins
        terms |= {"independence": type_in_z2, "z2_in_z1": z2_in_z1, "labels": labels, "neighbourhood": neighbours}
        terms |= latent_metrics(posterior, gamma_NK)
        return GeneLoss(terms=terms, posterior=posterior, z_NZ=z_NZ)

    def _kl_terms(self, posterior: Posterior, type_N: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """(KL of z1 and c, KL of z2, responsibilities); `free_nats` per dim cost nothing."""
        n_type, free = self.config.n_type, self.config.free_nats
        mean_NT, log_var_NT = posterior.z1, posterior.log_var_NZ[:, :n_type]
        allowed_NK = None if type_N is None else self.mixture.allowed_components(type_N)
        # optimal responsibilities: their own gradient vanishes, so that of the bound is exact without it
        gamma_NK = self.mixture.best_responsibilities(mean_NT, log_var_NT, allowed_NK).detach()
        if self.mixture.initialised:
            kl_type = self.mixture.kl(mean_NT, log_var_NT, gamma_NK).mean()
        else:
            kl_type = standard_normal_kl(mean_NT, log_var_NT).mean(0).clamp_min(free).sum()
        kl_micro = standard_normal_kl(posterior.z2, posterior.log_var_NZ[:, n_type:]).mean(0).clamp_min(free).sum()
        return kl_type, kl_micro, gamma_NK

    def _label_term(self, posterior: Posterior, type_N: Tensor | None) -> Tensor:
        """Mean over labelled cells of -log p(own type | z1), nats; 0 without labels or owned components."""
        if type_N is None or not self.mixture.initialised:
            return posterior.mean_NZ.new_zeros(())
        own_NK = type_N[:, None] == self.mixture.type_of_component_K
        labelled_N = (type_N >= 0) & own_NK.any(1)
        log_gamma_NK = self.mixture.log_responsibilities(posterior.z1).clamp_min(-30.0)
        log_own_N = torch.logsumexp(log_gamma_NK.masked_fill(~own_NK & labelled_N[:, None], -100.0), 1)
        return -(log_own_N * labelled_N).sum() / labelled_N.sum().clamp_min(1)

    def _gene_mask(self, counts_NG: Tensor, generator: torch.Generator | None) -> Tensor | None:
        """Random observed genes, one pattern per group of cells, [N, G] bool; shares are log-uniform."""
        config = self.config
        if config.gene_dropout == 0:
            return None
        device = _device_of(generator, counts_NG)
        n_groups = min(config.n_mask_groups, len(counts_NG))
        uniform_R2 = torch.rand(n_groups, 2, generator=generator, device=device)
        share_R = torch.where(uniform_R2[:, 0] < config.gene_dropout, config.min_observed ** uniform_R2[:, 1], 1.0)
        mask_RG = torch.rand(n_groups, config.n_genes, generator=generator, device=device) < share_R[:, None]
        mask_RG[:, 0] |= ~mask_RG.any(1)
        group_N = torch.arange(len(counts_NG), device=device) % n_groups
        return mask_RG[group_N].to(counts_NG.device)

    def _hide_neighbours(self, neighbour_NA: Tensor | None, generator: torch.Generator | None) -> Tensor | None:
        """Zero the neighbourhood features of random cells (training only), so that cells without positions can be encoded."""
        if neighbour_NA is None or not self.training:
            return neighbour_NA
        shown_N1 = (
            torch.rand(len(neighbour_NA), 1, generator=generator, device=_device_of(generator, neighbour_NA))
            >= self.config.neighbour_dropout
        )
        return neighbour_NA * shown_N1.to(neighbour_NA.device)

    def _drop_micro(self, z_NZ: Tensor, generator: torch.Generator | None) -> Tensor:
        """Set z2 to its prior mean for random cells (training only), so that z1 encodes all that it can."""
        if not self.training or self.config.micro_dropout == 0:
            return z_NZ
        kept_N1 = (
            torch.rand(len(z_NZ), 1, generator=generator, device=_device_of(generator, z_NZ))
            >= self.config.micro_dropout
        )
        z1_NT, z2_NM = z_NZ[:, : self.config.n_type], z_NZ[:, self.config.n_type :]
        return torch.cat([z1_NT, z2_NM * kept_N1.to(z_NZ.device)], 1)


def standard_normal_kl(mean_ND: Tensor, log_var_ND: Tensor) -> Tensor:
    """KL( N(mean, var) || N(0, 1) ) of every cell and dim, [N, D], nats."""
    return 0.5 * (mean_ND.square() + log_var_ND.exp() - log_var_ND - 1)


@torch.no_grad()
def latent_metrics(posterior: Posterior, gamma_NK: Tensor) -> dict[str, Tensor]:
    """Indicators of a collapse: active units (Var_x[mean] > 0.01, Burda et al. 2016) and entropies in nats."""
    active_Z = posterior.mean_NZ.var(0, correction=0) > 0.01
    occupancy_K = gamma_NK.mean(0)
    return {
        "active_units_z1": active_Z[: posterior.n_type].sum().float(),
        "active_units_z2": active_Z[posterior.n_type :].sum().float(),
        "occupancy_entropy": -torch.xlogy(occupancy_K, occupancy_K).sum(),
        "responsibility_entropy": -torch.xlogy(gamma_NK, gamma_NK).sum(1).mean(),
    }


def _device_of(generator: torch.Generator | None, like: Tensor) -> torch.device:
    return generator.device if generator is not None else like.device
