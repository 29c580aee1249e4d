import pytest

from sge2hist.toy.tissue import ToyTissue, ToyTissueConfig, simulate
from sge2hist.toy.visium_hd_folder import ToyPaths, write_visium_hd


@pytest.fixture(scope="session")
def tiny_tissue() -> ToyTissue:
    return simulate(ToyTissueConfig.tiny(), seed=0)


@pytest.fixture(scope="session")
def tiny_paths(tiny_tissue, tmp_path_factory) -> ToyPaths:
    return write_visium_hd(tiny_tissue, tmp_path_factory.mktemp("toy") / "tiny")
