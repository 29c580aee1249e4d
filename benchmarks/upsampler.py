"""Quality of upsampled detail: held-out patches made coarse and upsampled again, against interpolation and real patches.

    python benchmarks/upsampler.py X.upsampler --data X.paired [--steps 1 2 4 6 12] [--model X.model]

Test patches of the dataset are read at the upsampler's fine resolution, averaged down to its coarse one, and enlarged: by bicubic
interpolation and by the upsampler with several numbers of steps. Quarters of 96 fine pixels are evaluated, because features are
taken at 96 px: the Frechet distance to the real ones (the floor: other real test patches), the energy of gradients over that of
real ones, nuclei (correlation with the real patch, and number over that in it), and time per image. With `--model` the
coarse images are those that a model generates for the same cells, as with `generate --upsampler`.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from sge2hist.api import SGE2Hist
from sge2hist.data.paired import PairedDataset
from sge2hist.devices import fast_arithmetic
from sge2hist.evaluation.features.extractors import resolve_extractor
from sge2hist.evaluation.metrics.frechet import frechet_of
from sge2hist.evaluation.metrics.morphometry import fit_morphometry
from sge2hist.generation.patches import image_batches
from sge2hist.generation.requests import request_from_paired
from sge2hist.models.upsampler_bundle import UpsamplerBundle

SIDE = 96  # px of the evaluated squares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("upsampler", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="paired dataset with slides as fine as needed")
    parser.add_argument("--steps", type=int, nargs="*", default=[1, 2, 4, 6, 12])
    parser.add_argument("--model", help="model that generates the coarse images; else real ones, averaged down")
    parser.add_argument("-n", type=int, default=128, help="patches of 256 px")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    bundle, data = UpsamplerBundle.load(args.upsampler), PairedDataset.open(args.data)
    model = bundle.model
    um = bundle.config.um_per_px / bundle.config.factor
    rng = np.random.default_rng(args.seed)

    def read(rows: np.ndarray) -> np.ndarray:
        return data.patches(rows, side_um=256 * um, out_px=256)

    test = rng.permutation(data.rows("test"))
    half = min(args.n, len(test) // 2)
    rows = np.sort(test[:half])
    real, others = read(rows), read(np.sort(test[half : 2 * half]))
    morphometry = fit_morphometry(
        read(np.sort(rng.permutation(data.rows("train"))[:200])), um, data.channels
    )  # thresholds of training patches
    extractor = resolve_extractor()
    features = extractor(quarters(real))
    truth = morphometry(real)
    floor = frechet_of(features, extractor(quarters(others)))
    print(f"{half} test patches of 256 px at {um:g} um/px, {4 * half} quarters; {extractor.name}; floor {floor:.1f}\n")
    print(f"| | distance | gradients | nuclei: r | number | area, r | ms per image |\n{'|---' * 7}|")
    coarse = (
        model.shrink(pixels(real)) if args.model is None else pixels(generated_by(args.model, data, rows, args.seed))
    )
    tries = {"interpolation": None, **{f"{k} steps": replace(bundle.config.sampler, n_steps=k) for k in args.steps}}
    for name, sampler in tries.items():
        batches, started = [], time.perf_counter()
        for start in range(0, half, 16):
            part = coarse[start : start + 16]
            with torch.no_grad(), fast_arithmetic(torch.device("cpu")):
                batches.append(
                    model.enlarge(part)
                    if sampler is None
                    else model.sample(part, range(start, start + len(part)), sampler)
                )
        ms = (time.perf_counter() - started) / half * 1e3
        images = ((torch.cat(batches).clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
        found = morphometry(images)
        r = [float(np.corrcoef(found[k], truth[k])[0, 1]) for k in ("nuclei_count", "nuclear_area_um2")]
        count = found["nuclei_count"].mean() / truth["nuclei_count"].mean()
        cells = [
            frechet_of(features, extractor(quarters(images))),
            gradients(images) / gradients(real),
            r[0],
            count,
            r[1],
        ]
        print(f"| {name} | {cells[0]:.1f} | {' | '.join(f'{c:.2f}' for c in cells[1:])} | {ms:.0f} |", flush=True)


def pixels(images_NHWC: np.ndarray) -> torch.Tensor:
    """Float [N, C, H, W] in [-1, 1]."""
    return torch.from_numpy(images_NHWC).permute(0, 3, 1, 2).float() / 127.5 - 1


def generated_by(name: str, data: PairedDataset, rows: np.ndarray, seed: int) -> np.ndarray:
    """Images that a model generates for these cells with their neighbours, uint8 [N, P, P, C]."""
    bundle = SGE2Hist.from_pretrained(name).bundle
    job = request_from_paired(bundle, data, rows, seed=seed, resample=True)
    return np.concatenate(list(image_batches(bundle, job)))


def quarters(images_NHWC: np.ndarray) -> np.ndarray:
    """Four squares of 96 px of each image of 256 px, uint8 [4 N, 96, 96, C]."""
    at = (16, 144)
    return np.concatenate([images_NHWC[:, i : i + SIDE, j : j + SIDE] for i in at for j in at])


def gradients(images_NHWC: np.ndarray) -> float:
    """Mean squared difference of neighbouring pixels."""
    grey = images_NHWC.astype(np.float32).mean(-1)
    return float((np.diff(grey, axis=1) ** 2).mean() + (np.diff(grey, axis=2) ** 2).mean())


if __name__ == "__main__":
    main()
