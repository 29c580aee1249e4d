"""Archives that are damaged, hostile or bombs: nothing is written outside, and little inside."""

from __future__ import annotations

import gzip
import io
import tarfile

import numpy as np
import pytest

from sge2hist.data.errors import InputError
from sge2hist.download import unpack as module
from sge2hist.download.unpack import unpack


def entry(name, content=b"x", **attributes):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in attributes.items():
        setattr(info, key, value)
    return info, content


def archive(path, *entries, format=tarfile.PAX_FORMAT):
    with tarfile.open(path, "w:gz", format=format) as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    return path


def test_files_and_folders_come_out_as_they_are(tmp_path):
    content = np.random.default_rng(0).bytes(3_000_000)
    long_name = "a/" + "long" * 40 + "/file"
    folder = entry("a", b"", type=tarfile.DIRTYPE)
    path = archive(tmp_path / "x.tar.gz", folder, entry("a/b.bin", content), entry(long_name), entry("./a/c", b""))
    assert unpack(path, tmp_path / "out") == 3_000_001
    assert (tmp_path / "out/a/b.bin").read_bytes() == content
    assert (tmp_path / "out" / long_name).read_bytes() == b"x"
    assert (tmp_path / "out/a/c").read_bytes() == b""


HOSTILE = {
    "absolute": entry("/tmp/evil"),
    "parent": entry("a/../../evil"),
    "backslash": entry("..\\evil"),
    "drive": entry("C:evil"),
    "control": entry("a\nb"),
    "symbolic link": entry("a", b"", type=tarfile.SYMTYPE, linkname="/etc"),
    "inner link": entry("a", b"", type=tarfile.SYMTYPE, linkname="b"),
    "hard link": entry("a", b"", type=tarfile.LNKTYPE, linkname="/etc/passwd"),
    "device": entry("a", b"", type=tarfile.CHRTYPE),
    "pipe": entry("a", b"", type=tarfile.FIFOTYPE),
    "deep": entry("/".join("a" * 30)),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_entries_are_refused(tmp_path, case):
    path = archive(tmp_path / "x.tar.gz", entry("good"), HOSTILE[case])
    with pytest.raises(InputError, match="do not use this archive"):
        unpack(path, tmp_path / "in" / "out")
    written = {p.name for p in tmp_path.rglob("*")}
    assert written <= {"x.tar.gz", "in", "out", "good"}


def test_an_entry_twice_is_refused(tmp_path):
    with pytest.raises(InputError, match="two entries of one name"):
        unpack(archive(tmp_path / "x.tar.gz", entry("a"), entry("a", b"other")), tmp_path / "out")
    with pytest.raises(InputError, match="two entries of one name"):
        unpack(archive(tmp_path / "y.tar.gz", entry("a"), entry("a/b")), tmp_path / "other")


def test_a_bomb_of_content_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MIN_BOUND", 1 << 20)
    path = archive(tmp_path / "x.tar.gz", entry("zeros", bytes(50 << 20)))
    assert path.stat().st_size < 1 << 17
    with pytest.raises(InputError, match="unpacks to more than"):
        unpack(path, tmp_path / "out")
    assert sum(p.stat().st_size for p in (tmp_path / "out").rglob("*")) == 0


def test_a_bomb_of_names_is_bounded(tmp_path):
    """An attribute of 50 MB, which tarfile would read into memory."""
    info, content = entry("a")
    info.pax_headers = {"comment": "x" * (50 << 20)}
    with pytest.raises(InputError, match="longer than stated"):
        unpack(archive(tmp_path / "x.tar.gz", (info, content)), tmp_path / "out")


def test_a_bomb_of_entries_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_ENTRIES", 20)
    with pytest.raises(InputError, match="20 entries"):
        unpack(archive(tmp_path / "x.tar.gz", *(entry(f"f{i}", b"") for i in range(30))), tmp_path / "out")


def test_zeros_after_the_end_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MIN_BOUND", 2 << 20)
    path = archive(tmp_path / "x.tar.gz", entry("a"))
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(20 << 20)))
    with pytest.raises(InputError):
        unpack(path, tmp_path / "out")


@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "empty", "no tar", "cut tar"])
def test_damaged_archives_are_refused(tmp_path, damage):
    content = np.random.default_rng(0).bytes(400_000)
    path = archive(tmp_path / "x.tar.gz", entry("a", content))
    packed = path.read_bytes()
    flipped = bytearray(packed)
    flipped[len(packed) // 2] ^= 0xFF
    plain = gzip.decompress(packed)
    bytes_of = {
        "cut": packed[: len(packed) // 2],
        "flipped": bytes(flipped),
        "text": b"<html>not found</html>",
        "empty": b"",
        "no tar": gzip.compress(b"not a tar" * 1000),
        "cut tar": gzip.compress(plain[: len(plain) // 2]),
    }
    path.write_bytes(bytes_of[damage])
    with pytest.raises(InputError, match="damaged archive"):
        unpack(path, tmp_path / "out")
