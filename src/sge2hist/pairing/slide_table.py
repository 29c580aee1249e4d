"""A csv of several inputs of `prepare`: where each lies, of which donor it is, how it is stained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sge2hist.data.errors import InputError, Problems
from sge2hist.data.virtual_he import requested_file

COLUMNS = ("path", "image", "donor", "stain", "name")
EXPECTED = "a csv with the columns path[, image][, donor][, stain][, name], one row for each input"


@dataclass(frozen=True, kw_only=True)
class SlideRow:
    """One input. `name`, `donor` and `stain` are "" where the table states none."""

    path: Path
    image: str | Path | None = None
    donor: str = ""
    stain: str = ""
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class SlideTable:
    """The inputs of a dataset of several slides; see `read_slide_table`."""

    source: Path
    rows: tuple[SlideRow, ...]


def read_slide_table(path: str | Path) -> SlideTable:
    """Read a csv of inputs; paths are relative to its folder.

    Raises
    ------
    InputError
        If there is no such file, a column is unknown or missing, a row has no path, a file does not exist, or two rows have one
        name; all problems at once.
    """
    import pandas as pd

    path = Path(path)
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise InputError(found=f"a table that cannot be read ({error})", where=str(path), expected=EXPECTED) from error
    table.columns = table.columns.str.strip()
    unknown = [name for name in table.columns if name not in COLUMNS]
    if unknown or "path" not in table or len(table) == 0:
        found = f"columns {', '.join(table.columns)}" if len(table) else "no row"
        raise InputError(found=found, where=str(path), expected=EXPECTED)
    problems, rows = Problems(), []
    for number, values in enumerate(table.to_dict("records"), start=2):
        row = {str(name): str(value).strip() for name, value in values.items()}
        where = f"{path}, line {number}"
        if not row["path"] or not (path.parent / row["path"]).exists():
            problems.add(
                found=f"path {row['path']!r}", where=where, expected="an input, relative to the table's folder"
            )
            continue
        image = row.get("image", "")
        if image and not requested_file(image)[0] and not (path.parent / image).exists():
            problems.add(found=f"image {image!r}", where=where, expected="a file, relative to the table's folder")
        rows.append(
            SlideRow(
                path=path.parent / row["path"],
                image=(image if requested_file(image)[0] else path.parent / image) if image else None,
                **{name: row.get(name, "") for name in ("donor", "stain", "name")},
            )
        )
    names = [row.name for row in rows if row.name]
    if len(set(names)) < len(names):
        problems.add(found=f"names {', '.join(names)}", where=str(path), expected="a name of its own for each")
    problems.raise_if_any()
    return SlideTable(source=path, rows=tuple(rows))
