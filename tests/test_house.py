"""Rules of the house: imports go one way, files stay small, the package speaks of itself alone."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "sge2hist"
MAY_IMPORT = {
    "data": {"data"},
    "readers": {"data", "readers"},
    "pairing": {"data", "readers", "pairing"},
    "models": {"data", "models"},
    "training": {"data", "models", "training"},
    "generation": {"data", "models", "generation"},
    "evaluation": {"data", "evaluation"},
    "pretrained": set(),  # weights, no code
    "viewer": {"data", "viewer"},
    "toy": {"data", "toy"},
}
"""What each folder may import; the command line (cli) and the notebook object (api) stand on all of them."""
KNOWS_FILES = {"bundle.py", "locate.py", "upsampler_folder.py"}
"""Files of models/ that may import data/: the rest knows no file and no gene name."""


def _imports(path: Path) -> set[str]:
    """Folders of the package that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] + [f"{node.module}.{alias.name}" for alias in node.names if node.module == "sge2hist"]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("sge2hist.")}
    return found & {*MAY_IMPORT, "cli", "api"}


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_a_folder_imports_only_what_it_stands_on(folder):
    for path in (PACKAGE / folder).rglob("*.py"):
        above = _imports(path) - MAY_IMPORT[folder]
        assert not above, f"{path.relative_to(ROOT)} imports {', '.join(sorted(above))}"
        if folder == "models" and path.name not in KNOWS_FILES:
            assert "data" not in _imports(path), f"{path.name} is to know tensors only"


def test_every_folder_has_its_rule():
    folders = {p.name for p in PACKAGE.iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert folders == {*MAY_IMPORT, "cli"}


def test_files_are_small_and_well_named():
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]:
        assert path.read_text().count("\n") <= 320, f"{path.relative_to(ROOT)} is too long: it holds more than one idea"
        assert path.name != "utils.py"


def test_no_pickle_but_the_restricted_reader():
    for path in PACKAGE.rglob("*.py"):
        if path.name != "published_pickle.py":
            assert not re.search(
                r"^\s*(import|from) pickle|torch\.load\((?!.*weights_only=True)", path.read_text(), re.M
            ), path


def test_public_names_exist():
    import sge2hist

    for name in sge2hist.__all__:
        assert getattr(sge2hist, name) is not None
