"""Visium runs as public archives keep them: flat, with prefixes, gzipped, as text, with other barcodes."""

import gzip
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from scipy.sparse import coo_array

from fixtures.visium import VisiumTruth, write_visium
from sge2hist.data.errors import InputError
from sge2hist.readers import open_sections
from sge2hist.readers.describe import input_facts
from sge2hist.readers.detect import detect_format
from sge2hist.readers.tenx import visium
from sge2hist.readers.tenx.visium_folder import find_visium

FLAT = (
    "filtered_feature_bc_matrix.h5",
    "spatial/tissue_positions.csv",
    "spatial/scalefactors_json.json",
    "spatial/tissue_hires_image.png",
)


def deposit(
    run: VisiumTruth, folder: Path, sample: str, *, text: bool = False, spatial: str = "", positions: str = ""
) -> None:
    """Copy a run as GEO has it: all files in one folder, `sample` before each name, everything but .h5 gzipped."""
    folder.mkdir(exist_ok=True)
    for name in FLAT:
        source = run.outs / name
        if name.endswith(".h5"):
            if not text:
                shutil.copy(source, folder / f"{sample}_{source.name}")
            continue
        target = positions if positions and "positions" in name else source.name
        (folder / f"{sample}_{spatial}{target}.gz").write_bytes(gzip.compress(source.read_bytes()))
    if text:
        write_triplet(run, folder, f"{sample}_")


def write_triplet(
    run: VisiumTruth, folder: Path, prefix: str, *, transposed: bool = False, barcodes: list[str] | None = None
) -> None:
    """barcodes, features and matrix as Cell Ranger writes them; one feature is no gene."""
    tissue = run.tissue
    features = [f"{i}\t{s}\tGene Expression" for i, s in zip(tissue.gene_ids, tissue.symbols, strict=True)]
    counts = np.column_stack([np.full(len(tissue), 9), tissue.counts_NG])
    scipy.io.mmwrite(folder / "m.mtx", coo_array(counts if transposed else counts.T))
    files = {
        "barcodes.tsv": "\n".join(barcodes or run.barcodes) + "\n",
        "features.tsv": "\n".join(["CD3_TotalSeq\tCD3\tAntibody Capture", *features]) + "\n",
        "matrix.mtx": (folder / "m.mtx").read_text(),
    }
    (folder / "m.mtx").unlink()
    for name, content in files.items():
        (folder / f"{prefix}{name}.gz").write_bytes(gzip.compress(content.encode()))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> VisiumTruth:
    return write_visium(tmp_path_factory.mktemp("run"))


def assert_whole(run: VisiumTruth, folder: Path, **options: str) -> None:
    assert detect_format(folder).format == "visium"
    (section,) = open_sections(folder, image=run.image, **options)
    assert list(section.obs.index) == run.barcodes
    assert section.centre_xy_px == pytest.approx(run.tissue.centre_xy_px, abs=1e-3)
    assert (section.read_counts(None, None).toarray() == run.tissue.counts_NG).all()
    assert list(section.genes.index) == list(run.tissue.gene_ids)
    assert section.um_per_px == pytest.approx(2.0, rel=1e-4)
    assert section.reference is not None
    assert section.reference.size_px == pytest.approx(run.tissue.image.shape[1::-1], rel=0.01)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"text": True},
        {"spatial": "spatial_"},
        {"positions": "tissue_positions_list.csv"},
    ],
)
def test_flat_folders_are_read(tmp_path, run, options):
    deposit(run, tmp_path / "GSE1", "GSM1_V19S23-097_A1", **options)
    assert_whole(run, tmp_path / "GSE1")


def test_antibodies_in_text_files_are_kept_apart(tmp_path, run):
    deposit(run, tmp_path / "GSE1", "GSM1_V19S23-097_A1", text=True)
    (section,) = open_sections(tmp_path / "GSE1", image=run.image)
    assert section.proteins.names == ["CD3"]
    assert section.proteins.unit == "UMI"
    assert section.proteins.read(None, None).tolist() == [[9.0]] * section.n_obs


@pytest.mark.parametrize(
    "names",
    [
        {"filtered_feature_bc_matrix.h5": "GSM1.filtered_feature_bc_matrix.h5"},
        {name: f"GSM1_spatial/{Path(name).name}" for name in FLAT[1:]},
        {name: f"outs/spatial/{Path(name).name}" for name in FLAT[1:]}
        | {FLAT[0]: "outs/GSM1_filtered_feature_bc_matrix.h5"},
        {FLAT[0]: "GSM1_raw_feature_bc_matrix.h5"},
    ],
)
def test_other_places_and_names(tmp_path, run, names):
    for name in FLAT:
        target = tmp_path / "a" / names.get(name, Path(name).name)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(run.outs / name, target)
    assert_whole(run, tmp_path / "a")


def test_a_folder_of_text_counts(tmp_path, run):
    shutil.copytree(run.outs / "spatial", tmp_path / "outs" / "spatial")
    counts = tmp_path / "outs" / "filtered_feature_bc_matrix"
    counts.mkdir()
    write_triplet(run, counts, "")
    assert_whole(run, tmp_path)


