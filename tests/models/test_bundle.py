"""Model folders: their names, saving in half precision, and configurations of version 0.1."""

from __future__ import annotations

from pathlib import Path

import pytest

from sge2hist.data.errors import InputError
from sge2hist.models import bundle
from sge2hist.models.bundle import ModelBundle


def test_the_name_of_a_folder_is_the_folder(tmp_path):
    assert bundle.model_folder(tmp_path) == tmp_path
    assert bundle.model_folder("./nowhere/x.model") == Path("nowhere/x.model")
    assert not bundle.is_shipped(tmp_path)


def test_a_shipped_model_is_found_by_name_and_another_is_refused_with_the_list(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "SHIPPED", tmp_path)
    with pytest.raises(InputError, match="no model 'toy'"):
        bundle.model_folder("pretrained:toy")
    ModelBundle.load(tiny_model).save(tmp_path / "toy", half=True)
    assert bundle.shipped_models() == ["toy"]
    assert bundle.is_shipped("pretrained:toy")
    assert bundle.model_folder("pretrained:toy") == tmp_path / "toy"
    with pytest.raises(InputError, match="pretrained:toy"):
        bundle.model_folder("pretrained:liver")


def test_half_precision_halves_the_file_and_moves_images_by_rounding(tiny_model, tmp_path):
    from sge2hist.api import SGE2Hist

    whole = SGE2Hist.from_pretrained(tiny_model)
    whole.bundle.save(tmp_path / "half.model", half=True)
    half = SGE2Hist.from_pretrained(tmp_path / "half.model")
    sizes = [(path / "model.safetensors").stat().st_size for path in (tmp_path / "half.model", tiny_model)]
    assert sizes[0] < 0.6 * sizes[1]
    name = whole.types.names[0]
    a, b = (model.generate_from_types(name, n=4, seed=0).astype(int) for model in (whole, half))
    assert abs(a - b).mean() < 3
