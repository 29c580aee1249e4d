"""Settings of a reader study."""

from __future__ import annotations

from dataclasses import dataclass

from sge2hist.data.errors import Problems, refuse_wrong_types
from sge2hist.data.paired import SPLITS

MATCHES = ("type", "cell")
MIN_IMAGES = 4
CONFIDENCES = (1, 2, 3, 4, 5)  # from a guess to certain


@dataclass(frozen=True, kw_only=True)
class QuizConfig:
    """Settings of `build_quiz`."""

    n: int = 60  # images shown, half of them real
    split: str = "test"  # split of the shown cells
    match: str = (
        "type"  # the real patches: "type": other cells of the same types; "cell": the generated cells themselves
    )
    seed: int = 0  # of the choice of images and of their order

    @refuse_wrong_types
    def __post_init__(self) -> None:
        """Check the ranges."""
        problems = Problems()
        if self.n < MIN_IMAGES or self.n % 2:
            problems.add(found=f"n = {self.n}", where="QuizConfig", expected=f"an even number, at least {MIN_IMAGES}")
        if self.split not in (*SPLITS, "all"):
            problems.add(found=f"split {self.split!r}", where="QuizConfig", expected="train, val, test or all")
        if self.match not in MATCHES:
            problems.add(found=f"match {self.match!r}", where="QuizConfig", expected=" or ".join(MATCHES))
        if self.seed < 0:
            problems.add(found=f"seed = {self.seed}", where="QuizConfig", expected="0 or more")
        problems.raise_if_any()
