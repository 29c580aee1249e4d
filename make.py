#!/usr/bin/env python3
"""Set up and run: `python3 make.py demo` or `python3 make.py test`. Needs Python >= 3.11 and nothing else.

The first call makes a virtual environment in .venv with the exact versions of constraints.txt; later calls reuse it.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
STAMP = VENV / "installed.sha256"


def install() -> None:
    """Make the environment, unless it was made from the same files before."""
    content = b"".join((ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt"))
    wanted = hashlib.sha256(content).hexdigest()
    if STAMP.is_file() and STAMP.read_text() == wanted:
        return
    print(f"setting up {VENV} (once; about 2 GB)", flush=True)
    if not (BIN / "python").exists() and not (BIN / "python.exe").exists():
        venv.create(VENV, with_pip=True)
    pip = [str(BIN / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--upgrade", "pip>=25.1"], check=True)  # the first that knows dependency groups
    subprocess.run([*pip, "-c", "constraints.txt", "-e", ".[metrics]", "--group", "dev"], check=True, cwd=ROOT)
    STAMP.write_text(wanted)


def main() -> int:
    """Run one of the two jobs; more arguments are handed on."""
    jobs = {"demo": [str(BIN / "sge2hist"), "demo"], "test": [str(BIN / "python"), "-m", "pytest", "-n", "auto"]}
    if sys.version_info < (3, 11):  # noqa: UP036  (whoever calls this has read no metadata yet)
        print(f"Python {sys.version.split()[0]} found, 3.11 or newer is needed", file=sys.stderr)
        return 2
    if len(sys.argv) < 2 or sys.argv[1] not in jobs:
        print(__doc__)
        return 2
    install()
    # one test process per core: more threads in each would only wait for one another
    environment = os.environ | ({"OMP_NUM_THREADS": "1"} if sys.argv[1] == "test" else {})
    return subprocess.run([*jobs[sys.argv[1]], *sys.argv[2:]], cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
