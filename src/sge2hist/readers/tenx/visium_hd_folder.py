"""Where things are in a Space Ranger output folder of Visium HD, whatever part of it the user points at.

::

    outs/                          public downloads prefix top-level files with <ID>_
     binned_outputs/               shipped as binned_outputs.tar.gz by public downloads
      square_{002,008,016}um/
       filtered_feature_bc_matrix.h5   raw_feature_bc_matrix.h5
       analysis/clustering/gene_expression_graphclust/clusters.csv     8 um and coarser
       spatial/{scalefactors_json.json, tissue_positions.parquet, tissue_hires_image.png, tissue_lowres_image.png,
                cytassist_image.tiff}
     spatial/                      images only
     segmented_outputs/            Space Ranger >= 4
"""

from __future__ import annotations

import re
from pathlib import Path

from sge2hist.data.errors import InputError

_SQUARE = re.compile(r"^square_(\d{3})um$")


def find_squares(path: str | Path) -> dict[int, Path]:
    """Folders ``square_*um`` by bin side in um, finest first.

    Parameters
    ----------
    path
        ``outs/``, its parent, ``binned_outputs/`` or one ``square_*um/``.

    Raises
    ------
    InputError
        If the folder is missing, still packed, or holds no binned outputs.
    """
    path = Path(path)
    if not path.is_dir():
        raise InputError(found="no such folder", where=str(path), expected="Space Ranger's outs/ folder")
    if _SQUARE.match(path.name):
        return _squares_in(path.parent, only=path.name)
    candidates = [path, *sorted(path.glob("*binned_outputs")), *sorted(path.glob("outs/*binned_outputs"))]
    found = [(folder, squares) for folder in candidates if folder.is_dir() and (squares := _squares_in(folder))]
    if len(found) > 1:
        raise InputError(
            found=f"several binned outputs ({', '.join(folder.name for folder, _ in found)})",
            where=str(path),
            repair="name one of them",
        )
    if not found:
        raise _nothing_here(path)
    return found[0][1]


def _squares_in(folder: Path, only: str | None = None) -> dict[int, Path]:
    squares = {
        int(match.group(1)): child
        for child in folder.iterdir()
        if (match := _SQUARE.match(child.name)) and child.is_dir() and only in (None, child.name)
    }
    return dict(sorted(squares.items()))


def _nothing_here(path: Path) -> InputError:
    packed = [*path.glob("*binned_outputs*.tar*"), *path.glob("outs/*binned_outputs*.tar*")]
    if packed:
        return InputError(
            found=f"{packed[0].name}, still packed",
            where=str(packed[0].parent),
            expected="the folder binned_outputs/",
            repair=f"tar -xf {packed[0]} -C {packed[0].parent}",
        )
    inside = ", ".join(sorted(child.name for child in path.iterdir())[:8]) or "nothing"
    return InputError(
        found=f"no binned_outputs/square_*um ({inside})",
        where=str(path),
        expected="Space Ranger's outs/ folder of a Visium HD run",
        repair="give the folder that holds binned_outputs/",
    )


def find_matrix(square: Path) -> tuple[Path, bool]:
    """The count matrix of a square folder, and whether it is the filtered one."""
    for name, filtered in (("filtered_feature_bc_matrix.h5", True), ("raw_feature_bc_matrix.h5", False)):
        found = one_file(square, name)
        if found is not None:
            return found, filtered
    raise InputError(
        found="no *_feature_bc_matrix.h5",
        where=str(square),
        expected="filtered_feature_bc_matrix.h5",
        repair="copy it from Space Ranger's outs/ (the .h5 file; the mtx folder is not read)",
    )


def one_file(folder: Path, name: str) -> Path | None:
    """`folder/name`, or the only ``<ID>_name`` in it, or None.

    Raises
    ------
    InputError
        If several prefixed files compete.
    """
    if (folder / name).is_file():
        return folder / name
    found = sorted(child for child in folder.glob(f"*_{name}") if child.is_file())
    if len(found) > 1:
        raise InputError(
            found=f"{', '.join(child.name for child in found)}",
            where=str(folder),
            expected=f"one {name}",
            repair="keep one run per folder",
        )
    return found[0] if found else None


def choose_square(squares: dict[int, Path], bin_um: int | None) -> tuple[int, int, Path]:
    """Bin side wanted, how many native bins make its side, and the folder to read.

    The folder of exactly this side is preferred, else the coarsest that divides it. Without a wish: 16 um when it can
    be made, else the finest there is.
    """
    wanted = bin_um if bin_um is not None else (16 if any(16 % side == 0 for side in squares) else min(squares))
    fitting = [side for side in squares if wanted > 0 and wanted % side == 0]
    if not fitting:
        sides = ", ".join(str(side) for side in squares)
        raise InputError(
            found=f"--bin-um {wanted}",
            where=str(next(iter(squares.values())).parent),
            expected=f"a multiple of one of the bin sides that are there ({sides} um)",
            repair=f"--bin-um {min(squares)}",
        )
    side = max(fitting)
    return wanted, wanted // side, squares[side]
