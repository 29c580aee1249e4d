"""What a preset costs: parameters, work and memory of a training step and of an image, counted on this machine.

    python benchmarks/preset_cost.py base --patch-px 256 --um-per-px 0.5 --tflops 400

Operations are counted by torch (products alone), memory is that of the values that a backward pass keeps, in bfloat16. Neither
depends on the processor. `--tflops`: operations per second (10^12) that a device reaches in practice, for an estimate of images
per second; a data sheet's peak is two to three times as much as convolutions reach.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from sge2hist.models.image.conditioning import MODE_ALL, PlacedCells
from sge2hist.models.image.image_model import ImageModel
from sge2hist.models.joint_model import JointModel, ModelConfig
from sge2hist.training.presets import PRESETS, model_config

CELLS_PER_UM2 = 0.0054  # of a pancreas
BYTES_BFLOAT16 = 2
GIGA, TERA = 1e9, 1e12


def cells_of_one_image(config: ModelConfig) -> PlacedCells:
    """A patch full of cells at random places."""
    n, rng = max(1, round(CELLS_PER_UM2 * config.patch_um**2)), np.random.default_rng(0)
    return PlacedCells(
        z_MZ=torch.randn(n, config.gene.n_latent, generator=torch.Generator().manual_seed(0)),
        depth_M=torch.zeros(n),
        xy_um_M2=torch.from_numpy(rng.uniform(0, config.patch_um, (n, 2)).astype(np.float32)),
        image_M=torch.zeros(n, dtype=torch.long),
        mode_B=torch.tensor([MODE_ALL]),
        slide_B=torch.zeros(1, dtype=torch.long),
    )


def kept_for_backward(model: ImageModel, latent: torch.Tensor, cells: PlacedCells) -> tuple[float, float, float]:
    """Operations of a forward and backward pass of one image, values kept in between, and seconds here."""
    seen: dict[int, int] = {}
    weights = {parameter.data_ptr() for parameter in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in weights:
            seen[tensor.data_ptr()] = tensor.numel()
        return tensor

    start, counter = time.perf_counter(), FlopCounterMode(display=False)
    with counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.loss(latent, cells, torch.Generator().manual_seed(0)).mean().backward()
    return float(counter.get_total_flops()), float(sum(seen.values())), time.perf_counter() - start


def main() -> None:
    """Print the table of one preset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", choices=list(PRESETS))
    parser.add_argument("--patch-px", type=int, default=256)
    parser.add_argument("--um-per-px", type=float, default=0.5)
    parser.add_argument("--genes", type=int, default=5000)
    parser.add_argument("--types", type=int, default=20)
    parser.add_argument("--tflops", type=float, default=400.0)
    args = parser.parse_args()
    preset = PRESETS[args.preset]
    config = model_config(
        args.preset,
        n_genes=args.genes,
        n_types=args.types,
        um_per_px=args.um_per_px,
        patch_px=args.patch_px,
        cell_spacing_um=8.0,
        n_slides=1,
    )
    model = JointModel(config)
    image, cells = model.image, cells_of_one_image(config)
    latent_px = args.patch_px // image.downsampling
    latent = torch.randn(1, image.latent_channels, latent_px, latent_px, generator=torch.Generator().manual_seed(0))
    flops, kept, seconds = kept_for_backward(image, latent, cells)
    encoding = FlopCounterMode(display=False)
    with encoding, torch.no_grad():
        image.to_latent(torch.zeros(1, config.image.image_channels, args.patch_px, args.patch_px))
    sampling = FlopCounterMode(display=False)
    with sampling:
        image.sample(cells, [0], (latent_px, latent_px), config.sampler)
    step = flops + encoding.get_total_flops()
    rate = args.tflops * TERA
    sizes = {
        "autoencoder": image.autoencoder,
        "condition": image.condition,
        "denoiser": image.unet,
        "gene model": model.gene,
    }
    counts = {name: 0 if part is None else sum(p.numel() for p in part.parameters()) for name, part in sizes.items()}
    n = sum(counts.values())
    rows = {
        "parameters": ", ".join(f"{name} {count / 1e6:.1f} M" for name, count in counts.items()) + f"; {n / 1e6:.1f} M",
        "weights, gradients, AdamW and average": f"{n * 20 / GIGA:.2f} GB",
        "one training image": f"{step / GIGA:.0f} GFLOP, {kept * BYTES_BFLOAT16 / GIGA:.2f} GB kept for the backward pass",
        f"a batch of {preset.batch}": f"{kept * BYTES_BFLOAT16 * preset.batch / GIGA:.0f} GB",
        f"training at {args.tflops:g} TFLOP/s": f"{rate / step:,.0f} images per second, "
        f"{preset.joint_steps * preset.batch * step / rate / 3600:.1f} h for {preset.joint_steps:,} joint steps",
        "one generated image": f"{sampling.get_total_flops() / GIGA:.0f} GFLOP, "
        f"{rate / sampling.get_total_flops():,.0f} per second at that rate",
        "here": f"{seconds:.1f} s for one training image forward and backward, {torch.get_num_threads()} threads",
    }
    print(f"| {args.preset}, {args.patch_px} px at {args.um_per_px:g} um/px | |\n| --- | --- |")
    for name, value in rows.items():
        print(f"| {name} | {value} |")


if __name__ == "__main__":
    main()
