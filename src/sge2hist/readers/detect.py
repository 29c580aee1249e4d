"""Recognises the format of an instrument folder or file by the names of its files, without reading counts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sge2hist.data.errors import InputError
from sge2hist.readers.deposits import deposit_error
from sge2hist.readers.nanostring.flat_files import COUNTS, flat_files
from sge2hist.readers.stomics.gef_files import find_gefs
from sge2hist.readers.tenx.visium_folder import has_positions

FORMATS = {
    "visium_hd": "Visium HD, binned outputs (Space Ranger 3 or later)",
    "visium_hd_segmented": "Visium HD, segmented cells (Space Ranger 4 or later)",
    "xenium": "Xenium (Xenium Onboard Analysis)",
    "cosmx": "CosMx (flat files of AtoMx)",
    "merscope": "MERSCOPE (Vizgen)",
    "stereoseq": "Stereo-seq (.gef of SAW)",
    "visium": "Visium v1 or v2 (Space Ranger)",
    "legacy_st": "legacy Spatial Transcriptomics (counts and spot selection as tsv)",
    "anndata": "AnnData (.h5ad) with an image",
    "spatialdata": "SpatialData store (.zarr)",
    "published_pickle": "pickle of the published method's code",
}


@dataclass(frozen=True, kw_only=True)
class Detected:
    """The format of a path."""

    format: str  # a key of FORMATS
    description: str  # for people


def detect_format(path: str | Path) -> Detected:
    """Recognise a path.

    Raises
    ------
    InputError
        If it does not exist, is still packed, or is nothing known.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(found="no such file or folder", where=str(path))
    found = _file_format(path) if path.is_file() else _folder_format(path)
    if found is None:
        raise _unknown(path)
    return Detected(format=found, description=FORMATS[found])


def _file_format(path: Path) -> str | None:
    name = path.name.lower()
    if name.endswith(".h5ad"):
        return "anndata"
    if name.endswith(".gef"):
        return "stereoseq"
    if name.endswith((".pkl", ".pickle", ".p")):
        return "published_pickle"
    return None


def _folder_format(path: Path) -> str | None:
    if _has(path, "experiment.xenium") or _has(path / "outs", "experiment.xenium"):
        return "xenium"
    if _is_spatialdata(path):
        return "spatialdata"
    if _has(path, "cell_by_gene.csv") or _has(path, "cell_by_gene.csv.gz"):
        return "merscope"
    if flat_files(path, COUNTS):
        return "cosmx"
    if find_gefs(path):
        return "stereoseq"
    for folder in (path, path / "outs"):
        if not folder.is_dir():
            continue
        _refuse_aggr(folder)
        if folder.name.startswith("square_") or any(folder.glob("square_*um")) or _has(folder, "binned_outputs"):
            return "visium_hd"
        if folder.name == "segmented_outputs" or _has(folder, "segmented_outputs"):
            return "visium_hd_segmented"
        if has_positions(folder.parent if folder.name == "spatial" else folder):
            return "visium"
    if any(path.rglob("*_selection.tsv")):
        return "legacy_st"
    return None


def _refuse_aggr(folder: Path) -> None:
    """Raise `InputError` for the output of `spaceranger aggr`: several sections in one table."""
    tables = [
        found for place in (folder, folder / "spatial") for found in sorted(place.glob("*aggr_tissue_positions.csv"))
    ]
    listed = folder / "aggregation.csv"
    if not tables and not listed.is_file():
        return
    names: list[str] = []
    if listed.is_file():
        lines = [line.split(",") for line in listed.read_text(encoding="utf-8", errors="replace").splitlines() if line]
        names = [line[0] for line in lines[1:]]
    raise InputError(
        found="the output of `spaceranger aggr`: several sections in one table"
        + (f" ({', '.join(names[:8])})" if names else ""),
        where=str(folder),
        expected="the outs/ folder of one run",
        repair="give the outs/ folder of each run together, each with its image: sge2hist prepare A/outs B/outs "
        "--image A.tif --image B.tif -o X.paired",
    )


def _has(folder: Path, name: str) -> bool:
    """`folder/name` or, as in public downloads, `folder/<ID>_name`."""
    return folder.is_dir() and ((folder / name).exists() or any(folder.glob(f"*_{name}")))


def _is_spatialdata(path: Path) -> bool:
    return any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zattrs", ".zmetadata"))


def _readable_folders(path: Path) -> list[Path]:
    """Folders in `path` that have a format: several runs in one folder."""
    if not path.is_dir():
        return []
    children = [child for child in sorted(path.iterdir())[:200] if child.is_dir()]
    return [child for child in children if _is_readable(child)]


def _is_readable(folder: Path) -> bool:
    try:
        return _folder_format(folder) is not None
    except InputError:
        return False


def _unknown(path: Path) -> InputError:
    if path.suffix == ".paired":
        return InputError(
            found="a paired dataset, which is prepared already",
            where=str(path),
            expected="the folder or file that it was made from",
            repair=f"sge2hist train {path} -o X.model",
        )
    below = _readable_folders(path)
    if below:
        return InputError(
            found=f"{len(below)} folders that can be read ({', '.join(child.name for child in below[:8])}), not a run",
            where=str(path),
            expected="the folder of one run, or several of them",
            repair=f"give the folders themselves, each with its image: sge2hist prepare {below[0]} --image HE.tif -o X.paired",
        )
    if (error := deposit_error(path)) is not None:
        return error
    inside = ", ".join(sorted(child.name for child in path.iterdir())[:8]) if path.is_dir() else path.name
    return InputError(
        found=f"no format that is known ({inside or 'an empty folder'})",
        where=str(path),
        expected="; ".join(FORMATS.values()),
        repair=f"give the folder that the instrument's software wrote, or --format ({', '.join(FORMATS)})",
    )
