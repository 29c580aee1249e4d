"""The last step of a trained model: smooth places stay smooth, and images get the tone and the fine spectrum of real ones.

    python recipes/correct_images.py kidney.model --data kidney.paired -o kidney_corrected.model

After `sharpen`. Decoder noise gets a gate (`training.finetune.noise_gate`), and every model a correction of its
images (`training.finetune.correction`), both fitted to training cells. Nothing else of the model changes. Takes minutes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sge2hist.api import SGE2Hist
from sge2hist.data.artifacts import check_output
from sge2hist.data.paired import PairedDataset
from sge2hist.models.bundle import KIND, ModelBundle
from sge2hist.training.finetune.correction import MAX_GAIN, fit_correction, glass_of, kind_of, with_correction
from sge2hist.training.finetune.noise_gate import with_noise_gate
from sge2hist.training.image.patches import PatchSource

N_GATE_IMAGES = 256
NEARLY = 0.9  # of the largest gain


def gate_images(bundle: ModelBundle, dataset: PairedDataset, seed: int) -> Tensor:
    """Real patches of the training part, a fifth of them anywhere on the slide, [-1, 1]."""
    config = bundle.config
    source = PatchSource(
        dataset,
        patch_px=config.patch_px,
        um_per_px=config.um_per_px,
        receptive_radius_um=config.receptive_radius_um,
        jitter_um=config.um_per_px,
    )
    return source.batch(N_GATE_IMAGES, np.random.default_rng(seed), share_anywhere=0.2).image_BCHW


def as_images(image_NHWC: np.ndarray) -> Tensor:
    """uint8 [N, H, W, C] -> [N, C, H, W] in [-1, 1]."""
    return torch.from_numpy(image_NHWC).permute(0, 3, 1, 2).float() / 127.5 - 1


def main() -> None:
    """Write the corrected copy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True, help="the paired dataset that it was trained on")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument(
        "-n", type=int, default=512, help="training cells whose real and generated patches are compared"
    )
    parser.add_argument("--patch-px", type=int, help="side of these patches; default: as trained")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of cells and of the images")
    args = parser.parse_args()
    check_output(args.output, overwrite=False, kind=KIND)
    model, dataset = SGE2Hist.from_pretrained(args.model), PairedDataset.open(args.data)
    gated = with_noise_gate(model.bundle, gate_images(model.bundle, dataset, args.seed))
    plain = SGE2Hist(bundle=with_correction(gated, None).with_patch_px(args.patch_px))
    rows = np.sort(np.random.default_rng(args.seed).permutation(dataset.rows("train"))[: args.n])
    generated = plain.generate_from_genes(dataset, rows=rows, seed=args.seed)[:, 0]
    config = plain.bundle.config
    real = dataset.patches(rows, side_um=config.patch_um, out_px=config.patch_px)
    correction = fit_correction(as_images(real), as_images(generated), kind_of(gated), glass_of(gated))
    corrected = with_correction(gated, correction)
    corrected.provenance["correction"] = {"cells": len(rows), "patch_px": config.patch_px, "seed": args.seed}
    corrected.save(args.output)
    factors = ", ".join(f"{value:.3f}" for value in correction.factor_C.tolist())
    gain = _highest_gain(correction.kernel_C1kk)
    print(f"wrote {args.output}: tone x {factors}; gain of the highest frequency {gain:.2f}")
    if gain > NEARLY * MAX_GAIN:
        print(
            f"The finest detail is missing, not weak: a gain of {MAX_GAIN:g} is the limit. Run sge2hist train-detail or\n"
            "sge2hist sharpen before this correction."
        )


def _highest_gain(kernel_C1kk: Tensor) -> float:
    """Mean response of the kernels to a checkerboard."""
    side = kernel_C1kk.shape[-1]
    sign = (-1.0) ** torch.arange(side)
    return float((kernel_C1kk * sign[:, None] * sign).sum((1, 2, 3)).abs().mean())


if __name__ == "__main__":
    main()
