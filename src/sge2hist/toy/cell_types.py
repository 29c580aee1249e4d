"""The six toy cell types: the appearance and the amount of RNA of each.

The numbers are of the order seen in real H&E sections (nuclei of 25 to 80 um^2, packed at 8 to 20 um), rounded and
spread so that the types are easy to recognise. They describe a toy, not an organ.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class CellType:
    """One toy cell type. Stain amounts are optical densities along the unit stain vectors of `render.py`."""

    name: str
    spacing_um: float  # distance between neighbouring nuclei (on rings: along the ring)
    nucleus_area_um2: float  # mean nuclear area before neighbourhood and cell-to-cell variation
    nucleus_axis_ratio: float  # minor axis / major axis, 1 is round
    nucleus_haematoxylin: float  # optical density of the nucleus
    chromatin_contrast: float  # relative amplitude of the chromatin texture, 0 is smooth
    nucleus_pallor: float  # 0 is evenly dark, towards 1 a pale centre inside a dark border
    nucleolus: float  # extra optical density of a dot in the nucleus, 0 is none
    cytoplasm_eosin: float  # optical density of the cytoplasm or the fibres
    cytoplasm_haematoxylin: float  # blueness of the cytoplasm
    rna_spread_um: float  # standard deviation of the distance from nucleus to transcript
    mean_umi: float  # mean number of transcripts


CELL_TYPES: tuple[CellType, ...] = (
    CellType(
        name="Epithelium",
        spacing_um=13.0,
        nucleus_area_um2=72.0,
        nucleus_axis_ratio=0.84,
        nucleus_haematoxylin=0.62,
        chromatin_contrast=0.16,
        nucleus_pallor=0.45,
        nucleolus=0.45,
        cytoplasm_eosin=0.34,
        cytoplasm_haematoxylin=0.16,
        rna_spread_um=3.4,
        mean_umi=230.0,
    ),
    CellType(
        name="Stroma",
        spacing_um=19.0,
        nucleus_area_um2=36.0,
        nucleus_axis_ratio=0.34,
        nucleus_haematoxylin=0.74,
        chromatin_contrast=0.15,
        nucleus_pallor=0.10,
        nucleolus=0.0,
        cytoplasm_eosin=0.30,
        cytoplasm_haematoxylin=0.02,
        rna_spread_um=5.0,
        mean_umi=120.0,
    ),
    CellType(
        name="Gland",
        spacing_um=8.6,
        nucleus_area_um2=46.0,
        nucleus_axis_ratio=0.58,
        nucleus_haematoxylin=0.80,
        chromatin_contrast=0.12,
        nucleus_pallor=0.15,
        nucleolus=0.0,
        cytoplasm_eosin=0.24,
        cytoplasm_haematoxylin=0.13,
        rna_spread_um=3.2,
        mean_umi=190.0,
    ),
    CellType(
        name="Immune",
        spacing_um=7.8,
        nucleus_area_um2=27.0,
        nucleus_axis_ratio=0.93,
        nucleus_haematoxylin=1.05,
        chromatin_contrast=0.22,
        nucleus_pallor=0.0,
        nucleolus=0.0,
        cytoplasm_eosin=0.13,
        cytoplasm_haematoxylin=0.10,
        rna_spread_um=2.2,
        mean_umi=90.0,
    ),
    CellType(
        name="Muscle",
        spacing_um=16.0,
        nucleus_area_um2=42.0,
        nucleus_axis_ratio=0.24,
        nucleus_haematoxylin=0.66,
        chromatin_contrast=0.10,
        nucleus_pallor=0.10,
        nucleolus=0.0,
        cytoplasm_eosin=0.54,
        cytoplasm_haematoxylin=0.03,
        rna_spread_um=5.0,
        mean_umi=170.0,
    ),
    CellType(
        name="Vessel",
        spacing_um=13.0,
        nucleus_area_um2=28.0,
        nucleus_axis_ratio=0.36,
        nucleus_haematoxylin=0.88,
        chromatin_contrast=0.10,
        nucleus_pallor=0.0,
        nucleolus=0.0,
        cytoplasm_eosin=0.52,
        cytoplasm_haematoxylin=0.04,
        rna_spread_um=3.6,
        mean_umi=130.0,
    ),
)

TYPE_NAMES: tuple[str, ...] = tuple(cell_type.name for cell_type in CELL_TYPES)


def type_index(name: str) -> int:
    """Position of a cell type in `CELL_TYPES`; ValueError if there is none of that name."""
    return TYPE_NAMES.index(name)


def trait(field: str) -> list[float]:
    """One field of every cell type, in the order of `CELL_TYPES`."""
    return [getattr(cell_type, field) for cell_type in CELL_TYPES]
