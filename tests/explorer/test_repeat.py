"""The exported command line and Python give the very pixels that the explorer shows."""

import base64
import io
import json
import shlex
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from sge2hist.cli.main import app
from sge2hist.data.generated import GeneratedSet, GeneratedSlide
from sge2hist.explorer import targets
from sge2hist.explorer.exports import SavedEdits
from sge2hist.explorer.tissue import Tissue
from sge2hist.explorer.web.server import ExplorerServer
from sge2hist.models.bundle import ModelBundle
from sge2hist.threads import LIMITS
from tests.explorer.conftest import TOKEN, Client


def shown(client, session, target) -> np.ndarray:
    answer = client.raw.post(f"{session}/export/image", json={"target": target, "format": "png"})
    assert answer.status_code == 200, answer.text
    return np.asarray(Image.open(io.BytesIO(answer.content)))


@pytest.fixture(autouse=True)
def running_options_end_with_the_test(monkeypatch):
    """--threads of a command sets them for the whole process."""
    for name in LIMITS:
        monkeypatch.setenv(name, "1")
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def repeated(client, session, target, folder, monkeypatch):
    """Write the edits beside, run the command there; returns what it said and its answer."""
    found = client("GET", f"{session}/export/command", params={"target": json.dumps(target)})
    monkeypatch.chdir(folder)
    if found["edits"] is not None:
        (folder / found["edits_file"]).write_text(json.dumps(found["edits"]))
    words = shlex.split(found["command"])
    assert words[0] == "sge2hist"
    app(words[1:], standalone_mode=False)
    return found


@pytest.fixture
def edited(client, cell, gene, tiny_paired):
    """A session with edits of every action near a cell, not of the default seed and sampler."""
    session = client.session()
    name = client("GET", "api/info")["model"]["types"][-1]
    x, y = (float(v) for v in tiny_paired.centre_xy_px[tiny_paired.obs.index.get_loc(cell)] * tiny_paired.um_per_px)
    around = [[x - 31.7, y - 20.3], [x + 22.1, y - 25], [x + 18, y + 33.3]]
    edits = [
        {"scope": {"cell": cell}, "action": {"gene": gene, "factor": 3.3}},
        {"scope": {"polygon_um": around}, "action": {"set_type": name}},
        {"scope": {"rectangle_um": [x + 20, y + 20, 30.1, 30.2]}, "action": {"remove": True}},
        {"scope": {"cells": [cell]}, "action": {"move_um": [3.1, -2.2]}},
        {"scope": None, "action": {"add_type": name, "at_um": [[x + 7.7, y + 1.1], [x - 12.3, y]]}},
        {"scope": {"everywhere": True}, "action": {"gene": gene, "counts": 1}, "enabled": False},
    ]
    client("PUT", f"{session}/edits", {"edits": edits, "name": "tubule"})
    client("PUT", f"{session}/settings", {"seed": 11, "n_steps": 5, "guidance": 1.5})
    return session


def test_a_patch(client, edited, cell, tmp_path, monkeypatch):
    target = {"cell": cell}
    found = repeated(client, edited, target, tmp_path, monkeypatch)
    image = shown(client, edited, target)
    assert np.array_equal(GeneratedSet.open(tmp_path / found["output"]).image(0), image)
    plain = client.raw.post(f"{client.session()}/export/image", json={"target": target})
    assert not np.array_equal(image, np.asarray(Image.open(io.BytesIO(plain.content))))
    files = client.raw.post(f"{edited}/export/image", json={"target": target}).content
    assert files == next((tmp_path / found["output"] / "images").iterdir()).read_bytes()


def test_a_region(client, edited, cell, tiny_paired, tmp_path, monkeypatch):
    x, y = tiny_paired.centre_xy_px[tiny_paired.obs.index.get_loc(cell)] * tiny_paired.um_per_px
    target = {"region_um": [float(x) - 50.3, float(y) - 41.1, 121.7, 96.2]}
    found = repeated(client, edited, target, tmp_path, monkeypatch)
    assert np.array_equal(
        GeneratedSlide.open(tmp_path / found["output"]).image.as_array(), shown(client, edited, target)
    )


