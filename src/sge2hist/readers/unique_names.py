"""Names that repeat, made distinct."""

from __future__ import annotations


def unique_names(names: list[str]) -> list[str]:
    """Repeated names get the suffix -1, -2, ... that leaves every name distinct.

    >>> unique_names(["a", "b", "a", "a-1"])
    ['a', 'b', 'a-2', 'a-1']
    """
    taken, seen, out = set(names), set(), []
    for name in names:
        new, number = name, 0
        while new in seen or (number > 0 and new in taken):
            number += 1
            new = f"{name}-{number}"
        seen.add(new)
        out.append(new)
    return out
