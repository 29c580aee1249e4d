"""How well nuclei are found, how fast, and how fast bins become cells.

    python benchmarks/nuclei.py quality --nuclei-he FOLDER --histolytics FOLDER
    python benchmarks/nuclei.py speed --megapixels 28 56 113
    python benchmarks/nuclei.py bins

`quality` scores the held-out parts of the two public sets (see recipes/nuclei.md) and painted nuclei known exactly.
`speed` segments painted slides, tissue from edge to edge, from a tiled JPEG TIFF. Wall time depends on other load,
so CPU time is given too.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import numpy as np
import tifffile
from scipy import ndimage
from skimage.color import rgb2gray, rgb2hed
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.segmentation import watershed

from sge2hist.data.slides.slide_image import SlideImage
from sge2hist.pairing.segmentation.bins_to_cells import bins_to_cells
from sge2hist.pairing.segmentation.classical import ClassicalSegmenter
from sge2hist.pairing.segmentation.network import NetworkSegmenter
from sge2hist.pairing.segmentation.polygons import polygon_at
from sge2hist.pairing.segmentation.scores import score_images
from sge2hist.pairing.segmentation.segmenters import choose_segmenter
from sge2hist.pairing.segmentation.tiles import TilingConfig, segment_slide
from sge2hist.readers.geojson import Polygons

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT / "recipes"), str(ROOT / "tests")]

from nuclei_data import read_histolytics, read_nuclei_he  # noqa: E402

from fixtures.painted_nuclei import paint_nuclei  # noqa: E402

Pairs = list[tuple[np.ndarray, np.ndarray]]  # image, truth


def plain_watershed(amount: np.ndarray) -> np.ndarray:
    """Gaussian of 0.5 um, Otsu, holes filled, watershed from peaks of the distance transform 3.5 um apart (0.5 um/px)."""
    amount = ndimage.gaussian_filter(amount, 1.0)
    inside = ndimage.binary_fill_holes(amount > threshold_otsu(amount))
    depth = ndimage.distance_transform_edt(inside)
    peaks = peak_local_max(depth, min_distance=7, labels=ndimage.label(inside)[0], exclude_border=False)
    markers = np.zeros(inside.shape, int)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return watershed(-depth, markers, mask=inside)


def otsu_grey(image: np.ndarray) -> np.ndarray:
    return plain_watershed(1 - rgb2gray(image))


def otsu_haematoxylin(image: np.ndarray) -> np.ndarray:
    return plain_watershed(rgb2hed(image)[..., 0])


def quality(arguments: argparse.Namespace) -> None:
    sets: dict[str, Pairs] = {"painted": [paint_nuclei(height_px=512, width_px=512, seed=100 + i) for i in range(4)]}
    if arguments.nuclei_he:
        sets["nuclei_he"] = [(t.image, t.labels) for t in read_nuclei_he(arguments.nuclei_he).held_out]
    if arguments.histolytics:
        sets["histolytics"] = [(t.image, t.labels) for t in read_histolytics(arguments.histolytics).held_out]
    methods: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "Otsu + watershed, grey": otsu_grey,
        "Otsu + watershed, haematoxylin": otsu_haematoxylin,
        "classical": ClassicalSegmenter(),
        "network": NetworkSegmenter(),
    }
    print(
        "| held-out set | nuclei | images | method | F1@0.5 (95 % interval) | precision | recall | mean IoU | matched IoU |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name, pairs in sets.items():
        for method, find in methods.items():
            found = [(truth, find(image)) for image, truth in pairs]
            score, (low, high) = score_images(found), bootstrap_f1(found)
            print(
                f"| {name} | {score.n_truth} | {len(pairs)} | {method} | {score.f1:.3f} ({low:.3f}-{high:.3f}) | "
                f"{score.precision:.2f} | {score.recall:.2f} | {score.mean_iou:.3f} | {score.matched_iou:.3f} |",
                flush=True,
            )


def bootstrap_f1(found: Pairs, n_resamples: int = 500, seed: int = 0) -> tuple[float, float]:
    """95 % interval of F1 over images sampled with replacement; over 4 x 4 blocks of each when there are fewer than 8."""
    blocks = found if len(found) >= 8 else [block for pair in found for block in _blocks(*pair)]
    scores = [score_images([pair]) for pair in blocks]
    counts = np.array([[s.n_matched, s.n_truth + s.n_found] for s in scores])
    sums = counts[np.random.default_rng(seed).integers(0, len(counts), (n_resamples, len(counts)))].sum(1)
    low, high = np.quantile(2 * sums[:, 0] / sums[:, 1], [0.025, 0.975])
    return float(low), float(high)


def _blocks(truth: np.ndarray, found: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The nuclei of each block, whole: a nucleus belongs to the block that holds its centre."""
    sorted_out = []
    for labels in (truth, found):
        index = np.arange(1, labels.max() + 1)
        centre = np.nan_to_num(np.array(ndimage.center_of_mass(labels > 0, labels, index)).reshape(-1, 2))
        row, column = (centre * 4 // labels.shape).astype(int).T
        sorted_out.append(np.append(-1, row * 4 + column)[labels])
    for block in range(16):
        yield np.where(sorted_out[0] == block, truth, 0), np.where(sorted_out[1] == block, found, 0)


def speed(arguments: argparse.Namespace) -> None:
    tile, _ = paint_nuclei(height_px=1024, width_px=1024, seed=3)
    print("| segmenter | Mpx | processes | nuclei | wall s | CPU s | CPU s / Mpx | parent + children peak MB |")
    print("|---|---|---|---|---|---|---|---|")
    for name, megapixels in product(arguments.segmenter, arguments.megapixels):
        side = max(1, round(np.sqrt(megapixels * 1e6) / 1024)) * 1024
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "slide.tif"
            tiles = (tile for _ in range((side // 1024) ** 2))
            options = {"tile": (1024, 1024), "compression": "jpeg", "photometric": "rgb", "bigtiff": True}
            tifffile.imwrite(path, tiles, shape=(side, side, 3), dtype=np.uint8, **options)
            slide, start, cpu = SlideImage.open(path), time.monotonic(), _cpu_s()
            _, segmenter = choose_segmenter(name, slide, 0.5)
            config = TilingConfig(processes=arguments.processes)
            runs = segment_slide(slide, 0.5, segmenter, config=config)
            wall, cpu, mpx = time.monotonic() - start, _cpu_s() - cpu, side**2 / 1e6
            slide.close()
        print(
            f"| {name} | {mpx:.0f} | {arguments.processes} | {runs.n_labels} | {wall:.1f} | {cpu:.1f} | "
            f"{cpu / mpx:.3f} | {_peak_mb(arguments.processes):.0f} |",
            flush=True,
        )


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _peak_mb(processes: int) -> float:
    """Peak of this process plus, for each worker, the peak of the largest."""
    own, child = (resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own + (child * processes if processes > 1 else 0)


def bins(arguments: argparse.Namespace) -> None:
    """60,000 outlines of 40 corners against the 11.2 million bins of a full array, on a slightly turned image."""
    n_side, n_cells, rng = 3350, arguments.cells, np.random.default_rng(0)
    row, column = np.indices((n_side, n_side)).reshape(2, -1)
    turn, pitch_px = np.deg2rad(1.5), 2 / 0.27
    axes = pitch_px * np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    xy_px = np.stack([column, row], 1) @ axes + 900
    angle = np.linspace(0, 2 * np.pi, 41)[:-1]
    ring = np.stack([np.cos(angle), np.sin(angle)], 1)
    centre = rng.uniform(xy_px.min(0), xy_px.max(0), (n_cells, 2))
    corners = centre[:, None] + ring * rng.uniform(2.5, 5.5, (n_cells, 1, 1)) / 0.27
    polygons = Polygons(
        ids=[str(number) for number in range(n_cells)],
        classes=[None] * n_cells,
        polygon_of_ring=np.arange(n_cells),
        is_hole=np.zeros(n_cells, bool),
        ring_start=np.arange(n_cells + 1) * 40,
        corner_xy_px=corners.reshape(-1, 2),
    )
    start, cpu = time.monotonic(), _cpu_s()
    nucleus = polygon_at(polygons, xy_px)
    inside, inside_cpu = time.monotonic() - start, _cpu_s() - cpu
    start, cpu = time.monotonic(), _cpu_s()
    cells = bins_to_cells(nucleus, row, column, bin_um=2.0)
    grown, grown_cpu = time.monotonic() - start, _cpu_s() - cpu
    print(f"{n_cells} polygons x {len(row)} bins: inside {inside:.1f} s wall, {inside_cpu:.1f} s CPU")
    print(f"largest piece and growth by 8 um: {grown:.1f} s wall, {grown_cpu:.1f} s CPU; {len(cells)} cells")
    print(f"peak {_peak_mb(1):.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(required=True)
    part = parts.add_parser("quality")
    part.add_argument("--nuclei-he", type=Path)
    part.add_argument("--histolytics", type=Path)
    part.set_defaults(run=quality)
    part = parts.add_parser("speed")
    part.add_argument("--segmenter", nargs="+", default=["network", "classical"])
    part.add_argument("--megapixels", type=float, nargs="+", default=[28, 56, 113])
    part.add_argument("--processes", type=int, default=2)
    part.set_defaults(run=speed)
    part = parts.add_parser("bins")
    part.add_argument("--cells", type=int, default=60_000)
    part.set_defaults(run=bins)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
