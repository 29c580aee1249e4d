"""Proteins in a 10x matrix: features of another type than genes, which are kept apart from them.

``Antibody Capture`` (Visium and Visium HD with CytAssist): UMI of antibody tags. ``Protein Expression`` (Xenium Onboard
Analysis >= 4): mean intensity of a cell times ``protein_scaling_factor``, an attribute of the file's root, as whole numbers.
Source: the vendor's change to Seurat's reader of these files (satijalab/seurat, pull request 10024).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sge2hist.data.errors import InputError
from sge2hist.data.section import Proteins
from sge2hist.data.table.genes import unique_names

if TYPE_CHECKING:
    from scipy.sparse import csr_array

UNITS = {"Antibody Capture": "UMI", "Protein Expression": "mean intensity"}
"""What a number means, by the type of the feature."""
SCALING_ATTRIBUTE = "protein_scaling_factor"


@dataclass(frozen=True, kw_only=True)
class ProteinColumns:
    """Where the proteins of a matrix are."""

    names: list[str]  # unique
    feature_type: str  # one of `UNITS`
    column_of_feature: np.ndarray  # int64 [n_features]: column among the proteins, -1 = another feature
    scaling_factor: float = 1.0  # stored number / value

    @property
    def note(self) -> str:
        """One line for people."""
        return f"{len(self.names):,} protein{'s' * (len(self.names) > 1)} ('{self.feature_type}') kept apart from the genes"


def protein_columns(
    path: Path, symbols: list[str], feature_types: list[str], scaling_factor: float | None = None
) -> ProteinColumns | None:
    """The proteins among the features of a matrix; None where there are none.

    Raises
    ------
    InputError
        If the scaling factor is not positive.
    """
    present = [name for name in UNITS if name in feature_types]
    if not present:
        return None
    is_protein = np.array([name == present[0] for name in feature_types])
    factor = scaling_factor if scaling_factor is not None and UNITS[present[0]] != "UMI" else 1.0
    if not (np.isfinite(factor) and factor > 0):
        raise InputError(found=f"{SCALING_ATTRIBUTE} = {factor}", where=str(path), expected="a positive number")
    return ProteinColumns(
        names=unique_names([symbols[i] for i in np.flatnonzero(is_protein)]),
        feature_type=present[0],
        column_of_feature=np.where(is_protein, np.cumsum(is_protein) - 1, -1),
        scaling_factor=float(factor),
    )


def proteins_of(
    matrix: Any, reader: Callable[[Any], Callable[[np.ndarray | None, int | None], csr_array]] | None = None
) -> Proteins | None:
    """The proteins of a section's observations; None where its matrix has none.

    Parameters
    ----------
    matrix
        A `TenxMatrix` or `MtxMatrix`.
    reader
        From a matrix to `Section.read_counts`; None: its observations are the barcodes.
    """
    columns = matrix.proteins
    if columns is None:
        return None
    alone = dataclasses.replace(
        matrix,
        genes=pd.DataFrame({"symbol": columns.names}, index=pd.Index(columns.names, name="gene_id")),
        column_of_feature=columns.column_of_feature,
    )
    read_counts = alone.read_counts if reader is None else reader(alone)

    def read(group_of_obs: np.ndarray | None = None, n_groups: int | None = None) -> np.ndarray:
        return read_counts(group_of_obs, n_groups).toarray().astype(np.float32) / np.float32(columns.scaling_factor)

    return Proteins(
        names=columns.names,
        unit=UNITS[columns.feature_type],
        feature_type=columns.feature_type,
        scaling_factor=columns.scaling_factor,
        read=read,
    )
