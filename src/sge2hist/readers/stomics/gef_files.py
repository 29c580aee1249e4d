"""Which files of a Stereo-seq run hold what: expression by bins and by cells, registered images.

```
outs/feature_expression/<SN>.{raw,tissue}.gef, <SN>.gef       bins (SAW 8); cells: <SN>.cellbin.gef, <SN>.adjusted.cellbin.gef
outs/image/<SN>_HE_regist.tif, <SN>_ssDNA_regist.tif, ...     images in px of the chip: 1 px per DNB
02.count/, 04.tissuecut/, 041.cellcut/, 03.register/          the same of SAW 7 and before
```
"""

from __future__ import annotations

import re
from pathlib import Path

PLACES = (".", "outs", "feature_expression", "outs/feature_expression", "02.count", "04.tissuecut", "041.cellcut")
IMAGE_PLACES = (".", "outs", "image", "outs/image", "03.register", "04.tissuecut")
ORDER_OF_CELLS = (".adjusted.cellbin.gef", ".cellbin.gef")
ORDER_OF_BINS = (".tissue.gef", ".tissuecut.gef", ".gef", ".raw.gef")
_REGISTERED = re.compile(r"(?:^|_)(?:fov_)?regist(?:ered)?\.(?:tif|tiff|ome\.tif)$", re.I)
_HE = re.compile(r"(?:^|[_.])H&?E(?:[_.])", re.I)
_NUCLEAR = re.compile(r"(?:^|[_.])(ssDNA|DAPI)(?:[_.])", re.I)


def find_gefs(folder: Path) -> list[Path]:
    """All .gef files of a run; [] where there are none."""
    places = [folder / place for place in PLACES]
    return sorted({path for place in places if place.is_dir() for path in place.glob("*.gef")})


def choose_gef(files: list[Path], order: tuple[str, ...]) -> Path | None:
    """The file whose name has the first of these endings; None without one."""
    for ending in order:
        for path in files:
            is_cells = path.name.endswith(".cellbin.gef")
            if path.name.endswith(ending) and is_cells == (order is ORDER_OF_CELLS):
                if ending == ".gef" and re.search(r"\.(raw|tissue|tissuecut)\.gef$", path.name):
                    continue
                return path
    return None


def find_registered(folder: Path) -> dict[str, Path]:
    """Registered images by stain; the H&E is called "HE"."""
    found: dict[str, Path] = {}
    for place in IMAGE_PLACES:
        for path in sorted((folder / place).glob("*")) if (folder / place).is_dir() else []:
            if _REGISTERED.search(path.name):
                found.setdefault(stain_of(path), path)
    return found


def is_registered(path: Path) -> bool:
    """Whether an image is named as SAW names those that are in px of the chip."""
    return _REGISTERED.search(path.name) is not None


def stain_of(path: Path) -> str:
    """Stain by the name of a registered image: "HE", "ssDNA", "DAPI", or the words before `_regist`."""
    if _HE.search(path.name):
        return "HE"
    if match := _NUCLEAR.search(path.name):
        return match[1]
    return _REGISTERED.sub("", path.name)
