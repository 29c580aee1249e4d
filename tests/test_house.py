"""Rules of the source tree: imports go one way and never in a circle, folders and files stay readable."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "sge2hist"
MAY_IMPORT = {
    "data": {"data"},
    "download": {"data", "download"},
    "readers": {"data", "readers"},
    "pairing": {"data", "readers", "pairing"},
    "models": {"data", "models"},
    "training": {"data", "models", "training"},
    "generation": {"data", "models", "generation"},
    "evaluation": {"data", "evaluation"},
    "quiz": {"data", "evaluation", "quiz"},
    "pretrained": set(),  # weights, no code
    "viewer": {"data", "viewer"},
    "explorer": {"data", "models", "generation", "viewer", "explorer"},
    "toy": {"data", "toy"},
}
"""What each folder may import; the command line (cli) and the notebook object (api) stand on all of them."""
OPENS_FILES = {"bundle.py", "niches.py", "types_csv.py", "upsampler_bundle.py"}
"""Files of models/ that may import data/: the rest knows no file and no gene name."""
ERRORS = "sge2hist.data.errors"
"""The one module of data/ that all of models/ may import: settings of samplers are made by users, who read its errors."""
MAX_FILES = 18
MAX_LINES = 400
PRESET_TABLE = "presets.py"
"""The one file with a table that the formatter leaves aligned."""


def _sources() -> dict[str, Path]:
    """Module name -> file, of the whole package."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = list(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _imported(path: Path, modules: set[str]) -> Iterator[str]:
    """Modules of the package that a file imports, inside functions and for type checkers too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in modules else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def _graph() -> dict[str, set[str]]:
    sources = _sources()
    return {name: set(_imported(path, set(sources))) & (set(sources) - {name}) for name, path in sources.items()}


def _folder(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_a_folder_imports_only_what_it_stands_on(folder):
    known = {*MAY_IMPORT, "cli", "api"}
    for name, imported in _graph().items():
        if _folder(name) != folder:
            continue
        folders = {_folder(module) for module in imported} & known
        assert folders <= MAY_IMPORT[folder], f"{name} imports {', '.join(sorted(folders - MAY_IMPORT[folder]))}"
        if folder == "models" and _sources()[name].name not in OPENS_FILES:
            of_data = {module for module in imported if _folder(module) == "data"}
            assert of_data <= {ERRORS}, f"{name} is to know tensors only"


def test_no_module_imports_itself_through_others():
    graph = _graph()
    state: dict[str, int] = {}

    def visit(module: str, path: list[str]) -> None:
        if state.get(module) == 2:
            return
        assert state.get(module) != 1, f"import circle: {' -> '.join([*path[path.index(module) :], module])}"
        state[module] = 1
        for imported in sorted(graph[module]):
            visit(imported, [*path, module])
        state[module] = 2

    graph["sge2hist"] = set()  # its public names are imported when they are first used
    for module in graph:
        visit(module, [])


def test_every_folder_has_its_rule():
    folders = {p.name for p in PACKAGE.iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert folders == {*MAY_IMPORT, "cli"}


def test_folders_are_small():
    for folder in [PACKAGE, *(p for p in PACKAGE.rglob("*") if p.is_dir())]:
        files = [p.name for p in folder.glob("*.py") if p.name != "__init__.py"]
        assert len(files) <= MAX_FILES, f"{folder.relative_to(ROOT)} holds {len(files)} files"


def test_files_are_readable_and_well_named():
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]:
        text = path.read_text()
        assert text.count("\n") <= MAX_LINES, f"{path.relative_to(ROOT)} is too long: it holds more than one idea"
        assert path.name != "utils.py"
        if path.name not in (PRESET_TABLE, Path(__file__).name):
            assert not re.search(r"#\s*fmt: (skip|off)", text), f"{path.relative_to(ROOT)} is not formatted"


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
