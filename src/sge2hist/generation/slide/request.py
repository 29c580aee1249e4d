"""What is asked of a slide: region, seed, sampler, edits; and the checks that come before any work."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sge2hist.data.errors import InputError, Problems, refuse_wrong_types
from sge2hist.data.slides.channels import require_same_channels
from sge2hist.generation.applicability import Applicability, Warn, check_cells
from sge2hist.generation.encode import protein_reader
from sge2hist.generation.footprints import AUTO, outlines_to_use
from sge2hist.generation.look import look_of
from sge2hist.generation.slide.edited_source import EditedSource
from sge2hist.generation.slide.edits import Edit
from sge2hist.generation.slide.source import Rectangle, SlideSource, region_px
from sge2hist.models.bundle import ModelBundle
from sge2hist.models.image.samplers import SamplerConfig


@dataclass(frozen=True, kw_only=True)
class SlideConfig:
    """How a slide is generated."""

    region_um: Rectangle | None = None  # x, y, width, height; None: the whole slide
    seed: int = 0
    n_seeds: int = 1  # above 1: the spread over so many seeds is written too
    sampler: SamplerConfig | None = None  # None: the model's
    edits: tuple[Edit, ...] = ()
    part: tuple[int, int] | None = None  # (i, n): the i-th of n parts, from 1
    glass_rgb: tuple[int, ...] | None = None  # one level per channel; None: that of the training slide
    batch: int = 64  # windows run at once
    workers: int = 1  # processes
    force: bool = False  # also from cells that the model does not know
    stand_alone: bool = False  # one canvas with one halo
    render: str | None = None  # "virtual-he": stains as H&E colours
    stain_roles: str | None = None  # of the channels then; None: by their names
    footprints: str = AUTO  # of the cells: see `generation.footprints`

    @refuse_wrong_types
    def __post_init__(self) -> None:
        problems = Problems()
        for name, low in (("n_seeds", 1), ("batch", 1), ("workers", 1), ("seed", 0)):
            if getattr(self, name) < low:
                problems.add(found=f"{name} = {getattr(self, name)}", expected=f"{low} or more")
        if self.part is not None and not 1 <= self.part[0] <= self.part[1]:
            problems.add(found=f"part = {self.part}", expected="(i, n) with i from 1 to n")
        problems.raise_if_any()


def with_footprints(bundle: ModelBundle, source: SlideSource, footprints: str) -> SlideSource:
    """The source with the outlines that condition images, or none (:func:`~sge2hist.generation.footprints.outlines_to_use`)."""
    return replace(source, outline_um_NV2=outlines_to_use(bundle, source.outline_um_NV2, footprints, source.slide))


def check_slide(
    bundle: ModelBundle, source: SlideSource, config: SlideConfig, warn: Warn
) -> tuple[tuple[int, int, int, int], Applicability]:
    """Return the region in px (x, y, width, height) and whether the model knows such cells.

    Raises
    ------
    InputError
        If the region is empty or not on the slide, the model takes no positions or does not know such cells, an edit has no
        effect, or the model's images cannot be rendered as asked.
    """
    look_of(bundle, config.render, config.stain_roles)
    if source.channels is not None:
        require_same_channels(source.channels, bundle.config.channels, where=source.slide)
    if bundle.config.image.condition.form != "map":
        raise InputError(
            found=f"a model of preset {bundle.config.preset}, which is conditioned on one cell without positions",
            expected="a model of placed cells, for a slide",
        )
    EditedSource(source, config.edits).check(bundle)
    region = region_px(source, config.region_um, bundle.config.um_per_px)
    applicability = check_cells(
        bundle,
        None if source.z1_NT is not None else source.read_counts,
        source.genes,
        len(source.id_N),
        centre_rows=source.centre_rows,
        xy_um_N2=source.xy_um_N2,
        proteins=protein_reader(bundle, source),
        where=source.slide,
        force=config.force,
        warn=warn,
    )
    return region, applicability
