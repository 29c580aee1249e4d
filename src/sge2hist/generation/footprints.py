"""Whether the cells of a request are placed by their outlines or as points."""

from __future__ import annotations

import zlib

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.models.bundle import ModelBundle

AUTO, OUTLINE, POINT = "auto", "outline", "point"
FOOTPRINTS = (AUTO, OUTLINE, POINT)


def outlines_to_use(
    bundle: ModelBundle, outline_um_NV2: np.ndarray | None, footprints: str = AUTO, where: str = ""
) -> np.ndarray | None:
    """The outlines that condition images, or None where cells are points.

    Outlines come from a segmentation of the *image*: they say more than RNA and positions do.

    Parameters
    ----------
    outline_um_NV2
        Outlines of the cells (`PairedDataset.outline_um`), or None.
    footprints
        "auto": outlines where the data have them and the model knows them; "outline": these or an error; "point": positions
        alone.

    Raises
    ------
    InputError
        If `footprints` is something else, or "outline" and data or model have none.
    """
    if footprints not in FOOTPRINTS:
        raise InputError(found=f"footprints {footprints!r}", expected=f"one of {', '.join(FOOTPRINTS)}")
    if footprints == POINT:
        return None
    knows = bundle.config.image.condition.outlines
    if footprints == OUTLINE and not (knows and outline_um_NV2 is not None):
        found = "no outlines of cells" if knows else "a model that places cells as points"
        raise InputError(
            found=found, where=where, expected="outlines for --footprints outline", repair="--footprints auto"
        )
    return outline_um_NV2 if knows else None


def footprints_name(outline_um_NV2: np.ndarray | None) -> str:
    """For manifests: "outline" or "point"."""
    return POINT if outline_um_NV2 is None else OUTLINE


POSITION_STEP_UM = 0.01


def donors_of_type(outline_um_NV2: np.ndarray, type_N: np.ndarray | None, name: str) -> np.ndarray:
    """Numbers of the cells whose outlines fit a cell of a type: those of the type (case does not matter) with an outline, or all
    with one if there is none.
    """
    import pandas as pd

    outlined_N = np.isfinite(outline_um_NV2).all(axis=(1, 2))
    if type_N is not None:
        code_N, names = pd.factorize(type_N)
        own = [code for code, known in enumerate(names) if str(known).casefold() == name.casefold()]
        found = np.flatnonzero(outlined_N & np.isin(code_N, own))
        if len(found):
            return found
    return np.flatnonzero(outlined_N)


def lent_outlines(outline_um_NV2: np.ndarray, donors: np.ndarray, xy_um_M2: np.ndarray) -> np.ndarray:
    """Outlines of cells that have none of their own, float32 [M, V, 2] from their centres: each is that of one of the donors.

    Which one depends on the cell's position alone, so that it is the same whatever else is generated. NaN without donors.
    """
    if not len(donors):
        return np.full((len(xy_um_M2), *outline_um_NV2.shape[1:]), np.nan, np.float32)
    steps = np.round(np.asarray(xy_um_M2) / POSITION_STEP_UM).astype("<i8")
    chosen = np.array([zlib.crc32(place.tobytes()) % len(donors) for place in steps], np.int64)
    return outline_um_NV2[donors[chosen]]
