"""Settings of an evaluation; the report repeats them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sge2hist.data.errors import Problems, refuse_wrong_types


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Settings of `evaluate`; the defaults suit up to 10,000 images on two CPU cores."""

    extractor: str | tuple[str, ...] = (
        "auto"  # one or several names as of `resolve_extractor`; the first is the main one
    )
    extractor_weights: tuple[str, ...] = ()  # "NAME=FILE": weights of published encoders, in place of those on the hub
    extractor_input_px: int | None = (
        None  # side to which images are resized for the extractor; None = the extractor's own
    )
    jpeg_quality: int | None = None  # JPEG that real and generated images pass through before the extractors
    sensitivity_cells: int = 300  # real patches whose features after small changes are compared; 0 = none
    split: str = "test"  # split of the paired dataset from which the evaluated cells come
    max_cells: int = 10_000  # the largest number of evaluated cells, sampled at random
    max_train: int = 5_000  # real training patches on which classifier and expression head are fitted
    max_val: int = 2_000  # real validation patches on which genes and penalties are chosen
    max_train_for_copies: int = 200_000  # training patches searched for copies
    max_copies_checked: int = 2_000  # evaluated images whose nearest training patch is searched
    max_samples: int = 3  # samples per cell that are scored when a set holds several
    n_bootstrap: int = 200  # resamples for cheap statistics
    n_groups: int = 10  # delete-one groups of the jackknife for Frechet distance and KID
    block_um: float | None = None  # side of the spatial blocks that are resampled; None = twice the patch side
    neighbours: int = 5  # k of precision, recall, density and coverage
    n_genes: int = 2_000  # genes (highest mean in training cells) that the expression head predicts
    min_type: int = 50  # fewest evaluated cells of a type in the table of types
    gallery: int = 8  # cells in each gallery row
    umap: bool = True  # show a UMAP of the features (some ten seconds)
    cache: bool = True  # keep features and thumbnails of real patches in X.paired/cache for the next evaluation
    seed: int = 0  # seed of every random choice

    @refuse_wrong_types
    def __post_init__(self) -> None:
        """Check the ranges."""
        problems = Problems()
        minimum = {
            "max_cells": 20,
            "max_train": 50,
            "max_val": 20,
            "max_train_for_copies": 50,
            "n_bootstrap": 0,
            "n_groups": 2,
            "neighbours": 1,
            "n_genes": 1,
            "min_type": 5,
            "gallery": 1,
            "seed": 0,
            "max_samples": 1,
            "max_copies_checked": 1,
            "extractor_input_px": 1,
            "sensitivity_cells": 0,
        }
        for name, low in minimum.items():
            value = getattr(self, name)
            if value is not None and value < low:
                problems.add(found=f"{name} = {value}", where="EvaluateConfig", expected=f"at least {low}")
        if self.split not in ("train", "val", "test", "all"):
            problems.add(found=f"split {self.split!r}", where="EvaluateConfig", expected="train, val, test or all")
        if self.jpeg_quality is not None and not 1 <= self.jpeg_quality <= 95:
            problems.add(
                found=f"jpeg_quality = {self.jpeg_quality}", where="EvaluateConfig", expected="1 to 95, or None"
            )
        if self.block_um is not None and self.block_um <= 0:
            problems.add(found=f"block_um = {self.block_um}", where="EvaluateConfig", expected="more than 0")
        problems.raise_if_any()

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)
