"""The gate of the decoder noise closes where real images are flat, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import torch

from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.autoencoder import Autoencoder, AutoencoderConfig
from sge2hist.training.finetune.adversarial_decoder import with_decoder_noise
from sge2hist.training.finetune.noise_gate import fit_noise_gate, local_contrast, with_noise_gate

CONFIG = AutoencoderConfig(latent_channels=8, width=16, n_blocks=1, decoder_noise_channels=2)


def _half_glass(seed: int) -> torch.Tensor:
    """Images that are flat and bright on the left, textured and darker on the right."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.full((8, 3, 48, 48), 0.9)
    images[..., 24:] = torch.randn(8, 3, 48, 24, generator=generator) * 0.2 - 0.2
    return images


def test_contrast_is_the_standard_deviation_of_the_window():
    noise = torch.randn(4, 3, 200, 200, generator=torch.Generator().manual_seed(0)) * 0.1
    found = local_contrast(noise)
    assert found.shape == (4, 1, 100, 100)
    expected = 0.1 * (1 - 1 / 25) ** 0.5  # a window's own mean takes one of its 25 degrees of freedom
    assert abs(found[..., 5:-5, 5:-5].square().mean().sqrt() - expected) < 0.05 * expected
    assert local_contrast(torch.full((1, 3, 20, 20), 0.5)).max() == 0


def test_gate_opens_on_texture_alone():
    torch.manual_seed(0)
    autoencoder = Autoencoder(CONFIG).eval()
    autoencoder.set_latent_statistics(_half_glass(0))
    gate = fit_noise_gate(autoencoder, _half_glass(0))
    with torch.no_grad():
        weight = torch.sigmoid(gate(autoencoder.features_at_half(autoencoder.encode(_half_glass(1)))))
    assert weight[..., 3:9].mean() < 0.2
    assert weight[..., 15:21].mean() > 0.8


def test_closed_gate_is_no_noise_and_open_gate_is_all_of_it():
    torch.manual_seed(0)
    plain = Autoencoder(CONFIG).eval()
    gated = Autoencoder(replace(CONFIG, noise_gate=True)).eval()
    gated.load_state_dict(plain.state_dict(), strict=False)
    latent, noise = torch.randn(2, 8, 12, 12), torch.randn(2, plain.n_decoder_noise, 12, 12)
    torch.nn.init.zeros_(gated.noise_gate.weight)
    with torch.no_grad():
        for bias, expected in ((-50.0, plain.decode(latent)), (50.0, plain.decode(latent, noise))):
            torch.nn.init.constant_(gated.noise_gate.bias, bias)
            torch.testing.assert_close(gated.decode(latent, noise), expected)


def test_a_gate_is_added_once_and_to_decoder_noise_alone(tiny_model):
    noisy = with_decoder_noise(ModelBundle.load(tiny_model), 4, seed=0)
    images = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    gated = with_noise_gate(noisy, images)
    before, after = noisy.model.state_dict(), gated.model.state_dict()
    assert set(after) - set(before) == {f"image.autoencoder.noise_gate.{name}" for name in ("weight", "bias")}
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert with_noise_gate(gated, images) is gated
    plain = ModelBundle.load(tiny_model)
    assert with_noise_gate(plain, images) is plain
