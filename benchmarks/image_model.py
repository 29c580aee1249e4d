"""Cost and quality of an image: against the published network, by sampler and number of evaluations.

    python benchmarks/image_model.py cost       X.model
    python benchmarks/image_model.py steps      X.model --data X.paired -n 512
    python benchmarks/image_model.py guidance   X.model --data X.paired -n 512
    python benchmarks/image_model.py noise      X.model --data X.paired -n 512
    python benchmarks/image_model.py conditions X.model --data X.paired -n 512
    python benchmarks/image_model.py few        fast.model --data X.paired -n 512 --compare teacher=X.model
    python benchmarks/image_model.py evidence   X.model --data X.paired -n 512 --compare young=Y.model paper=P.model

`cost` counts the FLOPs of a whole image (guidance and decoder included) and times it as in `generate`, in turn with one
evaluation of the `paper` preset's network, times its thousand steps (which are not run); and memory by batch, time by threads.
Other programs on the machine make times longer, never shorter: the minimum of several rounds is the cost, the median the usual
waiting time.
`steps` generates images of the same test cells with 1 to 32 evaluations and several samplers, and prints the Frechet distance
of each set to the real patches of these cells, with the floor (other real test patches, the same number) and the time per image.
`guidance` and `noise` do the same for guidance weights, and for noise levels and fresh noise, on validation cells; `few` for a
model of few steps, with 2 to 8 of them, and for its teacher; `conditions` for all cells, the centre cell alone, and the cells of
another patch.
`evidence` prints every score of `sge2hist evaluate` for the model, for the same model conditioned on the cells of other patches
or on the centre cell alone, and for other models, on the same test cells: for example one of preset `small` and one of `paper`
with the same training time. A sampler of more than `--max-steps` steps, as that of `paper`, is replaced by DPM-Solver++.
"""

from __future__ import annotations

import argparse
import resource
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from image_evidence import evidence
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sge2hist.api import SGE2Hist
from sge2hist.data.paired import PairedDataset
from sge2hist.devices import fast_arithmetic
from sge2hist.generation.patches import image_batches
from sge2hist.generation.requests import request_from_paired
from sge2hist.generation.windows import sample_patches
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.conditioning import MODE_ALL, PlacedCells
from sge2hist.models.image.image_model import ImageModel
from sge2hist.models.image.samplers import SamplerConfig
from sge2hist.parallel import parallel_batches
from sge2hist.training.presets import model_config

PAPER_STEPS = 1000


def lattice_cells(model: ImageModel, n_images: int, side_um: float, spacing_um: float = 16.0) -> PlacedCells:
    """Cells on a lattice that fills each patch, with random latents."""
    generator = torch.Generator().manual_seed(0)
    y, x = np.meshgrid(np.arange(0, side_um, spacing_um), np.arange(0, side_um, spacing_um), indexing="ij")
    xy = torch.from_numpy(np.stack([x.ravel(), y.ravel()], 1)).float() + spacing_um / 2
    n = len(xy)
    return PlacedCells(
        z_MZ=torch.randn(n * n_images, model.config.n_latent, generator=generator),
        depth_M=torch.zeros(n * n_images),
        xy_um_M2=xy.repeat(n_images, 1),
        image_M=torch.arange(n_images).repeat_interleave(n),
        mode_B=torch.full((n_images,), MODE_ALL),
        slide_B=torch.zeros(n_images, dtype=torch.long),
    )


class Evaluation(nn.Module):
    """One call of `denoise` on a batch: the unit of cost of a sampler."""

    def __init__(self, model: ImageModel, patch_px: int, um_per_px: float, batch: int) -> None:
        super().__init__()
        side = patch_px // model.downsampling
        self.model, self.batch = model.eval(), batch
        self.x = torch.randn(batch, model.latent_channels, side, side)
        with torch.no_grad():
            self.condition = model.encode_cells(lattice_cells(model, batch, patch_px * um_per_px), (side, side))

    @torch.no_grad()
    def forward(self) -> torch.Tensor:
        """Denoise."""
        return self.model.denoiser(self.x, torch.ones(self.batch), self.condition)


