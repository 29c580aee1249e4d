"""The adversary that keeps the type out of z2: whose gradient goes where, what it measures, and that it works."""

import torch

from sge2hist.models.gene_independence import TypeAdversary


def draw(n: int, dims: int, seed: int) -> torch.Tensor:
    return torch.randn(n, dims, generator=torch.Generator().manual_seed(seed))


def make_adversary(n_type: int = 2, n_micro: int = 3, k: int = 4) -> TypeAdversary:
    torch.manual_seed(0)
    return TypeAdversary(n_type, n_micro, k)


def test_each_term_moves_only_its_own_side() -> None:
    adversary = make_adversary()
    z1, z2 = draw(20, 2, 1).requires_grad_(), draw(20, 3, 2).requires_grad_()
    gamma = torch.softmax(draw(20, 4, 3), 1).requires_grad_()
    terms = adversary(z1, gamma, z2)
    terms.confusion.backward(retain_graph=True)
    assert (z2.grad != 0).any()
    assert all(p.grad is None for p in adversary.parameters())
    z2.grad = None
    terms.adversary.backward()
    assert z2.grad is None
    assert all((p.grad != 0).any() for p in adversary.parameters())
    assert z1.grad is None
    assert gamma.grad is None


def test_few_cells_and_constant_latents_are_finite() -> None:
    adversary = make_adversary()
    few = adversary(draw(3, 2, 1), torch.ones(3, 4) / 4, draw(3, 3, 2))
    assert [float(value) for value in few] == [0.0, 0.0, 0.0]
    z2 = torch.zeros(20, 3, requires_grad=True)
    constant = adversary(torch.zeros(20, 2), torch.ones(20, 4) / 4, z2)
    (constant.confusion + constant.adversary).backward()
    assert torch.isfinite(z2.grad).all()


def test_a_pruned_mixture_is_accepted() -> None:
    assert torch.isfinite(make_adversary()(draw(20, 2, 1), torch.ones(20, 2) / 2, draw(20, 3, 2)).adversary)


def train(adversary: TypeAdversary, z1: torch.Tensor, z2: torch.Tensor, steps: int = 200) -> float:
    optimiser = torch.optim.Adam(adversary.parameters(), 1e-2)
    gamma = torch.softmax(4 * z1, 1)
    for _ in range(steps):
        optimiser.zero_grad()
        terms = adversary(z1, gamma, z2)
        terms.adversary.backward()
        optimiser.step()
    return float(terms.r2)


def test_r2_tells_dependence_even_without_correlation() -> None:
    z1 = draw(500, 2, 1)
    assert train(make_adversary(k=2), z1, torch.cat([z1.abs(), z1.sign()], 1)[:, :3], 400) > 0.4
    assert train(make_adversary(k=2), z1, draw(500, 3, 2), 50) < 0.1


def test_confusion_removes_the_type_from_a_linear_code() -> None:
    """z2 = type + own signal, through a learnt map that is free to drop either; only the own signal must remain."""
    own, kind = draw(500, 2, 3), draw(500, 1, 4).sign()
    source = torch.cat([own, kind], 1)
    encode = torch.nn.Linear(3, 2, bias=False)
    torch.nn.init.constant_(encode.weight, 0.5)
    decode = torch.nn.Linear(2, 2)
    adversary = TypeAdversary(1, 2, 2)
    optimiser = torch.optim.Adam([*encode.parameters(), *decode.parameters(), *adversary.parameters()], 1e-2)
    gamma = torch.cat([kind > 0, kind < 0], 1).float()
    for _ in range(600):
        optimiser.zero_grad()
        z2 = encode(source)
        terms = adversary(kind, gamma, z2)
        loss = (decode(z2) - own).square().mean() + terms.confusion + terms.adversary
        loss.backward()
        optimiser.step()
    weight = encode.weight.detach().abs()
    assert weight[:, 2].max() < 0.15 * weight[:, :2].max()
