"""What a report says of the independence of its cells: the same section, another one, another donor."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from sge2hist.evaluation.held_out import held_out

SLIDES, DONORS = ["a", "b", "c"], ["d1", "d1", "d2"]


def level(trained, slides_of_cells, donors=DONORS):
    data = SimpleNamespace(
        fingerprint="f",
        slide_ids=SLIDES,
        donors=donors,
        slide_of_cell=np.array([SLIDES.index(s) for s in slides_of_cells]),
    )
    images = SimpleNamespace(manifest={} if trained is None else {"trained_on": trained})
    return held_out(images, np.arange(len(slides_of_cells)), data)


def trained_on(slides, donors, fingerprint="f"):
    return {"data_fingerprint": fingerprint, "slides": slides, "donors": donors}


@pytest.mark.parametrize(
    ("trained", "cells", "expected"),
    [
        (trained_on(["a"], ["d1"]), "a", "same section"),
        (trained_on(["a"], ["d1"]), "b", "other section"),
        (trained_on(["a"], ["d1"]), "c", "other donor"),
        (trained_on(["a", "b"], ["d1"], fingerprint="g"), "c", "other donor"),  # names of donors hold everywhere
        (trained_on(["a"], ["d1"], fingerprint="g"), "b", "unknown"),  # names of slides do not
        (trained_on(["a"], []), "c", "other section"),
        (trained_on(None, []), "c", "unknown"),
        (None, "c", "unknown"),
        (trained_on(["a"], ["d1"]), "abcc", "same section"),  # the weakest counts
        (trained_on(["a"], ["d1"]), "bcc", "other section"),
    ],
)
def test_level(trained, cells, expected):
    found = level(trained, list(cells))
    assert found["level"] == expected
    assert found["text"].startswith(f"Evaluated on: {expected} (")
    assert sum(found["cells"].values()) == len(cells)


def test_shares_and_missing_donors_are_said():
    assert (
        "cells: 1 same section, 1 other section, 2 other donor"
        in level(trained_on(["a"], ["d1"]), list("abcc"))["text"]
    )
    assert "donors are not stated" in level(trained_on(["a"], []), ["b"], donors=["", "", ""])["text"]
    assert "donors are not stated" not in level(trained_on(["a"], ["d1"]), ["b"])["text"]
