"""The dependence of z1 and z2: against scikit-learn, at its limits, whose gradient goes where, and that it works."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression

from sge2hist.models.gene.auxiliary_losses import dependence, linear_r2, within_component


def normal(n: int, dims: int, seed: int) -> torch.Tensor:
    return torch.randn(n, dims, generator=torch.Generator().manual_seed(seed))


def test_r2_is_that_of_a_linear_regression() -> None:
    x = normal(2000, 5, 1)
    y = x @ normal(5, 3, 2) + 2 * normal(2000, 3, 3)
    standard = ((y - y.mean(0)) / y.std(0, correction=0)).numpy()
    r2 = LinearRegression().fit(x.numpy(), standard).score(x.numpy(), standard)
    assert float(linear_r2(x, y)) == pytest.approx(r2, abs=0.02)


@pytest.mark.parametrize("n_predictors", [2, 48])
def test_unrelated_blocks_give_zero_on_average_and_identical_ones_one(n_predictors: int) -> None:
    values = [float(linear_r2(normal(128, n_predictors, 2 * s), normal(128, 4, 2 * s + 1))) for s in range(40)]
    assert abs(np.mean(values)) < 0.03
    assert float(linear_r2(normal(500, 3, 0), 5 * normal(500, 3, 0) - 2)) > 0.97


def test_repeated_dims_do_not_look_independent() -> None:
    """The correction counts effective predictors: merging dims must not be a way to lower the value."""
    values = []
    for s in range(40):
        x = normal(128, 4, 2 * s)
        values.append(float(linear_r2(torch.cat([x] * 12, 1), normal(128, 4, 2 * s + 1))))
    assert abs(np.mean(values)) < 0.03


def test_scale_does_not_matter_and_constants_are_finite() -> None:
    x, y = normal(100, 3, 1), normal(100, 2, 1)
    assert float(linear_r2(1e-2 * x, 100 * y)) == pytest.approx(float(linear_r2(x, y)), abs=1e-3)
    constant = torch.zeros(100, 3, requires_grad=True)
    value = linear_r2(constant, y) + linear_r2(y, torch.ones(100, 4))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(constant.grad).all()
    assert float(linear_r2(normal(5, 3, 1), normal(5, 2, 2))) == 0.0


def test_within_component_removes_the_means() -> None:
    group = torch.arange(90) % 3
    gamma = torch.eye(3)[group]
    z = normal(90, 4, 1) + 10 * group[:, None]
    inside = within_component(z, gamma)
    for k in range(3):
        torch.testing.assert_close(inside[group == k].mean(0), torch.zeros(4), atol=1e-4, rtol=0)


def test_the_first_term_moves_z2_and_the_second_nothing() -> None:
    gamma = torch.softmax(3 * normal(100, 4, 3), 1)
    z1, z2 = normal(100, 3, 1).requires_grad_(), (normal(100, 2, 2) + gamma[:, :2]).requires_grad_()
    type_in_z2, _ = dependence(z1, z2, gamma)
    type_in_z2.backward()
    assert z1.grad is None
    assert (z2.grad != 0).any()
    repeated = dependence(z2.detach().repeat(1, 2), z2.detach(), gamma)[1]
    assert not repeated.requires_grad
    assert float(repeated) > 0.9


def test_descent_removes_the_type_and_keeps_what_else_z2_holds() -> None:
    own, group = normal(500, 2, 3), (torch.arange(500) % 2).float()[:, None]
    source, gamma = torch.cat([own, 2 * group - 1], 1), torch.cat([group, 1 - group], 1)
    encode = torch.nn.Linear(3, 2, bias=False)
    decode = torch.nn.Linear(2, 2)
    torch.nn.init.constant_(encode.weight, 0.5)
    optimiser = torch.optim.Adam([*encode.parameters(), *decode.parameters()], 1e-2)
    for _ in range(300):
        optimiser.zero_grad()
        z2 = encode(source)
        type_in_z2, _ = dependence(own, z2, gamma)
        ((decode(z2) - own).square().mean() + type_in_z2).backward()
        optimiser.step()
    assert float(type_in_z2.detach()) < 0.02
    assert encode.weight.detach().abs()[:, 2].max() < 0.1 * encode.weight.detach().abs()[:, :2].max()
