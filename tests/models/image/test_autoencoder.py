"""The image autoencoder: it is local, standardises its latents, and decoder noise adds local variation."""

from __future__ import annotations

import torch

from sge2hist.models.image.autoencoder import Autoencoder, AutoencoderConfig


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


def test_decoder_noise_acts_locally_and_zero_noise_is_no_noise():
    torch.manual_seed(0)
    model = Autoencoder(AutoencoderConfig(latent_channels=4, width=16, n_blocks=1, decoder_noise_channels=2)).eval()
    latent, noise = torch.randn(1, 4, 24, 24), torch.randn(1, model.n_decoder_noise, 24, 24)
    assert model.n_decoder_noise == 8
    torch.nn.init.zeros_(model.noise_proj.bias)
    without, first = model.decode(latent), model.decode(latent, noise)
    assert torch.equal(without, model.decode(latent, torch.zeros_like(noise)))
    other = noise.clone()
    other[..., :6] = torch.randn(1, 8, 24, 6)
    second = model.decode(latent, other)
    assert not torch.allclose(first[..., :24], second[..., :24], atol=1e-3)
    assert torch.allclose(first[..., 48:], second[..., 48:], atol=1e-5)
