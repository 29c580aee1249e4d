"""What to do with a folder that holds the files of a run, but not as any reader expects them: the exact commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from sge2hist.data.artifacts import read_json
from sge2hist.data.errors import InputError

_ARCHIVE = re.compile(
    r"(?:outputs|outs|spatial|RAW|feature_bc_matrix|visium|spaceranger).*\.(?:tar|tar\.gz|tgz|zip)$", re.I
)
_PACKED = re.compile(
    r"(?:experiment\.xenium|cells\.parquet|cell_feature_matrix\.h5|feature_bc_matrix\.h5|feature_slice\.h5|\.h5ad)\.gz$"
)
_HD_POSITIONS = re.compile(r"^(?P<prefix>.*[_.-])?tissue_positions\.parquet(?P<packed>\.gz)?$")
_COUNTS = re.compile(r"(?:feature_bc_matrix\.h5|matrix\.mtx(?:\.gz)?)$")
_COMMANDS = 6


def deposit_error(path: Path) -> InputError | None:
    """The error for a file or folder of an unknown format whose names show what it is; None where they do not."""
    if path.is_file():
        if _ARCHIVE.search(path.name) or _PACKED.search(path.name):
            return _still_packed([path])
        if _COUNTS.search(path.name):
            return InputError(
                found="counts alone", where=str(path), expected="the folder that they lie in, with the positions"
            )
        return None
    if not path.is_dir():
        return None
    places = [path, *(place for place in (path / "outs", path / "spatial") if place.is_dir())]
    files = [child for place in places for child in sorted(place.iterdir()) if child.is_file()]
    packed = [file for file in files if _ARCHIVE.search(file.name) or _PACKED.search(file.name)]
    if packed:
        return _still_packed(packed)
    positions = [file for file in files if _HD_POSITIONS.match(file.name)]
    if positions:
        return _flat_visium_hd(positions[0], files)
    if any(_COUNTS.search(file.name) for file in files):
        return InputError(
            found="counts without positions of spots",
            where=str(path),
            expected="tissue_positions.csv or tissue_positions_list.csv (also with the prefix of the counts, also .gz)",
            repair="look for it among the other files of the sample or the series (often in *_spatial.tar.gz or *_RAW.tar); "
            "positions in px cannot be found from the barcodes",
        )
    return None


def _still_packed(files: list[Path]) -> InputError:
    commands = [_unpack(file) for file in files[:_COMMANDS]]
    more = f" (and {len(files) - _COMMANDS} more alike)" if len(files) > _COMMANDS else ""
    return InputError(
        found=f"{', '.join(file.name for file in files[:_COMMANDS])}, still packed",
        where=str(files[0].parent),
        expected="the unpacked folder or file",
        repair=" && ".join(commands) + more,
    )


def _unpack(file: Path) -> str:
    """A command that unpacks; `spatial` of one of several samples goes into a folder of the sample's own."""
    name, quoted = file.name, shlex.quote(str(file))
    into = file.parent
    sample = re.match(r"(?P<sample>GSM\d+.*?)[_.-]spatial", name)
    if re.search(r"\.(tar|tar\.gz|tgz|zip)$", name):
        target = shlex.quote(str(into / sample["sample"] if sample else into))
        make = f"mkdir -p {target} && " if sample else ""
        also = f" && mv {shlex.quote(str(into / sample['sample']))}_* {target}" if sample else ""
        return (
            make + (f"unzip {quoted} -d {target}" if name.endswith(".zip") else f"tar -xf {quoted} -C {target}") + also
        )
    return f"gunzip -k {quoted}"


def _flat_visium_hd(positions: Path, files: list[Path]) -> InputError:
    """Bins of Visium HD without the folders that say how large they are."""
    match = _HD_POSITIONS.match(positions.name)
    prefix = (match["prefix"] or "") if match else ""
    factors = [
        file for file in files if file.name in (f"{prefix}scalefactors_json.json", f"{prefix}scalefactors_json.json.gz")
    ]
    stated = read_json(factors[0]).get("bin_size_um") if factors else None
    size = f"{int(stated):03d}" if isinstance(stated, int | float) and 0 < stated < 1000 else "008"
    square = f"RUN/binned_outputs/square_{size}um"
    source = shlex.quote(str(positions.parent / prefix)) if prefix else shlex.quote(f"{positions.parent}/")
    packed = positions.name.endswith(".gz")
    copy = f"for f in tissue_positions.parquet scalefactors_json.json; do gunzip -c {source}$f.gz > {square}/spatial/$f; done"
    plain = f"cp {source}tissue_positions.parquet {source}scalefactors_json.json {square}/spatial/"
    return InputError(
        found=f"{positions.name}: bins of Visium HD without their folders",
        where=str(positions.parent),
        expected=f"{square}/ with filtered_feature_bc_matrix.h5 and spatial/"
        + ("" if stated else " (008: the side of the bins in um, which nothing here states)"),
        repair=f"mkdir -p {square}/spatial && {copy if packed else plain} && cp {source}filtered_feature_bc_matrix.h5 {square}/",
    )
