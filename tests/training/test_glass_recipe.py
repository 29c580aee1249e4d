"""The recipe that teaches a model what no cells mean: canvases without cells come nearer to glass, all else stays."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.conditioning import MODE_ALL, PlacedCells

RECIPE = Path(__file__).parents[2] / "recipes" / "glass_kidney.py"


@torch.no_grad()
def _error_of_nothing(bundle: ModelBundle) -> float:
    """Of what the model makes of noise on glass where no cell is: mean square, in units of the latents' variance."""
    model, side, none = bundle.model.image, bundle.config.patch_px // bundle.model.image.downsampling, torch.zeros(0)
    cells = PlacedCells(
        z_MZ=torch.zeros(0, bundle.config.gene.n_latent),
        depth_M=none,
        xy_um_M2=torch.zeros(0, 2),
        image_M=none.long(),
        mode_B=torch.full((8,), MODE_ALL),
        slide_B=torch.zeros(8, dtype=torch.long),
    )
    glass = model.to_latent(torch.ones(8, 3, bundle.config.patch_px, bundle.config.patch_px))
    noise = torch.randn(glass.shape, generator=torch.Generator().manual_seed(0))
    told = model.encode_cells(cells, (side, side))
    return float((model.denoiser(glass + 2 * noise, torch.full((8,), 2.0), told) - glass).square().mean())


def test_canvases_without_cells_become_glass(tiny_model, tiny_paired, tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("glass_kidney", RECIPE)
    recipe = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "glass_kidney", recipe)
    spec.loader.exec_module(recipe)
    out = tmp_path / "glass.model"
    asked = [tiny_model, "--on", tiny_paired.path, "-o", out, "--steps", "60", "--learning-rate", "3e-3"]
    monkeypatch.setattr(sys, "argv", ["glass_kidney.py", *map(str, asked)])
    recipe.main()
    before, after = (load_file(path / "model.safetensors") for path in (tiny_model, out))
    assert {name.split(".")[1] for name in before if not torch.equal(before[name], after[name])} == {
        "unet",
        "condition",
    }
    error_before, error = (_error_of_nothing(ModelBundle.load(path)) for path in (tiny_model, out))
    assert error < error_before / 2
