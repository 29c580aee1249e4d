"""Score sets of generated images against a paired dataset and write the report.

The order of work: open and check everything; choose cells; describe real patches and fit the reference models; describe
each set; score; write.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sge2hist.data.artifacts import atomic_directory, check_output, write_json, write_manifest
from sge2hist.data.errors import InputError, refuse_wrong_arguments
from sge2hist.data.output_lock import locks_output
from sge2hist.data.paired import PairedDataset
from sge2hist.evaluation.cells import Cells, choose_cells, subsample
from sge2hist.evaluation.config import EvaluateConfig
from sge2hist.evaluation.features.descriptors import ImageDescriptors, Progress
from sge2hist.evaluation.features.extractor import Extractor
from sge2hist.evaluation.features.extractors import resolve_extractors
from sge2hist.evaluation.further_extractors import score_with
from sge2hist.evaluation.held_out import held_out
from sge2hist.evaluation.images import ImageSet, split_shuffled
from sge2hist.evaluation.metrics.memorisation import CopySearch, find_copies
from sge2hist.evaluation.metrics.retrieval import psnr, ssim
from sge2hist.evaluation.metrics.slide_maps import SlideScores, score_slide
from sge2hist.evaluation.open_images import ImageSource, open_image_sets
from sge2hist.evaluation.preprocessing import preprocessing
from sge2hist.evaluation.reference import Geometry, Reference, build_reference, stored_thumbnails
from sge2hist.evaluation.resampling import make_resampling
from sge2hist.evaluation.results import build_report
from sge2hist.evaluation.scores import Estimates, SetScores, real_estimates, score_set
from sge2hist.evaluation.sensitivity import sensitivity
from sge2hist.parallel import one_blas_thread
from sge2hist.progress import stages

MAX_SIMILARITY_CELLS = 1000  # cells whose PSNR and SSIM are computed


@refuse_wrong_arguments("progress", "overwrite")
@locks_output()
def evaluate(
    generated: ImageSource | Sequence[ImageSource] | Mapping[str, ImageSource],
    data: str | Path | PairedDataset,
    output: str | Path | None = None,
    *,
    config: EvaluateConfig | None = None,
    progress: bool | Progress | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Score one or several sets of generated images against real tissue.

    Parameters
    ----------
    generated
        A generated set or slide (opened, or its path), or a folder (or csv table) of images with the column `cell_id`; or
        several of them, as a list or as a dict from names to sets. A path may be given as ``"name=path"``. A set generated
        from shuffled expression becomes the shuffled baseline of the other set of the same model.
    data
        The paired dataset that the cells come from, opened or its path.
    output
        Folder for report.json and report.html; None: only return the report.
    config
        Cells, extractor, resampling and seed (`sge2hist.evaluation.config.EvaluateConfig`); the defaults suit up to
        10,000 images.
    progress
        Whether progress bars are shown on standard error; None: in interactive sessions. Or a function that is called
        as ``progress(stage, done, total)``.
    overwrite
        Replace an earlier report at `output`.

    Returns
    -------
    dict
        The content of report.json: ``report["metrics"]`` lists every metric with its value, 95 % interval, sample size
        and baselines for each set.

    Raises
    ------
    InputError
        Before any slow work, when an argument is wrong or the sets and the dataset do not fit together.

    Examples
    --------
    .. code-block:: python

        import sge2hist
        report = sge2hist.evaluate("kidney.generated", "kidney.paired", "report")
        {metric["id"]: metric["sets"]["kidney"]["value"] for metric in report["metrics"]}  # {'frechet': 41.2, 'kid': 0.031, ...}
    """
    started = time.monotonic()
    config = checked_config(config)
    if output is not None:
        check_output(output, overwrite=overwrite, kind="report")
    dataset = open_dataset(data)
    sets, shuffled = split_shuffled(open_image_sets(generated, dataset, config.split))
    everything = [*sets, *shuffled.values()]
    geometry = Geometry.shared_by(everything, dataset)
    extractor, *further = chosen_extractors(config)
    rng = np.random.default_rng(config.seed)
    cells = choose_cells(everything, dataset, config, geometry.patch_um, rng)
    with reporting(progress) as on_progress, one_blas_thread():
        reference = build_reference(dataset, cells, config, geometry, extractor, rng, on_progress)
        descriptors = describe_sets(reference, sets, cells, on_progress)
        shuffled_descriptors = {
            name: reference.describe(images, cells.images[images.name][0], on_progress, with_thumbnails=False)
            for name, images in shuffled.items()
        }
        scores_of = score_sets(reference, descriptors, shuffled_descriptors, on_progress)
        real = real_estimates(reference)
        copies = add_copies(reference, descriptors, scores_of, real, rng, on_progress)
        add_similarity(reference, sets, scores_of)
        on_progress("whole slides", 0, 1)
        slides, not_scored = score_slides(sets, dataset, config)
        on_progress("whole slides", 1, 1)
        on_progress("latents and tables", 0, 1)
        report = build_report(reference, sets, descriptors, shuffled_descriptors, scores_of, real, copies, rng)
        on_progress("latents and tables", 1, 1)
        for entry, images in zip(report["sets"], sets, strict=True):
            entry["held_out"] = held_out(images, cells.rows_N, dataset)
        report["slides"] = {name: found.report for name, found in slides.items()}
        report["omitted"] += not_scored
        add_extractors(report, reference, further, sets, shuffled, on_progress)
        report["seconds"] = round(time.monotonic() - started, 1)
        if output is not None:
            on_progress("pictures", 0, 1)
            write_report(report, reference, sets, shuffled, descriptors, scores_of, slides, Path(output), overwrite)
            on_progress("pictures", 1, 1)
    return report


