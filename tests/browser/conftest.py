"""The explorer served for the browser: one server for all tests, each in a tab, and so a session, of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.browser.explorer_page import ExplorerPage

REGION_UM = (128.0, 128.0, 256.0, 256.0)


LOUDER = {
    "condition.embed.2.weight": 30.0,
    "condition.conv2.weight": 10.0,
    "cond_proj.weight": 100.0,
    "conv2.weight": 5.0,
    "head.2.weight": 8.0,
}
"""Factors of weights of the image model that training begins near zero, or that pass the condition on."""


@pytest.fixture(scope="session")
def lively_model(tiny_model, tmp_path_factory) -> Path:
    """The tiny model, trained for seconds, with the layers that read its cells made louder: every edit shows in its images."""
    from sge2hist.models.bundle import ModelBundle

    bundle = ModelBundle.load(tiny_model)
    for name, weights in bundle.model.image.named_parameters():
        for ending, factor in LOUDER.items():
            if not name.startswith("autoencoder") and name.endswith(ending):
                weights.data *= factor
    path = tmp_path_factory.mktemp("lively") / "lively.model"
    bundle.save(path)
    return path


@pytest.fixture(scope="session")
def explorer_url(lively_model, tiny_paired, tmp_path_factory) -> Iterator[str]:
    """Address of an explorer of the lively model with a generated slide, that may save lists of edits."""
    pytest.importorskip("starlette", reason="no Starlette: pip install sge2hist[explore]")
    pytest.importorskip("uvicorn", reason="no Uvicorn: pip install sge2hist[explore]")
    import sge2hist

    folder = tmp_path_factory.mktemp("explorer")
    model = sge2hist.SGE2Hist.from_pretrained(lively_model)
    sge2hist.generate_slide(model, tiny_paired, folder / "tiny.generated", region_um=REGION_UM, seed=0)
    (folder / "edits").mkdir()
    explorer = sge2hist.explore(
        lively_model, tiny_paired.path, generated=folder / "tiny.generated", save_to=folder / "edits"
    )
    yield explorer.url
    explorer.close()


@pytest.fixture
def explore(open_page, explorer_url) -> Callable[..., ExplorerPage]:
    """Open the explorer; `link` is what follows # in the address."""

    def opened(link: str = "", **options: object) -> ExplorerPage:
        return ExplorerPage(open_page(f"{explorer_url}#{link}", **options))

    return opened
