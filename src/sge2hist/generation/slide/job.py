"""A slide to be drawn, as a folder beside the output: what it is, its cells, and the work that is done. Runs and resumes it."""

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
from sge2hist.generation.slide.cells import BLOCKS, CellStore, write_cells
from sge2hist.generation.slide.edits import Edit
from sge2hist.generation.slide.source import SlideSource
from sge2hist.generation.slide.tiling import Block, Lattice, SlidePlan, inner_area, occupied_windows, window_grid
from sge2hist.generation.slide.worker import SlideWorker
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.image_model import SamplerConfig

JOB, OCCUPIED, CELLS, MODEL, FINISHED, REPORT = "job.json", "occupied.npy", "cells", "model", "finished", "genes.txt"
SIZES = "lattice"  # of the job: files of one lattice are of no use to another
Progress = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class SlideSpec:
    """What is drawn: it decides every pixel. Written to ``job.json``."""

    region_px: tuple[int, int, int, int]  # x, y, width, height
    seeds: tuple[int, ...]
    sampler: SamplerConfig
    glass_rgb: tuple[int, ...]  # one level per channel
    model: str  # fingerprint
    data: str  # fingerprint
    edits: tuple[str, ...] = ()  # fingerprints


def lattice_of(bundle: ModelBundle) -> Lattice:
    """The lattice that slides of a model are drawn on."""
    model, config = bundle.model.image, bundle.config
    d = model.downsampling
    return Lattice(step=config.patch_px // d, um=config.um_per_px * d, pixels=d, channels=model.latent_channels)


class SlideJob:
    """A folder of work that is under way; made by :meth:`prepare`, finished by :meth:`run`."""

    def __init__(self, folder: Path, bundle: ModelBundle, drawing: SlideSpec, batch: int) -> None:
        self.folder, self.bundle, self.drawing, self.batch = folder, bundle, drawing, batch
        self.lattice = lattice_of(bundle)
        self.sigmas = [float(sigma) for sigma in bundle.model.image.sigmas(drawing.sampler)]
        self.steps = bundle.model.image.evaluations(drawing.sampler)
        self.cells = CellStore(folder / CELLS, self.lattice)
        self.plan = SlidePlan(
            lattice=self.lattice,
            region_px=drawing.region_px,
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
        drawing: SlideSpec,
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
            If the folder holds the unfinished work of another drawing, unless `fresh`.
        """
        lattice = lattice_of(bundle)
        n = len(bundle.model.image.evaluations(drawing.sampler))
        _claim(folder, drawing, lattice.told(n), fresh)
        if not (folder / CELLS / BLOCKS).is_file():
            area = inner_area(lattice, drawing.region_px).grown(n * lattice.reach + lattice.side)
            write_cells(folder / CELLS, bundle, source, lattice, area, edits, progress)
        if not (folder / REPORT).is_file():
            with atomic_path(folder / REPORT) as partial:
                partial.write_text(bundle.genes.align(source.genes).summary() + "\n", encoding="utf-8")
        if not (folder / OCCUPIED).is_file():
            grid = window_grid(lattice, drawing.region_px, n)
            positions = CellStore(folder / CELLS, lattice).positions()
            occupied = occupied_windows(grid, lattice, bundle.config.reach_um, positions)
            with atomic_path(folder / OCCUPIED) as partial, open(partial, "wb") as file:
                np.save(file, occupied)
        return cls(folder, bundle, drawing, batch)

    @property
    def n_windows(self) -> int:
        """Windows to run, of all seeds."""
        return self.plan.n_windows * len(self.drawing.seeds)

    def work(self, seed: int) -> SlideWorker:
        """The work on one seed."""
        return SlideWorker(
            self.bundle,
            self.plan,
            self.cells,
            self.steps,
            self.sigmas[0],
            seed=seed,
            folder=self.folder / f"seed{seed}",
            glass_rgb=self.drawing.glass_rgb,
            sampler=self.drawing.sampler,
            batch=self.batch,
        )

    def run(self, *, workers: int = 1, progress: Progress = lambda n: None) -> None:
        """Do what is left to do; afterwards every tile of pixels is there. `progress` counts windows, done ones too."""
        if workers > 1 and not (self.folder / MODEL / "config.json").is_file():
            replace(self.bundle).save(self.folder / MODEL)  # a copy: saving sets the fingerprint
        with _executor(self, workers) as execute:
            for seed in self.drawing.seeds:
                self._run_seed(seed, execute, progress)

    def _run_seed(self, seed: int, execute: Execute, progress: Progress) -> None:
        work = self.work(seed)
        folder = work.folder
        folder.mkdir(exist_ok=True)
        marker = folder / FINISHED
        finished = int(marker.read_text()) if marker.is_file() else 0
        for number, (kind, k, items) in enumerate(_phases(self.plan)):
            if number < finished:
                progress(sum(len(self.plan.corners(k, block)) for block in items) if kind == "advance" else 0)
                continue
            for n in execute(work, kind, k, items):
                progress(n)
            with atomic_path(marker) as partial:
                partial.write_text(str(number + 1))
            if kind == "advance":
                shutil.rmtree(folder / f"state{k}", ignore_errors=True)
        shutil.rmtree(folder / f"state{self.plan.n_evaluations}", ignore_errors=True)


def _phases(plan: SlidePlan) -> Iterator[tuple[str, int, list[Block]]]:
    """Kinds of work in order. All of one must be done before the next begins."""
    for k in range(plan.n_evaluations):
        yield "advance", k, plan.blocks_to_advance(k)
    yield "decode", 0, [tile for tile in plan.tiles() if not plan.tile_is_glass(tile)]
    yield "glass", 0, [(0, 0)]


def _do(work: SlideWorker, kind: str, k: int, item: Block) -> int:
    if kind == "advance":
        return work.advance(k, item)
    if kind == "decode":
        return work.decode(item)
    work.decode_glass()
    return 0


Execute = Callable[[SlideWorker, str, int, list[Block]], Iterator[int]]


class _executor:
    """Runs pieces of work here, or in processes of their own."""

    def __init__(self, job: SlideJob, workers: int) -> None:
        self.job, self.workers = job, workers

    def __enter__(self) -> Execute:
        if self.workers <= 1:
            return lambda work, kind, k, items: (_do(work, kind, k, item) for item in items)
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        device = str(next(self.job.bundle.model.parameters()).device)
        threads = max(1, torch.get_num_threads() // self.workers)
        self.pool = ProcessPoolExecutor(
            self.workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_open_in_worker,
            initargs=(str(self.job.folder), device, threads, self.job.batch),
        )
        return self._execute

    def _execute(self, work: SlideWorker, kind: str, k: int, items: list[Block]) -> Iterator[int]:
        from concurrent.futures import as_completed
        from concurrent.futures.process import BrokenProcessPool

        futures = [self.pool.submit(_do_in_worker, work.seed, kind, k, item) for item in items]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise InputError(
                found="a worker that was killed",
                where=str(self.job.folder),
                expected="enough memory for every worker",
                repair="run the same command again, with fewer --workers: it goes on where it was",
            ) from error

    def __exit__(self, *_: object) -> None:
        if self.workers > 1:
            self.pool.shutdown(cancel_futures=True)


_IN_WORKER: dict[str, SlideJob] = {}
_WORKS: dict[int, SlideWorker] = {}


def _open_in_worker(folder: str, device: str, threads: int, batch: int) -> None:
    torch.set_num_threads(threads)
    bundle = ModelBundle.load(Path(folder) / MODEL, device=device)
    _IN_WORKER["job"] = SlideJob(Path(folder), bundle, read_spec(Path(folder)), batch)


def _do_in_worker(seed: int, kind: str, k: int, item: Block) -> int:
    if seed not in _WORKS:
        _WORKS[seed] = _IN_WORKER["job"].work(seed)
    return _do(_WORKS[seed], kind, k, item)


def _claim(folder: Path, drawing: SlideSpec, sizes: list[int], fresh: bool) -> None:
    """Make the folder, or check that it holds work on the same drawing, on the same lattice."""
    asked = _plain(drawing) | {SIZES: sizes}
    if (folder / JOB).is_file() and read_json(folder / JOB) != asked:
        if not fresh:
            raise InputError(
                found="unfinished work on another drawing (region, seed, sampler, model, cells, edits or version differ)",
                where=str(folder),
                expected="the same command as before, which goes on",
                repair="--overwrite throws that work away",
            )
        shutil.rmtree(folder)
    if not (folder / JOB).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / JOB) as partial:
            write_json(partial, asked)


def _plain(drawing: SlideSpec) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(asdict(drawing)))
    return plain


def read_spec(folder: Path) -> SlideSpec:
    """The drawing of a folder of work."""
    values = read_json(folder / JOB)
    del values[SIZES]
    sampler = SamplerConfig(**{**values.pop("sampler")})
    plain: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    return SlideSpec(**plain, sampler=sampler)
