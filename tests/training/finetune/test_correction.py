"""The correction finds a known change of tone and of the spectrum, and moves nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.correction import KERNEL_PX, ImageCorrection
from sge2hist.training.finetune.adversarial_decoder import with_decoder_noise
from sge2hist.training.finetune.correction import fit_correction, mean_power, with_correction

RECIPE = Path(__file__).parents[3] / "recipes" / "correct_images.py"
GLASS = 0.95


def _tissue(seed: int, n: int = 64, channels: int = 3) -> Tensor:
    """Optical density of images with structure of every size, and glass at the left: [n, C, 64, 64]."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(n, channels, 64, 64, generator=generator)
    coarse = F.interpolate(torch.rand(n, channels, 8, 8, generator=generator), scale_factor=8, mode="bilinear")
    density = (0.6 * coarse + 0.05 * noise).clamp_min(0)
    density[..., :12] = 0
    return density


def _image(density: Tensor) -> Tensor:
    return 2 * GLASS * torch.exp(-density) - 1


def _blurred(image: Tensor) -> Tensor:
    """Filtered by (1/8, 3/4, 1/8) along both axes: half of the amplitude of the highest frequency of each is left."""
    row = torch.tensor([0.125, 0.75, 0.125])
    kernel = (row[:, None] * row).expand(image.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(image, (1,) * 4, mode="replicate"), kernel, groups=image.shape[1])


@pytest.mark.parametrize("kind", ["absorbed", "emitted"])
def test_nothing_changes_before_it_is_fitted(kind):
    image = _image(_tissue(0, n=2))
    torch.testing.assert_close(ImageCorrection(3, kind)(image), image)


def test_the_density_of_a_stain_is_recovered():
    density = _tissue(0)
    paler = density * torch.tensor([0.95, 0.85, 1.1])[:, None, None]
    found = fit_correction(_image(density), _image(paler), "absorbed")
    torch.testing.assert_close(found.factor_C, 1 / torch.tensor([0.95, 0.85, 1.1]), atol=0.01, rtol=0)
    torch.testing.assert_close(found.tone(_image(paler)), _image(density), atol=0.02, rtol=0)
    glass = found(_image(paler))[..., :4]
    assert float((glass - (2 * GLASS - 1)).abs().max()) < 0.01  # glass has no density that a factor could change


def test_the_light_of_a_stain_is_recovered():
    real = 2 * _tissue(0, channels=2).clamp(0, 1) - 1
    dimmer = (real + 1) * torch.tensor([0.9, 1.2])[:, None, None] - 1
    found = fit_correction(real, dimmer, "emitted")
    torch.testing.assert_close(found.factor_C, 1 / torch.tensor([0.9, 1.2]), atol=0.01, rtol=0)
    torch.testing.assert_close(found.tone(dimmer), real, atol=0.01, rtol=0)


def test_the_spectrum_of_other_images_becomes_that_of_real_ones():
    real, generated = _image(_tissue(0)), _blurred(_image(_tissue(1)))
    found = fit_correction(real, generated, "absorbed")
    other_real, other = _image(_tissue(2)), _blurred(_image(_tissue(3)))
    frequency = torch.fft.fftfreq(64)
    fine = torch.hypot(frequency[:, None], frequency[None]) > 0.25
    before = (mean_power(other) / mean_power(other_real))[:, fine].mean()
    after = (mean_power(found(other)) / mean_power(other_real))[:, fine].mean()
    assert before < 0.5
    assert abs(after - 1) < 0.05
    # inverse of the known filter, at the highest frequency of one axis: a gain of 2
    sign = (-1.0) ** torch.arange(KERNEL_PX)
    assert float((found.kernel_C1kk * sign).sum((1, 2, 3)).mean().abs()) == pytest.approx(2, rel=0.1)


def test_kernels_are_symmetric_and_keep_the_mean():
    found = fit_correction(_image(_tissue(0)), _blurred(_image(_tissue(1))), "absorbed")
    torch.testing.assert_close(found.kernel_C1kk, found.kernel_C1kk.flip(2, 3))
    torch.testing.assert_close(found.kernel_C1kk.sum((2, 3)), torch.ones(3, 1))


def test_it_is_saved_with_the_model_replaced_and_removed(tiny_model, tmp_path):
    plain = ModelBundle.load(tiny_model)
    latent = torch.randn(1, plain.model.image.latent_channels, 8, 8, generator=torch.Generator().manual_seed(0))
    first = fit_correction(_image(_tissue(0)), _blurred(_image(_tissue(1))), "absorbed")
    corrected = with_correction(plain, first)
    corrected.save(tmp_path / "corrected.model")
    loaded = ModelBundle.load(tmp_path / "corrected.model")
    with torch.no_grad():
        as_before, as_corrected = plain.model.image.to_image(latent), loaded.model.image.to_image(latent)
        torch.testing.assert_close(as_corrected, first(plain.model.image.autoencoder.decode(latent)).clamp(-1, 1))
        assert not torch.equal(as_before, as_corrected)
        removed = with_correction(loaded, None).model.image.to_image(latent)
    assert torch.equal(removed, as_before)
    again = with_correction(loaded, ImageCorrection(3, "absorbed"))
    torch.testing.assert_close(again.model.image.to_image(latent), as_before)


def test_the_recipe_adds_gate_and_correction_and_changes_nothing_else(tiny_model, tiny_paired, tmp_path):
    noisy = with_decoder_noise(ModelBundle.load(tiny_model), 4, seed=0)
    noisy.save(tmp_path / "noisy.model")
    command = [sys.executable, RECIPE, tmp_path / "noisy.model", "--data", tiny_paired.path, "-n", "24"]
    command += ["-o", tmp_path / "corrected.model"]
    subprocess.run(command, check=True)
    before, after = (ModelBundle.load(tmp_path / f"{name}.model").model.state_dict() for name in ("noisy", "corrected"))
    added = {"noise_gate.weight", "noise_gate.bias", "correction.factor_C", "correction.glass_C"}
    added |= {"correction.kernel_C1kk"}
    assert set(after) - set(before) == {f"image.autoencoder.{name}" for name in added}
    assert all(torch.equal(before[name], after[name]) for name in before)
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode != 0  # never over an existing model
