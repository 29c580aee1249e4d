"""The image model: seeds, canvas sizes, the loss at the optimum, and training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sge2hist.models.image.autoencoder import AutoencoderConfig
from sge2hist.models.image.conditioning import MODE_ALL, ConditionConfig, PlacedCells
from sge2hist.models.image.image_model import ImageModel, ImageModelConfig
from sge2hist.models.image.preconditioning import DiffusionConfig
from sge2hist.models.image.samplers import SamplerConfig
from sge2hist.models.image.unet import UNetConfig

TINY = ImageModelConfig(
    autoencoder=AutoencoderConfig(latent_channels=4, width=16, n_blocks=1, decoder_noise_channels=2),
    condition=ConditionConfig(embedding=8, channels=8),
    unet=UNetConfig(channels=(16, 24), n_blocks=1),
    n_latent=5,
)
PIXEL = ImageModelConfig(
    autoencoder=None,
    condition=ConditionConfig(form="vector", grid_um=2.0, splat_um=2.0),
    unet=UNetConfig(channels=(16, 16), n_blocks=1, attention=(False, True), norm="group", noise_slowest=1e4),
    diffusion=DiffusionConfig(formulation="ddpm", n_steps=50),
    n_latent=5,
)


def _model(config: ImageModelConfig) -> ImageModel:
    torch.manual_seed(0)
    model = ImageModel(config).eval()
    for parameter in model.parameters():  # zero-initialised branches would hide what is tested
        torch.nn.init.normal_(parameter, std=0.05)
    return model


def _cells(n_images: int, per_image: int = 6) -> PlacedCells:
    generator = torch.Generator().manual_seed(3)
    m = n_images * per_image
    return PlacedCells(
        z_MZ=torch.randn(m, 5, generator=generator),
        depth_M=torch.randn(m, generator=generator),
        xy_um_M2=64 * torch.rand(m, 2, generator=generator),
        image_M=torch.arange(n_images).repeat_interleave(per_image),
        mode_B=torch.full((n_images,), MODE_ALL),
        slide_B=torch.zeros(n_images, dtype=torch.long),
    )


def _only(cells: PlacedCells, i: int) -> PlacedCells:
    own = cells.image_M == i
    return PlacedCells(
        z_MZ=cells.z_MZ[own],
        depth_M=cells.depth_M[own],
        xy_um_M2=cells.xy_um_M2[own],
        image_M=torch.zeros(int(own.sum()), dtype=torch.long),
        mode_B=cells.mode_B[[i]],
        slide_B=cells.slide_B[[i]],
    )


@pytest.mark.parametrize("config", [TINY, PIXEL], ids=["latent map", "pixel vector"])
@pytest.mark.parametrize(
    ("sampler", "eta"),
    [("dpmpp-2m", 0.0), ("dpmpp-2m", 1.5), ("heun", 0.0), ("euler", 0.0), ("ancestral", 0.0), ("consistency", 0.0)],
)
def test_an_image_depends_on_its_seed_alone(config, sampler, eta):
    model, cells = _model(config), _cells(3)
    side = 32 // model.downsampling
    settings = SamplerConfig(sampler=sampler, n_steps=3, guidance=1.5, eta=eta, sigma_range=(0.3, 20.0))
    together = model.sample(cells, [11, 12, 13], (side, side), settings)
    alone = model.sample(_only(cells, 1), [12], (side, side), settings)
    assert together.shape == (3, 3, 32, 32)
    assert torch.allclose(together[1], alone[0], atol=1e-4)
    assert not torch.allclose(together[1], model.sample(_only(cells, 1), [13], (side, side), settings)[0], atol=1e-2)


def test_loss_is_zero_for_the_network_that_knows_the_target():
    model = _model(TINY)
    latent = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    seen = {}

    class Oracle(torch.nn.Module):
        def forward(self, x, c_noise, read_map, cond_vector):
            sigma = (4 * c_noise).exp()[:, None, None, None]
            seen["sigma"] = sigma
            c_in = 1 / (1 + sigma**2).sqrt()
            return (latent - (x / c_in) / (1 + sigma**2)) / (sigma * c_in)

        def read_map(self, cond_map):
            return []

    model.unet = model.denoiser.network = Oracle()
    loss = model.loss(latent, _cells(4), torch.Generator().manual_seed(1))
    assert torch.allclose(loss, torch.zeros(4), atol=1e-6)
    assert seen["sigma"].unique().numel() == 4


def test_configs_refuse_what_cannot_work():
    for wrong in (
        lambda: UNetConfig(bottom=-1),
        lambda: UNetConfig(channels=(16,), attention=(False, True)),
        lambda: UNetConfig(channels=(12, 16)),
        lambda: AutoencoderConfig(width=10),
        lambda: AutoencoderConfig(decoder_noise_channels=-1),
        lambda: ConditionConfig(grid_um=8, splat_um=4),
    ):
        with pytest.raises(ValueError, match=r".+"):
            wrong()


def test_training_lowers_the_loss_on_one_image():
    torch.manual_seed(0)
    model = ImageModel(TINY)
    latent = torch.randn(1, 4, 8, 8).expand(8, 4, 8, 8)
    cells = _cells(8)
    optimizer = torch.optim.Adam([*model.unet.parameters(), *model.condition.parameters()], 3e-3)
    losses = []
    for step in range(60):
        loss = model.loss(latent, cells, torch.Generator().manual_seed(step)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:5])
