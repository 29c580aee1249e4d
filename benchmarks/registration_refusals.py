"""What automatic registration must refuse, made of a Xenium folder and of images of other tissues.

    python benchmarks/registration_refusals.py xenium_pancreas --other he.tif 2.0 --other C2.jpg 0.69 --output refusals.jsonl
    python benchmarks/registration_refusals.py --table refusals.jsonl

Cases that the output holds already are not run again. An image of a small part of the section has a right answer, and is found.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from virtual_sections import HAEMATOXYLIN, Truth, VirtualImage, attempt, errors_um, records, save, virtual_image

SMALL_PART = "image of 5 % of the section"
OTHER_UM_PER_PX = 2.0


@dataclass(frozen=True)
class Case:
    """An image, the cells it is registered to, and the image's truth where there is one."""

    pixels_HWC: np.ndarray
    um_per_px: float
    xy_um: np.ndarray
    answer: VirtualImage | None = None


def _blank(truth: Truth, seed: int) -> Case:
    rng = np.random.default_rng(seed)
    return Case(np.clip(rng.normal(240, 2, (1000, 1000, 3)), 0, 255).astype(np.uint8), 2.0, truth.xy_um)


def _noise(truth: Truth, seed: int) -> Case:
    """Haematoxylin in random blobs of the size of nuclei, denser here than there."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    blobs, regions = (gaussian_filter(rng.normal(size=(1200, 1500)), sigma) for sigma in (1.5, 40))
    stain = np.clip(blobs / blobs.std() + regions / regions.std() - 0.5, 0, 2.5)
    light = 255 * np.exp(-0.8 * stain[..., None] * HAEMATOXYLIN)
    return Case(light.clip(0, 255).astype(np.uint8), 2.0, truth.xy_um)


def _displaced(truth: Truth, seed: int, *, by_um: float) -> Case:
    image = virtual_image(truth, 500 + seed)
    moved = truth.xy_um + np.random.default_rng(seed).normal(0, by_um, truth.xy_um.shape)
    return Case(image.pixels_HWC, image.um_per_px, moved)


def _uniform(truth: Truth, seed: int) -> Case:
    image = virtual_image(truth, 500 + seed)
    xy = np.random.default_rng(seed).uniform([0, 0], truth.size_um, truth.xy_um.shape)
    return Case(image.pixels_HWC, image.um_per_px, xy)


def _other_part(truth: Truth, seed: int) -> Case:
    image = virtual_image(truth, 700 + seed, size_um=(1600.0, 1600.0), centre_um=truth.size_um * [0.72, 0.5])
    return Case(image.pixels_HWC, image.um_per_px, truth.xy_um[truth.xy_um[:, 0] < 0.45 * truth.size_um[0]])


def _symmetric(truth: Truth, seed: int, *, turned: bool) -> Case:
    """An image and its cells, beside their mirror image, or beside themselves turned by 180 degrees."""
    image = virtual_image(truth, 800 + seed, size_um=(1300.0, 2000.0), centre_um=truth.size_um / 2)
    pixels, height, width = image.pixels_HWC, *image.pixels_HWC.shape[:2]
    at = image.place(truth.xy_um)
    at = at[((at >= 0) & (at < [width, height])).all(axis=1)]
    again = np.array([2 * width, height if turned else 0]) - at * [1, 1 if turned else -1]
    both = np.concatenate([pixels, pixels[::-1, ::-1] if turned else pixels[:, ::-1]], axis=1)
    return Case(both, image.um_per_px, np.concatenate([at, again]) * image.um_per_px)


def _small_part(truth: Truth, seed: int) -> Case:
    side = truth.size_um * np.sqrt(0.05)
    image = virtual_image(truth, 600 + seed, size_um=(float(side[0]), float(side[1])))
    return Case(image.pixels_HWC, image.um_per_px, truth.xy_um, image)


def _other_tissue(truth: Truth, seed: int, *, path: str, um_per_px: float) -> Case:
    from sge2hist.data.slides.slide_image import SlideImage

    scale = OTHER_UM_PER_PX * (1 + 0.3 * seed)
    return Case(SlideImage.open(path).as_array(um_per_px, scale), scale, truth.xy_um)


def run(truth: Truth, others: list[tuple[str, str]], seeds: range, output: Path) -> None:
    """Every case with every seed."""
    from sge2hist.pairing.alignment.nuclear_map import PointNuclei

    makers: dict[str, Callable[[Truth, int], Case]] = {
        "blank image": _blank,
        "noise that looks like nuclei": _noise,
        "cells displaced by 40 um": partial(_displaced, by_um=40.0),
        "uniform random points": _uniform,
        "mirror-symmetric pattern": partial(_symmetric, turned=False),
        "pattern that turns into itself": partial(_symmetric, turned=True),
        "another part of the section": _other_part,
        **{
            f"H&E of another tissue: {Path(path).name}": partial(_other_tissue, path=path, um_per_px=float(um))
            for path, um in others
        },
        "cells displaced by 20 um": partial(_displaced, by_um=20.0),
        SMALL_PART: _small_part,
    }
    done = {(record["refusal"], record["seed"]) for record in records(output)}
    for seed in seeds:
        for name, make in makers.items():
            if (name, seed) in done:
                continue
            case = make(truth, seed)
            cells = PointNuclei(case.xy_um, 1.0, sigma_um=3.0)
            found, reason, cpu, wall = attempt(
                case.pixels_HWC, case.um_per_px, cells, n_cells=len(case.xy_um), stated=True
            )
            record: dict[str, Any] = {"refusal": name, "seed": seed, "refused": reason, "cpu_s": cpu, "wall_s": wall}
            if found is not None:
                record |= {"evidence": found.evidence.summary(), "search": [found.score, found.runner_up]}
                if case.answer is not None:
                    error, _ = errors_um(found.matrix, case.answer, truth)
                    record["median_um"] = float(np.median(error))
            save(record, output)


def print_table(path: Path) -> None:
    """Markdown table of what was measured."""
    print("| case | refused | reason | found, median error um | processor s |\n|---|---|---|---|---|")
    every = records(path)
    for name in dict.fromkeys(record["refusal"] for record in every):
        some = [record for record in every if record["refusal"] == name]
        found = [record for record in some if not record["refused"]]
        errors = ", ".join(f"{r['median_um']:.2f}" if "median_um" in r else "WRONG" for r in found)
        cpu = np.mean([record["cpu_s"] for record in some])
        reasons = ", ".join(dict.fromkeys(record["refused"] for record in some if record["refused"]))
        print(f"| {name} | {len(some) - len(found)} of {len(some)} | {reasons} | {errors} | {cpu:.0f} |")


def main() -> None:
    """Run cases or print the table of those that were run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="Xenium folder with its morphology image")
    parser.add_argument("--other", nargs=2, action="append", default=[], metavar=("IMAGE", "UM_PER_PX"))
    parser.add_argument("--seeds", type=int, default=2, help="of each case")
    parser.add_argument("--output", type=Path, default=Path("registration_refusals.jsonl"))
    parser.add_argument("--table", type=Path)
    arguments = parser.parse_args()
    if arguments.table:
        print_table(arguments.table)
    elif arguments.folder is None:
        parser.error("give a Xenium folder, or --table FILE")
    else:
        run(Truth(arguments.folder), arguments.other, range(arguments.seeds), arguments.output)


if __name__ == "__main__":
    main()
