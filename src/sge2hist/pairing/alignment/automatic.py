"""`--alignment auto`: the map from cells to an image, found without a hint, or refused with the reason.

Global search on coarse maps (`global_search`), refinement by tiles (`block_matching`), evidence by tiles that took no part
(`cross_validation`). A map is given back only if its evidence is beyond doubt and no other map has such evidence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sge2hist.data.errors import InputError
from sge2hist.pairing.alignment.block_matching import finest_step_um, fit_correction, match_tiles, refine
from sge2hist.pairing.alignment.cross_validation import Evidence, cross_validate
from sge2hist.pairing.alignment.global_search import Candidate, same_map, scales_between, search_similarity
from sge2hist.pairing.alignment.nuclear_map import NuclearSource

STATED_SCALE = (0.85, 1.18)  # factors on a stated um per px
ANY_SCALE = (0.1, 10.0)
N_REFINED = 4  # candidates that are refined at most
RIVAL = 0.6  # share of the best score that makes another candidate worth refining
MIN_CELLS = 200
INSTEAD = (
    "give --alignment FILE (a 3x3 csv or keypoints from Xenium Explorer, QuPath, Fiji or napari), or check that the image shows "
    "this section"
)


@dataclass(frozen=True, kw_only=True)
class Registration:
    """A map that was found, and the evidence for it."""

    matrix: np.ndarray  # float64 [3, 3]: frame of the cells -> px of the image
    evidence: Evidence
    score: float  # of the global search
    runner_up: float  # score of the best other candidate


def register(
    cells: NuclearSource, image: NuclearSource, *, n_cells: int, scale_is_stated: bool, where: str
) -> Registration:
    """Find the map from cells to an image.

    Parameters
    ----------
    scale_is_stated
        Whether the um per px of the image is more than a guess: scales near it are tried first.

    Raises
    ------
    InputError
        If there are too few cells, the image shows no nuclear stain, no map is beyond doubt, or several are.
    """
    if n_cells < MIN_CELLS:
        raise _refusal(f"{n_cells} cells", where, f"at least {MIN_CELLS} to find the map by")
    low, high = np.quantile(image.overview().values_HW, [0.005, 0.995])
    if high - low < max(image.min_contrast, 1e-6):
        raise _refusal("an image without any nuclear stain", where, "nuclei to find the map by")
    objection = ""
    ranges = [STATED_SCALE, ANY_SCALE] if scale_is_stated else [ANY_SCALE]
    for low, high in ranges:
        candidates = search_similarity(cells, image, scales_between(low, high))
        found, objection = _verified(cells, image, candidates, objection)
        if len(found) > 1:
            raise _refusal(
                f"{len(found)} different maps that fit equally well (a symmetric pattern)",
                where,
                "one map that fits best",
            )
        if found:
            return found[0]
    raise _refusal(
        f"no map from the cells to the image: {objection or 'no pieces of tissue agree on one'}",
        where,
        "nuclei of the image on the cells",
    )


def _verified(
    cells: NuclearSource, image: NuclearSource, candidates: list[Candidate], objection: str
) -> tuple[list[Registration], str]:
    """Candidates that are beyond doubt after refinement, and the objection to the best one otherwise."""
    found: list[Registration] = []
    tried = [c for c in candidates[:N_REFINED] if c.score > RIVAL * candidates[0].score]
    for number, candidate in enumerate(tried):
        refined = refine(cells, image, candidate.matrix, candidate.step_um)
        if refined is None:
            continue
        matrix, step_um = refined
        if any(same_map(matrix, other.matrix, cells.overview()) for other in found):
            continue
        tiles = match_tiles(cells, image, matrix, step_um, offset=0.5)  # tiles that took no part in the refinement
        evidence = cross_validate(tiles, cells.um_per_unit, finest_um=finest_step_um(cells, image, matrix))
        if evidence.convincing:
            correction = fit_correction(tiles)
            best_other = max((c.score for c in candidates if c is not candidate), default=0.0)
            found.append(
                Registration(
                    matrix=matrix if correction is None else matrix @ correction,
                    evidence=evidence,
                    score=candidate.score,
                    runner_up=best_other,
                )
            )
        elif number == 0:
            objection = evidence.objection() or objection
    return found, objection


def _refusal(found: str, where: str, expected: str) -> InputError:
    return InputError(found=found, where=where, expected=expected, repair=INSTEAD)