def test_two_samples_are_refused_by_name_and_one_can_be_chosen(tmp_path, run):
    other = write_visium(tmp_path / "other", um_per_px=2.5)
    folder = tmp_path / "GSE1"
    deposit(run, folder, "GSM1_A")
    deposit(other, folder, "GSM2_B", text=True)
    with pytest.raises(InputError, match=r"2 samples in one folder \(GSM1_A, GSM2_B\)[\s\S]*--section GSM1_A"):
        open_sections(folder, image=run.image)
    for name in ("GSM1_A", "GSM1"):
        assert_whole(run, folder, section=name)
    (section,) = open_sections(folder, image=other.image, section="GSM2_B")
    assert section.name == "GSM2_B"
    assert section.um_per_px == pytest.approx(2.5, rel=1e-4)
    with pytest.raises(InputError, match=r"--section GSM[\s\S]*one of GSM1_A, GSM2_B"):
        open_sections(folder, image=run.image, section="GSM")


def test_inspect_lists_the_samples(tmp_path, run):
    other = write_visium(tmp_path / "other", um_per_px=2.5)
    deposit(run, tmp_path / "GSE1", "GSM1_A")
    deposit(other, tmp_path / "GSE1", "GSM2_B", text=True)
    facts = input_facts(tmp_path / "GSE1", image=run.image)
    assert [value for name, value in facts if name == "section"] == ["GSM1_A", "GSM2_B"]
    assert [value.split()[0] for name, value in facts if name == "um per px"] == ["2", "2.5"]
    assert facts[-1] == ("before it can be prepared", "choose one: --section GSM1_A")


def test_a_packed_image_is_refused_with_the_command(tmp_path, run):
    deposit(run, tmp_path / "a", "GSM1")
    packed = tmp_path / "a" / "GSM1_tissue_hires_image.png.gz"
    with pytest.raises(InputError, match=r"packed with gzip[\s\S]*gunzip -k .*and give .*image\.png$"):
        visium.read(tmp_path / "a", image=packed)


def test_a_sample_without_positions_is_ignored_and_one_with_foreign_counts_refused(tmp_path, run):
    folder = tmp_path / "GSE1"
    deposit(run, folder, "GSM1_A")
    write_triplet(run, folder, "GSM3_single_cells_")
    assert_whole(run, folder)
    assert find_visium(folder).notes == ["files of GSM3_single_cells ignored: they have no positions"]
    (folder / "GSM1_A_filtered_feature_bc_matrix.h5").unlink()
    with pytest.raises(InputError, match="positions of GSM1_A, but counts of GSM3_single_cells"):
        open_sections(folder, image=run.image)


@pytest.mark.parametrize(
    ("change", "noted"),
    [
        (lambda barcode: barcode.removesuffix("-1"), True),
        (lambda barcode: barcode.replace("-1", ".1"), True),
        (lambda barcode: "S1_" + barcode, True),
        (lambda barcode: barcode, False),
    ],
)
def test_barcodes_that_lost_their_suffix(tmp_path, run, change, noted):
    deposit(run, tmp_path / "a", "GSM1", text=True)
    write_triplet(run, tmp_path / "a", "GSM1_", barcodes=[change(barcode) for barcode in run.barcodes])
    assert_whole(run, tmp_path / "a")
    section = visium.read(tmp_path / "a", image=run.image)
    assert any("joined by their sequence" in note for note in section.notes) == noted


@pytest.mark.parametrize(
    "change",
    [
        lambda number, barcode: barcode.replace("-1", f"-{2 + number % 2}"),  # two sections in one matrix
        lambda number, barcode: barcode.replace("-1", "-2") if number else "A" * 16 + "-2",
        lambda number, barcode: f"spot{number}",
    ],
)
def test_barcodes_of_other_runs_are_refused(tmp_path, run, change):
    deposit(run, tmp_path / "a", "GSM1", text=True)
    write_triplet(
        run, tmp_path / "a", "GSM1_", barcodes=[change(number, barcode) for number, barcode in enumerate(run.barcodes)]
    )
    with pytest.raises(InputError, match=r"of 47 barcodes without a position \(e.g. .*; the positions have"):
        visium.read(tmp_path / "a", image=run.image)


def test_a_transposed_matrix_and_one_of_another_size(tmp_path, run):
    deposit(run, tmp_path / "a", "GSM1", text=True)
    write_triplet(run, tmp_path / "a", "GSM1_", transposed=True)
    assert_whole(run, tmp_path / "a")
    write_triplet(run, tmp_path / "a", "GSM1_", barcodes=["barcode", *run.barcodes])
    with pytest.raises(InputError, match=r"\d+ features and 48 barcodes"):
        visium.read(tmp_path / "a", image=run.image)


