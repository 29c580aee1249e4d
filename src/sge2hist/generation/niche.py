"""A cell of a type in its niche: the cell in the centre, around it a neighbourhood as the training section has it.

Places and types around come from an example of the model folder (`models.niches`), turned and mirrored at random. z1 of each cell
is a sample of what cells of its component have among such cells as are around it, its depth a sample as among the training cells,
and z2 follows from the expected counts of the cells around.
"""

from __future__ import annotations

import numpy as np
import torch

from sge2hist.data.errors import InputError
from sge2hist.generation.slide.edited_source import EditedSource
from sge2hist.generation.slide.layout_source import expected_counts, z1_among
from sge2hist.generation.slide.nearby_cells import encode_nearby
from sge2hist.generation.slide.source import SlideSource
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.gene.encode import MAX_LOG_DEPTH
from sge2hist.models.image.conditioning import PlacedCells
from sge2hist.models.niches import Niches

NICHE_STREAM = 93


def niches_of(bundle: ModelBundle) -> Niches:
    """The neighbourhoods of a model; `InputError` where it has none."""
    if bundle.niches is None or len(bundle.niches) == 0:
        raise InputError(
            found="a model without neighbourhoods of cell types",
            expected="one that was trained by this version, for the context niche",
            repair="--context homotypic, or train again",
        )
    return bundle.niches


def niche_patch(bundle: ModelBundle, name: str, seed: int) -> tuple[PlacedCells, np.ndarray]:
    """The cells of one patch around a cell of a type, and the latent of that cell, float32 [Z].

    Everything is a function of `seed`: the example, its orientation, the latents.

    Raises
    ------
    InputError
        If the model has no neighbourhoods, or none around cells of this type.
    """
    niches = niches_of(bundle)
    half_um = bundle.config.patch_um / 2
    reach_um = half_um + bundle.config.receptive_radius_um
    if reach_um > niches.half_um + 1e-6:
        max_px = int(2 * (niches.half_um - bundle.config.receptive_radius_um) / bundle.config.um_per_px)
        raise InputError(
            found=f"patches of {bundle.config.patch_px} px ({bundle.config.patch_um:g} um)",
            expected=f"{max_px} px at most in the context niche, whose examples reach no farther",
            repair=f"--patch-px {max_px // 8 * 8}, or --context homotypic",
        )
    components, weights = bundle.components_of(name)
    examples = [niches.around(component) for component in components]
    weights = weights * [len(own) > 0 for own in examples]
    if not weights.sum() > 0:
        raise InputError(
            found=f"no neighbourhood of a cell of type {name!r}",
            expected="a type with training cells",
            repair="--context homotypic",
        )
    rng = np.random.default_rng([seed, NICHE_STREAM])
    own = examples[int(rng.choice(len(components), p=weights / weights.sum()))]
    xy_um, component_M, outlines = niches.example(int(rng.choice(own)))
    turn_3 = rng.integers(2, size=3).astype(bool)
    z1_MT = z1_among(bundle, component_M, xy_um, seed)
    source = SlideSource(
        xy_um_N2=_turned(xy_um, turn_3),
        id_N=np.arange(len(xy_um)).astype(str),
        type_N=None,
        genes=bundle.genes,
        read_counts=lambda rows: expected_counts(bundle, component_M[rows], z1_MT[rows]),
        bounds_um=(-reach_um, -reach_um, 2 * reach_um, 2 * reach_um),
        slide=name,
        um_per_edit_unit=1.0,
        manifest={},
        outline_um_NV2=None if outlines is None else _turned(outlines, turn_3).astype(np.float32),
        z1_NT=z1_MT,
    )
    cells = encode_nearby(bundle, EditedSource(source), np.zeros(2), (reach_um, reach_um))
    placed = cells.placed(np.zeros(2), half_um)
    mean, std = niches.depth_K2[component_M[cells.source_M]].T
    depth = (mean + std * rng.standard_normal(len(component_M))[cells.source_M]).clip(-MAX_LOG_DEPTH, MAX_LOG_DEPTH)
    placed.depth_M.copy_(torch.from_numpy(depth.astype(np.float32)))
    return placed, cells.z_MZ[int(np.flatnonzero(cells.source_M == 0)[0])]


def _turned(xy: np.ndarray, turn_3: np.ndarray) -> np.ndarray:
    """Points [..., 2] around (0, 0) mirrored in x, mirrored in y, and with x and y exchanged."""
    xy = xy * np.where(turn_3[:2], -1.0, 1.0)
    return xy[..., ::-1] if turn_3[2] else xy
