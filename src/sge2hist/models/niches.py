"""``niches.npz`` of a model folder: examples of what the training section has around cells of each type. No expression.

An example is a list of places: where cells lie around a training cell (the first of the list), and the mixture component of each.

Shape letters: S examples, M places of all examples together, V vertices of an outline.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sge2hist.data.artifacts import atomic_path
from sge2hist.data.errors import InputError
from sge2hist.data.spatial_index import CellIndex

NICHES_NAME = "niches.npz"
POSITION_UM, OUTLINE_UM = 0.1, 0.25
"""Steps of the stored positions (int16, up to 3.2 mm away) and of the vertices of outlines (int8, up to 32 um)."""
UNKNOWN_VERTEX = -128
RADII_UM = (24.0, 60.0)
"""What counts as around a cell, for its z1: the nearest cells, and those of the structure that it lies in."""
MAX_NEIGHBOURS = 256  # cells


@dataclass(frozen=True, kw_only=True)
class Niches:
    """Examples, and the depth of the cells of each component.

    Parameters
    ----------
    start_S1 : int64 [S + 1], example s has the places start[s] to start[s + 1] - 1; its first is the cell it was taken around.
    xy_M2 : int16, from that cell, in steps of `POSITION_UM`.
    component_M : uint8 or uint16, mixture component.
    outline_MV2 : int8, vertices from the place's centre in steps of `OUTLINE_UM`, `UNKNOWN_VERTEX` where unknown; None: of none.
    depth_K2 : float32, mean and standard deviation of the log depth of the training cells of each component.
    half_um : cells up to so far away in x and in y are listed.
    z1_mean_KT, z1_shares_KC, z1_slope_KCT, z1_residual_KTT : float32, z1 of the cells of a component among others
        (:meth:`sample_z1`); None in models of earlier versions.
    """

    start_S1: np.ndarray
    xy_M2: np.ndarray
    component_M: np.ndarray
    outline_MV2: np.ndarray | None
    depth_K2: np.ndarray
    half_um: float
    z1_mean_KT: np.ndarray | None = None
    z1_shares_KC: np.ndarray | None = None
    z1_slope_KCT: np.ndarray | None = None
    z1_residual_KTT: np.ndarray | None = None

    def sample_z1(self, component_N: np.ndarray, shares_NC: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
        """z1 as training cells of each component have among such cells (:func:`neighbour_shares`), float32 [N, T].

        Normal. The mean is linear in the shares of the components around, the covariance that of what is left (`residual` is its
        Cholesky factor); both are fitted for each component to the posterior means of training cells, which are what the network
        saw in training. A sample of the component by itself is wider (a component is as wide as the means and the posteriors of
        its cells together) and knows nothing of the cells around. None: the model does not know it.
        """
        if (
            self.z1_mean_KT is None
            or self.z1_shares_KC is None
            or self.z1_slope_KCT is None
            or self.z1_residual_KTT is None
        ):
            return None
        noise_NT = rng.standard_normal((len(component_N), self.z1_mean_KT.shape[1]), np.float32)
        z1_NT = np.empty_like(noise_NT)
        for k in np.unique(component_N):
            own = component_N == k
            # not matrix products, whose rounding depends on the number of rows
            change = np.einsum("nc,ct->nt", shares_NC[own] - self.z1_shares_KC[k], self.z1_slope_KCT[k])
            residual = np.einsum("ns,ts->nt", noise_NT[own], self.z1_residual_KTT[k])
            z1_NT[own] = self.z1_mean_KT[k] + change + residual
        return z1_NT

    def __len__(self) -> int:
        return len(self.start_S1) - 1

    def around(self, component: int) -> np.ndarray:
        """Numbers of the examples around cells of a component, int64."""
        return np.flatnonzero(self.component_M[self.start_S1[:-1]] == component)

    def example(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Positions in um [m, 2], components [m] and outlines in um [m, V, 2] (or None) of an example; its cell comes first."""
        part = slice(int(self.start_S1[number]), int(self.start_S1[number + 1]))
        outlines = None
        if self.outline_MV2 is not None:
            outlines = self.outline_MV2[part].astype(np.float32) * OUTLINE_UM
            outlines[(self.outline_MV2[part] == UNKNOWN_VERTEX).any(axis=(1, 2))] = np.nan
        return self.xy_M2[part].astype(np.float64) * POSITION_UM, self.component_M[part].astype(np.int64), outlines


