"""Judge sets of generated images against a paired dataset and write the report.

The order of work: open and check everything; choose cells; describe real patches and fit judges; describe each set;
score; write.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from sge2hist.data.artifacts import atomic_directory, check_output, write_json, write_manifest
from sge2hist.data.errors import InputError
from sge2hist.data.paired import PairedDataset
from sge2hist.evaluation.assemble import assemble
from sge2hist.evaluation.cells import Cells, choose_cells
from sge2hist.evaluation.config import EvaluateConfig
from sge2hist.evaluation.features.descriptors import ImageDescriptors, Progress, describe_images
from sge2hist.evaluation.features.extractors import resolve_extractor
from sge2hist.evaluation.image_sets import ImageSet, open_image_set
from sge2hist.evaluation.metrics.memorisation import CopySearch, find_copies
from sge2hist.evaluation.metrics.retrieval import psnr, ssim
from sge2hist.evaluation.metrics.slide_maps import SlideScores, score_slide
from sge2hist.evaluation.reference import Geometry, Reference, build_reference
from sge2hist.evaluation.scores import SetScores, real_estimates, score_set


def evaluate(
    generated_paths: list[str | Path],
    paired: str | Path | PairedDataset,
    output: str | Path | None = None,
    config: EvaluateConfig | None = None,
    progress: Progress | None = None,
    *,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Score one or several sets of images and return the report.

    Parameters
    ----------
    generated_paths
        Generated sets or slides, or folders (or csv tables) of images; `name=path` names a set in the tables. A set made with
        shuffled expression by the same model as
        another one becomes that one's shuffled baseline.
    paired
        The paired dataset that the cells come from.
    output
        Folder for report.json and report.html; None = only return the report.
    progress
        Called as progress(what, done, of).

    Raises
    ------
    InputError
        Before any slow work when inputs do not fit together.
    """
    config = config or EvaluateConfig()
    started = time.monotonic()
    if output is not None:
        check_output(output, overwrite=overwrite, kind="report")
    data = paired if isinstance(paired, PairedDataset) else PairedDataset.open(paired)
    sets, shuffled = split_shuffled(open_sets(generated_paths, data, config.split))
    geometry = common_geometry([*sets, *shuffled.values()], data)
    extractor = resolve_extractor(config.extractor, input_px=config.extractor_input_px)
    rng = np.random.default_rng(config.seed)
    cells = choose_cells([*sets, *shuffled.values()], data, config, geometry.patch_um, rng)
    reference = build_reference(data, cells, config, geometry, extractor, rng, progress)
    descriptors = describe_sets(reference, sets, cells, progress)
    shuffled_descriptors = {
        name: describe_set(reference, images, cells.images[images.name][0], progress, with_thumbnails=False)
        for name, images in shuffled.items()
    }
    scores_of = {}
    for images in sets:
        if progress is not None:
            progress(f"scores of {images.name}", 0, 1)
        scores_of[images.name] = score_set(
            reference, descriptors[images.name][0], shuffled_descriptors.get(images.name)
        )
    real = real_estimates(reference)
    copies = add_copies(reference, descriptors, scores_of, real, rng, progress)
    add_similarity(reference, sets, scores_of)
    slides = score_slides(sets, data, config)
    report = assemble(reference, sets, descriptors, shuffled_descriptors, scores_of, real, copies, rng)
    report["slides"] = {name: found.report for name, found in slides.items()}
    report["seconds"] = round(time.monotonic() - started, 1)
    if output is not None:
        write_report(report, reference, sets, shuffled, descriptors, scores_of, slides, Path(output), overwrite)
    return report


def open_sets(paths: list[str | Path], data: PairedDataset, split: str = "test") -> list[ImageSet]:
    """Return the opened sets; names must differ."""
    if not paths:
        raise InputError(found="no set of images", expected="at least one generated set or folder of images")
    sets = []
    for given in paths:
        name, separator, path = str(given).partition("=")
        is_named = bool(separator) and not Path(given).exists()
        sets.append(open_image_set(path if is_named else given, data, name if is_named else None, split))
    names = [images.name for images in sets]
    if len(set(names)) < len(names):
        raise InputError(
            found=f"sets of equal name: {', '.join(names)}", expected="different names", repair="give them as name=path"
        )
    return sets


def split_shuffled(sets: list[ImageSet]) -> tuple[list[ImageSet], dict[str, ImageSet]]:
    """Return the sets to be judged, and by their name the shuffled set of the same model, where one was given."""
    proper = [images for images in sets if not images.is_shuffled]
    baseline: dict[str, ImageSet] = {}
    rest = []
    for images in sets:
        if not images.is_shuffled:
            continue
        model = images.manifest.get("model_fingerprint", images.manifest.get("model"))
        partners = [
            p.name
            for p in proper
            if model
            and p.manifest.get("model_fingerprint", p.manifest.get("model")) == model
            and p.name not in baseline
        ]
        if partners:
            baseline[partners[0]] = images
        else:
            rest.append(images)
    return proper + rest, baseline


