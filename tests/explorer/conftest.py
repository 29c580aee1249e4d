"""A running explorer on the tiny tissue, without a socket."""

from __future__ import annotations

import json
import warnings

import pytest

pytest.importorskip("starlette", reason="needs the extra [explore]")
pytest.importorskip("uvicorn", reason="needs the extra [explore]")

TOKEN = "token"


class Client:
    """Speaks the protocol; every answer is checked to be JSON or a file."""

    def __init__(self, server) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from starlette.testclient import TestClient

            self.raw = TestClient(server.app, base_url=f"http://127.0.0.1:8765/{TOKEN}/", raise_server_exceptions=False)

    def __call__(self, method: str, path: str, body=None, status: int = 200, **options):
        answer = self.raw.request(method, path, json=body, **options)
        assert answer.status_code == status, answer.text
        return answer.json()

    def session(self) -> str:
        return f"api/sessions/{self('POST', 'api/sessions', {}, 201)['session']}"

    def stages(self, path: str, body: dict, status: int = 200) -> list[dict]:
        answer = self.raw.request("POST", path, json=body)
        assert answer.status_code == status, answer.text
        return [json.loads(line) for line in answer.text.splitlines()]


@pytest.fixture(scope="session")
def server(tiny_model, tiny_paired, tmp_path_factory):
    from sge2hist.explorer.exports import SavedEdits
    from sge2hist.explorer.tissue import Tissue
    from sge2hist.explorer.web.server import ExplorerServer
    from sge2hist.models.bundle import ModelBundle

    tissue = Tissue(ModelBundle.load(tiny_model), tiny_paired, model_name=str(tiny_model))
    made = ExplorerServer(tissue, TOKEN, SavedEdits(tmp_path_factory.mktemp("saved")))
    yield made
    made.renderer.close()


@pytest.fixture(scope="session")
def client(server) -> Client:
    return Client(server)


@pytest.fixture(scope="session")
def cell(tiny_paired) -> str:
    """Id of a cell in the middle."""
    return str(tiny_paired.obs.index[len(tiny_paired) // 2 + 20])


@pytest.fixture(scope="session")
def gene(tiny_paired, cell) -> str:
    """Symbol of the gene with most counts in the cell."""
    row = tiny_paired.obs.index.get_loc(cell)
    return tiny_paired.genes.symbols[int(tiny_paired.counts([row]).toarray()[0].argmax())]