def checked_config(config: EvaluateConfig | None) -> EvaluateConfig:
    """Return the settings; `InputError` for another object."""
    if config is None:
        return EvaluateConfig()
    if not isinstance(config, EvaluateConfig):
        raise InputError(
            found=f"config of type {type(config).__name__}",
            where="evaluate",
            expected="an EvaluateConfig",
            repair="config=EvaluateConfig(extractor=..., max_cells=...)",
        )
    return config


def chosen_extractors(config: EvaluateConfig) -> list[Extractor]:
    """Return the extractors, the main one first, behind the same compression if one is asked for."""
    found = resolve_extractors(config.extractor, weights=config.extractor_weights, input_px=config.extractor_input_px)
    quality = config.jpeg_quality
    return found if quality is None else [extractor.after_jpeg(quality) for extractor in found]


def open_dataset(data: str | Path | PairedDataset) -> PairedDataset:
    """Return the paired dataset; `InputError` for another object."""
    if isinstance(data, PairedDataset):
        return data
    if not isinstance(data, str | Path):
        raise InputError(
            found=f"data of type {type(data).__name__}",
            where="evaluate",
            expected="a PairedDataset, or the path of one",
            repair="evaluate('X.generated', 'X.paired')",
        )
    return PairedDataset.open(data)


@contextmanager
def reporting(progress: bool | Progress | None) -> Iterator[Progress]:
    """Yield the function that reports progress: the given one, or one that moves bars."""
    if callable(progress):
        yield progress
        return
    with stages(show=progress) as on_progress:
        yield on_progress


def describe_sets(
    reference: Reference, sets: list[ImageSet], cells: Cells, progress: Progress
) -> dict[str, list[ImageDescriptors]]:
    """Describe every sample of every set; the table of metrics shows the first one."""
    return {
        images.name: [
            reference.describe(images, indices, progress, with_thumbnails=number == 0)
            for number, indices in enumerate(cells.images[images.name])
        ]
        for images in sets
    }


