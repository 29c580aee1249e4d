"""How many threads there are, from trees of control groups as Linux has them, and what a new process makes of it."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from sge2hist import threads


def _tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return root


@pytest.mark.parametrize(
    ("own_groups", "files", "expected"),
    [
        ("0::/", {"cpu.max": "max 100000"}, None),
        ("0::/", {"cpu.max": "200000 100000"}, 2),
        ("0::/", {"cpu.max": "50000 100000"}, 1),
        ("0::/", {"cpu.max": "250000 100000"}, 3),
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "400000 100000", "cpu.max": "900000 100000"}, 4),
        ("0::/path/of/the/host", {"cpu.max": "300000 100000"}, 3),
        ("0::/../sibling", {"cpu.max": "300000 100000"}, 3),
        ("3:cpuset:/\n2:cpu,cpuacct:/job", {"cpu,cpuacct/job/cpu.cfs_quota_us": "150000"}, None),
        (
            "2:cpu,cpuacct:/job",
            {"cpu,cpuacct/job/cpu.cfs_quota_us": "150000", "cpu,cpuacct/job/cpu.cfs_period_us": "100000"},
            2,
        ),
        ("2:cpuacct,cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("2:cpuacct,cpu:/", {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ("0::/\n1:name=systemd:/x", {}, None),
    ],
)
def test_quota_of_control_groups(tmp_path, own_groups, files, expected):
    (tmp_path / "cgroup").write_text(own_groups + "\n")
    assert threads._cgroup_quota(tmp_path / "cgroup", _tree(tmp_path / "fs", files)) == expected
    assert threads._cgroup_quota(tmp_path / "no such file", tmp_path) is None


@pytest.mark.parametrize(
    ("variable", "cores", "quota", "expected"),
    [
        (None, 8, None, 8),
        (None, 8, 2, 2),
        ("3", 8, None, 3),
        ("3", 8, 2, 2),
        ("64", 8, None, 8),
        ("4,2", 8, None, 4),
        ("", 8, None, 8),
        ("many", 8, None, 8),
        ("0", 8, None, 8),
    ],
)
def test_the_least_of_three_limits(monkeypatch, variable, cores, quota, expected):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if variable is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    monkeypatch.setattr(threads, "_allowed_cores", lambda: cores)
    monkeypatch.setattr(threads, "_cgroup_quota", lambda *_: quota)
    assert threads.available_threads() == expected


def _in_new_process(code: str, **environment: str) -> str:
    unset = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", *threads.LIMITS)  # a command of another test may have set limits
    inherited = {name: value for name, value in os.environ.items() if name not in unset}
    done = subprocess.run(
        [sys.executable, "-c", code], env=inherited | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_defaults_of_a_new_process():
    spin = "import os, sge2hist; print(os.environ.get('GOMP_SPINCOUNT'))"
    assert _in_new_process(spin) == str(threads.SPIN_COUNT)
    assert _in_new_process(spin, GOMP_SPINCOUNT="7") == "7"
    assert _in_new_process(spin, OMP_WAIT_POLICY="PASSIVE") == "None"
    assert _in_new_process("import torch;" + spin) == "None"  # too late: OpenMP has read its settings
    n = "import sge2hist, torch; print(torch.get_num_threads())"
    assert _in_new_process(n, OMP_NUM_THREADS="1") == "1"
    assert int(_in_new_process(n, OMP_NUM_THREADS="4096")) <= len(os.sched_getaffinity(0))


def test_threads_of_a_pool_keep_their_limit_and_no_other_changes():
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        pool = threads.threads_with_limits(2, 1, "few")
        with pool, ThreadPoolExecutor(1) as other:
            torch.set_num_threads(2)  # after it, torch begins in threads of the pool: it must not read this
            both = Barrier(2)
            seen = [pool.submit(lambda: (both.wait(20), torch.get_num_threads())[1]) for _ in range(2)]
            assert [future.result() for future in seen] == [1, 1]
            assert torch.get_num_threads() == 2
            assert other.submit(torch.get_num_threads).result() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_threads_follow_the_cores_a_process_may_use():
    core = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, [{core}]); import sge2hist, torch; print(torch.get_num_threads())"
    assert _in_new_process(code) == "1"


def test_openmp_reads_the_setting():
    """OpenMP itself prints what it has read."""
    code = "import sge2hist, torch; torch.ones(10).sum()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
        | {"OMP_DISPLAY_ENV": "VERBOSE"},
        capture_output=True,
        text=True,
        check=True,
    )
    if "GOMP_SPINCOUNT" not in done.stderr:
        pytest.skip("torch is not built with GNU OpenMP")
    assert f"GOMP_SPINCOUNT = '{threads.SPIN_COUNT}'" in done.stderr
