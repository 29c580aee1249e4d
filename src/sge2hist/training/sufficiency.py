"""Whether a model was trained long enough to be of use, in words for the log and the model card."""

from __future__ import annotations

from collections.abc import Mapping

USEFUL_SHARE = 0.5
"""Share of a full training from which on its result is useful: small makes 5,000 joint steps of 32 patches in about an hour
on two CPU cores, and images then follow the tissue.
"""

Shortfall = dict[str, dict[str, int]]
"""Stage -> {"steps": taken, "useful": some number from which on it is of use}."""


def undertrained(steps: Mapping[str, float], useful: dict[str, int]) -> Shortfall:
    """The stages with fewer steps than are useful."""
    return {
        stage: {"steps": int(steps[stage]), "useful": least}
        for stage, least in useful.items()
        if stage in steps and steps[stage] < least
    }


def describe(shortfall: Shortfall) -> str:
    """Return a sentence without its end, or "".

    >>> describe({"joint": {"steps": 4, "useful": 5000}})
    'undertrained: 4 of some 5,000 steps (joint)'
    """
    if not shortfall:
        return ""
    parts = [f"{known['steps']:,} of some {known['useful']:,} steps ({stage})" for stage, known in shortfall.items()]
    return f"undertrained: {', '.join(parts)}"
