import pytest

from sge2hist.data.errors import InputError
from sge2hist.toy.config import ToyTissueConfig


def test_all_fields_out_of_range_are_reported_at_once():
    with pytest.raises(InputError) as error:
        ToyTissueConfig(side_um=10.0, dispersion=float("nan"), n_markers=0)
    for name in ("side_um", "dispersion", "n_markers"):
        assert name in str(error.value)


def test_tiny_has_forty_genes():
    assert ToyTissueConfig.tiny().n_genes == 40
    assert ToyTissueConfig().n_genes == 250
