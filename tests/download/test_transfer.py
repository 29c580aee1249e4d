"""Downloads from a server that breaks off, lies, ignores ranges, is busy or absent: the truth is the bytes that it serves."""

from __future__ import annotations

import socket

import numpy as np
import pytest

from download.server import Served, serving
from sge2hist.data.errors import InputError
from sge2hist.download import transfer
from sge2hist.download.transfer import CHUNK, MAX_FAILED, download, open_session, probe

CONTENT = np.random.default_rng(0).bytes(5_000_000)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(transfer, "BACKOFF_S", 0.0)


@pytest.fixture
def served():
    with serving(Served(files={"file": CONTENT})) as one:
        yield one


def load(served, path):
    with open_session() as session:
        remote = probe(session, f"{served.address}/file")
        assert remote is not None
        download(session, remote, path)
    return path.read_bytes()


def test_the_size_is_known_before_anything_is_loaded(served):
    with open_session() as session:
        assert probe(session, f"{served.address}/file").n_bytes == len(CONTENT)
        assert probe(session, f"{served.address}/other") is None
    assert served.asked("GET") == []


def test_a_broken_download_resumes_where_it_ended(served, tmp_path):
    served.break_after = [120 * CHUNK, 90 * CHUNK]
    assert load(served, tmp_path / "file") == CONTENT
    ranges = [r for method, _, r in served.requests if method == "GET"]
    assert ranges == ["", f"bytes={120 * CHUNK}-", f"bytes={210 * CHUNK}-"]
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_later_run_resumes_too(served, tmp_path):
    served.break_after = [120 * CHUNK] + [0] * MAX_FAILED
    with pytest.raises(InputError, match="what has arrived is kept"):
        load(served, tmp_path / "file")
    assert not (tmp_path / "file").exists()
    served.break_after, served.requests = [], []
    assert load(served, tmp_path / "file") == CONTENT
    assert served.requests[-1] == ("GET", "file", f"bytes={120 * CHUNK}-")


def test_another_version_starts_again(served, tmp_path):
    served.break_after = [120 * CHUNK] + [0] * MAX_FAILED
    with pytest.raises(InputError):
        load(served, tmp_path / "file")
    served.break_after, served.etags = [], {"file": '"2"'}
    served.files["file"] = other = CONTENT[::-1]
    assert load(served, tmp_path / "file") == other


def test_a_version_that_changes_between_two_attempts_is_not_mixed(served, tmp_path):
    with open_session() as session:
        remote = probe(session, f"{served.address}/file")
        served.break_after = [120 * CHUNK] + [0] * MAX_FAILED
        with pytest.raises(InputError):
            download(session, remote, tmp_path / "file")
        served.break_after, served.etags = [], {"file": '"2"'}
        served.files["file"] = other = CONTENT[::-1]
        download(session, remote, tmp_path / "file")  # If-Range: the whole new version comes
    assert (tmp_path / "file").read_bytes() == other


def test_a_server_that_ignores_ranges_sends_all_again(served, tmp_path):
    served.ranges, served.break_after = False, [2_000_000]
    assert load(served, tmp_path / "file") == CONTENT


def test_a_server_that_always_breaks_at_one_place_is_given_up(served, tmp_path):
    served.ranges, served.break_after = False, [2_000_000] * 50
    with pytest.raises(InputError, match=f"{MAX_FAILED} attempts"):
        load(served, tmp_path / "file")
    assert len(served.asked("GET")) <= MAX_FAILED + 1


@pytest.mark.parametrize("stated", [len(CONTENT) - 1000, len(CONTENT) + 1000])
def test_two_sizes_of_one_file_are_refused(served, tmp_path, stated):
    served.head_size = stated
    with pytest.raises(InputError, match="two sizes"):
        load(served, tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_more_bytes_than_stated_are_refused(served, tmp_path):
    with open_session() as session:
        remote = probe(session, f"{served.address}/file")
        served.length, served.files["file"] = False, CONTENT + b"more"
        with pytest.raises(InputError, match="more than the 5,000,000 bytes"):
            download(session, remote, tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_other_bytes_than_asked_for_are_refused(served, tmp_path):
    served.wrong_range, served.break_after = True, [2_000_000]
    with pytest.raises(InputError, match="other bytes than asked for"):
        load(served, tmp_path / "file")


def test_a_server_without_head_and_length_serves_too(served, tmp_path):
    served.head = False
    assert load(served, tmp_path / "file") == CONTENT


def test_a_busy_server_is_asked_again_and_a_refusing_one_not(served, tmp_path):
    served.answers = [503, 429, 0, 502]
    assert load(served, tmp_path / "file") == CONTENT
    served.requests = []
    with open_session() as session:
        remote = probe(session, f"{served.address}/file")
        served.answers = [404]
        with pytest.raises(InputError, match="answer 404"):
            download(session, remote, tmp_path / "again")
    assert len(served.asked("GET")) == 1


def test_offline_is_said(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/file"
    with open_session() as session, pytest.raises(InputError, match=r"no complete answer.*refused.*connection"):
        probe(session, url)
