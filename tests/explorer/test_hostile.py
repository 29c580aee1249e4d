"""Requests of other sites, malformed and hostile ones: a 4xx, a message, and nothing changed."""

from __future__ import annotations

import json
import threading
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

CHANGES = [
    ("POST", "edits"),
    ("PUT", "edits"),
    ("PUT", "edits/e1"),
    ("PUT", "settings"),
    ("PUT", "name"),
    ("POST", "import"),
    ("POST", "save"),
    ("POST", "load"),
    ("POST", "render"),
    ("POST", "samples"),
    ("POST", "dose"),
    ("POST", "export/image"),
]
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30)
values = st.recursive(scalars, lambda v: st.lists(v, max_size=5) | st.dictionaries(st.text(max_size=12), v, max_size=5))
WORDS = """scope action cell cells gene factor counts type edits name target region_um n polygon_um rectangle_um at_um add_type
set_type features properties geometry revision everywhere remove move_um seed n_steps guidance genes factors sample slot"""
names = st.sampled_from(WORDS.split())
query_names = names | st.sampled_from(["x", "y", "width", "height", "id", "q", "colour", "limit"])
bodies = st.dictionaries(
    names, st.recursive(scalars | values, lambda v: st.dictionaries(names, v, max_size=4)), max_size=5
)


@pytest.fixture(scope="module")
def kept(client, cell, gene):
    session = client.session()
    client("POST", f"{session}/edits", {"scope": {"cell": cell}, "action": {"gene": gene, "factor": 2}})
    return session


@given(change=st.sampled_from(CHANGES), body=bodies | values)
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_a_body_holds_it_is_answered_and_a_refusal_changes_nothing(client, kept, change, body):
    method, path = change
    before = client.raw.get(kept).json()
    content = json.dumps(body, allow_nan=True).encode()
    answer = client.raw.request(method, f"{kept}/{path}", content=content, headers={"content-type": "application/json"})
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert answer.json()["error"]["message"]
        assert client.raw.get(kept).json() == before


@given(path=st.text(max_size=40), query=st.dictionaries(query_names, st.text(max_size=20)))
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_a_path_holds_it_is_answered(client, kept, path, query):
    from urllib.parse import quote

    for base in ("", "api/", "api/tiles/", f"{kept}/", "../"):
        answer = client.raw.get(f"{base}{quote(path)}", params=query)
        assert answer.status_code < 500


@pytest.mark.parametrize(
    "path", ["../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "assets/../start.py", "main.js%00", "//etc/passwd"]
)
def test_no_path_reaches_the_disk(client, path):
    assert client.raw.get(path).status_code == 404


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a" * 65, "x\0", "C:\\x", "con.txt"])
def test_names_of_saved_lists_are_no_paths(client, kept, name):
    before = client("GET", "api/saved")
    for verb in ("save", "load"):
        assert client.raw.post(f"{kept}/{verb}", json={"name": name}).status_code == 400
    assert client("GET", "api/saved") == before


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "attacker.example"}, 403),
        ({"host": "127.0.0.1.attacker.example:8765"}, 403),
        ({"host": "127.0.0.1:8765", "origin": "http://attacker.example"}, 403),
        ({"host": "127.0.0.1:8765", "origin": "http://127.0.0.1:9999"}, 403),
        ({"host": "127.0.0.1:8765", "origin": "null"}, 403),
        ({"host": "127.0.0.1:8765", "origin": "http://127.0.0.1:8765"}, 200),
        ({"host": "localhost:9000", "origin": "http://localhost:9000"}, 200),
        ({"host": "[::1]:9000"}, 200),
    ],
)
def test_only_this_machine_and_this_page(client, headers, status):
    answer = client.raw.get("api/info", headers=headers)
    assert answer.status_code == status
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "script-src 'self'" in answer.headers["content-security-policy"]


def test_the_token_is_needed(client):
    for path in ("/", "/api/info", "/wrong/api/info", "/tokenx/api/info", "/token"):
        assert client.raw.get(f"http://127.0.0.1:8765{path}").status_code == 404


def test_bodies_are_json_and_small(client, kept):
    for kind_of, status in (("text/plain", 415), ("application/x-www-form-urlencoded", 415), ("application/json", 413)):
        content = b"{}" if status == 415 else b"[" * 1_000_001
        answer = client.raw.post(f"{kept}/edits", content=content, headers={"content-type": kind_of})
        assert answer.status_code == status
    for content in (b"", b"{", b'{"a": NaN}', b"[" * 100_000, b"\xff\xfe", b"null", b"3"):
        answer = client.raw.post(f"{kept}/edits", content=content, headers={"content-type": "application/json"})
        assert answer.status_code in (400, 415)