def neighbour_shares(index: CellIndex, cells: np.ndarray, component_N: np.ndarray, n_components: int) -> np.ndarray:
    """Shares of the components among the other cells within each of `RADII_UM` of given cells, float64 [len(cells), 2 K].

    Zero where no cell is that near; of more than `MAX_NEIGHBOURS` cells the nearest count.
    """
    is_component_NK = np.eye(n_components)[component_N]
    return np.concatenate(
        [index.neighbour_weights(cells, radius, MAX_NEIGHBOURS) @ is_component_NK for radius in RADII_UM], axis=1
    )


def outline_steps(outline_um: np.ndarray) -> np.ndarray:
    """Vertices in um, NaN where unknown -> int8 as `Niches` stores them; a vertex beyond 32 um is moved there."""
    steps = np.clip(np.round(outline_um / OUTLINE_UM), -127, 127)
    return np.where(np.isfinite(outline_um), steps, UNKNOWN_VERTEX).astype(np.int8)


def write_niches(folder: Path, niches: Niches) -> None:
    """Write niches.npz into a model folder."""
    arrays = {name: value for name, value in vars(niches).items() if value is not None}
    with atomic_path(folder / NICHES_NAME) as partial, open(partial, "wb") as file:
        np.savez_compressed(file, **arrays)


def read_niches(folder: Path, n_components: int) -> Niches | None:
    """Read niches.npz of a model folder; None where there is none (models of version 0.1).

    Raises
    ------
    InputError
        If the file is damaged or of another model.
    """
    path = folder / NICHES_NAME
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = dict(stored)
        half_um = float(arrays.pop("half_um"))
        niches = Niches(**{"outline_MV2": None, **arrays}, half_um=half_um)
        _check(niches, n_components)
    except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError) as error:
        raise InputError(
            found=f"neighbourhoods that do not fit ({error})", where=str(path), repair="copy the folder again"
        ) from error
    return niches


def _check(niches: Niches, n_components: int) -> None:
    start, n = niches.start_S1, len(niches.component_M)
    if start.ndim != 1 or len(start) < 1 or start[0] != 0 or start[-1] != n or (np.diff(start) < 1).any():
        raise ValueError("starts of examples")
    if niches.xy_M2.shape != (n, 2) or niches.depth_K2.shape != (n_components, 2):
        raise ValueError("shapes")
    if n and int(niches.component_M.max()) >= n_components:
        raise ValueError("components of another model")
    if niches.outline_MV2 is not None and (niches.outline_MV2.ndim != 3 or len(niches.outline_MV2) != n):
        raise ValueError("outlines")
    z1 = (niches.z1_mean_KT, niches.z1_shares_KC, niches.z1_slope_KCT, niches.z1_residual_KTT)
    shapes = [None if array is None else array.shape for array in z1]
    if shapes != [None] * 4:
        if shapes[0] is None or len(shapes[0]) != 2:
            raise ValueError("shapes of z1")
        n_latent, n_shares = shapes[0][1], len(RADII_UM) * n_components
        sizes = [(n_latent,), (n_shares,), (n_shares, n_latent), (n_latent, n_latent)]
        if shapes != [(n_components, *size) for size in sizes]:
            raise ValueError("shapes of z1")
    if not np.isfinite(niches.depth_K2).all() or not niches.half_um > 0:
        raise ValueError("numbers")
