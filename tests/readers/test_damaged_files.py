"""More than 200 truncated and bit-flipped files of every format: each is read, or is one InputError; never a crash or a hang.

The cases run in a process of their own, because a library in C could end it.
"""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from fixtures import damage
from fixtures.anndata_image import write_anndata
from fixtures.legacy_st import write_legacy_st
from fixtures.paired import write_tiny_paired
from fixtures.published_pickle import write_published_pickle
from fixtures.tissue import make_tissue
from fixtures.visium import write_visium
from fixtures.visium_hd import write_visium_hd
from fixtures.xenium import write_xenium
from sge2hist.data.slides.slide_writer import write_slide
from sge2hist.pairing.export_spatialdata import export_spatialdata

N_FLIPS = 8
MUST_FAIL_WHEN_CUT = (".h5", ".h5ad", ".parquet", ".json", ".xenium", ".geojson", ".gz", ".pkl")


def targets(folder: Path) -> list[dict[str, object]]:
    """One entry per file to damage: format, folder, file, and the other arguments of `open_sections`."""
    tissue = make_tissue(width_px=130, height_px=100, n_cells=12)
    hd = write_visium_hd(tissue, folder / "hd", version="4.0.1", bin_um=(8,))
    write_slide(folder / "tiled.ome.tif", tissue.image, tissue.um_per_px, tile_px=64)
    square, cells = hd.outs / "binned_outputs" / "square_008um", hd.outs / "segmented_outputs"
    xenium = write_xenium(tissue, folder / "xenium").folder
    spots = write_visium(folder / "visium")
    write_legacy_st(folder / "st", ("A1",))
    table, image = write_anndata(tissue, folder / "anndata")
    write_published_pickle(tissue, folder / "cells.pkl")
    store = export_spatialdata(write_tiny_paired(folder / "tiny.paired", side=8), folder / "tiny.zarr")
    bins, he = {"image": str(folder / "tiled.ome.tif"), "bin_um": 8}, {"image": str(hd.image)}
    listed: list[tuple[str, Path, list[Path], dict[str, object]]] = [
        ("visium_hd", hd.outs, [square / "filtered_feature_bc_matrix.h5", folder / "tiled.ome.tif"], bins),
        ("visium_hd", hd.outs, [square / "spatial" / "tissue_positions.parquet"], bins),
        ("visium_hd", hd.outs, [square / "spatial" / "scalefactors_json.json"], bins),
        ("visium_hd_segmented", hd.outs, [cells / "cell_segmentations.geojson", hd.image], he),
        ("xenium", xenium, [xenium / "cells.parquet", xenium / "experiment.xenium"], {}),
        ("xenium", xenium, [xenium / "fixture_he_imagealignment.csv", xenium / "fixture_he_image.ome.tif"], {}),
        ("visium", spots.outs, [spots.outs / "spatial" / "tissue_positions.csv"], {"image": str(spots.image)}),
        (
            "legacy_st",
            folder / "st",
            [folder / "st" / name for name in ("A1.tsv.gz", "A1_selection.tsv", "A1.jpg")],
            {},
        ),
        ("anndata", table, [table], {"image": str(image), "um_per_px": 0.5}),
        ("published_pickle", folder / "cells.pkl", [folder / "cells.pkl"], {"um_per_px": 0.5}),
        ("spatialdata", store, [store / "shapes" / "s1_cells" / "shapes.parquet"], {}),
        ("spatialdata", store, [store / "images" / "s1_full_image" / "zarr.json"], {}),
        ("spatialdata", store, [store / "tables" / "table" / "X" / "data" / "c" / "0"], {}),
    ]
    return [
        {"format": name, "folder": str(place), "target": str(file), "arguments": arguments}
        for name, place, files, arguments in listed
        for file in files
    ]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str, str]]:
    folder = tmp_path_factory.mktemp("damage")
    (folder / "targets.json").write_text(json.dumps(targets(folder)))
    command = [sys.executable, damage.__file__, str(folder / "targets.json"), str(N_FLIPS), "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [tuple(line.split("\t", 2)) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"the process died after {lines[-1:]}: {done.stderr[-2000:]}"
    return lines  # type: ignore[return-value]


def test_every_case_is_read_or_is_one_clear_error(outcomes: list[tuple[str, str, str]]) -> None:
    assert len(outcomes) >= 200
    bad = [line for line in outcomes if line[2] != "read" and not line[2].startswith("InputError: ")]
    assert not bad, bad[0]
    assert Counter(line[2].split(":")[0] for line in outcomes)["InputError"] > len(outcomes) / 2


def test_a_file_that_was_cut_is_never_taken_for_whole(outcomes: list[tuple[str, str, str]]) -> None:
    cut = [line for line in outcomes if line[1].startswith("truncated") and line[0].endswith(MUST_FAIL_WHEN_CUT)]
    assert len(cut) >= 50
    assert [line for line in cut if line[2] == "read"] == []


def test_errors_name_the_file_or_its_store(outcomes: list[tuple[str, str, str]]) -> None:
    cut = [line for line in outcomes if line[1].startswith("truncated") and line[2].startswith("InputError")]
    anonymous = [line for line in cut if line[0] not in line[2] and ".zarr" not in line[2]]
    assert [line for line in anonymous if line[0] not in ("tissue_positions.csv", "A1_selection.tsv")] == []
