"""The Inception network of FID. Expected features come from torchvision 0.28 with the changes of `pytorch-fid` and the same
seeded weights.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sge2hist.data.errors import InputError
from sge2hist.evaluation.features.extractors import resolve_extractor
from sge2hist.evaluation.features.inception import FEATURES, Inception

AT = [0, 400, 900, 1500, 2040]
EXPECTED = [0.19327128, 0.00319716, 0.0, 0.00016966, 0.0]
MEAN = 0.31154


def seeded(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights that keep the size of activations, in the order of their names; older files have no counters."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for key in sorted(state):
        values = torch.randn(state[key].shape, generator=generator)
        if key.endswith("running_var"):
            found[key] = values.abs() * 0.2 + 0.9
        elif key.endswith(("running_mean", "bias")):
            found[key] = values * 0.1
        elif key.endswith("bn.weight"):
            found[key] = 1 + 0.1 * values
        elif not key.endswith("num_batches_tracked"):
            found[key] = values * (2 / max(1, state[key][0].numel())) ** 0.5
    return found


def test_features_are_those_of_pytorch_fid(tmp_path: Path) -> None:
    path = tmp_path / "inception.pth"
    torch.save(seeded(Inception().state_dict()), path)
    extract = resolve_extractor("Inception", weights=str(path))
    assert "not the published" in extract.note
    found = extract(np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8))
    assert found.shape == (2, FEATURES)
    loose = extract.details["precision"] == "bfloat16"
    np.testing.assert_allclose(found[1, AT], EXPECTED, atol=0.05 if loose else 1e-4)
    assert found.mean() == pytest.approx(MEAN, rel=0.05 if loose else 1e-3)


def test_without_a_file_it_says_where_weights_are() -> None:
    with pytest.raises(InputError, match=r"pt_inception-2015-12-05-6726825d\.pth.*--extractor-weights inception="):
        resolve_extractor("inception")
