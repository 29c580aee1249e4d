"""What all verbs share: --threads and --quiet, hints for old spellings, and suggestions for options of other verbs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from sge2hist.cli.deprecated import current_options, current_verb
from sge2hist.progress import is_quiet, quietly
from sge2hist.threads import use_threads

Threads = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="CPU threads; default: OMP_NUM_THREADS, else the cores this process may use.",
        rich_help_panel="Running",
    ),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", help="Print errors and the path of the result only.", rich_help_panel="Running"),
]


def log(text: str) -> None:
    """Print a line for the person who waits; nothing with --quiet."""
    if not is_quiet():
        typer.echo(text)


def log_warning(text: str) -> None:
    """Print a warning; nothing with --quiet."""
    log(f"warning: {text}")


def wrote_if_quiet(path: Path) -> None:
    """Print the path of a result that a log line names unless it is dropped."""
    if is_quiet():
        typer.echo(f"wrote {path}")


def with_running_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add --threads and --quiet to a verb: they act around its call, the function does not see them."""

    @functools.wraps(function)
    def run(*, threads: int | None = None, quiet: bool = False, **options: Any) -> None:
        if threads is not None:
            use_threads(threads)
        with quietly() if quiet else nullcontext():
            function(**options)

    hints = get_type_hints(function, include_extras=True)
    own = [p.replace(annotation=hints[p.name]) for p in inspect.signature(function).parameters.values()]
    keyword = inspect.Parameter.KEYWORD_ONLY
    shared = [
        inspect.Parameter("threads", keyword, default=None, annotation=Threads),
        inspect.Parameter("quiet", keyword, default=False, annotation=Quiet),
    ]
    run.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in (*own, *shared)} | {"return": None}
    return run


class Verbs(TyperGroup):
    """The verbs; a flag that became a verb keeps working."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the verb that the words ask for."""
        return super().resolve_command(ctx, current_verb(args, _hint_of(ctx)))


class Verb(TyperCommand):
    """One verb; old spellings keep working, and an option of another verb is named as such."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words after the verb."""
        try:
            return super().parse_args(ctx, current_options(str(self.name), args, _hint_of(ctx)))
        except Exception as error:
            # click's NoSuchOption by its shape: from typer 0.20 on click is a private part of typer
            if hasattr(error, "option_name") and hasattr(error, "possibilities"):
                error.message = f"{error.message}{self._where_known(ctx, error.option_name)}"  # type: ignore[attr-defined]
            raise

    def _where_known(self, ctx: Any, option: str) -> str:
        """What else an unknown option may mean: an argument of this verb, or an option of others."""
        name = option.lstrip("-").replace("-", "_")
        if any(p.param_type_name == "argument" and p.name == name for p in self.params):
            return f". Give it without the option's name: sge2hist {self.name} {name.upper()} ..."
        group = ctx.parent.command if ctx.parent is not None else None
        verbs = group.commands.items() if isinstance(group, TyperGroup) else ()
        others = [verb for verb, command in verbs if any(option in p.opts for p in command.params)]
        return f". It is an option of: sge2hist {', '.join(others)}" if others else ""


def _hint_of(ctx: Any) -> Callable[[str], None]:
    """Print a hint on standard error, except while a shell completes a line."""

    def hint(text: str) -> None:
        if not ctx.resilient_parsing:
            typer.secho(f"hint: {text}; the old spelling still works", fg=typer.colors.YELLOW, err=True)

    return hint