def gflops(evaluation: Evaluation) -> float:
    """FLOPs of one evaluation of one image, in units of 1e9."""
    with FlopCounterMode(display=False) as counter:
        evaluation()
    return counter.get_total_flops() / evaluation.batch / 1e9


def seconds(call: Evaluation) -> float:
    """Time of a call."""
    with fast_arithmetic(torch.device("cpu")):
        start = time.perf_counter()
        call()
        return time.perf_counter() - start


def image_gflops(bundle: ModelBundle, batch: int) -> float:
    """FLOPs of one whole image in units of 1e9: condition, all evaluations (guidance's own too), decoder."""
    model, config = bundle.model.image, bundle.config
    side = config.patch_px // model.downsampling
    with FlopCounterMode(display=False) as counter:
        model.sample(lattice_cells(model, batch, config.patch_um), range(batch), (side, side), config.sampler)
    return counter.get_total_flops() / batch / 1e9


def cost(bundle: ModelBundle, batch: int, repeats: int) -> None:
    """Print the cost of an image of the model and of the published network."""
    config = bundle.config
    shape = dict(n_types=8, um_per_px=config.um_per_px, patch_px=config.patch_px, cell_spacing_um=16.0, n_slides=1)
    paper = ImageModel(model_config("paper", n_genes=100, **shape).image)
    theirs = Evaluation(paper, config.patch_px, config.um_per_px, 2)
    seconds(theirs)  # not counted, nor is
    image_seconds(bundle, config.sampler, batch, 1)
    rounds = []
    for _ in range(repeats):  # in turn: other load hits both
        ours_s = float(np.median(image_seconds(bundle, config.sampler, batch, 3)))
        rounds.append((ours_s, seconds(theirs) / 2 * PAPER_STEPS))
    n = config.sampler.n_steps
    flops, flops_paper = image_gflops(bundle, batch), gflops(theirs) * PAPER_STEPS
    print("\n| | parameters | steps | GFLOP per image | s per image: least | median |" + f"\n{'|---' * 6}|")
    least, median = np.min(rounds, axis=0), np.median(rounds, axis=0)
    for i, (name, model, count, flop) in enumerate(
        (("this model", bundle.model.image, n, flops), ("paper", paper, PAPER_STEPS, flops_paper))
    ):
        parameters = sum(p.numel() for p in model.parameters()) / 1e6
        print(f"| {name} | {parameters:.1f} M | {count} | {flop:,.1f} | {least[i]:.4g} | {median[i]:.4g} |")
    print(
        f"ratio: {flops_paper / flops:,.0f} times fewer FLOPs; least over least {least[1] / least[0]:,.0f}, median over median "
        f"{median[1] / median[0]:,.0f} times less time, in {repeats} rounds"
    )


def throughput(bundle: ModelBundle, batch: int) -> None:
    """Print time per image by number of threads, and the memory that a batch takes over the process before it."""
    before, threads = peak_mb(), torch.get_num_threads()
    print("\n| images of a batch | peak memory over the model's, MB |\n|---|---|")
    for n in (16, 64, 256):  # rising: a peak is never forgotten
        image_seconds(bundle, bundle.config.sampler, n, 1)
        print(f"| {n} | {peak_mb() - before:.0f} |")
    print("\n| threads | ms per image: least | median |\n|---|---|---|")
    for n in range(1, threads + 1):
        torch.set_num_threads(n)
        times = image_seconds(bundle, bundle.config.sampler, batch, 8)[1:]
        print(f"| {n} | {min(times) * 1e3:.1f} | {np.median(times) * 1e3:.1f} |")


