"""Consistency tuning (Geng et al. 2024, "Consistency models made easy"): a trained denoiser learns to jump.

The denoiser D(x, t) is taught to say at noise level t what it says at a lower level r on the same path, D(x0 + r n, r), and at
r = 0 what the image is. It starts as the diffusion model (r = 0) and r approaches t as training goes on; in the end one
evaluation from pure noise gives an image. B images.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sge2hist.models.diffusion import expand
from sge2hist.models.image_model import ImageModel
from sge2hist.models.placed_cells import PlacedCells

LOG_MEAN, LOG_STD = -0.4, 2.0  # of t, in units of sigma_data (the paper's -1.1 and 2.0 at sigma_data = 0.5)
N_STAGES = 8
HUBER = 0.03  # per dimension


def lower_level(t_B: Tensor, share: float) -> Tensor:
    """r of t at a share (0 to 1) of the training: r/t = max(0, 1 - 2^-a (1 + 8 sigmoid(-t))), a = 0, 1, ... by stages."""
    stage = min(int(share * N_STAGES), N_STAGES - 1)
    return t_B * (1 - 2.0**-stage * (1 + 8 * torch.sigmoid(-t_B))).clamp_min(0)


def consistency_loss(
    model: ImageModel, latent_BLHW: Tensor, cells: PlacedCells, generator: torch.Generator, share: float
) -> Tensor:
    """Pseudo-Huber distance between D at t and D (fixed) at r, over t - r; [B], per dimension."""
    B, device = len(latent_BLHW), latent_BLHW.device
    low, high = model.noise_model.sigma_range
    normal = torch.randn(B, generator=generator, device=generator.device).to(device)
    t_B = (LOG_MEAN + LOG_STD * normal).exp().clamp(low, high)
    r_B = lower_level(t_B, share)
    noise = torch.randn(latent_BLHW.shape, generator=generator, device=generator.device).to(device)
    condition = model.encode_cells(cells, (latent_BLHW.shape[2], latent_BLHW.shape[3]))
    student = model.denoise(latent_BLHW + expand(t_B) * noise, t_B, condition)
    with torch.no_grad():
        teacher = model.denoise(latent_BLHW + expand(r_B) * noise, r_B.clamp_min(low), condition)
        teacher = torch.where(expand(r_B) > low, teacher, latent_BLHW)
    distance_B = ((student - teacher).square().mean(dim=(1, 2, 3)) + HUBER**2).sqrt() - HUBER
    return distance_B / (t_B - r_B)
