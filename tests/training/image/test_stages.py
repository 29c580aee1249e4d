"""The joint stage: which gradients reach the gene model, and when it rests."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from sge2hist.devices import make_accelerator
from sge2hist.training.config import TrainConfig
from sge2hist.training.image.conditioning import single_cell_latents
from sge2hist.training.image.stages import JointTraining, scale_gradient
from sge2hist.training.loop import Stage, StagePlan, run_stage
from sge2hist.training.run import TrainingRun
from sge2hist.training.train import train


def test_a_share_of_the_gradient_reaches_z1_and_all_of_it_z2():
    z = torch.randn(5, 6, requires_grad=True)
    for share in (0.0, 0.25, 1.0):
        z.grad = None
        scaled = scale_gradient(z, 2, share)
        assert torch.equal(scaled, z)
        scaled.sum().backward()
        assert torch.allclose(z.grad, torch.cat([torch.full((5, 2), share), torch.ones(5, 4)], 1))


def test_a_lone_cell_is_told_a_draw_of_z1_and_the_mean_of_z2():
    sample, mean = torch.randn(4, 5), torch.randn(4, 5)
    latents = single_cell_latents(sample, mean, torch.tensor([True, False, True, False]), 2)
    assert torch.equal(latents[[0, 2], :2], sample[[0, 2], :2])
    assert torch.equal(latents[:, 2:], mean[:, 2:])
    assert torch.equal(latents[[1, 3]], mean[[1, 3]])


class _TwoNumbers(Stage):
    """Two parameters that want to grow by the learning rate in each step; records its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.steady, self.tiring = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
        self.shares: list[float] = []
        self.moves: list[float] = []

    def parameter_groups(self):
        return [{"params": [self.steady], "scale": 1.0}, {"params": [self.tiring], "scale": 0.5, "until": 0.5}]

    def advance(self, share: float) -> None:
        self.shares.append(share)
        self.moves.append(float(self.tiring.detach()))

    def forward(self, step: int):
        return {"loss": -(self.steady + self.tiring).sum()}


def test_a_group_slows_down_to_zero_at_its_share(tmp_path):
    stage = _TwoNumbers()
    run = TrainingRun(directory=tmp_path, accelerator=make_accelerator("no"), seed=0, log=lambda _: None)
    plan = StagePlan(name="x", n_steps=20, learning_rate=0.1, items_per_step=1, warmup=0.0, decay=0.0)
    run_stage(stage, plan, run, stage)
    assert stage.shares == [i / 20 for i in range(20)]
    moved = torch.tensor(stage.moves).diff()
    assert torch.allclose(moved[:10], 0.05 * (1 - torch.arange(10) / 10), atol=1e-3)  # Adam moves by the rate
    assert (moved[10:] == 0).all()
    assert float(stage.steady.detach()) > 1.9


def test_the_gene_model_is_frozen_and_the_image_model_is_trained_further(tiny_paired, tmp_path, monkeypatch):
    seen: list[tuple[float, torch.Tensor, torch.Tensor]] = []

    def watch(stage: JointTraining, share: float) -> None:
        advance(stage, share)
        gene, image = stage.model.gene.encoder, stage.model.image.unet
        seen.append((share, flat(gene), flat(image)))

    def flat(module: nn.Module) -> torch.Tensor:
        return torch.cat([p.detach().flatten() for p in module.parameters()])

    advance = JointTraining.advance
    monkeypatch.setattr(JointTraining, "advance", watch)
    config = TrainConfig(preset="tiny", mixed_precision="no", steps=9, seed=1)
    train(tiny_paired, tmp_path / "x.model", config, log=lambda _: None)
    for (share, gene, image), (_, gene_next, image_next) in pairwise(seen):
        assert torch.equal(gene, gene_next) == (share >= 1 / 3), share
        assert not torch.equal(image, image_next)
