"""Sphinx: `sphinx-build -W docs docs/_build/html` builds the documentation without network access."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any

import sge2hist

project = "SGE2Hist"
author = "the SGE2Hist developers"
version = release = sge2hist.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
templates_path: list[str] = []
nitpicky = False
default_role = "code"  # docstrings write names in single backticks

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
suppress_warnings = ["misc.highlighting_failure"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = True
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"SGE2Hist {release}"
html_static_path: list[str] = []
html_show_sphinx = False

FIELD = re.compile(r"^    (?P<name>[a-z]\w*): .*?\s#\s?(?P<help>.+)$", re.MULTILINE)


def document_fields(app: Any, what: str, name: str, item: Any, options: Any, lines: list[str]) -> None:
    """Add the comment beside each field of a dataclass to its documentation: that comment is where its meaning stands."""
    if what != "class" or not dataclasses.is_dataclass(item):
        return
    helps = {match["name"]: match["help"] for match in FIELD.finditer(inspect.getsource(item))}
    documented = {line.split()[1].rstrip(":") for line in lines if line.startswith(":param ")}
    for entry in dataclasses.fields(item):
        if entry.name in helps.keys() - documented:
            text = helps[entry.name].replace("|", r"\|").replace("*", r"\*")
            lines += ["", f":param {entry.name}: {text}"]


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", document_fields)
