"""The image model: seeds, canvas sizes, the loss at the optimum, and networks that look at a neighbourhood only."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sge2hist.models.image.autoencoder import Autoencoder, AutoencoderConfig
from sge2hist.models.image.conditioning import MODE_ALL, ConditionConfig, PlacedCells
from sge2hist.models.image.image_model import ImageModel, ImageModelConfig, SamplerConfig
from sge2hist.models.image.preconditioning import DiffusionConfig
from sge2hist.models.image.unet import UNet, UNetConfig

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

    model.unet = Oracle()
    loss = model.loss(latent, _cells(4), torch.Generator().manual_seed(1))
    assert torch.allclose(loss, torch.zeros(4), atol=1e-6)
    assert seen["sigma"].unique().numel() == 4


def test_autoencoder_is_local_and_standardises_its_latents():
    torch.manual_seed(0)
    model = Autoencoder(AutoencoderConfig(latent_channels=4, width=16, n_blocks=1)).eval()
    image = torch.rand(2, 3, 96, 96) * 2 - 1
    model.set_latent_statistics(image)
    latent = model.encode(image)
    assert latent.shape == (2, 4, 24, 24)
    assert torch.allclose(latent.mean((0, 2, 3)), torch.zeros(4), atol=1e-4)
    assert torch.allclose(latent.std((0, 2, 3)), torch.ones(4), atol=1e-4)
    window = model.encode(image[:, :, 16:80, 16:80])
    assert torch.allclose(window[:, :, 5:-5, 5:-5], latent[:, :, 9:15, 9:15], atol=1e-4)


def test_grain_is_of_its_place_and_leaves_the_latents_their_say():
    torch.manual_seed(0)
    model = Autoencoder(AutoencoderConfig(latent_channels=4, width=16, n_blocks=1, decoder_noise_channels=2)).eval()
    latent, grain = torch.randn(1, 4, 24, 24), torch.randn(1, model.n_decoder_noise, 24, 24)
    assert model.n_decoder_noise == 8
    torch.nn.init.zeros_(model.noise_proj.bias)
    even, first = model.decode(latent), model.decode(latent, grain)
    assert torch.equal(even, model.decode(latent, torch.zeros_like(grain)))
    other = grain.clone()
    other[..., :6] = torch.randn(1, 8, 24, 6)
    second = model.decode(latent, other)
    assert not torch.allclose(first[..., :24], second[..., :24], atol=1e-3)
    assert torch.allclose(first[..., 48:], second[..., 48:], atol=1e-5)


def test_unet_with_pixel_norm_sees_a_neighbourhood_only():
    torch.manual_seed(0)
    net = UNet(UNetConfig(channels=(16, 16), n_blocks=1), image_channels=2, map_channels=4, vector_dim=4).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x, cond, noise, vector = torch.randn(1, 2, 16, 96), torch.randn(1, 4, 16, 96), torch.zeros(1), torch.zeros(1, 4)
    changed = x.clone()
    changed[..., 0] += 5
    a, b = (net(of, noise, net.read_map(cond), vector) for of in (x, changed))
    assert torch.allclose(a[..., 64:], b[..., 64:], atol=1e-5)
    assert not torch.allclose(a[..., :4], b[..., :4], atol=1e-3)


def test_a_map_that_is_read_once_says_what_it_says_beside_the_image():
    """Against the plain way: stem over image and map joined, every block with its own look at the map."""
    torch.manual_seed(0)
    config = UNetConfig(channels=(16, 24), n_blocks=1)
    net = UNet(config, image_channels=2, map_channels=4, vector_dim=4).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x, cond = torch.randn(2, 2, 8, 8), torch.randn(2, 4, 8, 8)
    seen: dict[str, torch.Tensor] = {}
    joined = net.stem(torch.cat([x, cond], dim=1))
    net.down[0][0][0].register_forward_pre_hook(lambda _, given: seen.update(stem=given[0]))
    blocks = [*net.down[0], *net.down[1], *net.middle, *net.up[0], *net.up[1]]
    coarse = torch.nn.functional.avg_pool2d(cond, 2)
    expected = [block.cond_proj(coarse if block.cond_proj.out_channels == 24 else cond) for block, _ in blocks]

    def hook(block, given):
        seen[str(id(block))] = given[2].clone()

    for block, _ in blocks:
        block.register_forward_pre_hook(hook)
    with_gradients = net(x, torch.zeros(2), net.read_map(cond), torch.ones(2, 4))
    assert torch.allclose(seen["stem"], joined, atol=1e-5)
    for (block, _), share in zip(blocks, expected, strict=True):
        assert torch.allclose(seen[str(id(block))], share, atol=1e-5)
    with torch.no_grad():  # where maps are overwritten
        assert torch.allclose(net(x, torch.zeros(2), net.read_map(cond), torch.ones(2, 4)), with_gradients, atol=1e-4)


def test_a_bottom_in_a_row_leaves_no_map_for_a_way_up():
    config = UNetConfig(channels=(16, 24), n_blocks=3, bottom=2)
    net = UNet(config, image_channels=2, map_channels=4, vector_dim=4)
    assert [len(blocks) for blocks in net.down] == [3, 0]
    assert [len(blocks) for blocks in net.up] == [0, 4]  # coarsest first
    assert len(net.middle) == 2
    x, cond = torch.randn(2, 2, 8, 8), torch.randn(2, 4, 8, 8)
    out = net(x, torch.zeros(2), net.read_map(cond), torch.zeros(2, 4))
    assert out.shape == x.shape
    torch.nn.init.normal_(net.head[-1].weight)
    net(x, torch.zeros(2), net.read_map(cond), torch.zeros(2, 4)).square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())  # every block is on the way


def test_configs_refuse_what_cannot_work():
    for wrong in (
        lambda: UNetConfig(bottom=-1),
        lambda: SamplerConfig(guidance_interval=(4.5, 1.2)),
        lambda: UNetConfig(channels=(16,), attention=(False, True)),
        lambda: UNetConfig(channels=(12, 16)),
        lambda: SamplerConfig(sampler="magic"),
        lambda: SamplerConfig(n_steps=0),
        lambda: SamplerConfig(eta=-1.0),
        lambda: SamplerConfig(sigma_range=(20.0, 0.3)),
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
