"""Remove the coarse blocks of a U-Net that have no effect: the same function with fewer parameters.

    python recipes/slim_kidney.py kidney_sharp.model -o kidney.model

Of the seven blocks of the coarse level (192 channels, half as many pixels per side) only the last has an effect: it reads the map
of the finer level joined to the output of the six others, which is 2 % as strong. Those six go (`UNetConfig.bottom`), and the
gain of the normalisation, which spanned both maps, is set to its effect on the remaining one. The result samples with the
settings of its preset. docs/results/image-model.md says what stays the same (losses, images) and what does not (size, time).
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from sge2hist.models.bundle import ModelBundle, model_folder
from sge2hist.models.joint_model import JointModel
from sge2hist.training.presets import PRESETS

UNET = "image.unet."
KEPT = ("embed_noise.", "embed_vector.", "stem.", "shrink.", "grow.", "head.", "down.0.", "up.1.")
LAST_COARSE, BOTTOM = UNET + "up.0.2.0.", UNET + "middle.0.0."


def slim(model: JointModel) -> JointModel:
    """Return a model with one block at the bottom, which is the last of the old coarse level."""
    unet = model.config.image.unet
    if unet.bottom or len(unet.channels) != 2 or unet.n_blocks != 2:
        raise SystemExit(
            "this is for models of preset small whose U-Net has two levels of two blocks, and no bottom yet"
        )
    image = replace(model.config.image, unet=replace(unet, bottom=1))
    slimmer = replace(model.config, image=image, sampler=PRESETS[model.config.preset].sampler)
    old, n_joined = model.state_dict(), unet.channels[0]
    n_both = old[LAST_COARSE + "norm1.gain_C"].numel()
    taken = {
        name: value for name, value in old.items() if not name.startswith(UNET) or name[len(UNET) :].startswith(KEPT)
    }
    for name, value in old.items():
        if name.startswith(LAST_COARSE):
            taken[BOTTOM + name[len(LAST_COARSE) :]] = value
    taken[BOTTOM + "norm1.gain_C"] = taken[BOTTOM + "norm1.gain_C"][-n_joined:] * (n_both / n_joined) ** 0.5
    for layer in ("conv1", "skip"):
        taken[f"{BOTTOM}{layer}.weight"] = taken[f"{BOTTOM}{layer}.weight"][:, -n_joined:].contiguous()
    out = JointModel(slimmer)
    out.load_state_dict(taken)  # strict: nothing is missing, nothing left over
    return out.eval()


def main() -> None:
    """Read one model folder, write another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model folder")
    parser.add_argument("-o", "--output", type=Path, required=True, help="model folder to write")
    arguments = parser.parse_args()
    if arguments.output.exists():
        raise SystemExit(f"{arguments.output} exists")
    bundle = ModelBundle.load(model_folder(arguments.model))
    with torch.no_grad():
        bundle.model = slim(bundle.model)
    bundle.save(arguments.output)
    n_million = sum(p.numel() for p in bundle.model.parameters()) / 1e6
    print(f"wrote {arguments.output}, {n_million:.1f} M parameters")


if __name__ == "__main__":
    main()
