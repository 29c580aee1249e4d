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


def install(target: str) -> None:
    """Make the environment for a target, unless it was made from the same files before; tests need more than the demo."""
    wants = [".[metrics]", "--group", "dev"] if target == "test" else [".[metrics]"]
    content = b"".join((ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt"))
    wanted = hashlib.sha256(content).hexdigest()
    done = STAMP.read_text().split() if STAMP.is_file() else []
    if done[:1] == [wanted] and (target in done or "test" in done):
        return
    print(f"setting up {VENV} (once; 2 to 3 GB)", flush=True)
    if not (BIN / "python").exists() and not (BIN / "python.exe").exists():
        venv.create(VENV, with_pip=True)
    pip = [str(BIN / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--upgrade", "pip>=25.1"], check=True)  # the first that knows dependency groups
    subprocess.run([*pip, "-c", "constraints.txt", "-e", *wants], check=True, cwd=ROOT)
    STAMP.write_text(f"{wanted} {target}")


def main() -> int:
    """Run one of the two targets; further arguments are passed on."""
    targets = {"demo": [str(BIN / "sge2hist"), "demo"], "test": [str(BIN / "python"), "-m", "pytest", "-n", "auto"]}
    if sys.version_info < (3, 11):  # noqa: UP036  (the caller may not have read the metadata)
        print(f"Python {sys.version.split()[0]} found, 3.11 or newer is needed", file=sys.stderr)
        return 2
    if len(sys.argv) < 2 or sys.argv[1] not in targets:
        print(__doc__)
        return 2
    install(sys.argv[1])
    # one test process per core: more threads in each only wait for each other
    environment = os.environ | ({"OMP_NUM_THREADS": "1"} if sys.argv[1] == "test" else {})
    return subprocess.run([*targets[sys.argv[1]], *sys.argv[2:]], cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
