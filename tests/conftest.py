"""Fixtures that several folders share: one tiny paired dataset and one tiny model trained on it, per test process."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.browser import chromium, open_page
from tests.fixtures.paired import write_tiny_paired

__all__ = ["chromium", "open_page"]  # fixtures


@pytest.fixture(scope="session")
def tiny_paired(tmp_path_factory):
    return write_tiny_paired(tmp_path_factory.mktemp("shared") / "tiny.paired")


@pytest.fixture(scope="session")
def tiny_model(tiny_paired, tmp_path_factory) -> Path:
    from sge2hist.training.config import TrainConfig
    from sge2hist.training.train import train

    output = tmp_path_factory.mktemp("shared") / "tiny.model"
    config = TrainConfig(preset="tiny", mixed_precision="no")
    train(tiny_paired, output, config, log=lambda _: None)
    return output
