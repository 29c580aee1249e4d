"""A whole data set from a server on the loopback device: what is there afterwards, and at later runs."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from download.server import Served, serving
from sge2hist.data.errors import InputError
from sge2hist.download import fetch as module
from sge2hist.download import transfer
from sge2hist.download.catalogue import CATALOGUE
from sge2hist.download.fetch import fetch, published
from sge2hist.download.transfer import CHUNK
from sge2hist.readers import open_sections
from sge2hist.toy.tissue import ToyTissueConfig, simulate
from sge2hist.toy.visium_hd_folder import write_visium_hd

DATA = published("visium-hd-mouse-brain")
PREFIX = DATA.prefix


@pytest.fixture(scope="session")
def vendor_files(tmp_path_factory):
    """A toy run packed as the vendor packs its public data."""
    folder = tmp_path_factory.mktemp("vendor")
    toy = write_visium_hd(simulate(ToyTissueConfig.tiny(), seed=0), folder / "toy")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.add(toy.outs / "binned_outputs", "binned_outputs")
    return {f"{PREFIX}_binned_outputs.tar.gz": packed.getvalue(), f"{PREFIX}_tissue_image.tif": toy.image.read_bytes()}


@pytest.fixture
def served(vendor_files, monkeypatch):
    monkeypatch.setattr(transfer, "BACKOFF_S", 0.0)
    with serving(Served(files=dict(vendor_files))) as one:
        yield one


def test_a_data_set_comes_as_prepare_reads_it(served, tmp_path, vendor_files):
    lines: list[str] = []
    outs = fetch(DATA, tmp_path / "brain", mirror=served.address, log=lines.append)
    (section,) = open_sections(outs, image=tmp_path / "brain" / f"{PREFIX}_tissue_image.tif", bin_um=16)
    assert section.n_obs > 0
    record = json.loads((tmp_path / "brain" / "fetch.json").read_text())
    for name, content in vendor_files.items():
        assert record["files"][name]["sha256"] == hashlib.sha256(content).hexdigest()
    text = "\n".join(lines)
    assert "CC BY 4.0" in text
    assert "cite as: 10x Genomics" in text
    assert text.index("to be loaded") < text.index("wrote")
    assert [p.name for p in tmp_path.iterdir()] == ["brain"]


def test_what_is_there_is_not_loaded_again_and_needs_no_network(served, tmp_path):
    fetch(DATA, tmp_path / "brain", mirror=served.address, log=lambda _: None)
    served.requests.clear()
    lines: list[str] = []
    fetch(DATA, tmp_path / "brain", mirror=served.address, log=lines.append)
    assert served.requests == []
    assert "to be loaded: 0.00 MB" in lines


def test_a_file_that_changed_is_found_at_the_next_run(served, tmp_path):
    fetch(DATA, tmp_path / "brain", mirror=served.address, log=lambda _: None)
    image = tmp_path / "brain" / f"{PREFIX}_tissue_image.tif"
    content = bytearray(image.read_bytes())
    content[-1] ^= 1
    image.write_bytes(content)
    with pytest.raises(InputError, match=r"not the one recorded.*remove this file"):
        fetch(DATA, tmp_path / "brain", mirror=served.address, log=lambda _: None)
    image.unlink()
    fetch(DATA, tmp_path / "brain", mirror=served.address, log=lambda _: None)
    image.unlink()
    served.files[image.name] = bytes(content)
    with pytest.raises(InputError, match="replaced the file"):
        fetch(DATA, tmp_path / "brain", mirror=served.address, log=lambda _: None)


def test_a_run_that_was_broken_off_goes_on(served, tmp_path):
    served.break_after = [CHUNK] + [0] * 10
    with pytest.raises(InputError, match="what has arrived is kept"):
        fetch(DATA, tmp_path / "brain", mirror=served.address, log=lambda _: None)
    served.break_after, served.requests = [], []
    fetch(DATA, tmp_path / "brain", mirror=served.address, log=lambda _: None)
    assert ("GET", f"{PREFIX}_binned_outputs.tar.gz", f"bytes={CHUNK}-") in served.requests
    assert (tmp_path / "brain/outs/binned_outputs/square_016um").is_dir()


def test_a_hostile_archive_leaves_nothing(served, tmp_path):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        info = tarfile.TarInfo("../../evil")
        info.size = 1
        tar.addfile(info, io.BytesIO(b"x"))
    served.files[f"{PREFIX}_binned_outputs.tar.gz"] = packed.getvalue()
    with pytest.raises(InputError, match="do not use this archive"):
        fetch(DATA, tmp_path / "brain", mirror=served.address, log=lambda _: None)
    assert not list(tmp_path.rglob("evil"))
    assert list((tmp_path / "brain" / "outs").iterdir()) == []


def test_a_damaged_archive_is_loaded_again_once_it_is_removed(served, tmp_path):
    name = f"{PREFIX}_binned_outputs.tar.gz"
    whole, served.files[name] = served.files[name], served.files[name][:-100_000]
    with pytest.raises(InputError, match=r"damaged archive.*remove it"):
        fetch(DATA, tmp_path / "brain", mirror=served.address, log=lambda _: None)
    served.files[name] = whole
    (tmp_path / "brain" / "downloads" / name).unlink()
    fetch(DATA, tmp_path / "brain", mirror=served.address, log=lambda _: None)
    assert (tmp_path / "brain/outs/binned_outputs/square_016um").is_dir()


def test_a_missing_file_is_named_before_anything_is_loaded(served, tmp_path):
    del served.files[f"{PREFIX}_tissue_image.tif"]
    with pytest.raises(InputError, match=r"tissue_image\.tif.*have moved"):
        fetch(DATA, tmp_path / "brain", mirror=served.address, log=lambda _: None)
    assert served.asked("GET") == []
    assert not (tmp_path / "brain").exists()


def test_a_full_disk_is_found_before_anything_is_loaded(served, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "UNPACKED_RATIO", 1e15)
    with pytest.raises(InputError, match="GB free"):
        fetch(DATA, tmp_path / "brain", mirror=served.address, log=lambda _: None)
    assert served.asked("GET") == []


def test_a_dry_run_writes_nothing(served, tmp_path):
    fetch(DATA, tmp_path / "brain", mirror=served.address, dry_run=True, log=lambda _: None)
    assert served.asked("GET") == []
    assert list(tmp_path.iterdir()) == []


def test_other_folders_are_left_alone(served, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="other content"):
        fetch(DATA, tmp_path, mirror=served.address, log=lambda _: None)
    fetch(DATA, tmp_path / "brain", mirror=served.address, log=lambda _: None)
    with pytest.raises(InputError, match="record of data set 'visium-hd-mouse-brain'"):
        fetch(replace(DATA, name="other"), tmp_path / "brain", mirror=served.address, log=lambda _: None)
    with pytest.raises(InputError, match="https://"):
        fetch(DATA, tmp_path / "more", mirror="file:///etc", log=lambda _: None)


def test_the_command_lists_and_names_what_is_wrong():
    from sge2hist.cli.main import app

    shown = CliRunner().invoke(app, ["fetch", "--list"])
    assert shown.exit_code == 0
    assert all(data.name in shown.output and data.address in shown.output for data in CATALOGUE)
    for words, message in ((["fetch"], "--list"), (["fetch", "brain", "-o", "x"], "no data set 'brain'")):
        assert message in str(CliRunner().invoke(app, words).exception)
    assert "no -o" in str(CliRunner().invoke(app, ["fetch", DATA.name]).exception)
