"""Patches of cells of a paired dataset, among their neighbours, after edits: the same noise as without them.

A patch keeps its place, also where an edit moves or removes its cell. Without edits the images are those of
:func:`sge2hist.generation.requests.request_from_paired`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from sge2hist.data.errors import InputError
from sge2hist.data.generated import APPLICABILITY, PREDICTED_TYPE
from sge2hist.data.paired import PairedDataset
from sge2hist.data.slides.channels import require_same_channels
from sge2hist.generation.applicability import Applicability, check_dataset
from sge2hist.generation.encode import features_used, protein_reader
from sge2hist.generation.footprints import AUTO, footprints_name
from sge2hist.generation.requests import (
    NEIGHBOURS,
    GenerationRequest,
    centre_latents,
    check_resolution,
    image_table,
    known_context,
)
from sge2hist.generation.slide.edited_source import EditedSource
from sge2hist.generation.slide.edits import Edit, edit_fields, read_edits
from sge2hist.generation.slide.nearby_cells import NearbyCells, encode_nearby
from sge2hist.generation.slide.request import with_footprints
from sge2hist.generation.slide.source import source_from_paired
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.conditioning import PlacedCells


def edited_request(
    bundle: ModelBundle,
    dataset: PairedDataset,
    rows: np.ndarray,
    edits: Sequence[Edit] | str | Path,
    *,
    n_samples: int = 1,
    seed: int = 0,
    context: str | None = None,
    resample: bool = False,
    footprints: str = AUTO,
    applicability: Applicability | None = None,
) -> GenerationRequest:
    """Images of cells (rows of one slide of a paired dataset) among their neighbours, after edits or those of a GeoJSON file.

    Parameters are those of :func:`~sge2hist.generation.requests.request_from_paired`.

    Raises
    ------
    InputError
        If the cells lie on several slides, an edit has no effect, or as `request_from_paired` does.
    """
    require_same_channels(dataset.channels, bundle.config.channels, where=str(dataset.path))
    check_resolution(bundle, dataset, resample)
    if bundle.config.image.condition.form != "map":
        raise InputError(
            found=f"edits for a model of preset {bundle.config.preset}, which is conditioned on one cell",
            expected="a model of placed cells",
        )
    if known_context(context or NEIGHBOURS) != NEIGHBOURS:
        raise InputError(found=f"edits with context {context!r}", expected=f"context {NEIGHBOURS!r}")
    if isinstance(edits, str | Path):
        edits = read_edits(edits, dataset.um_per_px)
    rows = np.asarray(rows, np.int64)
    slides = np.unique(dataset.slide_of_cell[rows])
    if len(slides) != 1:
        names = ", ".join(dataset.slide_ids[slide] for slide in slides)
        raise InputError(found=f"edits for cells of several slides ({names})", expected="cells of one slide")
    first = np.flatnonzero(dataset.slide_of_cell == slides[0])
    source = with_footprints(bundle, source_from_paired(dataset, int(slides[0])), footprints)
    edited = EditedSource(source, edits)
    edited.check(bundle)
    applicability = applicability or check_dataset(bundle, dataset)
    patches = [EditedPatch(bundle, edited, int(number)) for number in np.searchsorted(first, rows)]
    condition_row = np.repeat(rows, n_samples)
    obs = image_table(dataset.obs, rows, n_samples, seed, condition_row)
    of_image = np.repeat(np.arange(len(rows)), n_samples)

    def placed_cells(part: slice) -> PlacedCells:
        return joined([patches[number].placed for number in of_image[part]])

    return GenerationRequest(
        obs=obs.assign(**{PREDICTED_TYPE: [patches[number].predicted_type for number in of_image]}),
        placed_cells=placed_cells,
        latents=centre_latents(bundle, np.stack([patches[number].z_centre for number in of_image])),
        manifest={
            "mode": "genes",
            "context": NEIGHBOURS,
            "footprints": footprints_name(source.outline_um_NV2),
            "shuffled": False,
            "edits": [edit_fields(edit) for edit in edits],
            "data_path": str(dataset.path.resolve()),
            "data_fingerprint": dataset.fingerprint,
            "toy": bundle.is_toy or dataset.is_toy,
            APPLICABILITY: applicability.as_dict(),
            **features_used(bundle, protein_reader(bundle, source)),
        },
        report=patches[0].cells.report,
    )


class EditedPatch:
    """The patch of one cell (its number in the source) and the cells that condition it."""

    def __init__(self, bundle: ModelBundle, edited: EditedSource, number: int) -> None:
        self.centre_um, self.half_um = edited.source.xy_um_N2[number], bundle.config.patch_um / 2
        reach_um = self.half_um + bundle.config.receptive_radius_um
        self.cells: NearbyCells = encode_nearby(bundle, edited, self.centre_um, (reach_um, reach_um))
        own = np.flatnonzero(self.cells.source_M == number)
        code = int(self.cells.type_M[own[0]]) if len(own) else -1
        self.predicted_type = bundle.types.names[code] if code >= 0 else "removed"
        self.z_centre = self.cells.z_MZ[own[0]] if len(own) else np.zeros(self.cells.z_MZ.shape[1], np.float32)

    @property
    def placed(self) -> PlacedCells:
        """The cells as the condition of the patch."""
        return self.cells.placed(self.centre_um, self.half_um)


def joined(patches: list[PlacedCells]) -> PlacedCells:
    """Patches of one image each as one batch."""
    stacked = [name for name, value in vars(patches[0]).items() if value is not None]  # outlines: of all or of none
    fields = {name: torch.cat([getattr(cells, name) for cells in patches]) for name in stacked}
    images = [torch.full((len(cells.image_M),), number) for number, cells in enumerate(patches)]
    return PlacedCells(**{**fields, "image_M": torch.cat(images)})