@pytest.mark.parametrize("damage", ["cut", "fractions", "missing", "no counts"])
def test_damaged_text_counts(tmp_path, run, damage):
    deposit(run, tmp_path / "a", "GSM1", text=True)
    matrix = tmp_path / "a" / "GSM1_matrix.mtx.gz"
    if damage == "cut":
        matrix.write_bytes(matrix.read_bytes()[:-300])
    elif damage == "fractions":
        scipy.io.mmwrite(tmp_path / "m.mtx", coo_array(np.full((run.tissue.counts_NG.shape[1] + 1, 47), 0.5)))
        matrix.write_bytes(gzip.compress((tmp_path / "m.mtx").read_bytes()))
    elif damage == "missing":
        (tmp_path / "a" / "GSM1_features.tsv.gz").unlink()
    else:
        for name in ("barcodes.tsv", "features.tsv", "matrix.mtx"):
            (tmp_path / "a" / f"GSM1_{name}.gz").unlink()
        (tmp_path / "a" / "GSM1_S1_matrix.h5.gz").write_bytes(b"")
    messages = {
        "cut": "Matrix Market file that cannot be read",
        "fractions": "counts with fractions",
        "missing": r"GSM1_matrix.mtx.gz without features.tsv",
        "no counts": r"no counts of a known name \(GSM1_S1_matrix.h5.gz\)",
    }
    with pytest.raises(InputError, match=messages[damage]):
        visium.read(tmp_path / "a", image=run.image).read_counts(None, None)


def test_without_scale_factors_a_note_says_what_cannot_be_checked(tmp_path, run):
    deposit(run, tmp_path / "a", "GSM1")
    (tmp_path / "a" / "GSM1_scalefactors_json.json.gz").unlink()
    section = visium.read(tmp_path / "a", image=run.image)
    assert section.reference is None
    assert any("size of the image cannot be checked" in note for note in section.notes)
    assert ("H&E expected", "unknown: no scalefactors_json.json") in input_facts(tmp_path / "a")


def test_positions_of_another_run_are_noted(tmp_path, run):
    deposit(run, tmp_path / "a", "GSM1")
    path = tmp_path / "a" / "GSM1_tissue_positions.csv.gz"
    text = gzip.decompress(path.read_bytes()).decode().replace(f"{run.barcodes[5]},1,", f"{run.barcodes[5]},0,")
    path.write_bytes(gzip.compress(text.encode()))
    section = visium.read(tmp_path / "a", image=run.image)
    assert any("1 of 47 spots of the filtered matrix lie off the tissue" in note for note in section.notes)


def test_what_is_packed_is_named_with_commands_that_work(tmp_path, run):
    folder = tmp_path / "GSE1"
    folder.mkdir()
    shutil.copy(run.outs / FLAT[0], folder / "GSM1_A_filtered_feature_bc_matrix.h5")
    archive = folder / "GSM1_A_spatial.tar.gz"
    subprocess.run(["tar", "-czf", archive, "-C", run.outs, "spatial"], check=True)
    with pytest.raises(InputError, match=r"GSM1_A_spatial\.tar\.gz, still packed") as caught:
        detect_format(folder)
    command = re.search(r"mkdir -p .*", str(caught.value))
    assert command is not None
    subprocess.run(command[0], shell=True, check=True)
    assert_whole(run, folder / "GSM1_A")
    with pytest.raises(InputError, match=r"1 folders that can be read \(GSM1_A\)"):
        detect_format(folder)


def test_counts_alone_say_what_is_missing(tmp_path, run):
    write_triplet(run, tmp_path, "GSM1_")
    with pytest.raises(InputError, match=r"counts without positions[\s\S]*tissue_positions.csv"):
        detect_format(tmp_path)
    with pytest.raises(InputError, match="counts alone"):
        detect_format(tmp_path / "GSM1_matrix.mtx.gz")


def test_flat_visium_hd_is_told_its_folders(tmp_path):
    for name, content in (
        ("tissue_positions.parquet", b"x"),
        ("scalefactors_json.json", json.dumps({"bin_size_um": 16.0}).encode()),
    ):
        (tmp_path / f"GSM1_{name}.gz").write_bytes(gzip.compress(content))
    (tmp_path / "GSM1_filtered_feature_bc_matrix.h5").write_bytes(b"")
    with pytest.raises(InputError, match=r"Visium HD without their folders[\s\S]*square_016um/spatial") as caught:
        detect_format(tmp_path)
    command = re.search(r"mkdir -p .*", str(caught.value))
    assert command is not None
    subprocess.run(command[0], shell=True, check=True, cwd=tmp_path)
    assert (tmp_path / "RUN/binned_outputs/square_016um/spatial/tissue_positions.parquet").read_bytes() == b"x"
    assert detect_format(tmp_path / "RUN").format == "visium_hd"


def test_text_counts_agree_with_scanpy(tmp_path, run):
    scanpy = pytest.importorskip("scanpy")
    deposit(run, tmp_path / "a", "GSM1", text=True)
    table = scanpy.read_10x_mtx(tmp_path / "a", var_names="gene_ids", prefix="GSM1_")
    section = visium.read(tmp_path / "a", image=run.image)
    assert list(section.obs.index) == list(table.obs_names)
    assert list(section.genes.index) == list(table.var_names)
    assert (section.read_counts(None, None).toarray() == table.X.toarray()).all()
