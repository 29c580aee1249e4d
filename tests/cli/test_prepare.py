import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from fixtures.published_pickle import write_published_pickle
from fixtures.tissue import make_tissue
from fixtures.visium import write_visium
from fixtures.visium_hd import write_visium_hd
from fixtures.xenium import write_xenium
from sge2hist.cli.prepare import prepare
from sge2hist.data.errors import InputError
from sge2hist.data.paired import PairedDataset

SMALL = [
    "--patch-um",
    "12",
    "--patch-px",
    "24",
    "--split-block-um",
    "30",
    "--min-counts",
    "1",
    "--min-genes",
    "1",
    "--min-tissue",
    "0",
    "--no-check-alignment",
]


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    return write_visium_hd(make_tissue(), tmp_path_factory.mktemp("cli"), version="4.0.1")


def run(*arguments: object) -> str:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(prepare)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, InputError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_bins_from_the_command_line(truth, tmp_path: Path) -> None:
    out = tmp_path / "a.paired"
    text = run(truth.outs, "--image", truth.image, "-o", out, "--bin-um", 8, "--types", "clusters", *SMALL)
    data = PairedDataset.open(out)
    assert data.manifest["observation_um"] == 8
    assert data.types == ["Cluster 1", "Cluster 2", "Cluster 3"]
    assert "8 um bins" in text
    assert "0.5 (scale factors: microns_per_pixel); 0.5 (scale factors: bin_size_um / spot_diameter_fullres)" in text
    assert "positions in px of he.tif, x = column, y = row" in text
    assert "alignment.png" in text
    with pytest.raises(InputError, match="--overwrite"):
        run(truth.outs, "--image", truth.image, "-o", out, *SMALL)
    run(truth.outs, "--image", truth.image, "-o", out, "--bin-um", 16, "--types", "none", "--overwrite", *SMALL)
    assert PairedDataset.open(out).manifest["observation_um"] == 16


def assert_same_dataset(left: PairedDataset, right: PairedDataset) -> None:
    """Counts, genes, cells, places, types, split and pixels, bit for bit."""
    rows = np.arange(len(left))
    assert (left.counts(rows) != right.counts(rows)).nnz == 0
    assert left.counts(rows).sum() > 0
    assert (left.genes.ids, left.genes.symbols) == (right.genes.ids, right.genes.symbols)
    pd.testing.assert_frame_equal(left.obs, right.obs, check_exact=True)
    np.testing.assert_array_equal(left.centre_xy_px, right.centre_xy_px)
    assert left.slide_ids == right.slide_ids
    for mine, other in zip(left.slides, right.slides, strict=True):
        np.testing.assert_array_equal(
            mine.read(0, 0, mine.width_px, mine.height_px), other.read(0, 0, mine.width_px, mine.height_px)
        )
    assert left.um_per_px == right.um_per_px


def test_a_deposited_visium_folder_gives_the_same_dataset(tmp_path: Path) -> None:
    """Flat, prefixed, gzipped, barcodes of the positions without "-1": as Space Ranger's own folder, to the last bit."""
    spots = write_visium(tmp_path / "standard")
    flat = tmp_path / "deposited" / "standard"  # the slide has the folder's name
    flat.mkdir(parents=True)
    for name in ("tissue_positions.csv", "scalefactors_json.json", "tissue_hires_image.png"):
        content = (spots.outs / "spatial" / name).read_bytes()
        if name.endswith("csv"):
            content = content.replace(b"-1,", b",")
        (flat / f"GSM1_{name}.gz").write_bytes(gzip.compress(content))
    shutil.copy(spots.outs / "filtered_feature_bc_matrix.h5", flat / "GSM1_filtered_feature_bc_matrix.h5")
    options = ["--patch-um", "100", "--patch-px", "32", "--split-block-um", "200", *SMALL[6:], "--types", "none"]
    text = run(spots.outs, "--image", spots.image, "-o", tmp_path / "a.paired", *options)
    assert "spots" in text
    run(flat, "--image", spots.image, "-o", tmp_path / "b.paired", *options)
    standard, deposited = (PairedDataset.open(tmp_path / name) for name in ("a.paired", "b.paired"))
    assert len(standard) > 10
    order = [spots.barcodes.index(str(name).split(":")[-1]) for name in standard.obs.index]
    assert (standard.counts(np.arange(len(standard))).toarray() == spots.tissue.counts_NG[order]).all()
    assert_same_dataset(standard, deposited)


