"""Files of the page: those of the package, and nothing else of the disk."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import Any

MEDIA = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".txt": "text/plain; charset=utf-8",
    ".json": "application/json",
    ".woff2": "font/woff2",
}
SHARED_ASSETS = ("openseadragon.min.js", "openseadragon.LICENSE.txt")  # of the viewer


def page_files() -> dict[str, tuple[Callable[[], bytes], str]]:
    """Path below the base -> how to read the file, and its media type: the assets of the page, and what the viewer has too."""
    found: dict[str, tuple[Callable[[], bytes], str]] = {}

    def collect(folder: Any, prefix: str) -> None:
        for entry in folder.iterdir():
            if entry.is_dir():
                collect(entry, f"{prefix}{entry.name}/")
            elif (suffix := "." + entry.name.rpartition(".")[2]) in MEDIA:
                found[prefix + entry.name] = (entry.read_bytes, MEDIA[suffix])

    own = files("sge2hist.explorer").joinpath("assets")
    if own.is_dir():
        collect(own, "")
    for name in SHARED_ASSETS:
        entry = files("sge2hist.viewer").joinpath("assets", name)
        found[name] = (entry.read_bytes, MEDIA["." + name.rpartition(".")[2]])
    return found
