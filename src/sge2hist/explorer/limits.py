"""What a client may ask for."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Limits:
    """Largest numbers of a request; `GET api/info` shows them."""

    cells: int = 20_000
    region_um: float = 512.0
    edits: int = 200
    samples: int = 16
    doses: int = 16
    dose_max: float = 4.0
    counts_max: int = 100_000
    added_cells: int = 2_000
    polygon_points: int = 2_000
    cells_named: int = 2_000
    steps: int = 64
    guidance: tuple[float, float] = (0.0, 10.0)
    body_bytes: int = 1_000_000
    sessions: int = 16
    history: int = 200
    running: int = 8  # images under way or waiting
    far_um: float = 1e6

    def as_dict(self) -> dict[str, Any]:
        """The limits in types that JSON knows."""
        return asdict(self)


LIMITS = Limits()