def test_a_dose(client, cell, gene, tmp_path, monkeypatch):
    session = client.session()
    target = {"cell": cell, "dose": {"genes": [gene], "factors": [0, 0.5, 2]}}
    found = repeated(client, session, target, tmp_path, monkeypatch)
    lines = client.stages(f"{session}/dose", {"cell": cell, "genes": [gene], "factors": [0, 0.5, 2]})
    images = GeneratedSet.open(tmp_path / found["output"])
    for number, line in enumerate(lines[:-1]):
        image = np.asarray(Image.open(io.BytesIO(base64.b64decode(line["after"].partition(",")[2]))))
        assert np.array_equal(images.image(number), image)


@pytest.mark.parametrize("kind_of", ["patch", "region", "dose"])
def test_the_python(client, edited, cell, gene, tiny_paired, tmp_path, monkeypatch, kind_of):
    target = {"cell": cell}
    if kind_of == "dose":
        target["dose"] = {"genes": [gene], "factors": [2.0]}
    if kind_of == "region":
        target = {"region_um": [100, 100, 60.5, 70]}
    found = client("GET", f"{edited}/export/command", params={"target": json.dumps(target)})
    monkeypatch.chdir(tmp_path)
    if found["edits"] is not None:
        (tmp_path / found["edits_file"]).write_text(json.dumps(found["edits"]))
    names: dict = {}
    exec(found["python"], names)
    if kind_of == "dose":
        (line, _) = client.stages(f"{edited}/dose", {"cell": cell, "genes": [gene], "factors": [2.0]})
        expected = np.asarray(Image.open(io.BytesIO(base64.b64decode(line["after"].partition(",")[2]))))
        assert np.array_equal(names["images"][0], expected)
    else:
        assert np.array_equal(names["image"], shown(client, edited, target))


THREADS = 3


@pytest.fixture(scope="module")
def many_threads(tiny_model, tiny_paired, tmp_path_factory):
    """A server of a process with several threads, beside which the process has other numbers of them."""
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    tissue = Tissue(ModelBundle.load(tiny_model), tiny_paired, model_name=str(tiny_model))
    made = ExplorerServer(tissue, TOKEN, SavedEdits(tmp_path_factory.mktemp("saved")))
    torch.set_num_threads(before)
    yield made
    made.renderer.close()


@pytest.mark.parametrize("kind_of", ["patch", "samples", "region", "dose"])
def test_the_command_has_the_threads_of_the_image(many_threads, cell, gene, kind_of, monkeypatch):
    """Each of two tabs at once, one with patches, one with others: bits depend on the threads of an operation."""
    client, seen = Client(many_threads), {}

    def watched(tissue, target, *arguments):
        seen.setdefault(target, set()).add(torch.get_num_threads())
        return targets.generate_target(tissue, target, *arguments)

    monkeypatch.setattr("sge2hist.explorer.rendering.generate_target", watched)
    target = {"region_um": [100, 100, 40, 40]} if kind_of == "region" else {"cell": cell}
    expected = 1 if kind_of in ("patch", "samples") else THREADS
    session = client.session()
    if kind_of == "samples":
        client.stages(f"{session}/samples", {"cell": cell, "n": 2})
    elif kind_of == "dose":  # shared among the threads: of `generate --gene` too
        batches = "sge2hist.explorer.rendering.image_batches"
        monkeypatch.setattr(batches, lambda *_: iter((seen.setdefault("dose", {torch.get_num_threads()}), ())[1:]))
        client.stages(f"{session}/dose", {"cell": cell, "genes": [gene], "factors": [0, 2]})
        target["dose"] = {"genes": [gene], "factors": [0, 2]}
    else:
        client.stages(f"{session}/render", {"target": target})
    assert set().union(*seen.values()) == {expected}
    found = client("GET", f"{session}/export/command", params={"target": json.dumps(target)})
    words = shlex.split(found["command"])
    assert words[words.index("--threads") + 1] == str(expected)
    assert f"torch.set_num_threads({expected})" in found["python"]


def test_a_patch_and_a_region_at_once_are_those_of_one_at_a_time(many_threads, cell):
    client = Client(many_threads)
    bodies = [{"target": {"cell": cell}}, {"target": {"region_um": [100, 100, 60, 50]}}]

    def answer(body):
        return client.stages(f"{client.session()}/render", body)[-1]["after"]

    alone = [answer(body) for body in bodies]
    for _ in range(2):
        many_threads.renderer._kept.clear()
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(answer, bodies)) == alone
