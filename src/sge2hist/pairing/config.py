"""Options of `prepare`, with their ranges."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from sge2hist.data.errors import InputError, Problems, refuse_wrong_types
from sge2hist.data.position_frame import POSITIONS
from sge2hist.data.slides.stain_scale import TRANSFORMS
from sge2hist.pairing.segmentation.bins_to_cells import ExpansionConfig
from sge2hist.pairing.segmentation.segmenters import SEGMENTERS

METHODS = ("auto", "segmentation", "nuclei", "labels", "bins")


@dataclass(frozen=True, kw_only=True)
class CellsConfig:
    """How 2 um bins become cells.

    `method` is ``segmentation`` (Space Ranger 4's own: barcode mappings, else polygons), ``nuclei`` (found in the
    H&E), ``labels`` (a label image or polygons of the user), ``bins`` (no cells: each bin stays an observation) or
    ``auto`` (the first of these that is possible).
    """

    method: str = "auto"
    labels: str | Path | None = None  # label image or GeoJSON of the user, in px of the image
    segmenter: str = "auto"  # network | classical | stardist; auto: StarDist when installed, else the network
    expand_um: float | None = None  # growth beyond the outline; None: 8 around nuclei, 0 around cells and labels
    volume_ratio: float | None = None  # grow each nucleus to this volume ratio instead of by a distance
    processes: int = 0  # for finding nuclei; 0 = one for each core
    destripe: bool = False  # also store the counts of each cell after destriping of the 2 um array

    @refuse_wrong_types
    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(found=f"--cells {self.method}", expected=" | ".join(METHODS))
        if self.segmenter not in SEGMENTERS:
            raise InputError(found=f"--segmenter {self.segmenter}", expected=" | ".join(SEGMENTERS))
        if self.method == "labels" and self.labels is None:
            raise InputError(found="--cells labels without labels", repair="--labels FILE (label image or GeoJSON)")
        if self.labels is not None and self.method not in ("auto", "labels"):
            raise InputError(found=f"--labels with --cells {self.method}", repair="--cells labels")
        if self.processes < 0:
            raise InputError(found=f"processes = {self.processes}", expected="0 (one for each core) or more")
        self.expansion(0.0)  # checks the ranges before minutes of segmentation

    def expansion(self, default_um: float) -> ExpansionConfig:
        """Growth for outlines that grow by `default_um` unless the user says otherwise."""
        distance_um = default_um if self.expand_um is None else self.expand_um
        return ExpansionConfig(distance_um=distance_um, volume_ratio=self.volume_ratio)


@dataclass(frozen=True, kw_only=True)
class CentreFilters:
    """What a cell must have to be a centre cell."""

    min_counts: int
    min_genes: int
    min_tissue_fraction: float


_OF_BINS = CentreFilters(min_counts=20, min_genes=10, min_tissue_fraction=0.1)
DEFAULT_FILTERS = {
    "bin": _OF_BINS,
    "spot": _OF_BINS,
    # Types differ in counts (neutrophils 11, tumour 80 in one panel), and pale stroma has cells: a filter is one on types.
    "cell": CentreFilters(min_counts=5, min_genes=3, min_tissue_fraction=0.0),
}


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Options of `prepare`; lengths in um."""

    # How the inputs are read (see `readers.open_sections`)
    format: str = "auto"  # a key of `readers.detect.FORMATS`; auto recognises it
    bin_um: int | None = (
        None  # side of the bins of Visium HD and Stereo-seq: 2, 8, 16, ...; None = cells where possible, else 16
    )
    image_um_per_px: float | None = None  # scale of the image, where the format does not state it
    channels: str | tuple[str, ...] | None = None  # of a fluorescence image: names or "all"; None = the image is an H&E
    stain_transform: str | None = None  # of fluorescence: sqrt | linear; None: sqrt for 8 bits, linear for 16
    stain_roles: str | None = (
        None  # of virtual H&E: "DAPI=haematoxylin,18S=eosin:0.6"; None: by the names of the channels
    )
    alignment: str | Path | None = (
        None  # map between image and cells: auto (found), a file, identity; None: as the format states
    )
    genes: str | Path | None = None  # published pickle: csv gene_id,symbol in the order of its vectors
    layer: str | None = None  # AnnData, SpatialData: layer of the raw counts, "X" or "raw/X"; None = found
    round_counts: bool = False  # AnnData, SpatialData: round counts with fractions at random, without bias, by `seed`
    table: str | None = None  # SpatialData: table to read
    positions: str = (
        "auto"  # unit of positions that state none (AnnData), of outlines with labels: auto | px | um | hires | lowres
    )
    section: str | None = (
        None  # the one of several sections in the input to take; None: all of them, of an AnnData its only one
    )
    keep_inside: bool = False  # the image shows a part of the observations: take those that lie on it
    cells: CellsConfig = field(default_factory=CellsConfig)

    # Patches and the stored slide
    patch_um: float = 64.0  # default side of the H&E patch of a cell
    patch_px: int = 64  # default pixels of that side
    um_per_px: float | None = None  # resolution of the stored slides; None = native (several slides: the coarsest)
    shift_um: tuple[float, float] = (0.0, 0.0)  # added to the positions: x to the right, y downwards
    slide_shifts_um: dict[str, tuple[float, float]] = field(
        default_factory=dict
    )  # slide -> shift instead of `shift_um`
    check_alignment: bool = True  # measure the shift between image and counts; refuse 50 um or more

    # Filters of centre cells; cells that fail stay placed. None: `DEFAULT_FILTERS` of bins, spots or cells
    min_counts: int | None = None  # UMI of a cell
    min_genes: int | None = None  # genes of a cell
    min_cells_per_gene: int = 3  # cells, of those kept, in which a gene has counts
    nucleus_um2: tuple[float, float] = (8.0, 250.0)  # min and max area of the nucleus, where it is known
    min_tissue_fraction: float | None = (
        None  # share of a patch that must be tissue (holes up to 100 um count as tissue)
    )
    keep_border: bool = False  # keep cells whose patch extends beyond the image (filled with white)

    # Cell types: leiden | clusters | markers:NAME | markers:FILE.csv | none | FILE.csv (cell, type) | a column
    types: str = "leiden"
    resolution: float = 1.0  # of Leiden: higher gives more clusters
    marker_margin: float = 0.3  # min difference of score between the best and the next type

    # Split
    split_block_um: float | None = None  # side of the spatial blocks; None = 500, or 8 patch sides where that is more
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2)  # of train, val, test, before the gap is cut
    holdout_slides: tuple[str, ...] = ()  # these slides become the test set, whole
    holdout_donors: tuple[str, ...] = ()  # all slides of these donors become the test set
    seed: int = 0  # of the split, of Leiden and of rounding

    toy: bool = False  # the tissue is simulated: written into everything that is made from it

    @refuse_wrong_types
    def __post_init__(self) -> None:
        problems = Problems()
        for name in ("patch_um", "resolution"):
            if not getattr(self, name) > 0:
                problems.add(found=f"{name} = {getattr(self, name)}", expected="a positive number")
        for name in ("bin_um", "image_um_per_px", "um_per_px", "split_block_um"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                problems.add(found=f"{name} = {value}", expected="a positive number")
        if self.stain_transform not in (None, *TRANSFORMS):
            problems.add(found=f"stain_transform = {self.stain_transform!r}", expected=" | ".join(TRANSFORMS))
        if self.positions not in POSITIONS:
            problems.add(found=f"positions = {self.positions!r}", expected=" | ".join(POSITIONS))
        if not 4 <= self.patch_px <= 4096:
            problems.add(found=f"patch_px = {self.patch_px}", expected="4 to 4096")
        for name in ("min_counts", "min_genes", "min_cells_per_gene", "marker_margin"):
            if (getattr(self, name) or 0) < 0:
                problems.add(found=f"{name} = {getattr(self, name)}", expected="0 or more")
        if not 0 <= self.nucleus_um2[0] < self.nucleus_um2[1]:
            problems.add(found=f"nucleus_um2 = {self.nucleus_um2}", expected="min and max, the first smaller")
        if not 0 <= (self.min_tissue_fraction or 0) <= 1:
            problems.add(found=f"min_tissue_fraction = {self.min_tissue_fraction}", expected="0 to 1")
        if len(self.fractions) != 3 or min(self.fractions) < 0 or abs(sum(self.fractions) - 1) > 1e-6:
            problems.add(found=f"fractions {self.fractions}", expected="three shares (train, val, test) that sum to 1")
        elif self.fractions[0] == 0 and (self.types == "leiden" or self.types.startswith("markers:")):
            problems.add(
                found=f"--types {self.types} with a share of 0 of training cells, which types are found among",
                where=f"--fractions {','.join(f'{share:g}' for share in self.fractions)}",
                expected="a share of training cells",
                repair="--types none (a model names the types of cells that it generates from), or a table of types",
            )
        for name in ("holdout_slides", "holdout_donors"):
            value = getattr(self, name)
            if isinstance(value, str):
                problems.add(found=f"{name} = {value!r}", expected="a tuple", repair="a comma after the name")
        if not isinstance(self.cells, CellsConfig):
            problems.add(
                found=f"cells = {self.cells!r}", expected="a CellsConfig", repair="cells=CellsConfig(method=...)"
            )
        problems.raise_if_any()

    def filters_of(self, observation: str) -> CentreFilters:
        """The filters of a section's "bin"s, "spot"s or "cell"s: the values that are set, else the defaults."""
        defaults = DEFAULT_FILTERS[observation]
        given = {name: getattr(self, name) for name in ("min_counts", "min_genes", "min_tissue_fraction")}
        return replace(defaults, **{name: value for name, value in given.items() if value is not None})

    def shift_of(self, slide: str) -> tuple[float, float]:
        """The shift for one slide: its own if it has one."""
        return self.slide_shifts_um.get(slide, self.shift_um)

    @property
    def block_um(self) -> float:
        """Side of the split's blocks. The gap costs a share of about 4 patch sides / block side of what it borders."""
        return self.split_block_um or max(500.0, 8 * self.patch_um)
