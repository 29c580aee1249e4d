"""`sge2hist quiz`: a reader study in a page, and its scores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sge2hist.cli.arguments import ADVANCED, Overwrite
from sge2hist.cli.command import log

_SCORE = "Score"


def quiz(
    files: Annotated[
        list[str],
        typer.Argument(help="A generated set or slide; with --score the files that readers downloaded."),
    ],
    data: Annotated[Path | None, typer.Option("--data", help="Paired dataset that the real patches come from.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder to write; with --score for a page with the scores.")
    ] = None,
    n: Annotated[int, typer.Option("-n", help="Images shown, half of them real.")] = 60,
    split: Annotated[str, typer.Option(help="Split of the shown cells.")] = "test",
    match: Annotated[
        str,
        typer.Option(
            help="Real patches of: type (other cells of the same types) or cell (the generated cells themselves)."
        ),
    ] = "type",
    score: Annotated[
        bool, typer.Option("--score", help="Score the answers of readers.", rich_help_panel=_SCORE)
    ] = False,
    key: Annotated[
        Path | None,
        typer.Option(
            help="The quiz's key.json; default: beside the answers, or one folder above.", rich_help_panel=_SCORE
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Of the images and their order; of the intervals.", rich_help_panel=ADVANCED)
    ] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Ask people which patches are real: a page for readers, then accuracy, ROC and agreement from their answers.

    Give readers quiz/quiz.html alone. It needs no network and holds no hint; quiz/key.json says which images are real.

    Example: `sge2hist quiz kidney.generated --data kidney.paired -o quiz`

    Then: `sge2hist quiz --score answers/*.json --key quiz/key.json -o scores`
    """
    if score:
        _score([Path(file) for file in files], data=data, output=output, key=key, seed=seed, overwrite=overwrite)
        return
    from sge2hist.data.errors import InputError, Problems
    from sge2hist.data.paired import PairedDataset
    from sge2hist.quiz.build import KEY_NAME, build_quiz
    from sge2hist.quiz.config import QuizConfig

    problems = Problems()
    if data is None:
        problems.add(found="no --data", expected="the paired dataset that the images were made for")
    if output is None:
        problems.add(found="no -o", expected="a folder to write, e.g. -o quiz")
    if len(files) != 1:
        repair = "--score to score answers" if all(file.endswith(".json") for file in files) else ""
        problems.add(found=f"{len(files)} sets", expected="one generated set", repair=repair)
    if key is not None:
        problems.add(found="--key without --score", repair="--score with the files of answers")
    problems.raise_if_any()
    if data is None or output is None:  # for the type checker
        raise InputError(found="no --data or no -o")
    config = QuizConfig(n=n, split=split, match=match, seed=seed)
    page = build_quiz(files[0], PairedDataset.open(data), output, config=config, log=log, overwrite=overwrite)
    log(f"give readers this file alone: {page}; keep {output / KEY_NAME} for yourself")
    typer.echo(f"wrote {page}")


def _score(
    files: list[Path], *, data: Path | None, output: Path | None, key: Path | None, seed: int, overwrite: bool
) -> None:
    from sge2hist.cli.evaluate import columns
    from sge2hist.data.errors import InputError
    from sge2hist.quiz.score import SUMMARY_NAME, score_quiz
    from sge2hist.quiz.summary import HEADINGS, agreement_lines, conclusion, rows

    if data is not None:
        raise InputError(found="--data with --score", expected="answers and their key alone", repair="omit --data")
    scores = score_quiz(files, output, key=key, seed=seed, overwrite=overwrite)
    for line in columns([list(HEADINGS), *rows(scores)]):
        typer.echo(line)
    for line in (conclusion(scores), *agreement_lines(scores), *scores["notes"]):
        log(line)
    if output is not None:
        typer.echo(f"wrote {output / SUMMARY_NAME}")
