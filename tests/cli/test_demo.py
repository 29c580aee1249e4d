import json

import numpy as np
import pytest
from PIL import Image

from sge2hist.cli.demo import DemoConfig, run_demo
from sge2hist.data.artifacts import read_manifest
from sge2hist.data.errors import InputError

TINY = DemoConfig(tiny=True, n_cells=24, n_per_type=2)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A tiny demo, run once, with its log."""
    lines: list[str] = []
    folder = tmp_path_factory.mktemp("demo") / "demo"
    run_demo(folder, TINY, log=lines.append)
    return folder, lines


def test_every_part_exists_and_is_marked_as_a_toy(finished):
    folder, lines = finished
    for part, kind in (
        ("", "demo"),
        ("toy", "toy_visium_hd"),
        ("toy.paired", "paired"),
        ("genes.generated", "generated"),
        ("shuffled.generated", "generated"),
        ("types.generated", "generated"),
        ("report", "report"),
    ):
        assert read_manifest(folder / part, kind)["toy"] is True, part
    assert json.loads((folder / "toy.model" / "config.json").read_text())["provenance"]["toy"] is True
    recovery = json.loads((folder / "recovery.json").read_text())
    assert recovery["toy"] is True
    assert recovery["from_genes"]["types"]["n_cells"] == 24
    # how many types so short a training can name depends on chance
    n_types = recovery["from_types"]["n_types"]
    assert recovery["from_types"]["n_images"] == 2 * n_types > 0
    with Image.open(folder / "gallery.png") as picture:
        assert picture.width > 200
    assert any("gallery.png" in line for line in lines)
    assert "toy" in lines[-4]


def test_matched_and_shuffled_are_the_same_cells(finished):
    from sge2hist.data.generated import GeneratedSet

    matched, shuffled = (GeneratedSet.open(finished[0] / f"{name}.generated") for name in ("genes", "shuffled"))
    np.testing.assert_array_equal(matched.obs["row"], shuffled.obs["row"])
    assert shuffled.manifest["shuffled"] is True
    assert (matched.obs["condition_row"] == matched.obs["row"]).all()


def test_the_same_command_does_not_do_anything_twice(finished):
    folder, _ = finished
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    run_demo(folder, TINY, log=lambda line: None)
    again = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    changed = {path.name for path in again if again[path] != before.get(path)}
    assert changed <= {"gallery.png", "recovery.json"}


def test_a_stopped_demo_resumes(finished, tmp_path):
    """A missing part is made again from the others, with the same result."""
    import shutil

    folder = tmp_path / "demo"
    shutil.copytree(finished[0], folder)
    shutil.rmtree(folder / "types.generated")
    shutil.rmtree(folder / "report")
    run_demo(folder, TINY, log=lambda line: None)
    assert (folder / "report" / "report.html").is_file()
    for name in ("000000.png", "000001.png"):
        one, other = (place / "types.generated" / "images" / name for place in (folder, finished[0]))
        with Image.open(one) as a, Image.open(other) as b:
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_other_settings_and_foreign_folders_are_refused(finished, tmp_path):
    with pytest.raises(InputError, match="seed"):
        run_demo(finished[0], DemoConfig(tiny=True, n_cells=24, n_per_type=2, seed=1))
    (tmp_path / "letter.txt").write_text("keep me")
    for overwrite in (False, True):
        with pytest.raises(InputError):
            run_demo(tmp_path, TINY, overwrite=overwrite)
    assert (tmp_path / "letter.txt").read_text() == "keep me"


@pytest.mark.parametrize("settings", [{"minutes": 0.0}, {"minutes": float("nan")}, {"seed": -1}])
def test_settings_out_of_range(settings):
    with pytest.raises(InputError):
        DemoConfig(**settings)
