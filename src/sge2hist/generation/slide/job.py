"""A slide under way, as a folder beside the output: its specification, its cells and the finished work. Runs and resumes it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sge2hist.data.artifacts import atomic_path, read_json, write_json
from sge2hist.data.errors import InputError
from sge2hist.data.output_lock import remove_partial_files
from sge2hist.generation.slide.cells import BLOCKS, CellStore, write_cells
from sge2hist.generation.slide.edits import Edit
from sge2hist.generation.slide.source import SlideSource
from sge2hist.generation.slide.tile_store import TileIndex
from sge2hist.generation.slide.tiling import Lattice, SlidePlan, occupied_tiles, sampled_area, tile_grid
from sge2hist.generation.slide.worker import SlideWorker
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.autoencoder import DECODER_REACH
from sge2hist.models.image.samplers import SamplerConfig

SPEC, OCCUPIED, CELLS, MODEL, FINISHED, REPORT = "job.json", "occupied.npy", "cells", "model", "finished", "genes.txt"
LATTICE = "lattice"  # key of job.json: files of one lattice are of no use to another
Progress = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class SlideSpec:
    """All that decides the pixels of a slide. Written to ``job.json``."""

    region_px: tuple[int, int, int, int]  # x, y, width, height
    seeds: tuple[int, ...]
    sampler: SamplerConfig
    glass_rgb: tuple[int, ...]  # one level per channel
    model: str  # fingerprint
    data: str  # fingerprint
    edits: tuple[str, ...] = ()  # fingerprints
    footprints: str = "point"  # how cells are placed: "point" or "outline"

    def to_json(self) -> dict[str, Any]:
        """The specification in types that JSON knows."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return values

    @classmethod
    def read(cls, folder: Path) -> SlideSpec:
        """The specification in a folder of work."""
        values = read_json(folder / SPEC)
        del values[LATTICE]
        sampler = SamplerConfig(**values.pop("sampler"))
        plain: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**plain, sampler=sampler)


def lattice_of(bundle: ModelBundle) -> Lattice:
    """The lattice that slides of a model are generated on."""
    model, config = bundle.model.image, bundle.config
    d = model.downsampling
    return Lattice(
        tile_side=config.patch_px // d,
        um_per_latent_px=config.um_per_px * d,
        downsampling=d,
        latent_channels=model.latent_channels,
        decoded_halo=DECODER_REACH if model.autoencoder is None else model.autoencoder.reach,
    )


class SlideJob:
    """A folder of work; made by :meth:`prepare`, finished by :meth:`run`."""

    def __init__(self, folder: Path, bundle: ModelBundle, spec: SlideSpec, batch: int) -> None:
        self.folder, self.bundle, self.spec, self.batch = folder, bundle, spec, batch
        self.lattice = lattice_of(bundle)
        self.sigmas = [float(sigma) for sigma in bundle.model.image.denoiser.sigmas(spec.sampler)]
        self.steps = bundle.model.image.denoiser.evaluations(spec.sampler)
        self.cells = CellStore(folder / CELLS, self.lattice)
        self.plan = SlidePlan(
            lattice=self.lattice,
            region_px=spec.region_px,
            n_evaluations=len(self.steps),
            occupied=np.load(folder / OCCUPIED),
        )

    @classmethod
    def prepare(
        cls,
        folder: Path,
        bundle: ModelBundle,
        source: SlideSource,
        edits: list[Edit],
        spec: SlideSpec,
        batch: int,
        *,
        fresh: bool,
        progress: Progress = lambda n: None,
    ) -> SlideJob:
        """Encode the cells and plan the work, or find that done in the folder. `progress` counts cells, as
        :func:`sge2hist.generation.slide.cells.write_cells` does.

        Raises
        ------
        InputError
            If the folder holds the unfinished work on another slide, unless `fresh`.
        """
        lattice = lattice_of(bundle)
        n = len(bundle.model.image.denoiser.evaluations(spec.sampler))
        _claim(folder, spec, lattice.fingerprint(n), fresh)
        remove_partial_files(folder)
        if not (folder / CELLS / BLOCKS).is_file():
            area = sampled_area(lattice, spec.region_px, n)
            write_cells(folder / CELLS, bundle, source, lattice, area, edits, progress)
        if not (folder / REPORT).is_file():
            with atomic_path(folder / REPORT) as partial:
                partial.write_text(bundle.genes.align(source.genes).summary() + "\n", encoding="utf-8")
        if not (folder / OCCUPIED).is_file():
            grid = tile_grid(lattice, spec.region_px, n)
            positions_um = CellStore(folder / CELLS, lattice).positions_um()
            occupied = occupied_tiles(grid, lattice, bundle.config.receptive_radius_um, positions_um)
            with atomic_path(folder / OCCUPIED) as partial, open(partial, "wb") as file:
                np.save(file, occupied)
        return cls(folder, bundle, spec, batch)

    @property
    def report(self) -> str:
        """One line about the genes that cells and model share."""
        return (self.folder / REPORT).read_text(encoding="utf-8").strip()

    @property
    def n_windows(self) -> int:
        """Windows to run, of all seeds."""
        return self.plan.n_windows * len(self.spec.seeds)

    def worker(self, seed: int) -> SlideWorker:
        """The worker for one seed."""
        return SlideWorker(
            self.bundle,
            self.plan,
            self.cells,
            self.steps,
            self.sigmas[0],
            seed=seed,
            folder=self.folder / f"seed{seed}",
            glass_rgb=self.spec.glass_rgb,
            sampler=self.spec.sampler,
            batch=self.batch,
        )

    def run(self, *, workers: int = 1, progress: Progress = lambda n: None) -> None:
        """Do the work that is left; afterwards every output tile exists. `progress` counts windows, finished ones too."""
        if workers > 1 and not (self.folder / MODEL / "config.json").is_file():
            replace(self.bundle).save(self.folder / MODEL)  # a copy: saving sets the fingerprint
        with _Executor(self, workers) as executor:
            for seed in self.spec.seeds:
                self._run_seed(seed, executor, progress)

    def _run_seed(self, seed: int, executor: _Executor, progress: Progress) -> None:
        worker = self.worker(seed)
        folder = worker.folder
        folder.mkdir(exist_ok=True)
        marker = folder / FINISHED
        finished = int(marker.read_text()) if marker.is_file() else 0
        for number, (task, k, items) in enumerate(_phases(self.plan)):
            if number < finished:
                progress(sum(len(self.plan.tile_corners(k, block)) for block in items) if task == "advance" else 0)
                continue
            for n in executor.run(worker, task, k, items):
                progress(n)
            with atomic_path(marker) as partial:
                partial.write_text(str(number + 1))
            if task == "advance":
                shutil.rmtree(folder / f"state{k}", ignore_errors=True)
        shutil.rmtree(folder / f"state{self.plan.n_evaluations}", ignore_errors=True)


