"""The flat files of a CosMx run: one set per slide, <slide><ending>, plain or gzipped, in one folder or several."""

from __future__ import annotations

from pathlib import Path

COUNTS = "_exprMat_file.csv"
CELLS = "_metadata_file.csv"
FOV_POSITIONS = "_fov_positions_file.csv"
POLYGONS = "-polygons.csv"
DEPTH = ("", "*/", "*/*/")  # flatFiles/<slide>/ below the folder given


def flat_files(folder: Path, ending: str) -> dict[str, Path]:
    """Files with this ending by the name of their slide; the plain one where both are there."""
    found: dict[str, Path] = {}
    if not folder.is_dir():
        return found
    for place in DEPTH:
        for packed in ("", ".gz"):
            for path in sorted(folder.glob(f"{place}*{ending}{packed}")):
                if not path.name.startswith("."):
                    found.setdefault(path.name.removesuffix(packed).removesuffix(ending), path)
        if found:
            break
    return found