def test_outlines_of_qupath_from_the_command_line(truth, tmp_path: Path) -> None:
    """The cells are sums of the truth's 2 um bins; a region of interest and a line are ignored with their number."""
    outlines = json.loads((truth.outs / "segmented_outputs" / "cell_segmentations.geojson").read_text())["features"]
    area = [[0, 0], [9999, 0], [9999, 9999], [0, 9999], [0, 0]]
    others = [
        ({"type": "Polygon", "coordinates": [area]}, {"objectType": "annotation", "name": "ROI"}),
        ({"type": "LineString", "coordinates": [[0, 0], [5, 5]]}, {"objectType": "annotation"}),
    ]
    features = [{"type": "Feature", "id": f"o{i}", "geometry": g, "properties": p} for i, (g, p) in enumerate(others)]
    features += [
        {"type": "Feature", "id": f"uuid-{one['properties']['cell_id']}", "geometry": one["geometry"]}
        | {"properties": {"objectType": "detection", "name": "same name"}}
        for one in outlines
    ]
    (tmp_path / "q.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    out = tmp_path / "a.paired"
    options = ["--labels", tmp_path / "q.geojson", "--positions", "px", "--types", "none", *SMALL]
    text = run(truth.outs, "--image", truth.image, "-o", out, *options)
    data = PairedDataset.open(out)
    numbers = [int(str(name).split("uuid-")[-1]) for name in data.obs.index]
    bins = truth.counts_BG.toarray()
    expected = np.stack([bins[truth.cell_RC.ravel() == number].sum(0) for number in numbers])
    assert len(numbers) > 20
    np.testing.assert_array_equal(data.counts(np.arange(len(data))).toarray(), expected)
    assert "ignored" in text


def test_cells_are_the_default_where_space_ranger_made_them(truth, tmp_path: Path) -> None:
    out = tmp_path / "a.paired"
    run(truth.outs, "--image", truth.image, "-o", out, "--types", "none", *SMALL)
    data = PairedDataset.open(out)
    assert data.manifest["observation"] == "cell"
    assert {"n_bins", "area_um2"} <= set(data.obs.columns)


def test_two_slides_and_holdout(truth, tmp_path: Path) -> None:
    second = write_visium_hd(make_tissue(seed=3), tmp_path / "second", bin_um=(8,))
    out = tmp_path / "a.paired"
    run(
        truth.outs,
        second.outs,
        "--image",
        truth.image,
        "--image",
        second.image,
        "-o",
        out,
        "--bin-um",
        8,
        "--types",
        "clusters",
        "--holdout-slide",
        "second",
        "--fractions",
        "0.6,0.2,0.2",
        *SMALL,
    )
    data = PairedDataset.open(out)
    assert set(data.obs["slide"].iloc[data.rows("test")]) == {"second"}


def test_slides_of_one_name_and_a_shift_for_one_of_them(tmp_path: Path) -> None:
    runs = [write_xenium(make_tissue(seed=seed), tmp_path / f"run{seed}").folder for seed in (0, 1)]
    out = tmp_path / "a.paired"
    text = run(*runs, "-o", out, "--types", "none", "--shift-um", "region_1_2=3,-2", *SMALL)
    assert "is called region_1_2 here" in text
    assert "up to alignment.1.png" in text
    data = PairedDataset.open(out)
    assert data.slide_ids == ["region_1", "region_1_2"]
    assert [record["applied_shift_um"] for record in data.manifest["alignment"]] == [[0.0, 0.0], [3.0, -2.0]]


def test_gene_names_of_the_published_pickle(tmp_path: Path) -> None:
    write_published_pickle(make_tissue(), tmp_path / "cells.pkl")
    names = make_tissue().gene_ids
    (tmp_path / "names.csv").write_text("\n".join(["gene_id,symbol", *(f"{name},{name}" for name in names)]) + "\n")
    mine = ["--patch-um", "8", "--patch-px", "16", "--split-block-um", "9", *SMALL[6:]]
    run(
        tmp_path / "cells.pkl",
        "--genes",
        tmp_path / "names.csv",
        "--image-um-per-px",
        0.5,
        "-o",
        tmp_path / "a.paired",
        "--types",
        "none",
        "--keep-border",
        *mine,
    )
    assert PairedDataset.open(tmp_path / "a.paired").genes.ids == names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shift-um", "5"], "--shift-um 5"),
        (["--shift-um", "other=5,5", "--bin-um", "8"], "--shift-um other; expected one of"),
        (["--nucleus-um2", "9,8"], "nucleus_um2"),
        (["--genes", "names.csv"], "--genes with Visium HD"),
        (["--fractions", "0.5,0.5"], "--fractions"),
        (["--fractions", "0.5,0.5,0.5"], "sum to 1"),
        (["--bin-um", "5"], "--bin-um 5"),
        (["--format", "nonsense"], "--format nonsense"),
        (["--cells", "nonsense"], "--cells nonsense"),
        (["--types", "nonsense", "--bin-um", "8"], "no column 'nonsense'"),
    ],
)
def test_mistakes_leave_nothing(truth, tmp_path: Path, options, message) -> None:
    with pytest.raises(InputError, match=message):
        run(truth.outs, "--image", truth.image, "-o", tmp_path / "a.paired", *SMALL, *options)
    assert list(tmp_path.iterdir()) == []


def test_images_are_counted(truth, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="2 images for 1 inputs"):
        run(truth.outs, "--image", truth.image, "--image", truth.image, "-o", tmp_path / "a.paired")
    with pytest.raises(InputError, match="--image"):
        run(truth.outs, "-o", tmp_path / "a.paired", "--bin-um", 8)


DAMAGED = [
    "outs/barcode_mappings.parquet",
    "outs/binned_outputs/square_002um/filtered_feature_bc_matrix.h5",
    "outs/binned_outputs/square_002um/spatial/tissue_positions.parquet",
    "outs/binned_outputs/square_002um/spatial/scalefactors_json.json",
    "outs/binned_outputs/square_002um/spatial/tissue_hires_image.png",
    "outs/segmented_outputs/analysis/clustering/gene_expression_graphclust/clusters.csv",
    "he.tif",
]


@pytest.mark.parametrize("name", DAMAGED)
def test_a_file_that_was_cut_is_one_error_and_leaves_nothing(truth, tmp_path: Path, name: str) -> None:
    run_folder = tmp_path / "run"
    shutil.copytree(truth.outs.parent, run_folder)
    content = (run_folder / name).read_bytes()
    (run_folder / name).write_bytes(content[: 2 * len(content) // 3 if not name.endswith("png") else 20])
    with pytest.raises(InputError, match=Path(name).name.replace(".", r"\.")):
        run(
            run_folder / "outs",
            "--image",
            run_folder / "he.tif",
            "-o",
            tmp_path / "a.paired",
            "--types",
            "none",
            *SMALL,
        )
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
