"""Automatic registration against known truth, on a Xenium folder.

    python benchmarks/registration.py xenium_pancreas --cases 100 --output cases.jsonl
    python benchmarks/registration.py xenium_pancreas --cases 100 --warp-um 5 --output stretched.jsonl
    python benchmarks/registration.py --visium-hd outs --other-image he.tif --cases 6 --output cases.jsonl
    python benchmarks/registration.py --table cases.jsonl

Each case is an image of virtual H&E (`virtual_sections`) that is registered to the cell positions alone, or to the DAPI image,
with a um per px that is stated right within 5 %, or wrong by a factor of 0.1 to 10. The error is that of the map at cells that
lie on the image. An image made from the DAPI image shows exactly its nuclei; real sections move, and real H&E differs. Cases that
the output holds already are not run again. What must be refused: `registration_refusals.py`.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
from virtual_sections import Truth, attempt, errors_um, records, save, virtual_image

WRONG_UM = 20.0


def run_cases(truth: Truth, numbers: range, output: Path, warp_um: float) -> None:
    """Cases with a right answer."""
    from sge2hist.pairing.alignment.nuclear_map import ImageNuclei, PointNuclei

    references = {
        "positions": PointNuclei(truth.xy_um, 1.0, sigma_um=3.0),
        "DAPI": ImageNuclei(truth.dapi, truth.pixel_um),
    }
    done = {record.get("case") for record in records(output)}
    for number in numbers:
        if number in done:
            continue
        image = virtual_image(truth, number, warp_um=warp_um)
        reference, stated = ("positions", "DAPI")[number % 2], number % 4 < 2
        rng = np.random.default_rng(number + 10_000)
        factor = rng.uniform(0.95, 1.05) if stated else np.exp(rng.uniform(*np.log([0.1, 10])))
        found, reason, cpu, wall = attempt(
            image.pixels_HWC, image.um_per_px * factor, references[reference], n_cells=len(truth.xy_um), stated=stated
        )
        record = {"case": number, "reference": reference, "stated": stated, "um_per_px": image.um_per_px}
        record |= {"factor": factor, "warp_um": warp_um, "cpu_s": cpu, "wall_s": wall}
        record |= {"shape": image.pixels_HWC.shape[:2], "refused": reason}
        if found is not None:
            unit = truth.pixel_um if reference == "DAPI" else 1.0
            error, n = errors_um(found.matrix @ np.diag([1 / unit, 1 / unit, 1]), image, truth)
            record |= {"median_um": float(np.median(error)), "max_um": float(error.max()), "cells": n}
            record |= {"evidence": found.evidence.summary(), "search": [found.score, found.runner_up]}
        save(record, output)


def run_real(outs: Path, image: Path, n: int, output: Path) -> None:
    """Real H&E and bins of 8 um: the stated positions, and turned copies of the image against the image as it is."""
    from scipy.ndimage import affine_transform

    from sge2hist.data.slides.slide_image import SlideImage
    from sge2hist.pairing.alignment.map_to_image import map_section
    from sge2hist.pairing.alignment.registration import estimate_shift
    from sge2hist.pairing.alignment.tissue import tissue_of
    from sge2hist.readers import open_sections

    (section,) = open_sections(outs, image=image, bin_um=8)
    um_per_px, xy = section.um_per_px, section.centre_xy_px
    totals = np.asarray(section.read_counts(None, None).sum(axis=1)).ravel()
    pixels, started = section.image.as_array(), time.process_time()
    moved, applied = map_section(section, "auto")
    base = np.linalg.inv(applied.image_to_cells)
    length = np.linalg.norm(moved.centre_xy_px - xy, axis=1) * um_per_px
    shifts = [estimate_shift(tissue_of(part), part.centre_xy_px, totals) for part in (section, moved)]
    record: dict[str, Any] = {"real": "as stated", "moved_median_um": float(np.median(length))}
    record |= {"moved_max_um": float(length.max()), "cpu_s": time.process_time() - started}
    record |= {
        "shift_um": [s.length_um for s in shifts if s],
        "correlation": [s.correlation_unshifted for s in shifts if s],
    }
    record["evidence"] = applied.registration.evidence.summary() if applied.registration else None
    save(record, output)
    for seed in range(n):
        rng = np.random.default_rng(seed)
        angle, scale, mirror = rng.uniform(0, 2 * np.pi), rng.uniform(0.6, 1.1), rng.choice([-1.0, 1.0])
        turn = (
            scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.diag([mirror, 1])
        )
        turn = turn @ (np.eye(2) + rng.uniform(-0.02, 0.02, (2, 2)))
        height, width = (int(side * rng.uniform(0.5, 0.9)) for side in pixels.shape[:2])
        old_centre = np.array(pixels.shape[1::-1]) * rng.uniform(0.4, 0.6, 2)
        true = np.eye(3)
        true[:2, :2], true[:2, 2] = turn, np.array([width, height]) / 2 - turn @ old_centre
        back = np.linalg.inv(true)
        offset = (back[:2, :2] @ [0.5, 0.5] + back[:2, 2] - 0.5)[::-1]
        layers = [
            affine_transform(pixels[..., k], back[:2, :2][::-1, ::-1], offset, (height, width), order=1, cval=245)
            for k in range(3)
        ]
        um = um_per_px / scale
        turned = dataclasses.replace(section, image=SlideImage.from_array(np.stack(layers, axis=-1), um))
        started = time.process_time()
        _, applied = map_section(turned, "auto")
        expected, found = (xy @ m[:2, :2].T + m[:2, 2] for m in (true @ base, np.linalg.inv(applied.image_to_cells)))
        inside = ((expected >= 0) & (expected < [width, height])).all(axis=1)
        error = np.linalg.norm(found - expected, axis=1)[inside] * um
        record = {"real": "turned", "seed": seed, "median_um": float(np.median(error)), "max_um": float(error.max())}
        save(record | {"shape": (height, width), "cpu_s": time.process_time() - started}, output)


def print_table(path: Path) -> None:
    """Markdown tables of what was measured."""
    every = records(path)
    cases = [record for record in every if "case" in record]
    figures = "median um | 95 % um | worst cell um | processor s"
    if cases:
        print(
            f"| registered to | um per px stated | cases | accepted | wrong (a cell > {WRONG_UM:g} um off) | {figures} |"
        )
        print("|---|---|---|---|---|---|---|---|---|")
    for reference in ("positions", "DAPI"):
        for stated in (True, False):
            some = [r for r in cases if r["reference"] == reference and r["stated"] == stated]
            if some:
                _print_row(reference, "within 5 %" if stated else "wrong by 0.1 to 10 x", some)
    if cases:
        _print_row("all", "", cases)
    _print_bins([record for record in every if "real" in record])


def _print_bins(every: list[dict[str, Any]]) -> None:
    """What registration of a real H&E does to the positions stated for it, and how turned copies differ from that map."""
    for record in (record for record in every if record["real"] == "as stated"):
        print("| bins on a real H&E | positions as stated | after registration |\n|---|---|---|")
        for key, title in (
            ("shift_um", "shift that maximises the correlation of counts with the nuclear stain, um"),
            ("correlation", "correlation of log counts with the nuclear stain"),
        ):
            print(f"| {title} | {' | '.join(f'{value:.3g}' for value in record[key])} |")
        moved = f"{record['moved_median_um']:.1f} (at most {record['moved_max_um']:.1f})"
        print(f"| moved by, um, median | | {moved} |")
        if record["evidence"]:
            print(f"| shift that held-out tiles still show, um, median | | {record['evidence']['residual_um']:.1f} |")
    for record in (record for record in every if record["real"] == "turned"):
        worst = f"{record['median_um']:.1f} (at most {record['max_um']:.1f})"
        print(f"| turned copy {record['seed'] + 1}: difference from that map, um, median | | {worst} |")


def _print_row(reference: str, stated: str, some: list[dict[str, Any]]) -> None:
    error = np.array([r["median_um"] for r in some if "median_um" in r])
    worst = np.array([r["max_um"] for r in some if "max_um" in r])
    figures = (
        " | ".join(f"{x:.2f}" for x in (np.median(error), np.quantile(error, 0.95), worst.max()))
        if len(error)
        else "| |"
    )
    cpu = np.mean([r["cpu_s"] for r in some])
    print(
        f"| {reference} | {stated} | {len(some)} | {len(error)} | {(worst > WRONG_UM).sum()} | {figures} | {cpu:.0f} |"
    )


def main() -> None:
    """Run cases or print the table of those that were run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="Xenium folder with its morphology image")
    parser.add_argument("--cases", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--warp-um", type=float, default=0.0, help="root mean square of a smooth random stretch")
    parser.add_argument("--visium-hd", type=Path, help="outs/ of a run; its H&E by --other-image")
    parser.add_argument("--other-image", type=Path, help="the H&E of --visium-hd")
    parser.add_argument("--output", type=Path, default=Path("registration_cases.jsonl"))
    parser.add_argument("--table", type=Path)
    arguments = parser.parse_args()
    if arguments.table:
        print_table(arguments.table)
        return
    if arguments.visium_hd:
        run_real(arguments.visium_hd, arguments.other_image, arguments.cases, arguments.output)
        return
    if arguments.folder is None:
        parser.error("give a Xenium folder, or --table FILE")
    run_cases(
        Truth(arguments.folder),
        range(arguments.first, arguments.first + arguments.cases),
        arguments.output,
        arguments.warp_um,
    )


if __name__ == "__main__":
    main()
