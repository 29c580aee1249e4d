"""From what the instrument wrote to a dataset: inputs, images, cells of bins, and the shift, in the order of `prepare`."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from fixtures.tissue import make_tissue
from fixtures.visium_hd import VisiumHDTruth, write_visium_hd
from pairing.sections import make_section
from sge2hist.cli.prepare import prepare as prepare_command
from sge2hist.data.errors import InputError
from sge2hist.pairing import prepare as module
from sge2hist.pairing.alignment.image_checks import check_image
from sge2hist.pairing.cells import cells_of_section
from sge2hist.pairing.config import CellsConfig, PrepareConfig
from sge2hist.pairing.inputs import open_input
from sge2hist.pairing.prepare import prepare
from sge2hist.readers import open_sections

BINS = CellsConfig(method="bins")
SMALL = PrepareConfig(
    patch_um=12.0,
    patch_px=24,
    split_block_um=30.0,
    min_counts=1,
    min_genes=1,
    min_tissue_fraction=0.0,
    check_alignment=False,
    types="none",
)
NUCLEI = CellsConfig(method="nuclei", segmenter="classical", processes=1)


@pytest.fixture(scope="module")
def truth(tmp_path_factory) -> VisiumHDTruth:
    return write_visium_hd(make_tissue(), tmp_path_factory.mktemp("hd"), version="4.0.1")


@pytest.fixture
def without_report(monkeypatch):
    """The report takes most of the time."""
    monkeypatch.setattr(module, "write_report", lambda path, inputs: path.write_bytes(b"not written"))


def test_two_um_bins_are_opened_when_the_image_shows_nuclei(tmp_path):
    truth = write_visium_hd(make_tissue(), tmp_path)
    for cells, expected in ((CellsConfig(), 2.0), (BINS, 16.0)):
        section = open_input(truth.outs, truth.image, PrepareConfig(cells=cells))[0]
        assert section.observation_um == expected


def test_without_two_um_bins_space_rangers_table_of_cells_is_read(tmp_path):
    truth = write_visium_hd(make_tissue(), tmp_path, version="4.0.1", bin_um=(8,))
    for cells, expected in ((CellsConfig(), "cell"), (CellsConfig(method="segmentation"), "cell"), (BINS, "bin")):
        section = open_input(truth.outs, truth.image, PrepareConfig(cells=cells))[0]
        assert section.observation == expected
        assert cells_of_section(section, config=cells, folder=truth.outs) is section


def test_a_coarse_image_gives_bins_of_the_usual_side(tmp_path):
    tissue = make_tissue(width_px=120, height_px=100, um_per_px=2.0)
    truth = write_visium_hd(tissue, tmp_path, homography=None)
    section = open_input(truth.outs, truth.image, PrepareConfig())[0]
    assert section.observation_um == 16.0


@pytest.mark.parametrize(
    ("options", "config"),
    [
        (["--bin-um", "8", "--types", "clusters"], {"bin_um": 8, "types": "clusters"}),
        (["--types", "none", "--shift-um", "1,-2"], {"shift_um": (1.0, -2.0)}),
        (["--types", "none", "--cells", "nuclei", "--segmenter", "classical", "--expand-um", "4"], {"cells": None}),
    ],
)
def test_python_and_the_command_line_write_the_same_dataset(truth, tmp_path, without_report, options, config):
    if "cells" in config:
        config = {"cells": CellsConfig(method="nuclei", segmenter="classical", expand_um=4.0)}
    lines: list[str] = []
    python = prepare(truth.outs, tmp_path / "python.paired", SMALL, images=truth.image, log=lines.append, **config)
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(prepare_command)
    small = ("--patch-um", 12, "--patch-px", 24, "--split-block-um", 30, "--min-counts", 1, "--min-genes", 1)
    unchecked = ("--min-tissue", 0, "--no-check-alignment")
    output = tmp_path / "command.paired"
    result = CliRunner().invoke(
        app,
        [str(value) for value in (truth.outs, "--image", truth.image, "-o", output, *small, *unchecked, *options)],
        catch_exceptions=False,
    )
    command = type(python).open(output)
    assert command.fingerprint == python.fingerprint
    for name in python.manifest.keys() - {"slides"}:  # the file of a slide has a number of its own
        assert command.manifest[name] == python.manifest[name]
    for line in lines:
        assert line in result.output


def test_images_are_opened_and_checked_once(truth, tmp_path, monkeypatch, without_report):
    opened, checked = [], []
    monkeypatch.setattr(
        module, "check_image", lambda section, **k: checked.append(section.name) or check_image(section, **k)
    )
    monkeypatch.setattr(
        "sge2hist.pairing.inputs.open_sections", lambda *a, **k: opened.append(a) or open_sections(*a, **k)
    )
    prepare(truth.outs, tmp_path / "a.paired", SMALL, images=truth.image, cells=NUCLEI)
    assert len(opened) == len(checked) == 1


def test_a_shift_moves_bins_against_the_nuclei_of_the_image_once(truth, tmp_path, without_report):
    section, shift_um = open_sections(truth.outs, image=truth.image, bin_um=2)[0], (4.0, -6.0)
    moved = dataclasses.replace(section, centre_xy_px=section.centre_xy_px - np.array(shift_um) / section.um_per_px)
    config = dataclasses.replace(SMALL, cells=NUCLEI)
    straight = prepare(section, tmp_path / "a.paired", config)
    corrected = prepare(moved, tmp_path / "b.paired", config, shift_um=shift_um)
    np.testing.assert_array_equal(corrected.counts_in_memory().toarray(), straight.counts_in_memory().toarray())
    np.testing.assert_array_equal(corrected.centre_xy_px, straight.centre_xy_px)


@pytest.mark.parametrize("outlines", ["barcode_mappings", "polygons"])
def test_cells_of_space_ranger_are_scaled_and_shifted_with_their_bins(
    truth, tmp_path, monkeypatch, without_report, outlines
):
    """On an image of half the size: outlines and bins are in px of the image that Space Ranger was run with."""
    section = open_sections(truth.outs, image=truth.image, bin_um=2)[0]
    width, height = section.image.width_px, section.image.height_px
    half = type(section.image).from_array(section.image.as_array()[::2, ::2])
    reference = dataclasses.replace(section.reference, size_px=(width, height))
    small = dataclasses.replace(section, image=half, reference=reference)
    monkeypatch.setattr("sge2hist.pairing.inputs.open_input", lambda path, *_: [small if image_is_small else section])
    if outlines == "polygons":
        monkeypatch.setattr("sge2hist.readers.tenx.barcode_mappings.FILE", "absent.parquet")
    config = dataclasses.replace(SMALL, keep_border=True, cells=CellsConfig(method="segmentation"))
    image_is_small = False
    full = prepare(truth.outs, tmp_path / "full.paired", config)
    image_is_small = True
    shifted = prepare(truth.outs, tmp_path / "small.paired", config, shift_um=(1.0, 0.0))
    np.testing.assert_array_equal(shifted.counts_in_memory().toarray(), full.counts_in_memory().toarray())
    moved_um = shifted.centre_xy_px * shifted.um_per_px - full.centre_xy_px * full.um_per_px
    np.testing.assert_allclose(moved_um, [[1.0, 0.0]] * len(full), atol=1e-6)
    assert any("positions were scaled" in warning for warning in shifted.manifest["alignment"][0]["warnings"])


def test_sections_of_one_name_are_numbered(tmp_path, without_report):
    lines: list[str] = []
    config = PrepareConfig(patch_um=40.0, patch_px=20, types="region", split_block_um=150.0, min_counts=5, min_genes=3)
    sections = [make_section(), make_section(seed=1)]
    dataset = prepare(sections, tmp_path / "a.paired", config, log=lines.append)
    assert dataset.slide_ids == ["one", "one_2"]
    assert "the section is called one_2 here: an earlier input is one already" in lines


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bin": 8}, "option 'bin'.*bin_um=..."),
        ({"min_counts": "5"}, "min_counts = '5' of type str"),
        ({"bin_um": -2}, "bin_um = -2"),
        ({"cells": "nuclei"}, "CellsConfig"),
        ({"holdout_slides": "one"}, "expected tuple"),
        ({"format": "nonsense"}, "--format nonsense"),
        ({"channels": ("DAPI", "DAPI")}, "--channels"),
        ({"cells": CellsConfig(labels="labels.tif"), "bin_um": 8}, "--bin-um 2"),
    ],
)
def test_wrong_options_of_python_users_are_input_errors(truth, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        prepare(truth.outs, tmp_path / "a.paired", images=truth.image, **options)
    assert list(tmp_path.iterdir()) == []


def test_inputs_and_images_are_matched(truth, tmp_path: Path):
    output = tmp_path / "a.paired"
    with pytest.raises(InputError, match="2 images for 1 inputs"):
        prepare(truth.outs, output, images=[truth.image, truth.image])
    with pytest.raises(InputError, match="given twice"):
        prepare([truth.outs, truth.outs], output, images=[truth.image, truth.image])
    with pytest.raises(InputError, match="a section that is open"):
        prepare(make_section(), output, images=truth.image)
    cells = dataclasses.replace(make_section(bin_um=20.0), observation="cell")
    with pytest.raises(InputError, match="with cells that stay cells"):
        prepare(cells, output, cells=CellsConfig(labels="labels.tif"))
