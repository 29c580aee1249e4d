"""How much of the known truth of the toy is recovered from generated patches.

Every number has two baselines: the same measurement on the real (rendered) patches of the same cells, the best
that can be expected, and on generated patches of other cells, the level of chance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sge2hist.toy.patch_traits import TRAIT_NAMES, PatchTraits, measure_patches, patch_features


@dataclass(frozen=True, kw_only=True)
class TraitRecovery:
    """One trait; Pearson correlations between measurement and truth, nan where undefined."""

    trait: str
    n_cells: int
    n_types: int
    over_cells: float  # generated patch of a cell against the truth at that cell
    over_cells_real: float  # rendered patch against the truth: the limit of the measurement
    over_cells_shuffled: float  # generated patch of another cell against the truth
    over_types: float  # means per type, generated against the truth
    over_types_real: float


@dataclass(frozen=True, kw_only=True)
class TypeRecovery:
    """Type of the centre cell predicted from the patch by a linear discriminant fitted on real patches of other cells."""

    n_cells: int
    n_types: int
    accuracy: float  # balanced over types, on generated patches
    accuracy_real: float  # on the rendered patches of the same cells
    accuracy_shuffled: float  # on generated patches of other cells


@dataclass(frozen=True, kw_only=True)
class RequestedTypeRecovery:
    """Images requested by type name; chance is 1 / n_types."""

    n_images: int
    n_types: int
    accuracy: float  # balanced share of images that are classified as the requested type
    over_types: dict[str, float]  # per trait, correlation of means per type with the truth

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers for a JSON file; None where a number is unknown."""
        return {"toy": True, **_without_nan(asdict(self))}

    def lines(self) -> list[str]:
        """A small table as text."""
        name = f"requested by name ({self.n_types} types, {self.n_images} images)"
        rows = [f"{name:42s} {self.accuracy:10.2f} {'':>8s} {1.0 / self.n_types:9.2f}"]
        return rows + [
            f"{f'  means of {trait} over types':42s} {_number(r, 10)}" for trait, r in self.over_types.items()
        ]


@dataclass(frozen=True, kw_only=True)
class ToyRecovery:
    """Recovery of types and morphology."""

    traits: tuple[TraitRecovery, ...]
    types: TypeRecovery

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers for a JSON file; None where a number is unknown."""
        return {"toy": True, **_without_nan(asdict(self))}

    def lines(self) -> list[str]:
        """A small table as text."""
        types = self.types
        rows = [
            f"{'toy truth recovered from generated patches':42s} {'generated':>10s} {'real':>8s} {'shuffled':>9s}",
            f"{f'cell type ({types.n_types} types, {types.n_cells} cells)':42s} "
            f"{_number(types.accuracy, 10)} {_number(types.accuracy_real, 8)} {_number(types.accuracy_shuffled, 9)}",
        ]
        for trait in self.traits:
            name = f"r({trait.trait}), {trait.n_cells} cells"
            numbers = (trait.over_cells, trait.over_cells_real, trait.over_cells_shuffled)
            rows.append(f"{name:42s} {_number(numbers[0], 10)} {_number(numbers[1], 8)} {_number(numbers[2], 9)}")
            name = f"  its means over {trait.n_types} types"
            rows.append(f"{name:42s} {_number(trait.over_types, 10)} {_number(trait.over_types_real, 8)}")
        return rows


def _number(value: float, width: int) -> str:
    """Two decimals; a dash where too few cells or types of equal size give no number."""
    return f"{value:{width}.2f}" if value == value else f"{'-':>{width}s}"  # nan differs from itself


def recover(
    *,
    generated: np.ndarray,
    real: np.ndarray,
    truth: PatchTraits,
    type_N: np.ndarray,
    training_images: np.ndarray,
    training_types: np.ndarray,
    um_per_px: float,
    seed: int = 0,
) -> ToyRecovery:
    """Compare generated patches with the truth at their cells.

    Parameters
    ----------
    generated, real
        uint8 [n, P, P, 3], the generated and the rendered patch of the same n cells.
    truth
        `true_patches` at the same cells.
    type_N
        True type of each cell, int64 [n]; -1 is excluded from everything that concerns types.
    training_images, training_types
        Rendered patches uint8 [m, P, P, 3] of other (training) cells and their types, for the type classifier.
    um_per_px
        Of all the images.
    """
    shuffle = derangement(len(generated), np.random.default_rng(seed))
    measured, reference = measure_patches(generated, um_per_px), measure_patches(real, um_per_px)
    traits = tuple(_recover_trait(name, measured, reference, truth, type_N, shuffle) for name in TRAIT_NAMES)
    types = _recover_types(generated, real, type_N, training_images, training_types, um_per_px, shuffle)
    return ToyRecovery(traits=traits, types=types)


def recover_requested(
    *,
    generated: np.ndarray,
    requested_type_N: np.ndarray,
    training_images: np.ndarray,
    training_types: np.ndarray,
    training_truth: PatchTraits,
    um_per_px: float,
) -> RequestedTypeRecovery:
    """Evaluate images that were requested by type, without a cell.

    Parameters: `generated` uint8 [n, P, P, 3] with the requested types `requested_type_N` int64 [n]; rendered training patches
    with types and truth as in `recover`, for the classifier and for the mean traits of each type.
    """
    n_types = int(max(requested_type_N.max(), training_types.max())) + 1
    predicted = _fit_type_classifier(training_images, training_types, um_per_px)(generated)
    measured = measure_patches(generated, um_per_px)
    over_types = {
        name: correlation(
            means_by_type(getattr(measured, name), requested_type_N, n_types),
            means_by_type(getattr(training_truth, name), training_types, n_types),
        )
        for name in TRAIT_NAMES
    }
    return RequestedTypeRecovery(
        n_images=len(requested_type_N),
        n_types=len(np.unique(requested_type_N)),
        accuracy=_balanced_accuracy(predicted, requested_type_N),
        over_types=over_types,
    )


def means_by_type(values_N: np.ndarray, type_N: np.ndarray, n_types: int) -> np.ndarray:
    """Mean of the known values of each type, float64 [n_types]; nan for a type without any."""
    usable = np.isfinite(values_N) & (type_N >= 0)
    total = np.bincount(type_N[usable], weights=values_N[usable], minlength=n_types)
    count = np.bincount(type_N[usable], minlength=n_types)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson correlation over the entries known in both; nan for fewer than three or without any variation."""
    both = np.isfinite(a) & np.isfinite(b)
    if both.sum() < 3 or np.ptp(a[both]) == 0 or np.ptp(b[both]) == 0:
        return float("nan")
    return float(np.corrcoef(a[both], b[both])[0, 1])


