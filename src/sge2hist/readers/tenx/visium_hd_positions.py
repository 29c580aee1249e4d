"""Where the bins of Visium HD are: the table of positions, else the homography of ``feature_slice.h5``; both compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.readers.tenx.feature_slice import FILE, SpotLayout, find_feature_slice, read_feature_slice
from sge2hist.readers.tenx.visium_hd_folder import one_file
from sge2hist.readers.tenx.visium_hd_grid import FITTED_BINS, GridPositions, read_positions

TABLE = "tissue_positions.parquet"
MAX_DIFFERENCE_BINS = 0.5  # further apart, table and homography put a count into different bins


@dataclass(frozen=True, kw_only=True)
class BinPositions:
    """The bins of one size, by a table or by a homography, compared with the other where both exist."""

    grid: GridPositions
    bin_um: int
    layout: SpotLayout | None  # the homography, where the run has one
    by_table: bool
    notes: list[str] = field(default_factory=list)

    def um_per_px_sources(self) -> dict[str, float]:
        """Scale by each of them."""
        sources = {"positions: bin pitch": self.grid.um_per_px(self.bin_um)} if self.by_table else {}
        if self.layout is not None:
            sources[f"{FILE}: homography"] = self._by_layout(self.layout).um_per_px(self.bin_um)
        return sources

    def differences(self) -> list[str]:
        """A note where table and homography disagree."""
        if self.layout is None or not self.by_table:
            return []
        apart_px = self._by_layout(self.layout).centre_xy_px - self.grid.centre_xy_px[self._some()]
        apart_um = float(np.hypot(*apart_px.T).max()) * self.grid.um_per_px(self.bin_um)
        if apart_um <= MAX_DIFFERENCE_BINS * self.bin_um:
            return []
        return [
            f"positions and the homography of {self.layout.path.name} lie up to {apart_um:.0f} um apart: the positions "
            "were used; are both files of one run?"
        ]

    def _some(self) -> slice:
        return slice(None, None, max(1, len(self.grid.row) // FITTED_BINS))

    def _by_layout(self, layout: SpotLayout) -> GridPositions:
        """Evenly spread bins of the grid where the homography puts them."""
        some = self._some()
        row, column = self.grid.row[some], self.grid.column[some]
        return GridPositions(
            row=row,
            column=column,
            centre_xy_px=layout.centre_xy_px(row, column, self.bin_um),
            in_tissue=self.grid.in_tissue[some],
            path=layout.path,
        )


def read_bin_positions(square: Path, bin_um: int, *, filtered: bool) -> BinPositions:
    """Positions of all bins of a ``square_*um`` folder.

    Parameters
    ----------
    filtered
        The matrix holds bins in tissue only, so that the table is not needed to find them.

    Raises
    ------
    InputError
        If there is neither a table nor a homography, or what is there is damaged.
    """
    table = one_file(square / "spatial", TABLE)
    if table is None:
        layout = _layout_alone(square, filtered)
        note = f"no {TABLE}: positions by the homography of {layout.path.name}"
        return BinPositions(grid=layout.grid(bin_um), bin_um=bin_um, layout=layout, by_table=False, notes=[note])
    notes: list[str] = []
    layout_beside = _layout_beside(square, notes)
    return BinPositions(grid=read_positions(table), bin_um=bin_um, layout=layout_beside, by_table=True, notes=notes)


def _layout_alone(square: Path, filtered: bool) -> SpotLayout:
    path = find_feature_slice(square)
    missing, copy = f"no {TABLE}", "copy it from the same outs/"
    if path is None:
        raise InputError(found=f"{missing} and no {FILE}", where=str(square / "spatial"), repair=copy)
    if not filtered:
        raise InputError(
            found=f"{missing} beside a raw matrix",
            where=str(square / "spatial"),
            expected=f"{TABLE}, which marks the bins in tissue, or the filtered matrix",
            repair=copy,
        )
    layout = read_feature_slice(path)
    if layout is None:
        raise InputError(
            found=f"{missing}, and {path.name} without a homography to a microscope image",
            where=str(square / "spatial"),
            expected="a run of Space Ranger with a microscope image",
            repair=f"{copy}, or run Space Ranger again with --image",
        )
    return layout


def _layout_beside(square: Path, notes: list[str]) -> SpotLayout | None:
    """The layout for comparison; a damaged file is no reason to stop, since the table has all that is needed."""
    path = find_feature_slice(square)
    try:
        return read_feature_slice(path) if path is not None else None
    except InputError as error:
        notes.append(f"{FILE} not compared with the positions: {error}")
        return None
