"""`sge2hist demo`: the whole chain on a toy tissue whose truth is known, in minutes on a laptop CPU.

Everything is written under one folder, and every part of it says that it is a toy:

    sge2hist-demo/
        manifest.json             kind "demo", the settings
        toy/                      the toy as Space Ranger would have written it, he.tif and the truth
        toy.paired/  toy.model/   what `prepare` and `train` make of it
        genes.generated/          test cells, from their RNA
        shuffled.generated/       the same cells given the RNA of others: the baseline
        types.generated/          from the names of the cell types
        report/                   what `evaluate` says
        recovery.json             how much of the toy's truth was found again
        gallery.png               the picture to look at

The same command goes on where it was stopped: a step whose output is there is not done again.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sge2hist import __version__

if TYPE_CHECKING:
    from sge2hist.data.paired import PairedDataset
    from sge2hist.generation.set import GeneratedSet
    from sge2hist.models.bundle import ModelBundle
    from sge2hist.toy.visium_hd_folder import ToyPaths

KIND = "demo"
GUIDANCE = 2.0
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Settings of one demo; a demo folder belongs to one of them."""

    minutes: float = 4.0  # of training
    seed: int = 0  # of tissue, split, training and images
    bin_um: int = 16  # what counts as a cell
    n_cells: int = 400  # test cells that are generated
    n_per_type: int = 16  # images per cell type name
    tiny: bool = False  # a tissue and a model so small that only the plumbing is tried

    def __post_init__(self) -> None:
        from sge2hist.data.errors import Problems

        problems = Problems()
        if not 0.05 <= self.minutes <= 24 * 60:
            problems.add(found=f"--minutes {self.minutes:g}", expected="0.05 to 1440")
        if self.seed < 0:
            problems.add(found=f"--seed {self.seed}", expected="0 or more")
        problems.raise_if_any()


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for everything.")] = Path("sge2hist-demo"),
    minutes: Annotated[float, typer.Option(help="Minutes of training; more gives sharper images.")] = 4.0,
    seed: Annotated[int, typer.Option(help="Of tissue, split, training and images.")] = 0,
    tiny: Annotated[bool, typer.Option("--tiny", help="A minute of plumbing, no images worth looking at.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Throw an earlier demo away.")] = False,
) -> None:
    """Run the whole chain on a toy tissue: simulate, prepare, train, generate, evaluate."""
    config = DemoConfig(
        minutes=minutes, seed=seed, tiny=tiny, n_cells=40 if tiny else 400, n_per_type=2 if tiny else 16
    )
    run_demo(output, config, overwrite=overwrite, say=typer.echo)


def run_demo(output: str | Path, config: DemoConfig, *, overwrite: bool = False, say: Say = print) -> dict[str, Any]:
    """Do or finish all steps and return the recovery of the toy's truth.

    Raises
    ------
    InputError
        If `output` is something else, or a demo with other settings and `overwrite` is false.
    """
    from sge2hist.data.files import atomic_path, write_json

    folder = _open_folder(Path(output), config, overwrite)
    started = time.monotonic()

    def step(what: str) -> None:
        say(f"\n[{time.monotonic() - started:5.0f} s] {what}")

    step("1/5 toy tissue, in the layout of a Visium HD run (simulated: no patient, no instrument)")
    paths = _toy(folder, config, say)
    step(f"2/5 prepare {paths.outs}")
    dataset = _prepare(folder, config, paths, say)
    step(f"3/5 train on {len(dataset.rows('train')):,} bins for {config.minutes:g} minutes")
    bundle = _train(folder, config, dataset, say)
    step("4/5 generate: test cells from RNA, the same with shuffled RNA, and types by name")
    sets = {name: _generate(folder, config, dataset, bundle, name, say) for name in ("genes", "shuffled", "types")}
    step("5/5 evaluate")
    _evaluate(folder, config, dataset)
    recovery = _recover(config, dataset, sets, paths, say)
    with atomic_path(folder / "recovery.json") as partial:
        write_json(partial, recovery)
    _gallery(folder, dataset, sets)
    step("done: everything below is toy data, simulated and generated")
    say(f"pictures  {folder / 'gallery.png'}")
    say(f"report    {folder / 'report' / 'report.html'}")
    say(f"truth     {folder / 'recovery.json'}")
    return recovery