def peak_mb() -> float:
    """The most memory that this process has had resident (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def image_seconds(bundle: ModelBundle, sampler: SamplerConfig, batch: int, repeats: int) -> list[float]:
    """Time per image of whole batches as in `generate`: condition, sampler, decoder."""
    model, config = bundle.model.image, bundle.config
    side, device, times = config.patch_px // model.downsampling, torch.device("cpu"), []

    def call(part: slice) -> None:
        seeds = range(part.start, part.stop)
        with fast_arithmetic(device):
            model.sample(lattice_cells(model, len(seeds), config.patch_um), seeds, (side, side), sampler)

    for _ in range(repeats):
        start = time.perf_counter()
        list(parallel_batches(call, batch, batch, device))
        times.append((time.perf_counter() - start) / batch)
    return times


def compare(
    bundle: ModelBundle, dataset: PairedDataset, split: str, n: int, seed: int, variants: list[Variant]
) -> None:
    """Generate images of the same cells in several ways; print distances, correlations with the real patches, and spreads."""
    from sge2hist.data.he_stain import stain_statistics
    from sge2hist.evaluation.features.extractors import resolve_extractor
    from sge2hist.evaluation.metrics.frechet import frechet_of

    rng = np.random.default_rng(seed)
    rows = rng.permutation(dataset.rows(split))[: 2 * n]
    rows, others = np.sort(rows[:n]), np.sort(rows[n:])
    extractor = resolve_extractor()
    patches = dataset.patches(rows)
    real, truth = extractor(patches), stain_statistics(patches)
    floor = frechet_of(real, extractor(dataset.patches(others)))
    print(f"Frechet distance, {extractor.name}, {n} {split} cells; floor {floor:.1f}")
    print("correlation with the real patch / SD over that of real patches / mean over that of real patches\n")
    names = ("haematoxylin_mean", "haematoxylin_sd", "eosin_mean", "lumen_fraction")
    print(f"| | evaluations | distance | over floor | {' | '.join(names)} | ms per image |\n{'|---' * 9}|")
    for name, sampler, context, shuffle, other in variants:
        shown = other or bundle
        job = request_from_paired(shown, dataset, rows, seed=seed, context=context, shuffle_cells=shuffle)
        start = time.perf_counter()
        images = np.concatenate(list(image_batches(shown, job, sampler)))
        ms = (time.perf_counter() - start) / n * 1e3
        distance, found = frechet_of(real, extractor(images)), stain_statistics(images)
        columns = [
            f"{np.corrcoef(found[k], truth[k])[0, 1]:.2f} / {found[k].std() / truth[k].std():.2f}"
            f" / {found[k].mean() / truth[k].mean():.2f}"
            for k in names
        ]
        cells = [
            name,
            str(n_evaluations(shown, sampler)),
            f"{distance:.1f}",
            f"{distance / floor:.2f}",
            *columns,
            f"{ms:.0f}",
        ]
        print(f"| {' | '.join(cells)} |", flush=True)


def n_evaluations(bundle: ModelBundle, sampler: SamplerConfig) -> int:
    """Evaluations of the network per image, those of guidance too."""
    weight = bundle.model.image.guidance_weight(sampler)
    return sum(1 if weight(step.sigma) == 1 else 2 for step in bundle.model.image.denoiser.evaluations(sampler))


def glass(bundle: ModelBundle, n: int) -> None:
    """Generate images without any cell: they should be glass."""
    from sge2hist.data.he_stain import stain_statistics

    empty = PlacedCells(
        z_MZ=torch.zeros(0, bundle.config.gene.n_latent),
        depth_M=torch.zeros(0),
        xy_um_M2=torch.zeros(0, 2),
        image_M=torch.zeros(0, dtype=torch.long),
        mode_B=torch.full((n,), MODE_ALL),
        slide_B=torch.zeros(n, dtype=torch.long),
    )
    images = sample_patches(bundle, empty, np.arange(n), bundle.config.sampler)
    clear = stain_statistics(images)["lumen_fraction"]
    print(
        f"\nno cells at all, {n} images: {clear.mean():.3f} of the area is clear, {(clear > 0.95).mean():.2f} of the images"
    )


class Variant(NamedTuple):
    """One variant of sampling."""

    name: str
    sampler: SamplerConfig
    context: str = "neighbours"
    shuffle: bool = False
    bundle: ModelBundle | None = None  # None: the model of the comparison


def variants_of(what: str, own: SamplerConfig, others: dict[str, ModelBundle]) -> list[Variant]:
    """The variants that a comparison samples; `own` is the model's default."""
    if what == "few":
        found = [Variant(f"this model, {k} steps", replace(own, n_steps=k)) for k in (2, 3, 4, 6, 8)]
        return found + [Variant(name, other.config.sampler, bundle=other) for name, other in others.items()]
    if what == "guidance":
        return [Variant(f"guidance {g:g}", replace(own, guidance=g)) for g in (1.0, 1.4, 1.8, 2.2)]
    if what == "noise":
        ode = replace(own, n_steps=12, eta=0.0, sigma_range=None)
        narrow = replace(ode, sigma_range=(0.05, 20.0))
        return [
            Variant("12 steps, eta 0, levels 0.01 to 80", ode),
            Variant("levels 0.05 to 20", narrow),
            *(Variant(f"and eta {eta:g}", replace(narrow, eta=eta, eta_above=0.0)) for eta in (1.0, 2.0)),
            *(Variant(f"and eta {eta:g} above 1", replace(narrow, eta=eta, eta_above=1.0)) for eta in (1.0, 2.0)),
            Variant("levels 0.3 to 20, eta 2", replace(ode, eta=2.0, eta_above=0.0, sigma_range=(0.3, 20.0))),
            Variant("ancestral, levels 0.01 to 80", replace(ode, sampler="ancestral")),
        ]
    if what == "conditions":
        return [
            Variant("all cells", own),
            Variant("cells like the centre cell", own, "homotypic"),
            Variant("centre cell alone", own, "single_cell"),
            Variant("all cells, of another patch", own, "neighbours", True),
        ]
    if own.sampler == "consistency":
        return [Variant(own.sampler, replace(own, n_steps=k)) for k in (1, 2, 4, 8)]
    counts = (1, 2, 4, 6, 8, 12, 16, 32)
    found = [Variant(f"dpmpp-2m, eta {own.eta:g}", replace(own, sampler="dpmpp-2m", n_steps=k)) for k in counts]
    found += [Variant("dpmpp-2m, eta 0", replace(own, sampler="dpmpp-2m", eta=0.0, n_steps=k)) for k in (8, 32)]
    return found + [Variant("heun", replace(own, sampler="heun", n_steps=k)) for k in (4, 8)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("cost", "steps", "few", "guidance", "noise", "conditions", "evidence"))
    parser.add_argument("model", help="a folder, or pretrained:NAME")
    parser.add_argument("--data", type=Path, help="paired dataset, for all but `cost`")
    parser.add_argument("--split", help="cells to generate; default: val for choices (guidance, noise), else test")
    parser.add_argument("-n", type=int, default=512, help="images")
    parser.add_argument("--compare", nargs="*", default=[], help="for `evidence` and `few`: other models, NAME=MODEL")
    parser.add_argument("--max-steps", type=int, default=32, help="for `evidence`: steps of a sampler")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7, help="for `cost`: rounds")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if not all("=" in other for other in args.compare):
        parser.error(f"--compare {' '.join(args.compare)}: NAME=MODEL is needed")
    bundle = SGE2Hist.from_pretrained(args.model).bundle
    if args.what == "cost":
        throughput(bundle, args.batch)
        cost(bundle, args.batch, args.repeats)
    elif args.data is None:
        parser.error(f"{args.what} needs --data")
    else:
        data = PairedDataset.open(args.data)
        split = args.split or ("val" if args.what in ("guidance", "noise") else "test")
        if args.what == "evidence":
            evidence(bundle, data, split, args.n, args.seed, args.compare, args.max_steps)
            return
        others = {}
        for given in args.compare:
            name, _, path = given.partition("=")
            others[name] = SGE2Hist.from_pretrained(path).bundle
        compare(bundle, data, split, args.n, args.seed, variants_of(args.what, bundle.config.sampler, others))
        if args.what == "conditions":
            glass(bundle, 64)


if __name__ == "__main__":
    main()