def common_geometry(sets: list[ImageSet], data: PairedDataset) -> Geometry:
    """Return the size of the compared patches; raises `InputError` when the sets differ."""
    sides = {images.name: (float(images.manifest.get("patch_um", data.patch_um)), images.image_px) for images in sets}
    if len(set(sides.values())) > 1:
        listing = ", ".join(f"{name}: {um:g} um in {px} px" for name, (um, px) in sides.items())
        raise InputError(
            found=listing, expected="patches of one size", repair="evaluate sets of different patch size one by one"
        )
    patch_um, patch_px = next(iter(sides.values()))
    return Geometry(patch_um=patch_um, patch_px=patch_px)


def describe_set(
    reference: Reference, images: ImageSet, indices: np.ndarray, progress: Progress | None, with_thumbnails: bool = True
) -> ImageDescriptors:
    """Describe the images that stand beside the evaluated cells."""
    return describe_images(
        images.images,
        indices,
        reference.extractor,
        channels=reference.data.channels,
        morphometry=reference.morphometry,
        with_thumbnails=with_thumbnails,
        progress=progress,
        what=images.name,
    )


def describe_sets(
    reference: Reference, sets: list[ImageSet], cells: Cells, progress: Progress | None
) -> dict[str, list[ImageDescriptors]]:
    """Describe every sample of every set; the first one is what the table shows."""
    return {
        images.name: [
            describe_set(reference, images, indices, progress, number == 0)
            for number, indices in enumerate(cells.images[images.name])
        ]
        for images in sets
    }


def add_copies(
    reference: Reference,
    descriptors: dict[str, list[ImageDescriptors]],
    scores_of: dict[str, SetScores],
    real: dict[str, Any],
    rng: np.random.Generator,
    progress: Progress | None,
) -> CopySearch | None:
    """Add the share of copies to the figures; None when evaluated cells are training cells, whose own patches would
    be found.
    """
    if np.isin(reference.cells.rows_N, reference.data.rows("train")).any():
        return None
    copies = find_copies(reference, {name: samples[0] for name, samples in descriptors.items()}, rng, progress)
    for name, share in copies.shares.items():
        scores_of[name].matched["copied"] = share
    real["copied"] = copies.real
    return copies


def add_similarity(
    reference: Reference, sets: list[ImageSet], scores_of: dict[str, SetScores], most: int = 1000
) -> None:
    """Add PSNR and SSIM over at most 1,000 cells."""
    if not reference.cells.own_cells:
        return
    n = len(reference.real)
    chosen = np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64))
    real = reference.patches(reference.cells.rows_N[chosen])
    for images in sets:
        generated = images.images(reference.cells.images[images.name][0][chosen])
        for name, function in (("psnr", psnr), ("ssim", ssim)):
            values = np.full(n, np.nan)
            values[chosen] = function(generated, real)
            scores_of[images.name].matched[name] = reference.resampling.mean(values)


def score_slides(sets: list[ImageSet], data: PairedDataset, config: EvaluateConfig) -> dict[str, SlideScores]:
    """Return what is measured on whole slides, for the sets that are one and hold windows of held-out cells alone."""
    found = {}
    for images in sets:
        if images.is_slide:
            with suppress(InputError):  # too few such windows; its cells are judged all the same
                found[images.name] = score_slide(
                    [images.path], data, split=config.split, n_bootstrap=config.n_bootstrap, seed=config.seed
                )
    return found


def write_report(
    report: dict[str, Any],
    reference: Reference,
    sets: list[ImageSet],
    shuffled: dict[str, ImageSet],
    descriptors: dict[str, list[ImageDescriptors]],
    scores_of: dict[str, SetScores],
    slides: dict[str, SlideScores],
    output: Path,
    overwrite: bool,
) -> None:
    """Write report.json and report.html."""
    from sge2hist.evaluation.report.build import build_page
    from sge2hist.evaluation.report.pictures import gather_pictures

    pictures = gather_pictures(reference, sets, shuffled, descriptors, scores_of, slides)
    with atomic_directory(output, overwrite=overwrite, kind="report") as folder:
        write_manifest(
            folder, "report", toy=report["toy"], synthetic=True, sets=[entry["name"] for entry in report["sets"]]
        )
        write_json(folder / "report.json", report)
        (folder / "report.html").write_text(build_page(report, pictures), encoding="utf-8")
