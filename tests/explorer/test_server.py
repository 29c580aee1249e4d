"""The endpoints: values against those of the data and of the generator."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from sge2hist.explorer.targets import Target
from sge2hist.generation.edited_patches import edited_request
from sge2hist.generation.patches import image_batches
from sge2hist.generation.slide.edits import Edit


def pixels(url: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))


def state_of(client, session, edit):
    return client("POST", f"{session}/edits", edit)


def test_facts_and_genes(client, tiny_paired):
    info = client("GET", "api/info")
    assert info["protocol"] == 1
    assert info["data"]["n_cells"] == len(tiny_paired)
    assert sum(entry["n"] for entry in info["types"]) == (tiny_paired.type_of_cell >= 0).sum()
    (real,) = info["layers"]
    assert (real["width"], real["height"]) == (tiny_paired.slides[0].width_px, tiny_paired.slides[0].height_px)
    symbol = tiny_paired.genes.symbols[3]
    found = client("GET", "api/genes", params={"q": symbol.lower()})["genes"]
    assert found[0]["symbol"] == symbol
    assert found[0]["mean"] == pytest.approx(tiny_paired.counts_in_memory()[:, [3]].toarray().mean(), abs=1e-4)


def test_tiles_are_the_slide(client, tiny_paired):
    info = client("GET", "api/info")
    (real,) = info["layers"]
    answer = client.raw.get(f"api/tiles/real/{real['levels'] - 1}/0_0.jpg")
    tile = np.asarray(Image.open(io.BytesIO(answer.content))).astype(float)
    slide = tiny_paired.slides[0].read(0, 0, tile.shape[1], tile.shape[0])
    assert np.corrcoef(tile.ravel(), slide.ravel())[0, 1] > 0.99  # JPEG of noisy tissue
    coarse = np.asarray(Image.open(io.BytesIO(client.raw.get("api/tiles/real/0/0_0.jpg").content)))
    assert max(coarse.shape[:2]) <= real["tile"]
    for path in ("real/99/0_0.jpg", "real/0/9_9.jpg", "real/0/a.jpg", "none/0/0_0.jpg", "real/0/0_0.png"):
        client("GET", f"api/tiles/{path}", status=404)


def test_cells_in_a_rectangle(client, tiny_paired):
    session = client.session()
    xy = tiny_paired.centre_xy_px * tiny_paired.um_per_px
    inside = ((xy >= (100, 120)) & (xy <= (220, 200))).all(1)
    query = {"x": 100, "y": 120, "width": 120, "height": 80}
    found = client("GET", f"{session}/cells", params=query)
    assert set(found["id"]) == set(tiny_paired.obs.index[inside])
    assert not found["thinned"]
    names = [entry["name"] for entry in client("GET", "api/info")["types"]]
    by_id = dict(zip(found["id"], found["type"], strict=True))
    for cell in found["id"][:5]:
        assert names[by_id[cell]] == str(tiny_paired.obs["cell_type"][cell])
    few = client("GET", f"{session}/cells", params=query | {"limit": 5})
    assert few["thinned"]
    assert len(few["id"]) == 5
    assert few["n"] == inside.sum()
    symbol = tiny_paired.genes.symbols[0]
    gene = client("GET", f"{session}/cells", params=query | {"colour": f"gene:{symbol}"})
    counts = tiny_paired.counts_in_memory()[np.flatnonzero(inside)].toarray()
    expected = np.log1p(counts[:, 0] / np.maximum(counts.sum(1), 1) * 1e4)
    assert np.allclose(gene["value"], expected, atol=1e-3)
    novelty = client("GET", f"{session}/cells", params=query | {"colour": "novelty"})
    assert all(0 <= value <= 1 for value in novelty["value"])
    client("GET", f"{session}/cells", params=query | {"colour": "uncertainty"}, status=404)


def test_one_cell(client, tiny_paired, cell, gene):
    session = client.session()
    row = tiny_paired.obs.index.get_loc(cell)
    counts = tiny_paired.counts([row]).toarray()[0]
    found = client("GET", f"{session}/cell", params={"id": cell, "genes": tiny_paired.genes.symbols[1]})
    assert found["n_counts"] == counts.sum()
    assert found["genes"][0]["symbol"] == gene
    assert found["genes"][0]["counts"] == counts.max()
    assert sum(entry["p"] for entry in found["probabilities"]) == pytest.approx(1, abs=0.01)
    xy = tiny_paired.centre_xy_px * tiny_paired.um_per_px
    nearest = np.sort(np.linalg.norm(xy - xy[row], axis=1))[1:4]
    assert np.allclose([n["distance_um"] for n in found["neighbours"][:3]], nearest, atol=1e-3)
    edited = state_of(client, session, {"scope": {"cell": cell}, "action": {"gene": gene, "counts": 99}})
    assert edited["effects"] == [{"edit": "e1", "n_cells": 1}]
    after = client("GET", f"{session}/cell", params={"id": cell})
    assert after["edited"]
    assert (after["genes"][0]["counts"], after["genes"][0]["original"]) == (99, counts.max())
    assert client("GET", "api/nearest", params={"x": xy[row][0] + 0.5, "y": xy[row][1]})["id"] == cell


def test_similar_cells(client, cell):
    session = client.session()
    for _ in range(5):
        found = client("GET", f"{session}/similar", params={"id": cell, "n": 3})
        if found["cells"]:
            break
    assert len(found["cells"]) == 3
    assert cell not in [entry["id"] for entry in found["cells"]]


def test_the_list_of_edits(client, cell, gene, tiny_paired):
    session = client.session()
    edit = {"scope": {"cell": cell}, "action": {"gene": gene, "factor": 2}}
    first = state_of(client, session, edit)
    assert first["revision"] == 1
    for factor, merge in ((2.5, False), (3.0, True)):
        body = edit | {"action": {"gene": gene, "factor": factor}, "merge": merge}
        state = client("PUT", f"{session}/edits/e1", body)
    assert state["edits"][0]["action"]["factor"] == 3
    state = client("POST", f"{session}/undo", {})
    assert state["edits"][0]["action"]["factor"] == 2  # the drag is one step
    state = client("POST", f"{session}/redo", {})
    assert state["edits"][0]["action"]["factor"] == 3
    conflict = client("POST", f"{session}/undo", {"revision": 1}, 409)
    assert conflict["error"]["code"] == "conflict"
    client("PUT", f"{session}/settings", {"seed": 7, "n_steps": 3})
    other = client.session()
    assert client("GET", other)["edits"] == []
    assert client("GET", other)["settings"]["seed"] == 0
    text = client.raw.get(f"{session}/export/edits").text
    assert client("POST", f"{other}/import", json.loads(text))["settings"]["seed"] == 7
    imported = client("GET", other)
    assert [e["action"] for e in imported["edits"]] == [e["action"] for e in state["edits"]]
    client("POST", f"{session}/save", {"name": "my list"})
    assert client("GET", "api/saved")["names"] == ["my list"]
    client("DELETE", f"{session}/edits/e1")
    assert client("POST", f"{session}/load", {"name": "my list"})["edits"][0]["action"] == {"gene": gene, "factor": 3.0}
    client("DELETE", session)
    assert client("GET", session, status=404)["error"]["code"] == "session_gone"


def test_every_scope_and_action_survives_the_file(client, cell, gene, tiny_paired, server):
    session = client.session()
    name = client("GET", "api/info")["model"]["types"][0]
    own = str(tiny_paired.obs["cell_type"][cell])
    row = tiny_paired.obs.index.get_loc(cell)
    x, y = (float(v) for v in tiny_paired.centre_xy_px[row] * tiny_paired.um_per_px)
    square = [[x - 20, y - 20], [x + 20, y - 20], [x + 20, y + 20], [x - 20, y + 20]]
    edits = [
        {"scope": {"cell": cell}, "action": {"set_type": name}},
        {"scope": {"cells": [cell, str(tiny_paired.obs.index[0])]}, "action": {"move_um": [1.5, -2]}},
        {"scope": {"rectangle_um": [x - 9, y - 9, 18, 18], "type": own}, "action": {"gene": gene, "factor": 0.5}},
        {"scope": {"polygon_um": square}, "action": {"add_type": name, "spacing_um": 15}},
        {"scope": {"everywhere": True}, "action": {"gene": gene, "counts": 3}},
        {"scope": None, "action": {"add_type": name, "at_um": [[x, y]]}, "enabled": False},
        {"scope": {"polygon_um": square}, "action": {"remove": True}, "name": "gone"},
    ]
    state = client("PUT", f"{session}/edits", {"edits": edits, "name": "all"})
    before = server_edits(server, state)
    text = client.raw.get(f"{session}/export/edits").text
    again = client("POST", f"{client.session()}/import", json.loads(text))
    after = server_edits(server, again)
    assert [edit.fingerprint() for edit in before] == [edit.fingerprint() for edit in after]
    assert [e["enabled"] for e in again["edits"]].count(False) == 1
    assert again["name"] == "all"


def server_edits(server, state):
    from sge2hist.explorer.edit_list import parsed_edits

    return parsed_edits(
        sorted(state["edits"], key=lambda e: not e["enabled"]), server.renderer.tissue.source.um_per_edit_unit
    )


def test_a_patch_is_that_of_the_generator(client, server, tiny_paired, cell, gene):
    session = client.session()
    state_of(client, session, {"scope": {"cell": cell}, "action": {"gene": gene, "factor": 4}})
    client("PUT", f"{session}/settings", {"seed": 5})
    lines = client.stages(f"{session}/render", {"target": {"cell": cell}})
    assert lines[-1]["stage"] == "full"
    row = np.array([tiny_paired.obs.index.get_loc(cell)])
    bundle = server.renderer.tissue.bundle
    edits = [Edit(cells=(cell,), gene=gene, factor=4.0)]
    for key, wanted in (("after", edits), ("before", [])):
        request = edited_request(bundle, tiny_paired, row, wanted, seed=5)
        (expected,) = next(iter(image_batches(bundle, request)))
        assert np.array_equal(pixels(lines[-1][key]), expected)
    assert pixels(lines[-1]["difference"]).max() > 0
    assert client.stages(f"{session}/render", {"target": {"cell": cell}})[-1]["cached"]


def test_samples_and_doses(client, cell, gene):
    session = client.session()
    lines = client.stages(f"{session}/samples", {"cell": cell, "n": 2})
    assert [line["stage"] for line in lines] == ["image", "image", "full"]
    assert lines[0]["after"] != lines[1]["after"]
    plain = client.stages(f"{session}/render", {"target": {"cell": cell}})[-1]["after"]
    assert lines[0]["after"] == plain
    doses = client.stages(f"{session}/dose", {"cell": cell, "genes": [gene], "factors": [0, 1, 4]})
    assert [line.get("factor") for line in doses] == [0, 1, 4, None]
    assert all(0 <= line["novelty"]["fit"] <= 1 for line in doses[:3])
    client.stages(f"{session}/dose", {"cell": cell, "genes": ["NOSUCH"]}, 422)


def test_regions_have_a_preview(client, cell):
    session = client.session()
    client("PUT", f"{session}/settings", {"n_steps": 8})
    lines = client.stages(f"{session}/render", {"target": {"region_um": [100, 100, 128, 96]}})
    assert [line["stage"] for line in lines] == ["preview", "full"]
    assert lines[0]["evaluations"] == [4, 8]
    full = lines[-1]
    assert (full["width_um"], full["height_um"]) == (128, 96)
    assert full["preview_correlation"] > 0.5
    assert pixels(full["difference"]).max() == 0
    assert pixels(full["after"]).shape == (48, 64, 3)
    client.stages(f"{session}/render", {"target": {"region_um": [0, 0, 5000, 10]}}, 413)
    client.stages(f"{session}/render", {"target": {"region_um": [-50, 0, 100, 10]}}, 422)


def test_images_as_files_are_marked(client, cell):
    session = client.session()
    for form in ("png", "ome-tiff"):
        body = {"target": {"cell": cell}, "format": form}
        answer = client.raw.post(f"{session}/export/image", json=body)
        assert answer.status_code == 200, answer.text
        assert b"synthetic" in answer.content
        assert "filename=" in answer.headers["content-disposition"]
    assert client("POST", f"{session}/export/image", {"target": {"cell": cell}, "format": "exe"}, 400)


METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("", "GET"),
        ("main.js", "GET"),
        ("panels/cell.js", "GET"),
        ("api/info", "GET"),
        ("api/tiles/real/0/0_0.jpg", "GET"),
        ("api/sessions", "POST"),
        ("{session}", "GET DELETE"),
        ("{session}/edits", "POST PUT"),
        ("{session}/edits/e1", "PUT DELETE"),
        ("{session}/undo", "POST"),
        ("{session}/render", "POST"),
        ("{session}/export/edits", "GET"),
    ],
)
def test_another_method_is_405_and_names_those_that_are_allowed(client, path, allowed):
    path = path.format(session=client.session())
    for method in set(METHODS) - set(allowed.split()):
        answer = client.raw.request(method, path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed"), (method, path)
        assert {*answer.headers["allow"].split(", ")} - {"HEAD"} == {*allowed.split()}


@pytest.mark.parametrize(
    "path", ["api", "api/", "api/infos", "api/info/", "main.jsx", "panels/", "{session}/", "{session}/nothing", "index"]
)
@pytest.mark.parametrize("method", METHODS)
def test_an_unknown_path_is_404_whatever_the_method(client, path, method):
    answer = client.raw.request(method, path.format(session=client.session()), follow_redirects=False)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_a_file_answers_head_as_get_without_a_body(client):
    got, head = client.raw.get("main.js"), client.raw.head("main.js")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == got.headers["content-length"] == str(len(got.content))


def test_images_kept_are_bounded_by_their_bytes(server, cell, monkeypatch):
    renderer = server.renderer
    renderer._kept.clear()
    made = np.zeros((40, 50, 3), np.uint8)
    monkeypatch.setattr("sge2hist.explorer.rendering.generate_target", lambda *_: made.copy())
    monkeypatch.setattr("sge2hist.explorer.rendering.MAX_IMAGE_BYTES", 3 * made.nbytes + 1)
    targets = [Target(cell=cell, number=0, sample=sample) for sample in range(5)]
    for target in targets:
        renderer.image(target, [], {"seed": 1})
    assert [key[0] for key in renderer._kept] == targets[2:]
    assert renderer.image(targets[4], [], {"seed": 1})[1]
    assert not renderer.image(targets[0], [], {"seed": 1})[1]
    renderer._kept.clear()