def _open_folder(folder: Path, config: DemoConfig, overwrite: bool) -> Path:
    """Begin a demo folder, or check that the one there was begun with the same settings."""
    from sge2hist.data.errors import InputError
    from sge2hist.data.files import check_output, read_manifest, write_manifest

    settings = asdict(config)
    if folder.is_dir() and any(folder.iterdir()):
        begun = read_manifest(folder, KIND)
        changed = [key for key in settings if begun.get("settings", {}).get(key) != settings[key]]
        changed += ["version of sge2hist"] if begun["sge2hist_version"] != __version__ else []
        if not changed and not overwrite:
            return folder
        if not overwrite:
            raise InputError(
                found=f"a demo with other settings ({', '.join(changed)})",
                where=str(folder),
                expected="the same settings, to go on with it",
                repair="give --overwrite to throw it away, or another --output",
            )
        shutil.rmtree(folder)
    check_output(folder, overwrite=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_manifest(folder, KIND, toy=True, synthetic=True, settings=settings)
    return folder


def _toy(folder: Path, config: DemoConfig, say: Say) -> ToyPaths:
    from sge2hist.toy.tissue import ToyTissueConfig, simulate
    from sge2hist.toy.visium_hd_folder import ToyPaths, write_visium_hd

    root = folder / "toy"
    if root.is_dir():
        return ToyPaths.at(root)
    tissue = simulate(ToyTissueConfig.tiny() if config.tiny else ToyTissueConfig(), config.seed)
    say(f"{len(tissue.cells):,} cells of 6 types, {len(tissue.genes)} genes, {len(tissue.transcripts):,} transcripts")
    return write_visium_hd(tissue, root)


def _prepare(folder: Path, config: DemoConfig, paths: ToyPaths, say: Say) -> PairedDataset:
    from sge2hist.data.paired import PairedDataset
    from sge2hist.pairing.config import PrepareConfig
    from sge2hist.pairing.prepare import prepare
    from sge2hist.readers import open_sections

    output = folder / "toy.paired"
    if output.is_dir():
        return PairedDataset.open(output)
    sections = open_sections(paths.outs, image=paths.image, bin_um=config.bin_um)
    side = 32 if config.tiny else 64
    options = PrepareConfig(
        patch_um=float(side),
        patch_px=side,
        types=str(paths.types_csv[config.bin_um]),
        split_block_um=150.0 if config.tiny else None,
        seed=config.seed,
        toy=True,
    )
    dataset = prepare(sections, output, config=options)
    say(f"{len(dataset):,} bins of {config.bin_um} um kept; alignment to look at: {output / 'alignment.png'}")
    return dataset


def _train(folder: Path, config: DemoConfig, dataset: PairedDataset, say: Say) -> ModelBundle:
    from sge2hist.training.config import TrainConfig
    from sge2hist.training.train import train

    options = TrainConfig(
        preset="tiny" if config.tiny else "demo",
        hours=None if config.tiny else config.minutes / 60.0,
        seed=config.seed,
        checkpoint_every_s=60.0,
    )
    return train(dataset, folder / "toy.model", options, say=say)


def _generate(
    folder: Path, config: DemoConfig, dataset: PairedDataset, bundle: ModelBundle, what: str, say: Say
) -> GeneratedSet:
    import numpy as np

    from sge2hist.generation.jobs import job_from_paired, job_from_types
    from sge2hist.generation.run import generate
    from sge2hist.generation.set import GeneratedSet
    from sge2hist.models.image_model import SamplerConfig

    output = folder / f"{what}.generated"
    if output.is_dir():
        return GeneratedSet.open(output)
    if what == "types":
        named = set(bundle.types.names)
        job = job_from_types(
            bundle, [name for name in dataset.types if name in named], n=config.n_per_type, seed=config.seed
        )
    else:
        rows = dataset.rows("test")
        chosen = np.random.default_rng(config.seed).choice(rows, min(config.n_cells, len(rows)), replace=False)
        job = job_from_paired(bundle, dataset, np.sort(chosen), seed=config.seed, shuffle_cells=what == "shuffled")
    say(f"{len(job)} images into {output}")
    # After so short a training images follow their condition better when pushed towards it.
    return generate(bundle, job, output, sampler=SamplerConfig(guidance=GUIDANCE), seed=config.seed)


def _evaluate(folder: Path, config: DemoConfig, dataset: PairedDataset) -> None:
    from sge2hist.evaluation.config import EvaluateConfig
    from sge2hist.evaluation.evaluate import evaluate

    output = folder / "report"
    if output.is_dir():
        return
    options = EvaluateConfig(
        extractor="texture-v1",  # fast and always there; a real evaluation takes the default
        max_train=1000,
        max_val=500,
        max_train_for_copies=4000,
        n_bootstrap=100,
        umap=False,
        seed=config.seed,
    )
    evaluate([folder / "genes.generated", folder / "shuffled.generated"], dataset, output, options)


def _recover(
    config: DemoConfig, dataset: PairedDataset, sets: dict[str, GeneratedSet], paths: ToyPaths, say: Say
) -> dict[str, Any]:
    """Compare the generated images with the toy's truth; prints two tables and returns their numbers."""
    import numpy as np
    import pandas as pd

    from sge2hist.toy.patch_traits import PatchTraits, true_patches
    from sge2hist.toy.recovery import recover, recover_asked

    cells = pd.read_csv(paths.truth / "cells.csv")
    traits = {n: cells[n].to_numpy() for n in ("nucleus_area_um2", "nucleus_haematoxylin", "cytoplasm_eosin")}
    centre_xy_um = dataset.centre_xy_px * dataset.um_per_px

    def truth_at(rows: np.ndarray) -> PatchTraits:
        return true_patches(cells[["x_um", "y_um"]].to_numpy(), traits, centre_xy_um[rows], dataset.patch_um)

    train_rows = dataset.rows("train")
    train_rows = np.random.default_rng(config.seed).choice(train_rows, min(1500, len(train_rows)), replace=False)
    training_images, training_types = dataset.patches(train_rows), dataset.type_of_cell[train_rows]
    um_per_px = dataset.patch_um / dataset.patch_px
    rows = sets["genes"].obs["row"].to_numpy()
    from_genes = recover(
        generated=_images(sets["genes"]),
        real=dataset.patches(rows),
        truth=truth_at(rows),
        type_N=dataset.type_of_cell[rows],
        training_images=training_images,
        training_types=training_types,
        um_per_px=um_per_px,
        seed=config.seed,
    )
    from_types = recover_asked(
        generated=_images(sets["types"]),
        asked_N=np.array([dataset.types.index(name) for name in sets["types"].obs["cell_type"].astype(str)]),
        training_images=training_images,
        training_types=training_types,
        training_truth=truth_at(train_rows),
        um_per_px=um_per_px,
    )
    for line in (*from_genes.lines(), *from_types.lines()):
        say(line)
    return {"toy": True, "from_genes": from_genes.as_dict(), "from_types": from_types.as_dict()}


def _images(generated: GeneratedSet) -> Any:
    import numpy as np

    return np.stack([generated.image(i) for i in range(len(generated))])


def _gallery(folder: Path, dataset: PairedDataset, sets: dict[str, GeneratedSet]) -> None:
    """Two test cells of each type, from different places, and up to twelve images of each name."""
    import numpy as np

    from sge2hist.cli.demo_gallery import write_gallery
    from sge2hist.data.files import atomic_path

    obs = sets["genes"].obs.reset_index(drop=True)
    places = [group.index.to_numpy() for _, group in obs.groupby("cell_type", observed=True)]
    shown = np.concatenate([np.unique(at[[len(at) // 3, 2 * len(at) // 3]]) for at in places])
    by_name = sets["types"].obs.reset_index(drop=True).groupby("cell_type", observed=True, sort=False)
    cells = [
        ("real (toy)", dataset.patches(obs["row"].to_numpy()[shown])),
        ("from its RNA", np.stack([sets["genes"].image(i) for i in shown])),
        ("from other RNA", np.stack([sets["shuffled"].image(i) for i in shown])),
    ]
    types = [(str(name), np.stack([sets["types"].image(i) for i in group.index[:12]])) for name, group in by_name]
    with atomic_path(folder / "gallery.png") as partial:
        write_gallery(partial, cells=cells, types=types)