def _claim(folder: Path, spec: SlideSpec, lattice: list[int], fresh: bool) -> None:
    """Make the folder, or check that it holds work on the same slide, on the same lattice."""
    wanted = spec.to_json() | {LATTICE: lattice}
    if (folder / SPEC).is_file() and read_json(folder / SPEC) != wanted:
        if not fresh:
            raise InputError(
                found="unfinished work on another slide (region, seed, sampler, model, cells, edits or version differ)",
                where=str(folder),
                expected="the same command as before, which resumes",
                repair="--overwrite throws that work away",
            )
        shutil.rmtree(folder)
    if not (folder / SPEC).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / SPEC) as partial:
            write_json(partial, wanted)


# --- one process or several -----------------------------------------------------------------------------------------


def _phases(plan: SlidePlan) -> Iterator[tuple[str, int, list[TileIndex]]]:
    """Tasks in order: name, evaluation, items. All items of one must be finished before the next starts."""
    for k in range(plan.n_evaluations):
        yield "advance", k, plan.blocks_to_advance(k)
    yield "decode", 0, [tile for tile in plan.output_tiles() if not plan.is_glass(tile)]
    yield "glass", 0, [(0, 0)]


def _do(worker: SlideWorker, task: str, k: int, item: TileIndex) -> int:
    """Do one item of a task. Returns the number of windows run."""
    if task == "advance":
        return worker.advance(k, item)
    if task == "decode":
        worker.decode(item)
    else:
        worker.decode_glass()
    return 0


class _Executor:
    """Does the items of a task here, or in processes of their own."""

    def __init__(self, job: SlideJob, workers: int) -> None:
        self.job, self.workers = job, workers

    def __enter__(self) -> _Executor:
        if self.workers > 1:
            import multiprocessing
            from concurrent.futures import ProcessPoolExecutor

            device = str(next(self.job.bundle.model.parameters()).device)
            threads = max(1, torch.get_num_threads() // self.workers)
            self.pool = ProcessPoolExecutor(
                self.workers,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_open_in_process,
                initargs=(str(self.job.folder), device, threads, self.job.batch),
            )
        return self

    def run(self, worker: SlideWorker, task: str, k: int, items: list[TileIndex]) -> Iterator[int]:
        """Do all items; yields the number of windows of each."""
        if self.workers <= 1:
            yield from (_do(worker, task, k, item) for item in items)
            return
        from concurrent.futures import as_completed
        from concurrent.futures.process import BrokenProcessPool

        futures = [self.pool.submit(_do_in_process, worker.seed, task, k, item) for item in items]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise InputError(
                found="a worker that was killed",
                where=str(self.job.folder),
                expected="enough memory for every worker",
                repair="run the same command again, with fewer --workers: it resumes",
            ) from error

    def __exit__(self, *_: object) -> None:
        if self.workers > 1:
            self.pool.shutdown(cancel_futures=True)


_JOBS: list[SlideJob] = []  # of this process, at most one
_WORKERS: dict[int, SlideWorker] = {}  # of this process, by seed


def _open_in_process(folder: str, device: str, threads: int, batch: int) -> None:
    torch.set_num_threads(threads)
    bundle = ModelBundle.load(Path(folder) / MODEL, device=device)
    _JOBS.append(SlideJob(Path(folder), bundle, SlideSpec.read(Path(folder)), batch))


def _do_in_process(seed: int, task: str, k: int, item: TileIndex) -> int:
    if seed not in _WORKERS:
        _WORKERS[seed] = _JOBS[0].worker(seed)
    return _do(_WORKERS[seed], task, k, item)
