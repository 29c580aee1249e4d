"""Which row of a table of positions each barcode of a matrix has, also where one of them lost or changed the suffix "-1"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

_SEQUENCE = re.compile(r"[ACGT]{14,}")


@dataclass(frozen=True, kw_only=True)
class Joined:
    """Rows of the positions, and names for the spots."""

    row: np.ndarray  # int64 [N], -1 = no position
    names: list[str]  # [N]: the barcodes in the form that ends in "-1", as Space Ranger's other tables have them
    note: str | None  # what differed


def join_barcodes(barcodes: Sequence[str], positions: Sequence[str]) -> Joined:
    """Join on the exact barcode; where none matches, on its sequence.

    The sequence alone decides only if all barcodes of each side have the same text before and after it ("-1", ".1" as R writes
    it, "S1_" of a merged table, nothing) and no sequence repeats: with two suffixes on one side they are two sections.
    """
    row = pd.Index(positions).get_indexer(pd.Index(barcodes))
    if (row >= 0).any():
        return Joined(row=row, names=list(barcodes), note=None)
    own, theirs = _sequences(barcodes), _sequences(positions)
    if own is None or theirs is None:
        return Joined(row=row, names=list(barcodes), note=None)
    row = pd.Index(theirs).get_indexer(pd.Index(own))
    if (row < 0).any():
        return Joined(row=row, names=list(barcodes), note=None)
    from_positions = positions[0].endswith("-1")
    return Joined(
        row=row,
        names=[positions[index] for index in row.tolist()] if from_positions else list(barcodes),
        note=f"barcodes joined by their sequence: {barcodes[0]} in the matrix is {positions[int(row[0])]} in the positions",
    )


def _sequences(barcodes: Sequence[str]) -> list[str] | None:
    """The sequence of each barcode, or None where they differ in more than that or repeat."""
    found = [_SEQUENCE.search(barcode) for barcode in barcodes]
    sequences = [match[0] for match in found if match is not None]
    ends = {
        (barcode[: match.start()], barcode[match.end() :])
        for barcode, match in zip(barcodes, found, strict=True)
        if match is not None
    }
    is_whole = len(sequences) == len(barcodes) == len(set(sequences))
    return sequences if is_whole and len(ends) == 1 else None
