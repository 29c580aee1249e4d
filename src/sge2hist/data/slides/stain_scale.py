"""How the light of a stain becomes 8 bits: a range of values for each channel, linear or by the square root.

The number of photons varies with the square root of its mean (Poisson), so that in the square root of the light a step means the
same at any brightness: nuclei and pale tissue get levels of their own, where a linear scale spends most levels on a few bright
pixels (Anscombe 1948, Biometrika 35:246, without his constants: a camera's offset and gain are not known).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LINEAR, SQRT = "linear", "sqrt"
TRANSFORMS = (LINEAR, SQRT)
FULL_RANGE = (0.0, 255.0)


@dataclass(frozen=True, kw_only=True)
class StainScale:
    """Values of a file between `low` and `high` become the levels 0 to 255; what lies beyond is cut."""

    low: float
    high: float
    transform: str = LINEAR

    @property
    def is_identity(self) -> bool:
        """Whether values of 8 bits stay as they are."""
        return (self.low, self.high) == FULL_RANGE and self.transform == LINEAR

    def levels(self, values: np.ndarray) -> np.ndarray:
        """Levels of values, uint8 of the same shape.

        >>> StainScale(low=0, high=80, transform="sqrt").levels(np.array([0, 20, 80, 200])).tolist()
        [0, 128, 255, 255]
        """
        values = values.astype(np.float32)
        if self.transform == SQRT:
            share = ((values - self.low) / (self.high - self.low)).clip(0, 1)
            return (255 * np.sqrt(share) + 0.5).astype(np.uint8)
        return ((values - self.low) * (255 / (self.high - self.low)) + 0.5).clip(0, 255).astype(np.uint8)

    def values(self, levels: np.ndarray) -> np.ndarray:
        """The inverse: values of the file, float32, to half a level.

        >>> StainScale(low=0, high=80, transform="sqrt").values(np.array([0, 128, 255])).round().tolist()
        [0.0, 20.0, 80.0]
        """
        return self.low + (self.high - self.low) * linear_light(levels, self.transform)


def linear_light(levels: np.ndarray, transform: str) -> np.ndarray:
    """Light as a share of the range of its channel, float32 0 to 1, from levels 0 to 255 (of any channels)."""
    share = levels.astype(np.float32) / np.float32(255)
    return share * share if transform == SQRT else share
