"""How strongly two latent blocks depend on each other: normalised Hilbert-Schmidt independence criterion (HSIC).

Gretton et al. 2005; the unbiased estimator is Song et al. 2012, eq. 5. With a Gaussian kernel it is zero only under
independence, linear or not; normalised by the two self-terms it lies between 0 and 1 up to sampling noise.
"""

from __future__ import annotations

import torch
from torch import Tensor


def gaussian_kernel(x_ND: Tensor) -> Tensor:
    """exp(-d^2 / median d^2) between rows, [N, N]; the bandwidth is taken without gradient."""
    squared_N1 = x_ND.square().sum(1, keepdim=True)
    distance_NN = (squared_N1 + squared_N1.T - 2 * (x_ND @ x_ND.T)).clamp_min(0)
    median = distance_NN.detach().median().clamp_min(1e-6)
    return torch.exp(-distance_NN / median)


def unbiased_hsic(kernel_NN: Tensor, other_NN: Tensor) -> Tensor:
    """Unbiased HSIC of two kernel matrices of the same N >= 4 samples, scalar."""
    n = len(kernel_NN)
    k = kernel_NN - torch.diag(kernel_NN.diagonal())
    l = other_NN - torch.diag(other_NN.diagonal())  # noqa: E741
    k_rows, l_rows = k.sum(1), l.sum(1)
    cross = (k * l).sum() + k_rows.sum() * l_rows.sum() / ((n - 1) * (n - 2)) - 2 * (k_rows * l_rows).sum() / (n - 2)
    return cross / (n * (n - 3))


def normalised_hsic(a_NA: Tensor, b_NB: Tensor) -> Tensor:
    """HSIC(a, b) / sqrt(HSIC(a, a) HSIC(b, b)): 0 when independent, 1 when one determines the other.

    Scalar, float32. Fewer than 8 samples cannot tell: the result is 0 (still connected to the inputs).
    """
    if len(a_NA) < 8:
        return 0.0 * (a_NA.sum() + b_NB.sum())
    with torch.autocast(a_NA.device.type, enabled=False):
        a_NN, b_NN = gaussian_kernel(a_NA.float()), gaussian_kernel(b_NB.float())
        self_terms = unbiased_hsic(a_NN, a_NN).clamp_min(1e-6) * unbiased_hsic(b_NN, b_NN).clamp_min(1e-6)
        return unbiased_hsic(a_NN, b_NN) / self_terms.sqrt()
