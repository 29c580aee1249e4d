"""The models that come with the package: small, complete, without data, and usable at once."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors import safe_open

from sge2hist.api import SGE2Hist
from sge2hist.models.bundle import PREFIX, model_folder, shipped_models
from sge2hist.models.image.samplers import SamplerConfig

MAX_BYTES = 30 * 2**20


def test_two_kidneys_and_a_pancreas_are_shipped():
    assert shipped_models() == ["kidney", "kidney-fast", "pancreas"]


@pytest.mark.parametrize("name", shipped_models())
def test_a_shipped_model_is_small_and_holds_weights_and_names_alone(name):
    folder = model_folder(PREFIX + name)
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.json",
        "genes.csv",
        "model.safetensors",
        "niches.npz",
        "types.csv",
    ]
    assert sum(path.stat().st_size for path in folder.iterdir()) < MAX_BYTES
    bundle = SGE2Hist.from_pretrained(PREFIX + name).bundle
    n_cells = bundle.provenance["n_train_cells"]
    with safe_open(folder / "model.safetensors", framework="np") as weights:
        assert all(n_cells not in weights.get_slice(key).get_shape() for key in weights.keys())  # noqa: SIM118
    assert not bundle.is_toy
    assert "no expression and no images" in (folder / "README.md").read_text()


def test_the_fast_kidney_is_the_kidney_in_four_evaluations():
    kidney, fast = (SGE2Hist.from_pretrained(f"pretrained:{name}").bundle for name in ("kidney", "kidney-fast"))
    image = fast.model.image
    weight, steps = image.guidance_weight(fast.config.sampler), image.denoiser.evaluations(fast.config.sampler)
    assert [weight(step.sigma) for step in steps] == [1.0] * 4
    weights = fast.model.state_dict()
    changed = {
        name.split(".")[1] for name, value in kidney.model.state_dict().items() if (weights[name] != value).any()
    }
    assert changed == {"unet", "condition"}  # the same latents, types and decoder
    assert fast.types.rows == kidney.types.rows


def test_a_type_is_generated_offline_and_types_differ():
    model = SGE2Hist.from_pretrained("pretrained:kidney")
    podocytes, tubules = (model.generate_from_types(n, n=8, seed=0) for n in ("Podocyte", "Distal tubule"))
    assert podocytes.shape == (8, 64, 64, 3)
    assert podocytes.dtype == np.uint8
    pink = podocytes.astype(float).mean((0, 1, 2))
    assert pink[0] > pink[1] + 30  # H&E: more red than green
    # glomeruli hold more nuclei: darker in red, the channel that haematoxylin absorbs
    assert podocytes[..., 0].mean() < tubules[..., 0].mean()


def test_stains_of_single_cells_follow_the_type():
    """Acini are full of ribosomal RNA, stroma of vimentin."""
    model = SGE2Hist.from_pretrained("pretrained:pancreas")
    rna, protein = (model.bundle.config.channels.index(name) for name in ("18S", "AlphaSMA/Vimentin"))
    acinus, fibroblast = (
        model.generate_from_types(name, n=6, seed=0).astype(float) for name in ("Acinus", "Fibroblast")
    )
    assert acinus.shape == (6, 96, 96, 4)
    assert acinus[..., rna].mean() > 1.3 * fibroblast[..., rna].mean()
    assert fibroblast[..., protein].mean() > acinus[..., protein].mean()


def test_pancreas_in_one_canvas_of_109_um():
    model = SGE2Hist.from_pretrained("pretrained:pancreas").with_patch_px(256)
    image = model.generate_from_types("Islet", n=1, seed=0, sampler=SamplerConfig(n_steps=2))
    assert image.shape == (1, 256, 256, 4)
    assert image[..., 0].max() > 100  # nuclei
