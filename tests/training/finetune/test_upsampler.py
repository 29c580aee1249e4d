"""Training of an upsampler: crops stay clear of held-out patches, detail that follows its coarse image is learnt, it resumes."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from sge2hist.cli.main import app
from sge2hist.data.errors import InputError
from sge2hist.generation.upsample import upsample_images
from sge2hist.models.upsampler_bundle import UpsamplerBundle
from sge2hist.training import loop
from sge2hist.training.finetune.upsampler import FineCrops, UpsamplerTrainConfig, train_upsampler

SMALL = UpsamplerTrainConfig(um_per_px=2.0, factor=2, steps=8, batch=4, crop_px=16, widths=(16, 16), seed=3)


class Killed(BaseException):
    """Stands for a kill: nothing may catch it."""


@pytest.fixture(scope="module")
def trained(tiny_paired, tmp_path_factory):
    output = tmp_path_factory.mktemp("upsampler") / "small.upsampler"
    patch = pytest.MonkeyPatch()  # the tiny slides are as coarse as the tiny model's images
    patch.setattr("sge2hist.training.finetune.upsampler.MAX_COARSENESS", 2.0)
    train_upsampler(tiny_paired, output, replace(SMALL, um_per_px=1.0), log=lambda _: None)
    patch.undo()
    return output


def test_crops_are_clear_of_held_out_patches(tiny_paired):
    crops = FineCrops(tiny_paired, 2.0, 32)
    assert crops.sample(3, np.random.default_rng(0)).shape == (3, 32, 32, 3)
    centre = tiny_paired.centre_xy_px * tiny_paired.um_per_px
    split = tiny_paired.obs["split"].astype(str).to_numpy()
    held_out = centre[np.isin(split, ["val", "test"])]
    apart = np.abs(centre[crops.rows][:, None] - held_out[None]).max(-1).min()
    assert apart >= (32 * 2.0 + tiny_paired.patch_um) / 2
    assert set(split[crops.rows]) == {"train"}


def test_detail_that_follows_the_coarse_image_is_learnt(tiny_paired, tmp_path, monkeypatch):
    """Stripes whose contrast is their brightness, the same in a mirror: nothing about the detail is left to chance."""
    stripes = np.where(np.arange(32) % 2 == 0, 1.0, -1.0)[None, :, None, None]

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        grey = rng.uniform(60, 180, (n, 1, 1, 1))
        return (grey + 0.3 * grey * stripes).repeat(32, 2).repeat(3, -1).astype(np.uint8)

    monkeypatch.setattr(FineCrops, "sample", sample)
    monkeypatch.setattr("sge2hist.training.finetune.upsampler.np.rot90", lambda image, turns: image)
    monkeypatch.setattr("sge2hist.training.finetune.upsampler.POOL_SIDES", 1)
    config = replace(SMALL, crop_px=32, steps=300, batch=8, learning_rate=3e-3)
    bundle = train_upsampler(tiny_paired, tmp_path / "b.upsampler", config, log=lambda _: None)
    bundle.model.eval()
    coarse = np.full((2, 16, 16, 3), 100, np.uint8)
    coarse[1] = 160
    fine = upsample_images(bundle, coarse, np.array([5, 6])).astype(float).mean(-1)
    for image, grey in zip(fine, (100, 160), strict=True):
        contrast = float((image * stripes[0, :, :, 0]).mean())
        assert contrast == pytest.approx(0.3 * grey, rel=0.25)


def test_a_killed_training_ends_with_the_same_weights(tiny_paired, tmp_path, monkeypatch):
    config = replace(SMALL, steps=8)
    monkeypatch.setattr("sge2hist.training.finetune.upsampler.REFRESH", 3)
    whole = train_upsampler(tiny_paired, tmp_path / "whole", config, log=lambda _: None)
    save = loop.save_checkpoint

    def save_then_die(path, sections, position):
        save(path, sections, position)
        if position["unfinished"]:
            raise Killed

    monkeypatch.setattr(loop, "save_checkpoint", save_then_die)
    init = loop.TrainingRun.__init__
    monkeypatch.setattr(
        loop.TrainingRun, "__init__", lambda self, **given: init(self, **(given | {"checkpoint_every_s": 0.0}))
    )
    with pytest.raises(Killed):
        train_upsampler(tiny_paired, tmp_path / "cut", config, log=lambda _: None)
    monkeypatch.setattr(loop, "save_checkpoint", save)
    resumed = train_upsampler(tiny_paired, tmp_path / "cut", config, log=lambda _: None)
    assert resumed.fingerprint == whole.fingerprint
    assert UpsamplerBundle.load(tmp_path / "cut").provenance["stage_seconds"]


def test_slides_that_are_too_coarse_are_refused(tiny_paired, tmp_path):
    with pytest.raises(InputError, match=r"slides of .* um/px"):
        train_upsampler(tiny_paired, tmp_path / "x", replace(SMALL, um_per_px=0.25), log=lambda _: None)
    assert not (tmp_path / "x").exists()
    with pytest.raises(InputError, match="crops of 30 px"):
        replace(SMALL, crop_px=30)


def test_patches_are_generated_finer(trained, tiny_paired, tiny_model, tmp_path):
    def run(*more: str):
        command = ["generate", str(tiny_model), "--from", str(tiny_paired.path), "-n", "3", "--upsampler", str(trained)]
        return CliRunner().invoke(app, [*command, *more])

    assert run("-o", str(tmp_path / "a.generated")).exit_code == 0
    assert run("-o", str(tmp_path / "b.generated"), "--batch", "1").exit_code == 0
    manifest = json.loads((tmp_path / "a.generated" / "manifest.json").read_text())
    assert (manifest["patch_px"], manifest["um_per_px"], manifest["patch_um"]) == (64, 1.0, 64.0)
    for name in ("000000.png", "000002.png"):
        a, b = (np.asarray(Image.open(tmp_path / f"{k}.generated" / "images" / name)).astype(int) for k in "ab")
        assert a.shape == (64, 64, 3)
        assert np.abs(a - b).max() <= 2
    refused = run("--slide", "-o", str(tmp_path / "c.generated"))
    assert refused.exit_code != 0
    assert not (tmp_path / "c.generated").exists()


def test_an_upsampler_of_another_resolution_is_refused(tiny_paired, tiny_model, tmp_path):
    other = tmp_path / "other.upsampler"
    train_upsampler(tiny_paired, other, replace(SMALL, steps=1), log=lambda _: None)
    found = CliRunner().invoke(
        app,
        [
            "generate",
            str(tiny_model),
            "--from",
            str(tiny_paired.path),
            "--upsampler",
            str(other),
            "-o",
            str(tmp_path / "g"),
        ],
    )
    assert found.exit_code != 0
    assert isinstance(found.exception, InputError)
    assert "from 4 um/px" in str(found.exception)


def test_inspect_tells_what_it_enlarges(trained):
    found = CliRunner().invoke(app, ["inspect", str(trained)])
    assert found.exit_code == 0
    assert "2 -> 1 (2 times finer)" in found.output


def test_a_damaged_folder_is_one_clear_error(trained, tmp_path):
    import shutil

    broken = tmp_path / "broken.upsampler"
    shutil.copytree(trained, broken)
    weights = load_file(broken / "model.safetensors")
    assert all(value.dtype == torch.float16 for value in weights.values() if value.dim() >= 2)
    (broken / "model.safetensors").write_bytes(b"0" * 100)
    with pytest.raises(InputError, match="cannot be read"):
        UpsamplerBundle.load(broken)
