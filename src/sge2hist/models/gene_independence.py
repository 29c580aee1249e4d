"""Independence of z1 and z2 as an explicit term: how well the best linear predictor tells one from the other.

With responsibilities gamma = q(c | x), the two blocks are independent when

    z2 is independent of c            (the type is not in z2: pushes z2), and
    z1 is independent of z2 given c   (what z2 holds is not repeated in z1: measured alone).

Each is measured by the R^2 of a ridge regression that is solved in closed form in the batch and corrected for the
number of predictors: 0 = no linear predictor finds anything, 1 = determined. An adversary network would have to be
trained against a moving target; the regression is always at its optimum. What a batch is too small to tell is taken from z2
by construction: see `GeneVAE.encode`.
"""

from __future__ import annotations

import torch
from torch import Tensor

RIDGE = 1e-2  # of the standardised predictors, so that directions of no spread are left alone


def linear_r2(predictor_ND: Tensor, target_NE: Tensor) -> Tensor:
    """Adjusted R^2 of the linear regression of standardised targets on standardised predictors, scalar float32.

    About 0 for unrelated blocks whatever D, 1 when determined. Constant columns count for nothing. With fewer than
    D + 8 cells the regression could fit anything: the result is 0, still connected to the inputs.
    """
    n_cells, n_predictors = predictor_ND.shape
    if n_cells < n_predictors + 8:
        return 0.0 * (predictor_ND.sum() + target_NE.sum())
    with torch.autocast(predictor_ND.device.type, enabled=False):
        x_ND, y_NE = _standardised(predictor_ND.float()), _standardised(target_NE.float())
        gram_DD = x_ND.T @ x_ND / n_cells
        inverse_DD = torch.linalg.inv(gram_DD + RIDGE * torch.eye(n_predictors, device=x_ND.device))
        cross_DE = x_ND.T @ y_NE / n_cells
        r2 = (cross_DE * (inverse_DD @ cross_DE)).sum() / y_NE.square().mean(0).sum().clamp_min(1e-6)
        # effective number of predictors; with D itself, fewer independent dims would look like less dependence
        n_effective = (inverse_DD * gram_DD).sum()
        return 1 - (1 - r2) * (n_cells - 1) / (n_cells - 1 - n_effective)


def within_component(z_ND: Tensor, gamma_NK: Tensor) -> Tensor:
    """z minus the mean of its component: sum_c gamma_c (z - mean_c), [N, D]; the means are taken without gradient."""
    mass_K1 = gamma_NK.sum(0)[:, None].clamp_min(1e-6)
    means_KD = (gamma_NK.T @ z_ND.detach()) / mass_K1
    return z_ND - gamma_NK @ means_KD


def dependence(z1_NT: Tensor, z2_NM: Tensor, gamma_NK: Tensor | None) -> tuple[Tensor, Tensor]:
    """(R^2 of the type from z2, R^2 of z1 from z2 within types); the first moves z2 alone, the second nothing.

    z1 never reads the surroundings. To push it away from what z2 tells of them costs types: on kidney bins without labels
    NMI 0.20 with a weight of 200, 0.33 with 5, 0.34 with none.

    Without a mixture (`gamma_NK` None), the first is that of z1 from z2, and the second is 0. Not below 0: less than chance
    finds in a batch would be learning the batch.
    """
    with torch.autocast(z1_NT.device.type, enabled=False):
        z1_NT, z2_NM = z1_NT.float(), z2_NM.float()
        if gamma_NK is None:
            return linear_r2(z2_NM, z1_NT.detach()).clamp_min(0), z1_NT.new_zeros(())
        gamma_NK = gamma_NK.detach().float()
        with torch.no_grad():
            inside = linear_r2(within_component(z2_NM, gamma_NK), within_component(z1_NT, gamma_NK))
        return linear_r2(z2_NM, gamma_NK).clamp_min(0), inside.clamp_min(0)


def _standardised(x_ND: Tensor) -> Tensor:
    """Zero mean and unit spread per column; constant columns become zero."""
    centred_ND = x_ND - x_ND.mean(0)
    return centred_ND / (centred_ND.square().mean(0) + 1e-8).sqrt()
