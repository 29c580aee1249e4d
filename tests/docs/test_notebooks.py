"""The notebooks run from top to bottom, and are stored without outputs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def test_there_are_notebooks():
    assert len(NOTEBOOKS) >= 2


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs(path):
    for cell in nbformat.read(path, as_version=4).cells:
        assert not cell.get("outputs"), f"{path.name}: clear all outputs before you commit"
        assert cell.get("execution_count") is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path):
    """In a process of its own: the sockets of the client are not closed in time for a test that turns warnings into errors."""
    environment = os.environ | {
        "MPLBACKEND": "agg",
        "JUPYTER_PREFER_ENV_PATH": "1",  # the kernel of this environment, whatever kernels the user has
        "TMPDIR": str(tmp_path),  # for what the notebook writes
    }
    command = [sys.executable, "-c", "from nbclient.cli import main; main()", "--timeout=300", str(path)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
