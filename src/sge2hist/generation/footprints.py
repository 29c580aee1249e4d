"""Whether the cells of a request are placed by their outlines or as points."""

from __future__ import annotations

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
