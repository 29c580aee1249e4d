"""Automatic registration against known truth, on a Xenium folder, and on what must be refused.

    python benchmarks/registration.py xenium_pancreas --cases 100 --output cases.jsonl
    python benchmarks/registration.py xenium_pancreas --refusals 2 --other-image he.tif --output cases.jsonl
    python benchmarks/registration.py --visium-hd outs --other-image he.tif --cases 6 --output cases.jsonl
    python benchmarks/registration.py --table cases.jsonl

Each case is an image of virtual H&E, computed from the morphology image of the folder (Giacomelli et al. 2016), turned and
mirrored at random, with another scale, shear, crop, blur, stain and noise. It is registered to the cell positions alone, or to
the DAPI image, with a um per px that is stated right within 5 %, or wrong by a factor of 0.1 to 10. The error is that of the map
at cells that lie on the image. An image made from the DAPI image shows exactly its nuclei; real sections move, and real H&E
differs.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

HAEMATOXYLIN, EOSIN = np.array([0.65, 0.70, 0.29]), np.array([0.07, 0.99, 0.11])  # Ruifrok and Johnston 2001
SOURCE_UM_PER_PX = 0.85
UM_PER_PX = (0.9, 3.4)
SIDE_UM = (1200.0, 4000.0)
MAX_SHEAR = 0.03


class Truth:
    """The folder: stains at reduced resolution, positions in um, the DAPI image."""

    def __init__(self, folder: Path) -> None:
        from sge2hist.data.slides.channels import ALL
        from sge2hist.data.slides.slide_image import SlideImage
        from sge2hist.readers.tables import read_parquet

        columns = read_parquet(folder / "cells.parquet", ["cell_id", "x_centroid", "y_centroid"])
        self.xy_um = np.stack([columns["x_centroid"], columns["y_centroid"]], axis=1)
        self.pixel_um = json.loads((folder / "experiment.xenium").read_text())["pixel_size"]
        self.dapi = SlideImage.open(folder / "morphology_focus" / "morphology_focus_0000.ome.tif", channels=ALL)
        light = self.dapi.as_array(self.pixel_um, SOURCE_UM_PER_PX).astype(np.float32)
        nuclei = light[..., 0] / 60
        rest = light[..., 1:] @ np.array([0.35 / 150, 0.6 / 195, 0.3 / 150], np.float32)
        self.stains = [np.clip(stain, 0, 2.5) for stain in (nuclei, rest)]
        self.size_um = np.array([self.dapi.width_px, self.dapi.height_px]) * self.pixel_um


def virtual_image(
    truth: Truth, seed: int, *, size_um: tuple[float, float] | None = None, centre_um: Any = None
) -> tuple[np.ndarray, np.ndarray, float]:
    """Image uint8 [H, W, 3], the map um -> px float64 [3, 3], and um per px."""
    from scipy.ndimage import affine_transform, gaussian_filter

    rng = np.random.default_rng(seed)
    um_per_px = float(np.exp(rng.uniform(*np.log(UM_PER_PX))))
    size = np.array(size_um or rng.uniform(*SIDE_UM, 2))
    centre = rng.uniform(0.3, 0.7, 2) * truth.size_um if centre_um is None else np.array(centre_um)
    angle, mirror = rng.uniform(0, 2 * np.pi), rng.choice([-1.0, 1.0])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.diag([mirror, 1])
    linear = turn @ (np.eye(2) + rng.uniform(-MAX_SHEAR, MAX_SHEAR, (2, 2))) / um_per_px
    width, height = (size / um_per_px).astype(int)
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = linear, np.array([width, height]) / 2 - linear @ centre
    back = np.linalg.inv(matrix) / SOURCE_UM_PER_PX  # px of the image -> px of the source
    offset = (back[:2, :2] @ [0.5, 0.5] + back[:2, 2] - 0.5)[::-1]
    ratio, blur_um = um_per_px / SOURCE_UM_PER_PX, rng.uniform(0, 1.5)
    amounts = []
    for stain in truth.stains:
        smooth = gaussian_filter(stain, np.hypot(0.45 * max(ratio, 1), blur_um / SOURCE_UM_PER_PX), truncate=3)
        amounts.append(affine_transform(smooth, back[:2, :2][::-1, ::-1], offset, (height, width), order=1))
    colours = [
        vector * rng.uniform(0.8, 1.2, 3) * strength
        for vector, strength in ((HAEMATOXYLIN, rng.uniform(0.6, 1.5)), (EOSIN, rng.uniform(0.3, 0.9)))
    ]
    density = sum(amount[..., None] * colour for amount, colour in zip(amounts, colours, strict=True))
    light = 255 * np.exp(-density) + rng.normal(0, 3, (height, width, 1))
    return light.clip(0, 255).astype(np.uint8), matrix, um_per_px


def attempt(
    pixels: np.ndarray, um_per_px: float, cells: Any, *, n_cells: int, stated: bool
) -> tuple[Any, str, float, float]:
    """The registration or None, the reason of a refusal, seconds of processor and of the clock."""
    from sge2hist.data.errors import InputError
    from sge2hist.data.slides.slide_image import SlideImage
    from sge2hist.pairing.alignment.automatic import register
    from sge2hist.pairing.alignment.nuclear_map import ImageNuclei

    image = ImageNuclei(SlideImage.from_array(pixels, um_per_px), um_per_px)
    cpu, wall = time.process_time(), time.perf_counter()
    found, reason = None, ""
    try:
        found = register(cells, image, n_cells=n_cells, scale_is_stated=stated, where="benchmark")
    except InputError as error:
        reason = error.found
    return found, reason, time.process_time() - cpu, time.perf_counter() - wall


def errors_um(matrix: np.ndarray, true: np.ndarray, truth: Truth, shape: tuple[int, ...], um_per_px: float) -> Any:
    """Distances in um between where two maps (um -> px) put the cells that lie on the image."""
    where, there = (truth.xy_um @ m[:2, :2].T + m[:2, 2] for m in (matrix, true))
    inside = ((there >= 0) & (there < [shape[1], shape[0]])).all(axis=1)
    return np.linalg.norm(where - there, axis=1)[inside] * um_per_px, int(inside.sum())


def run_cases(truth: Truth, numbers: range, output: Path) -> None:
    """Cases with a right answer."""
    from sge2hist.pairing.alignment.nuclear_map import ImageNuclei, PointNuclei

    references = {
        "positions": PointNuclei(truth.xy_um, 1.0, sigma_um=3.0),
        "DAPI": ImageNuclei(truth.dapi, truth.pixel_um),
    }
    for number in numbers:
        pixels, true, um_per_px = virtual_image(truth, number)
        reference, stated = ("positions", "DAPI")[number % 2], number % 4 < 2
        rng = np.random.default_rng(number + 10_000)
        factor = rng.uniform(0.95, 1.05) if stated else np.exp(rng.uniform(*np.log([0.1, 10])))
        found, reason, cpu, wall = attempt(
            pixels, um_per_px * factor, references[reference], n_cells=len(truth.xy_um), stated=stated
        )
        record = {"case": number, "reference": reference, "stated": stated, "um_per_px": um_per_px, "factor": factor}
        record |= {"cpu_s": cpu, "wall_s": wall, "shape": pixels.shape[:2], "refused": reason}
        if found is not None:
            unit = truth.pixel_um if reference == "DAPI" else 1.0
            error, n = errors_um(found.matrix @ np.diag([1 / unit, 1 / unit, 1]), true, truth, pixels.shape, um_per_px)
            record |= {"median_um": float(np.median(error)), "max_um": float(error.max()), "cells": n}
            record |= {"evidence": found.evidence.summary()}
        _save(record, output)


def run_refusals(truth: Truth, other_image: Path | None, n: int, output: Path) -> None:
    """Cases that must be refused, and crops of 5 % of the section, which may be found."""
    from sge2hist.data.slides.slide_image import SlideImage
    from sge2hist.pairing.alignment.nuclear_map import PointNuclei

    xy = truth.xy_um
    for seed in range(n):
        rng = np.random.default_rng(seed)
        pixels, _, um_per_px = virtual_image(truth, 500 + seed)
        side = truth.size_um * np.sqrt(0.05)
        crop, crop_true, crop_um = virtual_image(truth, 600 + seed, size_um=(float(side[0]), float(side[1])))
        right, _, right_um = virtual_image(
            truth, 700 + seed, size_um=(1600.0, 1600.0), centre_um=truth.size_um * [0.72, 0.5]
        )
        blank = np.clip(rng.normal(240, 2, (1000, 1000, 3)), 0, 255).astype(np.uint8)
        cases = {
            "blank image": (blank, 2.0, xy, None),
            "image of 5 % of the section": (crop, crop_um, xy, crop_true),
            "cells displaced by 40 um": (pixels, um_per_px, xy + rng.normal(0, 40, xy.shape), None),
            "another part of the section": (right, right_um, xy[xy[:, 0] < 0.45 * truth.size_um[0]], None),
            "random points in the same outline": (
                pixels,
                um_per_px,
                rng.uniform([0, 0], truth.size_um, xy.shape),
                None,
            ),
        }
        if other_image is not None:
            slide = SlideImage.open(other_image)
            scale = slide.um_per_px or 2.0
            cases["H&E of another organ"] = (slide.as_array(scale, 2.0 + seed), 2.0 + seed, xy, None)
        for name, (image, scale, points, answer) in cases.items():
            cells = PointNuclei(points, 1.0, sigma_um=3.0)
            found, reason, cpu, wall = attempt(image, scale, cells, n_cells=len(points), stated=True)
            record: dict[str, Any] = {"refusal": name, "seed": seed, "refused": reason, "cpu_s": cpu, "wall_s": wall}
            if found is not None:
                record["evidence"] = found.evidence.summary()
                if answer is not None:
                    error, _ = errors_um(found.matrix, answer, truth, image.shape, scale)
                    record["median_um"] = float(np.median(error))
            _save(record, output)


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
    _save(record, output)
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
        _save(record | {"shape": (height, width), "cpu_s": time.process_time() - started}, output)


def _save(record: dict[str, Any], output: Path) -> None:
    with open(output, "a") as file:
        file.write(json.dumps(record) + "\n")
    print(json.dumps({key: value for key, value in record.items() if key != "evidence"}), flush=True)


def print_table(path: Path) -> None:
    """Markdown tables of what was measured."""
    records = [json.loads(line) for line in path.read_text().splitlines()]
    cases = [record for record in records if "case" in record]
    print(
        "| registered to | um per px stated | cases | accepted | wrong (> 20 um) | median um | 95 % um | worst um | CPU s |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for reference in ("positions", "DAPI"):
        for stated in (True, False):
            some = [r for r in cases if r["reference"] == reference and r["stated"] == stated]
            if some:
                _print_row(reference, "within 5 %" if stated else "wrong by 0.1 to 10 x", some)
    if cases:
        _print_row("all", "", cases)
    for record in (r for r in records if "real" in r):
        print({key: value for key, value in record.items() if key != "evidence"})
    print("\n| case | refused | found, median error um | CPU s |\n|---|---|---|---|")
    for name in dict.fromkeys(r["refusal"] for r in records if "refusal" in r):
        some = [r for r in records if r.get("refusal") == name]
        found = [r for r in some if not r["refused"]]
        errors = ", ".join(f"{r['median_um']:.2f}" if "median_um" in r else "WRONG" for r in found)
        print(
            f"| {name} | {len(some) - len(found)} of {len(some)} | {errors} | {np.mean([r['cpu_s'] for r in some]):.0f} |"
        )


def _print_row(reference: str, stated: str, some: list[dict[str, Any]]) -> None:
    error = np.array([r["median_um"] for r in some if "median_um" in r])
    worst = np.array([r["max_um"] for r in some if "max_um" in r])
    figures = (
        " | ".join(f"{x:.2f}" for x in (np.median(error), np.quantile(error, 0.95), worst.max()))
        if len(error)
        else "| |"
    )
    cpu = np.mean([r["cpu_s"] for r in some])
    print(f"| {reference} | {stated} | {len(some)} | {len(error)} | {(error > 20).sum()} | {figures} | {cpu:.0f} |")


def main() -> None:
    """Run cases or print the table of those that were run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="Xenium folder with its morphology image")
    parser.add_argument("--cases", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--refusals", type=int, default=0, help="number of each")
    parser.add_argument("--visium-hd", type=Path, help="outs/ of a run; its H&E by --other-image")
    parser.add_argument("--other-image", type=Path, help="an H&E of another organ")
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
    truth = Truth(arguments.folder)
    if arguments.cases:
        run_cases(truth, range(arguments.first, arguments.first + arguments.cases), arguments.output)
    if arguments.refusals:
        run_refusals(truth, arguments.other_image, arguments.refusals, arguments.output)


if __name__ == "__main__":
    main()
