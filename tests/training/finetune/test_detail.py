"""The detail model: the right distribution in a case that is known, locality, what stays as it was, exact resume."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sge2hist.api import SGE2Hist
from sge2hist.data.errors import InputError
from sge2hist.generation.slide.job import lattice_of
from sge2hist.generation.slide.render import generate_slide
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.autoencoder import DECODER_REACH
from sge2hist.models.image.detail import DetailConfig, DetailModel
from sge2hist.models.image.samplers import SamplerConfig
from sge2hist.training.finetune.autoencoder import autoencoder_of
from sge2hist.training.finetune.correction import with_correction
from sge2hist.training.finetune.detail import DetailTrainConfig, train_detail, with_detail
from tests.training.killing import check_a_kill_changes_nothing

CONFIG = DetailTrainConfig(steps=12, batch=4, width=8, evaluations=2)


@pytest.fixture(scope="module")
def detailed(tiny_paired, tiny_model, tmp_path_factory):
    output = tmp_path_factory.mktemp("detailed") / "detailed.model"
    train_detail(ModelBundle.load(tiny_model), tiny_paired, output, CONFIG, log=lambda _: None)
    return output


def lively(config: DetailConfig, image_channels: int = 3, seed: int = 0) -> DetailModel:
    """An untrained detail model whose zeroed layers are random."""
    torch.manual_seed(seed)
    model = DetailModel(config, image_channels, 4)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval().requires_grad_(False)


def test_it_learns_the_spread_of_detail_that_the_decoded_image_does_not_determine():
    """White detail of standard deviation 0.1 where the decoded image is bright, 0.02 where it is dark."""
    torch.manual_seed(1)
    model = DetailModel(DetailConfig(width=16, n_blocks=1), 1, 4)
    generator = torch.Generator().manual_seed(2)

    def pair(n):
        bright = torch.randint(2, (n, 1, 1, 1), generator=generator).float()
        decoded = (2 * bright - 1).expand(n, 1, 16, 16).contiguous()
        return decoded + (0.02 + 0.08 * bright) * torch.randn(n, 1, 16, 16, generator=generator), decoded

    features = torch.zeros(64, 4, 8, 8)
    model.set_statistics(*pair(256))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(400):
        optimizer.zero_grad()
        model.loss(*pair(64), features, generator).mean().backward()
        optimizer.step()
    _, decoded = pair(64)
    with torch.no_grad():
        detail = model(decoded, features, torch.randn(decoded.shape, generator=generator)) - decoded
    for level, expected in ((1, 0.1), (-1, 0.02)):
        assert float(detail[decoded == level].std()) == pytest.approx(expected, rel=0.15)
        assert abs(float(detail[decoded == level].mean())) < 0.1 * expected


def test_a_pixel_depends_on_what_lies_within_its_reach_alone():
    config = DetailConfig(width=8, n_blocks=1, sampler=SamplerConfig(n_steps=2, sigma_range=(0.1, 2)))
    model = lively(config)
    generator = torch.Generator().manual_seed(0)
    side, reach = 64, config.reach_px
    assert reach == 2 * (2 * 1 + 2) * 2
    decoded, noise = (torch.randn(1, 3, side, side, generator=generator) for _ in range(2))
    features = torch.randn(1, 4, side // 2, side // 2, generator=generator)
    given, far = (decoded, features, noise), (decoded.clone(), features.clone(), noise.clone())
    for part in far:
        part[..., : 8 * part.shape[-1] // side] = 1.0
    last = int(torch.nonzero((model(*given) != model(*far)).any((0, 1, 2))).max())
    assert 8 + reach // 2 < last < 8 + reach


def test_only_detail_is_new(tiny_model, detailed):
    before, after = ModelBundle.load(tiny_model), ModelBundle.load(detailed)
    old, new = load_file(tiny_model / "model.safetensors"), load_file(detailed / "model.safetensors")
    added = set(new) - set(old)
    assert added
    assert all(name.startswith("image.autoencoder.detail.") for name in added)
    assert all(torch.equal(old[name], new[name]) for name in old)
    detail = autoencoder_of(after.model).detail
    assert detail is not None
    assert (detail.detail_std_C != 1).all()
    assert after.provenance["detail"]["width"] == 8
    assert after.provenance["stage_steps"]["detail"] == 12
    latent = torch.randn(2, after.model.image.latent_channels, 8, 8, generator=torch.Generator().manual_seed(0))
    plain = [autoencoder_of(bundle.model).decode(latent) for bundle in (before, after)]
    assert torch.equal(*plain)  # without noise: no detail
    images = [bundle.model.image.decoded(latent, [1, 2]) for bundle in (before, after)]
    change = (images[0] - images[1]).abs()
    assert 1e-3 < float(change.mean()) < 0.3


def test_the_seed_decides_the_detail_whatever_the_batch(detailed):
    image = ModelBundle.load(detailed).model.image
    latent = torch.randn(3, image.latent_channels, 8, 8, generator=torch.Generator().manual_seed(0))
    together, alone = image.decoded(latent, [5, 6, 7]), image.decoded(latent[1:2], [6])
    assert torch.allclose(together[1], alone[0], atol=1e-5)
    assert (image.decoded(latent[1:2], [8]) - alone).abs().mean() > 1e-3


def test_slides_are_decoded_with_room_for_the_detail(tiny_model, detailed):
    plain, bundle = ModelBundle.load(tiny_model), ModelBundle.load(detailed)
    assert lattice_of(plain).decoded_halo == DECODER_REACH
    reach_px = 2 * (2 * 4 + 2) * CONFIG.evaluations
    assert lattice_of(bundle).decoded_halo == DECODER_REACH + reach_px // 4


def test_a_region_has_the_same_detail_whatever_is_generated_with_it(detailed, tiny_paired, tmp_path):
    model, one_step = SGE2Hist.from_pretrained(detailed), SamplerConfig(n_steps=1)
    pixels = [
        generate_slide(
            model, tiny_paired, tmp_path / f"{k}.generated", region_um=region, sampler=one_step
        ).image.as_array()
        for k, region in enumerate([(200.0, 200.0, 64.0, 64.0), (136.0, 168.0, 192.0, 160.0)])
    ]
    inner = pixels[1][16:48, 32:64]
    assert inner.shape == pixels[0].shape
    assert np.abs(inner.astype(int) - pixels[0]).max() <= 1


def test_a_correction_is_removed_because_it_fits_images_without_detail(tiny_model):
    from sge2hist.models.image.correction import ImageCorrection

    bundle = with_correction(ModelBundle.load(tiny_model), ImageCorrection(3, "absorbed"))
    found = with_detail(bundle, DetailConfig(width=8), 0)
    assert autoencoder_of(found.model).correction is None


def test_a_detail_model_of_the_same_shape_is_trained_further(detailed):
    before = ModelBundle.load(detailed)
    own = autoencoder_of(before.model).detail
    assert own is not None
    same, wider = (with_detail(before, replace(own.config, width=width), 0) for width in (8, 16))
    weights = autoencoder_of(same.model).detail.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in own.state_dict().items())
    assert autoencoder_of(wider.model).detail.config.width == 16
    assert (autoencoder_of(wider.model).detail.detail_std_C == 1).all()


def test_a_stopped_training_goes_on_to_the_same_weights(tiny_paired, tiny_model, tmp_path):
    def run(output, log):
        train_detail(ModelBundle.load(tiny_model), tiny_paired, output, CONFIG, log=log)

    check_a_kill_changes_nothing(run, tmp_path, "resuming detail at step 1;")


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"width": 12}, {"evaluations": 0}, {"steps": 3, "hours": 1.0}])
def test_wrong_settings_are_named(wrong):
    with pytest.raises(InputError):
        DetailTrainConfig(**wrong)


def test_a_sharpened_decoder_loses_what_was_fitted_to_the_one_before(tiny_paired, tiny_model, detailed, tmp_path):
    from sge2hist.models.image.correction import ImageCorrection
    from sge2hist.training.finetune.adversarial_decoder import SharpenConfig, sharpen

    corrected = with_correction(ModelBundle.load(detailed), ImageCorrection(3, "absorbed"))
    corrected.provenance["correction"] = {"cells": 1}
    config = SharpenConfig(steps=1, batch=2, n_generated=2, discriminator_width=8)
    found = sharpen(corrected, tiny_paired, tmp_path / "sharp.model", config, log=lambda _: None)
    autoencoder = autoencoder_of(found.model)
    assert autoencoder.detail is autoencoder.correction is None
    assert not {"detail", "correction"} & set(found.provenance)
    assert "detail" in corrected.provenance["stage_steps"]
    assert "detail" not in found.provenance["stage_steps"]
