"""Sharpening of a tiny model: losses against closed forms, two optimisers' steps in one, exact resume, what stays as it was."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sge2hist.api import SGE2Hist
from sge2hist.data.errors import InputError
from sge2hist.devices import make_accelerator
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.autoencoder import Autoencoder
from sge2hist.training.finetune.adversarial_decoder import (
    NAME,
    Discriminator,
    SharpenConfig,
    Sharpening,
    discriminator_loss,
    feature_distance,
    non_saturating_loss,
    sharpen,
    smoothness,
    with_decoder_noise,
)
from sge2hist.training.image.patches import PatchSource
from sge2hist.training.image.stages import SHARE_ANYWHERE
from sge2hist.training.loop import stage_generator, stage_rng
from sge2hist.training.run import TrainingRun
from tests.training.killing import check_a_kill_changes_nothing

CONFIG = SharpenConfig(
    steps=12, batch=4, n_generated=8, learning_rate=1e-3, discriminator_width=8, decoder_noise_channels=4
)


@pytest.fixture(scope="module")
def sharp(tiny_paired, tiny_model, tmp_path_factory):
    output = tmp_path_factory.mktemp("sharpened") / "sharp.model"
    sharpen(ModelBundle.load(tiny_model), tiny_paired, output, CONFIG, log=lambda _: None)
    return output


def test_small_crops_train_a_model_of_the_same_patches(tiny_paired, tiny_model, tmp_path, monkeypatch):
    seen = []
    decode = Autoencoder.decode

    def recorded(self, latent, *noise):
        image = decode(self, latent, *noise)
        seen.append(tuple(image.shape[2:]))
        return image

    monkeypatch.setattr(Autoencoder, "decode", recorded)
    before = ModelBundle.load(tiny_model)
    config = dataclasses.replace(CONFIG, steps=2, crop_px=16)
    after = sharpen(before, tiny_paired, tmp_path / "small.model", config, log=lambda _: None)
    assert set(seen) == {(16, 16)}
    assert after.config.patch_px == before.config.patch_px == 32
    with pytest.raises(InputError, match="17 px"):
        sharpen(before, tiny_paired, tmp_path / "no.model", dataclasses.replace(config, crop_px=17))


def test_the_losses_are_cross_entropies():
    real, decoded = [torch.tensor([0.3, -1.2])], [torch.tensor([0.7, 2.0])]
    logits = torch.cat([real[0], decoded[0]])
    labels = torch.tensor([1.0, 1.0, 0.0, 0.0])
    expected = 2 * torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
    assert torch.isclose(discriminator_loss(real, decoded), expected)
    assert torch.isclose(non_saturating_loss([torch.zeros(3), torch.zeros(5)]), 2 * torch.log(torch.tensor(2.0)))


def test_smoothness_is_the_squared_gradient_for_small_noise():
    """E (D(x + s n) - D(x))^2 = s^2 |grad D|^2 for a linear D."""
    torch.manual_seed(0)
    weight, s = torch.randn(50), 0.05
    image, noise = torch.randn(20_000, 50), torch.randn(20_000, 50)
    found = smoothness([image @ weight], [(image + s * noise) @ weight])
    assert float(found) == pytest.approx(s**2 * float(weight.square().sum()), rel=0.05)


def test_features_of_equal_images_have_no_distance():
    torch.manual_seed(0)
    discriminator = Discriminator(3, 8).requires_grad_(False)
    logits, features = discriminator(torch.rand(2, 3, 32, 32))
    assert [tuple(grid.shape) for grid in logits] == [(2, 1, 8, 8), (2, 1, 4, 4)]
    assert float(feature_distance(features, features)) == 0
    twice = [2 * layer for layer in features]
    assert float(feature_distance(twice, features)) == pytest.approx(1.0)


class _NoiseForGenerated(Sharpening):
    """Noise stands for generated latents."""

    def _generate(self, first, n):
        side = 32 // self.model.image.downsampling
        return torch.randn(n, self.model.image.latent_channels, side, side, generator=torch.Generator().manual_seed(0))


def _gradients(tiny_model, tiny_paired, **weights):
    """Gradients of decoder and discriminator at the first step, and the stage; the decoder before training was another."""
    model = copy.deepcopy(ModelBundle.load(tiny_model).model).requires_grad_(False)
    before = copy.deepcopy(model.image.autoencoder)
    for parameter in before.decoder.parameters():
        parameter += 0.01
    source = PatchSource(
        tiny_paired, patch_px=32, um_per_px=model.config.um_per_px, receptive_radius_um=0.0, jitter_um=0.0
    )
    config = dataclasses.replace(CONFIG, **weights)
    run = TrainingRun(directory=Path("nowhere"), accelerator=make_accelerator("no"), seed=0, log=lambda _: None)
    stage = _NoiseForGenerated(model, source, None, before, config, run)
    stage(0)["loss"].backward()
    return [[p.grad for p in group["params"]] for group in stage.parameter_groups()], stage


def test_each_network_follows_its_own_loss(tiny_paired, tiny_model):
    """As with alternating steps: neither network has a gradient of the loss of the other."""
    (_, discriminator), stage = _gradients(tiny_model, tiny_paired)
    (_, other_discriminator), _ = _gradients(tiny_model, tiny_paired, adversarial=50.0, features=20.0, anchor=10.0)
    assert max(float(g.abs().max()) for g in discriminator) > 1e-3
    for a, b in zip(discriminator, other_discriminator, strict=True):
        assert torch.equal(a, b)
    before = float(stage(0)["discriminator"])
    with torch.no_grad():
        for parameter, gradient in zip(stage.discriminator.parameters(), discriminator, strict=True):
            parameter -= 1e-3 * gradient
    assert float(stage(0)["discriminator"]) < before

    only_error = {"adversarial": 0.0, "features": 0.0, "anchor": 0.0}
    (decoder, _), stage = _gradients(tiny_model, tiny_paired, **only_error)
    autoencoder = stage.model.image.autoencoder
    rng, generator = stage_rng(CONFIG.seed, NAME, 0), stage_generator(CONFIG.seed, f"{NAME}/noise", 0)
    real = stage._source.batch(2 * CONFIG.batch, rng, share_anywhere=SHARE_ANYWHERE).image_BCHW[: CONFIG.batch]
    latent = autoencoder.encode(real)
    noise = torch.randn(latent.shape, generator=generator)
    decoded = autoencoder.decode(latent + CONFIG.latent_noise * noise)
    error = decoded - real
    loss = error.abs().mean() + error.square().mean()
    loss = loss + (error[:, :, 1:] - error[:, :, :-1]).abs().mean() + (error[..., 1:] - error[..., :-1]).abs().mean()
    expected = torch.autograd.grad(loss, list(autoencoder.decoder.parameters()))
    for a, b in zip(decoder, expected, strict=True):
        assert torch.allclose(a, b, atol=1e-6)

    generated = stage._generated_NLHW[torch.from_numpy(rng.integers(len(stage._generated_NLHW), size=CONFIG.batch))]
    now, then = (
        owner.decode(generated).unfold(2, 4, 4).unfold(3, 4, 4).mean((-1, -2)) for owner in (autoencoder, stage._before)
    )
    pull = torch.autograd.grad((now - then).abs().mean(), list(autoencoder.decoder.parameters()))
    (held, _), _ = _gradients(tiny_model, tiny_paired, **only_error | {"anchor": 2.0})
    for a, b, c in zip(held, decoder, pull, strict=True):
        assert torch.allclose(a, b + 2 * c, atol=1e-5)
    for term in ("adversarial", "features"):
        (with_term, _), _ = _gradients(tiny_model, tiny_paired, **only_error | {term: 1.0})
        assert any(not torch.allclose(a, b, atol=1e-5) for a, b in zip(decoder, with_term, strict=True))

    # generated_only: the discriminator sees generated latents only, and there are no features to match
    (generated_only, _), stage = _gradients(
        tiny_model, tiny_paired, **only_error | {"adversarial": 2.0}, generated_only=True
    )
    adversarial = torch.autograd.grad(
        non_saturating_loss(stage.discriminator(autoencoder.decode(generated))[0]),
        list(autoencoder.decoder.parameters()),
    )
    for a, b, c in zip(generated_only, decoder, adversarial, strict=True):
        assert torch.allclose(a, b + 2 * c, atol=1e-5)
    (matching, _), _ = _gradients(tiny_model, tiny_paired, **only_error | {"features": 5.0}, generated_only=True)
    assert all(torch.equal(a, b) for a, b in zip(matching, decoder, strict=True))


def test_only_the_decoder_changes(sharp, tiny_model, tiny_paired):
    before, after = (load_file(path / "model.safetensors") for path in (tiny_model, sharp))
    changed = {".".join(name.split(".")[:3]) for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"image.autoencoder.decoder"}
    assert {name for name in after if name not in before} == {
        "image.autoencoder.noise_proj.weight",
        "image.autoencoder.noise_proj.bias",
    }
    old, new = SGE2Hist.from_pretrained(tiny_model), SGE2Hist.from_pretrained(sharp)
    assert new.bundle.config.sampler == old.bundle.config.sampler
    assert new.bundle.provenance["teacher"] == ModelBundle.load(tiny_model).fingerprint
    assert new.bundle.provenance["sharpen"]["discriminator_width"] == 8
    cells = tiny_paired.adata()[:3].copy()
    a, b = (model.generate_from_genes(cells).astype(int) for model in (old, new))
    assert np.abs(a - b).mean() > 0.5  # another decoder of the same latents


def test_decoder_noise_is_learnt_and_kept_by_the_next_sharpening(sharp, tiny_model, tiny_paired, tmp_path):
    plain, noisy = ModelBundle.load(tiny_model), ModelBundle.load(sharp)
    first = with_decoder_noise(plain, CONFIG.decoder_noise_channels, CONFIG.seed)
    assert plain.model.image.n_decoder_noise == 0
    assert noisy.model.image.n_decoder_noise == 4 * CONFIG.decoder_noise_channels
    assert with_decoder_noise(plain, 0, 0) is plain
    assert with_decoder_noise(noisy, 9, 0) is noisy
    before, after = (bundle.model.image.autoencoder.noise_proj.weight for bundle in (first, noisy))
    assert not torch.equal(before, after)  # it is among what is trained
    latent = torch.randn(2, 8, 8, 8, generator=torch.Generator().manual_seed(0))[:, : plain.model.image.latent_channels]
    with torch.no_grad():
        assert torch.equal(first.model.image.to_image(latent), plain.model.image.to_image(latent))
    longer = sharpen(noisy, tiny_paired, tmp_path / "again.model", CONFIG, log=lambda _: None)
    assert longer.config.image == noisy.config.image


def test_a_sharpening_without_decoder_noise(tiny_model, tiny_paired, tmp_path):
    bundle = sharpen(
        ModelBundle.load(tiny_model),
        tiny_paired,
        tmp_path / "even.model",
        dataclasses.replace(CONFIG, decoder_noise_channels=0),
        log=lambda _: None,
    )
    assert bundle.model.image.n_decoder_noise == 0


def test_a_killed_sharpening_ends_with_the_same_weights(tiny_model, tiny_paired, tmp_path):
    trained, longer = ModelBundle.load(tiny_model), dataclasses.replace(CONFIG, steps=8)
    check_a_kill_changes_nothing(
        lambda output, log: sharpen(trained, tiny_paired, output, longer, log=log),
        tmp_path,
        "resuming sharpen at step 1;",
    )


def test_what_does_not_fit_is_one_error_before_any_work(tiny_model, tiny_paired, tmp_path):
    for wrong, message in (
        ({"hours": 0.0}, "--hours 0"),
        ({"steps": 0}, "steps = 0"),
        ({"hours": 1.0, "steps": 5}, "--hours and --steps"),
        ({"learning_rate": 0.0}, "--learning-rate 0"),
        ({"seed": -1}, "--seed -1"),
        ({"decoder_noise_channels": -1}, "decoder_noise_channels = -1"),
    ):
        with pytest.raises(InputError, match=message):
            SharpenConfig(**wrong)
    on_pixels = copy.deepcopy(ModelBundle.load(tiny_model))
    on_pixels.model.image.autoencoder = None
    with pytest.raises(InputError, match="generates latents"):
        sharpen(on_pixels, tiny_paired, tmp_path / "c.model", CONFIG)
    assert not (tmp_path / "c.model").exists()


def test_a_time_budget_may_grow_and_another_dataset_is_logged(tiny_model, tiny_paired, tmp_path, monkeypatch):
    trained = ModelBundle.load(tiny_model)
    trained.provenance["data_fingerprint"] = "of other data"
    logged: list[str] = []
    timed = dataclasses.replace(CONFIG, steps=None, hours=1.0 / 3600)
    sharpen(trained, tiny_paired, tmp_path / "t.model", timed, log=logged.append)
    assert any("not the data that the model was trained on" in line for line in logged)
    more = dataclasses.replace(timed, hours=2.0 / 3600)
    sharpen(trained, tiny_paired, tmp_path / "t.model", more, log=logged.append)
    assert "finished already" in logged[-1]
    monkeypatch.setattr(tiny_paired, "slide_ids", ["a", "b"])
    with pytest.raises(InputError, match="2 slides"):
        sharpen(trained, tiny_paired, tmp_path / "u.model", CONFIG)
    assert not (tmp_path / "u.model").exists()