def derangement(n: int, rng: np.random.Generator) -> np.ndarray:
    """A random permutation of n without fixed points (n > 1): a random cycle."""
    order = rng.permutation(n)
    shuffled = np.empty(n, dtype=np.int64)
    shuffled[order] = np.roll(order, 1)
    return shuffled


def _recover_trait(
    name: str,
    measured: PatchTraits,
    reference: PatchTraits,
    truth: PatchTraits,
    type_N: np.ndarray,
    shuffle: np.ndarray,
) -> TraitRecovery:
    generated, real, true = (getattr(traits, name) for traits in (measured, reference, truth))
    n_types = int(type_N.max(initial=-1)) + 1
    by_type = [means_by_type(values, type_N, n_types) for values in (generated, real, true)]
    return TraitRecovery(
        trait=name,
        n_cells=int((np.isfinite(generated) & np.isfinite(true)).sum()),
        n_types=int(np.isfinite(by_type[2]).sum()),
        over_cells=correlation(generated, true),
        over_cells_real=correlation(real, true),
        over_cells_shuffled=correlation(generated[shuffle], true),
        over_types=correlation(by_type[0], by_type[2]),
        over_types_real=correlation(by_type[1], by_type[2]),
    )


def _recover_types(
    generated: np.ndarray,
    real: np.ndarray,
    type_N: np.ndarray,
    training_images: np.ndarray,
    training_types: np.ndarray,
    um_per_px: float,
    shuffle: np.ndarray,
) -> TypeRecovery:
    predict_type = _fit_type_classifier(training_images, training_types, um_per_px)
    predicted, predicted_real, known = predict_type(generated), predict_type(real), type_N >= 0
    return TypeRecovery(
        n_cells=int(known.sum()),
        n_types=len(np.unique(type_N[known])),
        accuracy=_balanced_accuracy(predicted[known], type_N[known]),
        accuracy_real=_balanced_accuracy(predicted_real[known], type_N[known]),
        accuracy_shuffled=_balanced_accuracy(predicted[shuffle][known], type_N[known]),
    )


def _fit_type_classifier(
    images: np.ndarray, type_N: np.ndarray, um_per_px: float
) -> Callable[[np.ndarray], np.ndarray]:
    """Fit a linear discriminant on real patches; returns a function from images to type indices."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    labelled = type_N >= 0
    n_types = len(np.unique(type_N[labelled]))
    # Equal priors and a shrunk covariance: rare types count as much, and few training patches do not break it.
    classifier = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=np.full(n_types, 1.0 / n_types))
    classifier.fit(patch_features(images[labelled], um_per_px), type_N[labelled])
    return lambda others: classifier.predict(patch_features(others, um_per_px))


def _balanced_accuracy(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Mean over the types that occur of the share of their cells that is predicted correctly."""
    return float(np.mean([(predicted[truth == index] == index).mean() for index in np.unique(truth)]))


def _without_nan(value: Any) -> Any:
    """JSON has no nan: unknown numbers become None, in nested dicts and sequences too."""
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and np.isnan(value) else value
