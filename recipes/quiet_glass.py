"""Give the decoder noise of a trained model its gate: smooth places (glass, lumens) stay as smooth as they are in the slide.

    python recipes/quiet_glass.py kidney.model --data kidney.paired -o kidney_quiet.model

After `sharpen --decoder-noise`. Nothing else of the model changes. Takes a minute.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from sge2hist.data.artifacts import check_output
from sge2hist.data.errors import InputError
from sge2hist.data.paired import PairedDataset
from sge2hist.models.bundle import KIND, ModelBundle, model_folder
from sge2hist.training.finetune.noise_gate import with_noise_gate
from sge2hist.training.image.patches import PatchSource

N_IMAGES = 256


def main() -> None:
    """Write the copy with a gate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True, help="the paired dataset that it was trained on")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0, help="of the choice of patches")
    args = parser.parse_args()
    check_output(args.output, overwrite=False, kind=KIND)
    bundle, dataset = ModelBundle.load(model_folder(args.model)), PairedDataset.open(args.data)
    config = bundle.config
    source = PatchSource(
        dataset,
        patch_px=config.patch_px,
        um_per_px=config.um_per_px,
        receptive_radius_um=config.receptive_radius_um,
        jitter_um=config.um_per_px,
    )
    images = source.batch(N_IMAGES, np.random.default_rng(args.seed), share_anywhere=0.2).image_BCHW
    quiet = with_noise_gate(bundle, images)
    if quiet is bundle:
        raise InputError(
            found="a model without decoder noise, or with a gate", expected="one of sharpen --decoder-noise"
        )
    quiet.save(args.output)


if __name__ == "__main__":
    main()
