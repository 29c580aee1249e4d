"""`sge2hist types`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sge2hist.models.gene.cell_types import TypeRow, TypeTable


def types(
    model: Annotated[Path, typer.Argument(help="Model folder made by `sge2hist train`, or pretrained:NAME.")],
    rename: Annotated[
        list[str] | None, typer.Option(help='New name of a type or component: "old name=new name".')
    ] = None,
    groups: Annotated[
        int | None,
        typer.Option(
            help="Without labels: group similar components into so many types, each named after its largest component."
        ),
    ] = None,
) -> None:
    """List the cell types that a model can generate, rename them, or group them.

    A type may have several components of the mixture. Purity is the share of their labelled training cells that carry
    its name; markers are the most over-expressed genes of its largest component. A model that was trained without labels
    has one name for each component: --groups gives similar components a common one, and may be repeated with another number.

    Example: `sge2hist types kidney.model --rename "type 3=Thick limb"`
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from sge2hist.data.errors import InputError
    from sge2hist.data.output_lock import output_lock
    from sge2hist.models.bundle import CONFIG_NAME, is_shipped, model_folder
    from sge2hist.models.types_csv import read_types, write_types

    asked = "--rename" if rename else "--groups"
    if rename and groups is not None:
        raise InputError(found="--rename and --groups", expected="one after the other")
    if (rename or groups is not None) and is_shipped(model):
        raise InputError(found=f"{asked} on {model}", expected="a model folder of your own", repair="copy its folder")
    model = model_folder(model)
    if not (model / CONFIG_NAME).is_file():
        raise InputError(found="no model (config.json)", where=str(model), expected="a folder of `sge2hist train`")
    if rename or groups is not None:
        with output_lock(model):
            table = table_renamed(read_types(model), rename) if rename else table_grouped(model, groups or 0)
            write_types(model, table)
    else:
        table = read_types(model)
    shown = Table("type", "cells", "purity", "weight", "components", "markers")
    for line in table_lines(table):
        shown.add_row(*map(escape, line))
    Console().print(shown)


def table_lines(table: TypeTable) -> list[tuple[str, ...]]:
    """One line for each type, most cells first: name, cells, purity, weight, its components, markers of the largest one."""
    by_name: dict[str, list[TypeRow]] = {}
    for row in sorted(table.rows, key=lambda row: -row.n_cells):
        by_name.setdefault(row.name, []).append(row)
    lines: list[tuple[str, ...]] = []
    for name, rows in sorted(by_name.items(), key=lambda item: -sum(row.n_cells for row in item[1])):
        labelled = [row for row in rows if row.n_labelled and row.purity == row.purity]  # nan: unknown
        n_labelled = sum(row.n_labelled for row in labelled)
        purity = f"{sum(row.purity * row.n_labelled for row in labelled) / n_labelled:.2f}" if n_labelled else ""
        cells, weight = sum(row.n_cells for row in rows), sum(row.weight for row in rows)
        components = " ".join(str(row.component) for row in rows)
        lines.append((name, f"{cells:,}", purity, f"{weight:.3f}", components, " ".join(rows[0].markers)))
    return lines


def table_renamed(table: TypeTable, pairs: list[str]) -> TypeTable:
    """Return the table with "old=new" pairs applied, or raise `InputError`."""
    from sge2hist.data.errors import InputError

    wrong = [pair for pair in pairs if "=" not in pair or not pair.split("=", 1)[1].strip().isprintable()]
    wrong += [pair for pair in pairs if not pair.partition("=")[2].strip()]
    if wrong:
        raise InputError(found=f"--rename {wrong[0]!r}", expected='"old name=new name", on one line')
    new_names = {old.strip(): new.strip() for old, new in (pair.split("=", 1) for pair in pairs)}
    if len(new_names) < len(pairs):
        raise InputError(found="a type renamed twice", expected="each once")
    try:
        renamed = table.renamed(new_names)
    except KeyError as error:
        raise InputError(found=str(error.args[0])) from error
    for name in set(renamed.names):
        alike = {other for other in renamed.names if other.casefold() == name.casefold()}
        if len(alike) > 1:
            raise InputError(
                found=f"names that differ by case alone: {', '.join(sorted(alike))}",
                expected="one spelling of each type",
            )
    return renamed


def table_grouped(model: Path, n_groups: int) -> TypeTable:
    """Return the table of a model with its components grouped into types, or raise `InputError`."""
    import numpy as np

    from sge2hist.data.errors import InputError
    from sge2hist.models.bundle import ModelBundle
    from sge2hist.models.gene.cell_types import group_components, name_by_markers

    bundle = ModelBundle.load(model)
    rows = bundle.types.rows
    if any(row.n_labelled for row in rows):
        raise InputError(found="--groups on a model whose types are named by labels", expected="one without labels")
    marker_names = {name_by_markers(row.component, row.markers) for row in rows}
    renamed = next((row.name for row in rows if row.name not in marker_names), None)
    if renamed is not None:
        raise InputError(
            found=f"--groups on a model with a type that was renamed, {renamed!r}",
            expected="types named after their markers, so that no given name is lost",
            repair="group first and rename then, or rename components one by one, by number",
        )
    n_cells_K = np.array([row.n_cells for row in rows])
    if not 1 <= n_groups <= (n_cells_K > 0).sum():
        raise InputError(
            found=f"--groups {n_groups}", expected=f"1 to {(n_cells_K > 0).sum()}, the components that hold cells"
        )
    mixture = bundle.model.gene.mixture
    means_KT, vars_KT = mixture.means_KT.detach().numpy(), mixture.log_vars_KT.detach().exp().numpy()
    return bundle.types.grouped(group_components(means_KT, vars_KT, n_cells_K, n_groups))
