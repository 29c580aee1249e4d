"""Verbs that train on from a finished model, or beside it: `sharpen`, `train-detail`, `distill` and `train-upsampler`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sge2hist.cli.arguments import ADVANCED, Exclude, Model, Overwrite, load_teacher
from sge2hist.cli.command import log, wrote_if_quiet

Data = Annotated[Path, typer.Option("--data", help="Paired dataset that the model was trained on.")]
Output = Annotated[
    Path, typer.Option("-o", "--output", help="Folder to write; the same command resumes an unfinished one.")
]
Seed = Annotated[int, typer.Option(help="Seed of weights, batches and noise.", rich_help_panel=ADVANCED)]


def sharpen(
    model: Model,
    data: Data,
    output: Output,
    hours: Annotated[float | None, typer.Option(help="Time for everything, e.g. 0.8.")] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps; default: 8000, or as long as --hours.")] = None,
    decoder_noise: Annotated[
        bool,
        typer.Option("--decoder-noise", help="Second sharpening: the decoder generates fine texture from noise."),
    ] = False,
    exclude: Exclude = None,
    learning_rate: Annotated[
        float, typer.Option(help="Learning rate of the decoder.", rich_help_panel=ADVANCED)
    ] = 2e-4,
    batch: Annotated[
        int, typer.Option(help="Real crops per step, and as many generated ones.", rich_help_panel=ADVANCED)
    ] = 16,
    crop_px: Annotated[
        int | None,
        typer.Option(
            help="Side of the crops; default: as the model was trained. Smaller ones cost less.",
            show_default=False,
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    n_generated: Annotated[
        int, typer.Option(help="Images that are generated first, to learn from.", rich_help_panel=ADVANCED)
    ] = 4096,
    discriminator_width: Annotated[
        int,
        typer.Option(
            help="Channels of the discriminator's first layer; it costs their square.", rich_help_panel=ADVANCED
        ),
    ] = 96,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Give the images of a trained model the detail of real ones (adversarial fine-tuning of its decoder).

    Nuclei become crisp, and nearly as many as in real tissue. Only the decoder is trained: the same seed still generates
    the same tissue. Give it time: a quarter of an hour on a CPU makes images worse. A second sharpening with
    `--decoder-noise --hours 0.3 --learning-rate 1e-4` adds fine texture, which depends on the image's seed.

    Example: `sge2hist sharpen kidney.model --data kidney.paired -o kidney_sharp.model --hours 0.8`
    """
    from sge2hist.training.budget import Clock

    clock = Clock()  # a time budget counts the imports too
    from sge2hist.data.paired import PairedDataset
    from sge2hist.training.finetune.adversarial_decoder import DECODER_NOISE, SharpenConfig
    from sge2hist.training.finetune.adversarial_decoder import sharpen as run

    config = SharpenConfig(
        steps=steps,
        hours=hours,
        learning_rate=learning_rate,
        batch=batch,
        crop_px=crop_px,
        n_generated=n_generated,
        discriminator_width=discriminator_width,
        seed=seed,
        exclude=None if exclude is None else str(exclude),
        **(DECODER_NOISE if decoder_noise else {}),
    )
    run(
        load_teacher(model, output), PairedDataset.open(data), output, config, overwrite=overwrite, log=log, clock=clock
    )
    wrote_if_quiet(output)


