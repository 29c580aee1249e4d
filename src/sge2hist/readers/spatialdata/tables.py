"""The tables of a SpatialData store: what each annotates, and which of them are read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.data.table.counts import read_element
from sge2hist.readers.spatialdata.elements import Elements

CELL_TABLES = ("cell_segmentations", "table")  # names that spatialdata-io and sopa give to the table of cells
_BIN = re.compile(r"square_(\d{3})um")


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """A table and the regions that its rows annotate."""

    table: str
    regions: list[str]
    region_key: str
    instance_key: str

    @property
    def bin_um(self) -> int | None:
        """Side of Visium HD bins, by the names of the table and its regions; None of cells and spots."""
        return next((side for name in (*self.regions, self.table) if (side := bin_side_um(name))), None)


def bin_side_um(name: str) -> int | None:
    """Side of Visium HD bins as a name states it ("x_square_008um"); None if it states none."""
    match = _BIN.search(name)
    return int(match.group(1)) if match else None


def choose_tables(elements: Elements, table: str | None, bin_um: int | None) -> tuple[list[Annotation], list[str]]:
    """The tables to read, and the names of those that are not.

    Cells before bins, coarse bins before fine ones. Among tables of cells one with a usual name is the table; else all are read:
    samples that were joined have one each.

    Raises
    ------
    InputError
        If there is no table that annotates a region, or not the one that is asked for.
    """
    where, names = str(elements.path), elements.names("tables")
    if not names:
        raise InputError(found="no table", where=where, expected="a table of counts")
    if table is not None:
        if table not in names:
            raise InputError(found=f"no table {table!r}", where=where, expected=f"one of {', '.join(names)}")
        return [_annotation(elements, table)], []
    known = [found for name in names if (found := _annotation_or_none(elements, name))]
    if not known:
        return [_annotation(elements, names[0])], []  # which says what it lacks
    if bin_um is not None:
        chosen = [one for one in known if one.bin_um == bin_um]
        if not chosen:
            sides = sorted({one.bin_um for one in known if one.bin_um})
            raise InputError(
                found=f"no table of bins of {bin_um} um",
                where=where,
                expected=f"one of {', '.join(f'{side} um' for side in sides)}" if sides else f"{', '.join(names)}",
            )
    else:
        cells = [one for one in known if one.bin_um is None]
        coarsest = max((one.bin_um or 0 for one in known), default=0)
        chosen = cells or [one for one in known if one.bin_um == coarsest]
        usual = [one for name in CELL_TABLES for one in cells if one.table == name]
        chosen = usual[:1] or chosen
    return chosen, [name for name in names if name not in {one.table for one in chosen}]


def _annotation_or_none(elements: Elements, name: str) -> Annotation | None:
    """None of a table that annotates nothing (of genes, of patients, ...)."""
    try:
        return _annotation(elements, name)
    except InputError:
        return None


def _annotation(elements: Elements, name: str) -> Annotation:
    """Regions, region key and instance key of a table, from its attributes or (old stores) from uns."""
    group, where = elements.root[f"tables/{name}"], f"{elements.path}: tables/{name}"
    stated: dict[str, Any] = dict(group.attrs)
    if "region" not in stated and "uns/spatialdata_attrs" in group:
        stated = read_element(group["uns"], "spatialdata_attrs", where)
    region = stated.get("region")
    if region is None or not stated.get("instance_key"):
        raise InputError(
            found="a table that annotates no region",
            where=where,
            expected="attributes region, region_key, instance_key",
        )
    return Annotation(
        table=name,
        regions=[region] if isinstance(region, str) else [str(one) for one in np.atleast_1d(region)],
        region_key=str(stated.get("region_key", "region")),
        instance_key=str(stated["instance_key"]),
    )