@pytest.mark.parametrize(
    ("edit", "status"),
    [
        ({"action": {"gene": "NOSUCH", "factor": 2}, "scope": {"everywhere": True}}, 422),
        ({"action": {"set_type": "NOSUCH"}, "scope": {"everywhere": True, "type": "NOSUCH"}}, 422),
        ({"action": {"remove": True}, "scope": {"everywhere": True}}, 400),
        ({"action": {"remove": True}, "scope": {"cell": "NOSUCH"}}, 422),
        ({"action": {"remove": True}, "scope": {"rectangle_um": [1e5, 1e5, 9, 9]}}, 422),
        ({"action": {"remove": True}, "scope": {"rectangle_um": [1, 1, -9, 9]}}, 400),
        ({"action": {"remove": True}, "scope": {"polygon_um": [[0, 0], [9, 9], [5, 5]]}}, 422),
        ({"action": {"remove": True}, "scope": {"polygon_um": [[i, i] for i in range(2001)]}}, 413),
        ({"action": {"add_type": "x", "spacing_um": 12}, "scope": {"cell": "x"}}, 400),
        ({"action": {"gene": "x", "factor": 4.1}, "scope": {"cell": "x"}}, 400),
    ],
)
def test_edits_that_cannot_be_used(client, kept, edit, status):
    before = client("GET", kept)
    client("POST", f"{kept}/edits", edit, status)
    assert client("GET", kept) == before


def test_too_many_added_cells_are_refused(client, kept):
    name = client("GET", "api/info")["model"]["types"][0]
    edit = {"action": {"add_type": name, "spacing_um": 1}, "scope": {"rectangle_um": [0, 0, 600, 600]}}
    assert "at most" in client("POST", f"{kept}/edits", edit, 422)["error"]["message"]


def test_a_fault_of_one_request_does_not_end_the_server(client, kept, server, monkeypatch, capsys):
    def fail(*arguments):
        raise MemoryError("no more")

    monkeypatch.setattr(server.answers, "describe", fail)
    monkeypatch.setattr("sge2hist.explorer.rendering.generate_target", fail)
    error = client("GET", f"{kept}/cell", params={"id": "x"}, status=500)["error"]
    assert error["code"] == "failed"
    assert "no more" not in error["message"]
    last = client.stages(f"{kept}/render", {"target": {"region_um": [9, 9, 64, 64]}})[-1]
    assert last["stage"] == "error"
    monkeypatch.undo()
    assert client.stages(f"{kept}/render", {"target": {"region_um": [9, 9, 64, 64]}})[-1]["stage"] == "full"


def test_a_newer_request_ends_the_older_one_of_its_slot(server):
    started, stages = threading.Event(), {"old": [], "new": [], "other": []}

    def slow(emit, check):
        started.set()
        for _ in range(2000):
            check()
            time.sleep(0.01)
        emit({"stage": "full"})

    def quick(emit, check):
        emit({"stage": "full"})

    _, old = server.renderer.start("tab", "main", slow, stages["old"].append)
    assert started.wait(10)
    _, other = server.renderer.start("other tab", "main", quick, stages["other"].append)
    other.result(10)
    assert stages == {"old": [], "new": [], "other": [{"stage": "full"}]}
    _, new = server.renderer.start("tab", "main", quick, stages["new"].append)
    old.result(10)
    new.result(10)
    assert stages["old"] == [{"stage": "cancelled"}]
    assert stages["new"] == [{"stage": "full"}]


def test_too_many_at_once_are_refused(server):
    from sge2hist.explorer.fields import RequestError
    from sge2hist.explorer.limits import LIMITS

    go = threading.Event()
    running = []
    for slot in range(LIMITS.running):
        running.append(server.renderer.start("many", str(slot), lambda e, c: go.wait(20), lambda line: None)[1])
    with pytest.raises(RequestError, match="under way"):
        server.renderer.start("many", "more", lambda e, c: None, lambda line: None)
    go.set()
    for one in running:
        one.result(20)
    server.renderer.start("many", "more", lambda e, c: None, lambda line: None)[1].result(20)


def test_sessions_end_when_there_are_too_many(client):
    from sge2hist.explorer.limits import LIMITS

    first = client.session()
    for _ in range(LIMITS.sessions):
        client.session()
    assert client("GET", first, status=404)["error"]["code"] == "session_gone"


def test_the_dataset_is_never_changed(tiny_paired, client, kept, cell):
    files = {path: path.stat().st_mtime_ns for path in tiny_paired.path.rglob("*")}
    counts = tiny_paired.counts_in_memory().copy()
    session = client.session()
    client("POST", f"{session}/edits", {"scope": {"cell": cell}, "action": {"remove": True}})
    client.stages(f"{session}/render", {"target": {"cell": cell}})
    assert files == {path: path.stat().st_mtime_ns for path in tiny_paired.path.rglob("*")}
    assert np.array_equal(counts.data, tiny_paired.counts_in_memory().data)