def train_detail(
    model: Model,
    data: Data,
    output: Output,
    hours: Annotated[float | None, typer.Option(help="Time for everything, e.g. 1.5.")] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps; default: 8000, or as long as --hours.")] = None,
    exclude: Exclude = None,
    evaluations: Annotated[
        int, typer.Option(help="Evaluations of the detail model per image: cost when generating.")
    ] = 4,
    width: Annotated[
        int, typer.Option(help="Channels of the detail model; it costs their square.", rich_help_panel=ADVANCED)
    ] = 64,
    crop_px: Annotated[
        int | None,
        typer.Option(
            help="Side of the crops; default: as the model was trained.", show_default=False, rich_help_panel=ADVANCED
        ),
    ] = None,
    batch: Annotated[int, typer.Option(help="Crops per step.", rich_help_panel=ADVANCED)] = 16,
    learning_rate: Annotated[float, typer.Option(help="Highest of the schedule.", rich_help_panel=ADVANCED)] = 1e-3,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Give the images of a trained model the fine detail of real ones by diffusion: for single cells at half a micrometre.

    The decoder omits what its latents do not determine, from a few pixels on. A small diffusion model learns what is
    missing from the pixels of the slides, and adds it to every decoded image; detail depends on the image's seed. The same
    seed still generates the same tissue. A detail model that is there is trained further. A correction of the images is
    removed: fit it again afterwards.

    Example: `sge2hist train-detail pancreas.model --data pancreas.paired -o detailed.model --hours 1.5`
    """
    from sge2hist.training.budget import Clock

    clock = Clock()  # a time budget counts the imports too
    from sge2hist.data.paired import PairedDataset
    from sge2hist.training.finetune.detail import DetailTrainConfig
    from sge2hist.training.finetune.detail import train_detail as run

    config = DetailTrainConfig(
        steps=steps,
        hours=hours,
        learning_rate=learning_rate,
        batch=batch,
        crop_px=crop_px,
        width=width,
        evaluations=evaluations,
        seed=seed,
        exclude=None if exclude is None else str(exclude),
    )
    run(
        load_teacher(model, output), PairedDataset.open(data), output, config, overwrite=overwrite, log=log, clock=clock
    )
    wrote_if_quiet(output)


def distill(
    model: Model,
    data: Data,
    output: Output,
    learn: Annotated[
        str,
        typer.Option(
            help="steps: one network evaluation per image, or a few (consistency distillation). guidance: the same steps, each a "
            "single evaluation, since the network learns what guidance adds. few-steps: four guided evaluations, tuned against a "
            "discriminator; as close to real H&E as the teacher where it was tried."
        ),
    ] = "steps",
    evaluations: Annotated[
        int | None,
        typer.Option(help="Network evaluations per image; default 1, for few-steps 4.", show_default=False),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            help="Training steps; default 2000, for guidance 1000, for few-steps 280 after 250 of guidance.",
            show_default=False,
        ),
    ] = None,
    exclude: Exclude = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="Default 1e-4, for guidance 4e-4, for few-steps 4e-5.", show_default=False, rich_help_panel=ADVANCED
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            help="Patches per step; default 64, for guidance 24, for few-steps 20.",
            show_default=False,
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Make a faster model: one that generates in one evaluation or a few, or one that needs no second one for guidance.

    `--learn few-steps` is the one to try first. The new model is used like its teacher; compare the two with `sge2hist evaluate`.

    Example: `sge2hist distill kidney.model --data kidney.paired -o kidney_fast.model`
    """
    from sge2hist.data.errors import InputError
    from sge2hist.data.paired import PairedDataset
    from sge2hist.training.finetune.consistency import DistillConfig
    from sge2hist.training.finetune.consistency import distill as learn_steps
    from sge2hist.training.finetune.few_steps import FewStepsConfig, distill_few_steps
    from sge2hist.training.finetune.guidance_distillation import GuidanceDistillationConfig, distill_guidance

    if learn not in ("steps", "guidance", "few-steps"):
        raise InputError(found=f"--learn {learn}", expected="steps, guidance or few-steps")
    if learn == "guidance" and evaluations is not None:
        raise InputError(
            found="--evaluations with --learn guidance",
            expected="one of the two: guidance keeps the steps",
            repair="--learn few-steps",
        )
    asked = {"steps": steps, "learning_rate": learning_rate, "batch": batch, "evaluations": evaluations}
    settings = {name: value for name, value in asked.items() if value is not None}
    common = {"seed": seed, "exclude": None if exclude is None else str(exclude)}
    if learn == "guidance":
        tuning = GuidanceDistillationConfig(**settings, **common)  # type: ignore[arg-type]
        teacher, dataset = load_teacher(model, output), PairedDataset.open(data)
        distill_guidance(teacher, dataset, output, tuning, overwrite=overwrite, log=log)
    elif learn == "few-steps":
        few = FewStepsConfig(**settings, **common)  # type: ignore[arg-type]
        teacher, dataset = load_teacher(model, output), PairedDataset.open(data)
        distill_few_steps(teacher, dataset, output, few, overwrite=overwrite, log=log)
    else:
        config = DistillConfig(**settings, **common)  # type: ignore[arg-type]
        teacher, dataset = load_teacher(model, output), PairedDataset.open(data)
        learn_steps(teacher, dataset, output, config, overwrite=overwrite, log=log)
    wrote_if_quiet(output)


def train_upsampler(
    paired: Annotated[Path, typer.Argument(help="Paired dataset with slides of the fine resolution. No RNA is used.")],
    output: Output,
    um_per_px: Annotated[
        float, typer.Option(help="Resolution of the fine images; the model's is FACTOR times as coarse.")
    ] = 0.5,
    factor: Annotated[int, typer.Option(help="How much finer, along each side.")] = 4,
    hours: Annotated[float | None, typer.Option(help="Time for everything, e.g. 0.5, instead of --steps.")] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps; default: 4000, or as long as --hours.")] = None,
    exclude: Exclude = None,
    evaluations: Annotated[
        int,
        typer.Option(
            help="Network evaluations per image; more than 1 adds texture, after a long training.",
            rich_help_panel=ADVANCED,
        ),
    ] = 1,
    crop_px: Annotated[
        int, typer.Option(help="Side of a training image, fine pixels.", rich_help_panel=ADVANCED)
    ] = 128,
    batch: Annotated[int, typer.Option(help="Images per step.", rich_help_panel=ADVANCED)] = 16,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Train a second stage that adds fine detail to generated images: 64 px at 2 um/px become 256 px at 0.5.

    It learns from the pixels of the slides alone: one upsampler may serve several models of the same stain and resolution.
    Give it to `sge2hist generate` as --upsampler.

    Example: `sge2hist train-upsampler breast.paired -o breast.upsampler --um-per-px 0.5 --hours 0.5`
    """
    from sge2hist.training.budget import Clock

    clock = Clock()  # a time budget counts the imports too
    from sge2hist.data.paired import PairedDataset
    from sge2hist.training.finetune.upsampler import UpsamplerTrainConfig
    from sge2hist.training.finetune.upsampler import train_upsampler as run

    config = UpsamplerTrainConfig(
        um_per_px=um_per_px,
        factor=factor,
        hours=hours,
        steps=steps,
        batch=batch,
        crop_px=crop_px,
        evaluations=evaluations,
        seed=seed,
        exclude=None if exclude is None else str(exclude),
    )
    run(PairedDataset.open(paired), output, config, overwrite=overwrite, log=log, clock=clock)
    wrote_if_quiet(output)
