"""Arguments of the Python interface that make no sense are one clear error."""

from __future__ import annotations

import numpy as np
import pytest

from sge2hist.api import SGE2Hist
from sge2hist.data.errors import InputError


@pytest.fixture(scope="module")
def model(tiny_model) -> SGE2Hist:
    return SGE2Hist.from_pretrained(tiny_model)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rows": [-1]},
        {"rows": [10**7]},
        {"rows": []},
        {"rows": 3},
        {"rows": [[0, 1]]},
        {"rows": ["a"]},
        {"n_samples": 0},
        {"n_samples": 1.5},
        {"seed": -1},
    ],
)
def test_cells_that_are_none(model, tiny_paired, wrong):
    with pytest.raises(InputError):
        model.generate_from_genes(tiny_paired, **wrong)


@pytest.mark.parametrize(
    "wrong", [{"n": 0}, {"n": -1}, {"seed": -1}, {"z2": np.zeros(3)}, {"names": []}, {"names": ["alpha", "Alpha"]}]
)
def test_types_that_are_none(model, wrong):
    with pytest.raises(InputError):
        model.generate_from_types(**({"names": "alpha", "n": 1} | wrong))


def test_a_mask_chooses_cells(model, tiny_paired):
    mask = np.zeros(len(tiny_paired), bool)
    mask[[3, 5]] = True
    assert np.array_equal(
        model.generate_from_genes(tiny_paired, rows=mask), model.generate_from_genes(tiny_paired, rows=[3, 5])
    )