def score_sets(
    reference: Reference,
    descriptors: dict[str, list[ImageDescriptors]],
    shuffled: dict[str, ImageDescriptors],
    progress: Progress,
) -> dict[str, SetScores]:
    """Score the first sample of every set."""
    scores_of = {}
    for name, samples in descriptors.items():
        progress(f"scores of {name}", 0, 1)
        scores_of[name] = score_set(reference, samples[0], shuffled.get(name))
        progress(f"scores of {name}", 1, 1)
    return scores_of


def add_copies(
    reference: Reference,
    descriptors: dict[str, list[ImageDescriptors]],
    scores_of: dict[str, SetScores],
    real: Estimates,
    rng: np.random.Generator,
    progress: Progress,
) -> CopySearch | None:
    """Add the share of copies to the scores; None when evaluated cells are training cells, whose own patches would be
    found.
    """
    data, config = reference.data, reference.config
    if np.isin(reference.cells.rows_N, data.rows("train")).any():
        return None
    train_rows = subsample(data.rows("train"), config.max_train_for_copies, rng)
    checked = subsample(np.arange(len(reference.real)), config.max_copies_checked, rng)
    stored = stored_thumbnails(data, config, reference.geometry)
    copies = find_copies(
        {name: samples[0].thumbnails_NK[checked] for name, samples in descriptors.items()},
        reference.real.thumbnails_NK[checked],
        train_rows,
        reference.patches,
        make_resampling(reference.block_N[checked], n_replicates=config.n_bootstrap, n_groups=config.n_groups, rng=rng),
        stored=stored,
        progress=lambda done: progress("search for copies", done, len(train_rows)),
    )
    stored.save()
    for name, share in copies.shares.items():
        scores_of[name].matched["copied"] = share
    real["copied"] = copies.real
    return copies


def add_similarity(reference: Reference, sets: list[ImageSet], scores_of: dict[str, SetScores]) -> None:
    """Add PSNR and SSIM over at most 1,000 cells."""
    if not reference.cells.own_cells:
        return
    n = len(reference.real)
    chosen = np.unique(np.linspace(0, n - 1, min(n, MAX_SIMILARITY_CELLS)).astype(np.int64))
    real = reference.patches(reference.cells.rows_N[chosen])
    for images in sets:
        generated = images.images(reference.cells.images[images.name][0][chosen])
        for name, function in (("psnr", psnr), ("ssim", ssim)):
            values = np.full(n, np.nan)
            values[chosen] = function(generated, real)
            scores_of[images.name].matched[name] = reference.resampling.mean(values)


def add_extractors(
    report: dict[str, Any],
    reference: Reference,
    further: list[Extractor],
    sets: list[ImageSet],
    shuffled: dict[str, ImageSet],
    progress: Progress,
) -> None:
    """Add what small changes cost, how images are treated before an extractor, and the scores of further extractors."""
    progress("small changes", 0, 1)
    report["sensitivity"] = sensitivity(reference)
    progress("small changes", 1, 1)
    report["preprocessing"] = preprocessing(reference, [*sets, *shuffled.values()])
    if problem := report["preprocessing"]["problem"]:
        report["notes"].append(problem)
    report["further_extractors"] = [score_with(extractor, reference, sets, shuffled, progress) for extractor in further]


def score_slides(
    sets: list[ImageSet], data: PairedDataset, config: EvaluateConfig
) -> tuple[dict[str, SlideScores], list[str]]:
    """Return the scores of whole slides, for generated slides with enough windows of held-out cells alone, and a
    sentence for each slide without.
    """
    found, not_scored = {}, []
    for images in sets:
        if images.is_slide:
            try:
                found[images.name] = score_slide(
                    [images.path], data, split=config.split, n_bootstrap=config.n_bootstrap, seed=config.seed
                )
            except InputError as error:  # too few such windows: only its cells are evaluated
                not_scored.append(f"{images.name} as a whole slide: {error.found}; expected {error.expected}.")
    return found, not_scored


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
