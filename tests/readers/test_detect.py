"""Every format is recognised by its folder, in the forms that users have it; everything else is named."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.anndata_image import write_anndata
from fixtures.legacy_st import write_legacy_st
from fixtures.published_pickle import write_published_pickle
from fixtures.tissue import make_tissue
from fixtures.visium import write_visium
from fixtures.visium_hd import write_visium_hd
from fixtures.xenium import write_xenium
from sge2hist.data.errors import InputError
from sge2hist.readers import open_sections
from sge2hist.readers.detect import FORMATS, detect_format

WRITERS: dict[str, Callable[[Path], dict[str, object]]] = {
    "visium_hd": lambda f: {"path": f, "image": write_visium_hd(make_tissue(), f).image},
    "xenium": lambda f: {"path": write_xenium(make_tissue(), f / "x").folder},
    "visium": lambda f: {"path": f, "image": write_visium(f).image},
    "legacy_st": lambda f: {"path": write_legacy_st(f)[0].folder},
    "anndata": lambda f: (
        dict(zip(("path", "image"), write_anndata(make_tissue(), f), strict=True)) | {"um_per_px": 0.5}
    ),
    "published_pickle": lambda f: {"path": _pickle(f), "um_per_px": 0.5},
}


def _pickle(folder: Path) -> Path:
    write_published_pickle(make_tissue(), folder / "cells.pkl")
    return folder / "cells.pkl"


@pytest.mark.parametrize("name", WRITERS)
def test_every_fixture_is_recognised_and_opened(tmp_path: Path, name: str) -> None:
    arguments = WRITERS[name](tmp_path)
    assert detect_format(arguments["path"]).format == name  # type: ignore[arg-type]
    sections = open_sections(**arguments)  # type: ignore[arg-type]
    assert sections
    assert all(section.n_obs > 0 and section.read_counts(None, None).sum() > 0 for section in sections)


def test_segmented_outputs_alone_are_recognised(tmp_path: Path) -> None:
    truth = write_visium_hd(make_tissue(), tmp_path, version="4.0.1")
    assert detect_format(tmp_path).format == "visium_hd"
    (truth.outs / "binned_outputs").rename(tmp_path / "elsewhere")
    assert detect_format(tmp_path).format == "visium_hd_segmented"
    assert open_sections(tmp_path, image=truth.image)[0].observation == "cell"


@pytest.mark.parametrize("part", ["outs", "outs/binned_outputs", "outs/binned_outputs/square_008um"])
def test_any_level_of_a_visium_hd_folder_will_do(tmp_path: Path, part: str) -> None:
    truth = write_visium_hd(make_tissue(), tmp_path)
    assert detect_format(tmp_path / part).format == "visium_hd"
    assert open_sections(tmp_path / part, image=truth.image, bin_um=8)[0].observation_um == 8


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sample_binned_outputs.tar.gz", r"sample_binned_outputs.tar.gz, still packed.*tar -xf"),
        ("notes.txt", r"no format that is known \(notes.txt\).*Xenium"),
        (".keep", "no format that is known"),
    ],
)
def test_other_folders_are_named(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match=message):
        detect_format(tmp_path)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        detect_format(tmp_path / "none")


def test_options_of_other_formats_and_unknown_formats_are_refused(tmp_path: Path) -> None:
    folder = write_xenium(make_tissue(), tmp_path / "x").folder
    with pytest.raises(InputError, match=r"--bin-um with Xenium.*leave it out"):
        open_sections(folder, bin_um=8)
    with pytest.raises(InputError, match=r"--format visum.*visium_hd"):
        open_sections(folder, format="visum")


def test_every_format_has_a_reader_that_opens_it() -> None:
    from sge2hist.readers import _OPTIONS

    assert set(_OPTIONS) == set(FORMATS)
