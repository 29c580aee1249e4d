"""Options of `generate` that do not go together are refused by name, before a model is opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from sge2hist.cli.generate_checks import check_options
from sge2hist.data.errors import InputError

DEFAULTS = {
    "source": Path("a.paired"),
    "types": None,
    "split": "test",
    "n": None,
    "samples": 1,
    "like": None,
    "z2": "type",
    "context": None,
    "shuffle_cells": False,
    "upsampler": None,
    "slide": False,
    "region": None,
    "seeds": 1,
    "edit": None,
    "gene": [],
    "part": None,
    "workers": 1,
    "batch": 64,
    "seed": 0,
}
BY_TYPE = {"source": None, "types": "Podocyte"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n": 0}, "-n 0"),
        ({"samples": 0}, "--samples 0"),
        ({"seed": -1}, "--seed -1"),
        ({"batch": 0}, "--batch 0"),
        ({"slide": True, "shuffle_cells": True}, "--shuffle-cells with --slide"),
        ({"slide": True, "n": 5}, "-n with --slide"),
        ({"slide": True, "types": "Podocyte"}, "--types with --slide"),
        ({"slide": True, "source": None}, "--slide without cells"),
        ({"region": "0,0,1,1"}, "--region without --slide"),
        ({"gene": ["UMOD=0"]}, "--gene without --slide"),
        ({"part": "1/2"}, "--part without --slide"),
        ({"like": "cell"}, "--like with cells of --from"),
        ({"source": None}, "neither --from nor --types"),
        ({"types": "Podocyte"}, "both --from and --types"),
        (BY_TYPE | {"like": "cell"}, "--like without --from"),
        (BY_TYPE | {"types": " , "}, "names of cell types"),
        (BY_TYPE | {"samples": 3}, "--samples with --types"),
        ({"source": Path("cells.h5ad"), "shuffle_cells": True}, "--shuffle-cells with an .h5ad"),
    ],
)
def test_what_would_have_no_effect_is_refused(changed, message):
    with pytest.raises(InputError, match=message):
        check_options(DEFAULTS | changed)


def test_what_goes_together_passes():
    check_options(DEFAULTS | {"n": 5, "shuffle_cells": True, "samples": 2})
    check_options(DEFAULTS | {"slide": True, "region": "0,0,1,1", "gene": ["UMOD=0"], "seeds": 2, "part": "1/2"})
    check_options(DEFAULTS | BY_TYPE | {"n": 4, "z2": "prior", "context": "field"})
    check_options(DEFAULTS | {"types": "Podocyte", "like": "cell"})
