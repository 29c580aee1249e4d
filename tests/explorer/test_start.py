"""Starting: a real socket on loopback, the notebook object, and what cannot be used."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import numpy as np
import pytest

import sge2hist
from sge2hist.data.errors import InputError
from sge2hist.explorer.start import open_explorer, open_page_when_ready


@pytest.fixture(scope="module")
def explorer(tiny_model, tiny_paired):
    running = sge2hist.explore(tiny_model, tiny_paired)
    yield running
    running.close()


def ask(url: str, body: dict | None = None) -> dict:
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, content, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read().splitlines()[-1])


def test_the_notebook_object_follows_the_page(explorer, tiny_paired, cell, gene):
    assert explorer.edits == []
    assert explorer.image is None
    session = ask(f"{explorer.url}api/sessions", {})["session"]
    base = f"{explorer.url}api/sessions/{session}"
    ask(f"{base}/edits", {"scope": {"cell": cell}, "action": {"gene": gene, "factor": 3}})
    assert explorer.edits[0]["action"] == {"gene": gene, "factor": 3.0}
    assert ask(f"{base}/render", {"target": {"cell": cell}})["stage"] == "full"
    assert explorer.image.dtype == np.uint8
    explorer.edits = [*explorer.edits, {"scope": {"cell": cell}, "action": {"remove": True}}]
    assert len(ask(base)["edits"]) == 2


def test_it_shows_itself(explorer, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "sge2hist.explorer.widget", None)  # without anywidget
    shown = explorer._repr_mimebundle_()
    assert explorer.url in shown["text/html"]
    monkeypatch.undo()
    pytest.importorskip("anywidget")
    from sge2hist.explorer.widget import widget_of

    assert widget_of(explorer.url).url == explorer.url


def test_it_answers_on_loopback_with_its_token_alone(explorer):
    assert explorer.url.startswith("http://127.0.0.1:")
    base = explorer.url.rstrip("/").rpartition("/")[0]
    with pytest.raises(urllib.error.HTTPError, match="404"):
        ask(f"{base}/api/info")
    seen = []
    open_page_when_ready(explorer, seen.append)
    for _ in range(100):
        if seen:
            break
        time.sleep(0.05)
    assert seen == [explorer.url]


def test_closing_the_connection_ends_the_work(explorer, monkeypatch, cell):
    started, ended = threading.Event(), threading.Event()

    def endless(tissue, target, edits, settings, look):
        started.set()
        try:
            while True:
                look(None, None)
                time.sleep(0.01)
        finally:
            ended.set()

    monkeypatch.setattr("sge2hist.explorer.rendering.generate_target", endless)
    session = ask(f"{explorer.url}api/sessions", {})["session"]
    parts = urllib.parse.urlsplit(explorer.url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    body = {"target": {"cell": cell}, "preview": False}
    headers = {"Content-Type": "application/json"}
    seed = json.dumps({"seed": 4321})  # a picture that no other test has asked for: those are kept
    connection.request("PUT", f"{parts.path}api/sessions/{session}/settings", seed, headers)
    assert connection.getresponse().read()
    connection.request("POST", f"{parts.path}api/sessions/{session}/render", json.dumps(body), headers)
    assert connection.getresponse().status == 200
    assert started.wait(60)  # the answer begins before the work does: work that has not begun would not end either
    assert not ended.is_set()
    connection.sock.shutdown(socket.SHUT_RDWR)
    connection.close()
    assert ended.wait(60)


def test_a_taken_port_is_refused(tiny_model, tiny_paired):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match="a free port"):
            open_explorer(tiny_model, tiny_paired, port=taken.getsockname()[1])


def test_a_missing_package_is_named(tiny_model, tiny_paired, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(InputError, match=r"pip install 'sge2hist\[explore\]'"):
        open_explorer(tiny_model, tiny_paired)


@pytest.mark.parametrize(
    ("options", "message"), [({"section": "none"}, "section 'none'"), ({"generated": "/nowhere"}, "nowhere")]
)
def test_what_does_not_fit_is_refused(tiny_model, tiny_paired, options, message):
    with pytest.raises(InputError, match=message):
        open_explorer(tiny_model, tiny_paired, **options)


def test_wrong_types_are_refused(tiny_paired):
    with pytest.raises(InputError, match="a model of type int"):
        open_explorer(5, tiny_paired)  # type: ignore[arg-type]
