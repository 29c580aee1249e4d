"""Where the files of a Visium run are: in Space Ranger's ``outs/``, or flat and gzipped as public archives keep them.

::

    outs/                                     public downloads prefix the top-level files with <ID>_
     {filtered,raw}_feature_bc_matrix.h5      or a folder of that name with barcodes, features and matrix
     spatial/{tissue_positions.csv, scalefactors_json.json, tissue_hires_image.png, tissue_lowres_image.png}

    GSE1/                                     GEO: one folder, often of several samples
     GSM1_S1_filtered_feature_bc_matrix.h5    or GSM1_S1_{barcodes.tsv,features.tsv,matrix.mtx}.gz (genes.tsv of old)
     GSM1_S1_tissue_positions_list.csv.gz     also GSM1_S1_spatial_tissue_positions_list.csv.gz
     GSM1_S1_scalefactors_json.json.gz, GSM1_S1_tissue_hires_image.png.gz

Files belong together by what stands before these names: "GSM1_S1" is the sample. A name without a prefix belongs to the one
sample of the folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sge2hist.data.errors import InputError

PICTURES = ("tissue_hires_image.png", "tissue_lowres_image.png", "cytassist_image.tiff")
TRIPLET = ("barcodes.tsv", "features.tsv", "matrix.mtx")
_ROLES = {
    "positions": r"tissue_positions(?:_list)?\.csv(?:\.gz)?",
    "scale factors": r"scalefactors_json\.json(?:\.gz)?",
    "h5": r"feature_bc_matrix\.h5",
    "barcodes.tsv": r"barcodes\.tsv(?:\.gz)?",
    "features.tsv": r"(?:features|genes)\.tsv(?:\.gz)?",
    "matrix.mtx": r"matrix\.mtx(?:\.gz)?",
    **{name: re.escape(name) + r"(?:\.gz)?" for name in PICTURES},
}
_NAME = {role: re.compile(rf"^(?:(?P<prefix>.*)[_.-])?(?P<name>{pattern})$") for role, pattern in _ROLES.items()}
_INNER = re.compile(r"(?:^|[_.-])(spatial|filtered_feature_bc_matrix|raw_feature_bc_matrix|filtered|raw)$")
_FOLDERS = re.compile(r"^(?:.*[_.-])?(?:spatial|(?:filtered|raw)_feature_bc_matrix)$")


@dataclass(frozen=True, kw_only=True)
class VisiumFiles:
    """The files of one run."""

    folder: Path  # with analysis/, where it is there
    sample: str | None  # chosen among several; None: the only one
    positions: Path
    counts: tuple[Path, ...]  # the .h5, or barcodes, features and matrix
    filtered: bool  # whether the counts are known to be those of the tissue alone
    scale_factors: Path | None
    pictures: dict[str, Path]
    notes: list[str]


@dataclass(frozen=True, kw_only=True)
class _Found:
    role: str
    sample: str
    filtering: str  # "filtered" | "raw" | ""
    path: Path


def has_positions(folder: Path) -> bool:
    """Whether a folder holds the positions of a Visium run, in `spatial/` or flat."""
    return any(found.role == "positions" for found in _files_in(folder))


def find_visium(path: str | Path, sample: str | None = None) -> VisiumFiles:
    """Find the files of one run in `path`, `path/outs`, or the folder above `path` where that is `spatial`.

    Parameters
    ----------
    sample
        Which one of several samples in the folder: its whole prefix, or the start of one alone ("GSM1").

    Raises
    ------
    InputError
        If positions or counts are missing, or files of several samples compete and `sample` names none of them.
    """
    path = Path(path)
    for folder in (path.parent if path.name == "spatial" else path, path / "outs"):
        files = list(_files_in(folder))
        if any(found.role == "positions" for found in files):
            return _choose(folder, files, sample)
    raise InputError(
        found="no spatial/tissue_positions.csv or tissue_positions_list.csv",
        where=str(path),
        expected="Space Ranger's outs/ folder of a Visium run, or its files in one folder, also with a prefix and as .gz",
    )


def samples_with_positions(path: str | Path) -> list[str | None]:
    """What `find_visium` can be asked for: the samples of a folder of several, [None] for a folder of one."""
    path = Path(path)
    for folder in (path.parent if path.name == "spatial" else path, path / "outs"):
        placed = sorted({found.sample for found in _files_in(folder) if found.role == "positions"})
        if placed:
            return [name for name in placed if name] if len(placed) > 1 else [None]
    return [None]


def _files_in(folder: Path) -> Iterator[_Found]:
    """Files of known names in the folder, `spatial/` first, and in the folders of counts."""
    if not folder.is_dir():
        return
    children = sorted(folder.iterdir())
    inner = [child for child in children if child.is_dir() and _FOLDERS.match(child.name)]
    for place in [*inner, folder]:
        outer = place.name if place in inner else ""
        for child in sorted(place.iterdir()) if place in inner else children:
            for role, pattern in _NAME.items():
                match = pattern.match(child.name)
                if match and child.is_file():
                    sample, filtering = _split(match["prefix"] or "")
                    outer_sample, outer_filtering = _split(outer)
                    found = _Found(
                        role=role,
                        sample=sample or outer_sample,
                        filtering=filtering or outer_filtering,
                        path=child,
                    )
                    if found.sample.split("_")[-1] != "aggr":  # aggr_tissue_positions.csv: several runs in one table
                        yield found


def _split(prefix: str) -> tuple[str, str]:
    """Sample and filtering of a prefix: ("GSM1", "raw") of "GSM1_raw_feature_bc_matrix"."""
    filtering = ""
    while match := _INNER.search(prefix):
        filtering = match[1].split("_")[0] if match[1] != "spatial" else filtering
        prefix = prefix[: match.start()]
    return prefix, filtering


def _choose(folder: Path, files: list[_Found], sample: str | None) -> VisiumFiles:
    named = sorted({found.sample for found in files if found.sample})
    notes: list[str] = []
    if len(named) <= 1:
        if sample is not None and not (named and named[0].startswith(sample)):
            raise _no_such_sample(folder, named, sample)
        own, chosen = files, None
    elif sample is not None:
        chosen = _sample_called(folder, files, sample)
        own = [found for found in files if found.sample == chosen]
    else:
        own, notes = _only_sample_with_positions(folder, files, named)
        chosen = next((found.sample for found in own if found.sample), None)
    counts, filtered = _counts(folder, own)
    return VisiumFiles(
        folder=folder,
        sample=chosen,
        positions=_best(own, "positions"),
        counts=counts,
        filtered=filtered,
        scale_factors=_best(own, "scale factors") if _has(own, "scale factors") else None,
        pictures={name: _best(own, name) for name in PICTURES if _has(own, name)},
        notes=notes,
    )


def _sample_called(folder: Path, files: list[_Found], sample: str) -> str:
    placed = sorted({found.sample for found in files if found.role == "positions"})
    fitting = [name for name in placed if name == sample] or [name for name in placed if name.startswith(sample)]
    if len(fitting) != 1:
        raise _no_such_sample(folder, placed, sample)
    return fitting[0]


def _only_sample_with_positions(folder: Path, files: list[_Found], named: list[str]) -> tuple[list[_Found], list[str]]:
    """Files of the only one of several samples that has positions, and notes; samples of dissociated cells have none."""
    placed = sorted({found.sample for found in files if found.role == "positions"})
    if len(placed) > 1:
        listed = ", ".join(name or "one without a prefix" for name in placed[:12])
        raise InputError(
            found=f"{len(placed)} samples in one folder ({listed})",
            where=str(folder),
            expected="one section",
            repair=f"--section {next(name for name in placed if name)} takes one; to take several, put the files of each "
            "into a folder of its own and give the folders together",
        )
    counted = sorted({found.sample for found in files if found.role in ("h5", "matrix.mtx")})
    if not placed[0] or placed[0] not in counted:
        others = ", ".join(name or "a file without a prefix" for name in counted[:12]) or "none"
        raise InputError(
            found=f"positions of {placed[0] or 'a file without a prefix'}, but counts of {others}",
            where=str(folder),
            expected="one prefix for all files of a sample",
            repair="use the files of one sample; if these belong together, rename them to begin alike",
        )
    ignored = ", ".join([name for name in named if name != placed[0]][:5])
    own = [found for found in files if found.sample in ("", placed[0])]
    return own, [f"files of {ignored} ignored: they have no positions"]


def _no_such_sample(folder: Path, samples: list[str], sample: str) -> InputError:
    return InputError(
        found=f"--section {sample}",
        where=str(folder),
        expected=f"one of {', '.join(name for name in samples if name)}"
        if samples
        else "no --section: the folder has one",
    )


def _has(files: list[_Found], role: str) -> bool:
    return any(found.role == role for found in files)


def _best(files: list[_Found], role: str) -> Path:
    """Of several the one without a prefix, in the newer naming, not packed."""
    own = [found for found in files if found.role == role]
    return min(own, key=lambda found: (found.sample, "_list" in found.path.name, found.path.suffix == ".gz")).path


def _counts(folder: Path, files: list[_Found]) -> tuple[tuple[Path, ...], bool]:
    """The matrix, the filtered one first and .h5 before text; whether it is known to be filtered."""
    for filtering in ("filtered", "", "raw"):
        own = [found for found in files if found.filtering == filtering]
        if _has(own, "h5"):
            return (_best(own, "h5"),), filtering == "filtered"
    for filtering in ("filtered", "", "raw"):
        own = [found for found in files if found.filtering == filtering]
        there = [role for role in TRIPLET if _has(own, role)]
        if len(there) == len(TRIPLET):
            return tuple(_best(own, role) for role in TRIPLET), filtering == "filtered"
        if "matrix.mtx" in there:
            raise InputError(
                found=f"{_best(own, 'matrix.mtx').name} without {', '.join(r for r in TRIPLET if r not in there)}",
                where=str(folder),
                expected="barcodes.tsv, features.tsv and matrix.mtx of one sample, with the same prefix",
                repair="copy the missing file, or rename it to begin like the matrix",
            )
    raise InputError(
        found="no counts" + _other_matrices(folder),
        where=str(folder),
        expected="filtered_feature_bc_matrix.h5, or barcodes.tsv, features.tsv and matrix.mtx (also with a prefix, also .gz)",
        repair="copy them from Space Ranger's outs/, and unpack .h5.gz and .tar.gz",
    )


def _other_matrices(folder: Path) -> str:
    others = [
        child.name for child in sorted(folder.iterdir()) if re.search(r"\.h5(\.gz)?$|\.tar(\.gz)?$|matri", child.name)
    ]
    return f" of a known name ({', '.join(others[:5])})" if others else ""
