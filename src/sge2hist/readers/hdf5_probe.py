"""Opening an HDF5 file that may be damaged: a first look in a process of its own.

The HDF5 library can crash the process, or never return, on damaged metadata (a variable-length attribute whose heap was
overwritten is one such case). No exception can be caught then, so another process takes the first look.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from sge2hist.data.errors import InputError

TIMEOUT_S = 120.0
# Reads what is small of everything: attributes, names, the first and last item of each dataset.
_LOOK = """
import sys, h5py
def look(name, item):
    dict(item.attrs)
    if isinstance(item, h5py.Dataset) and item.ndim == 1 and len(item):
        item[0], item[-1]
with h5py.File(sys.argv[1], "r") as file:
    dict(file.attrs)
    if sys.argv[2] == "all":
        file.visititems(look)
"""


def probe_hdf5(path: str | Path, *, root_only: bool = False) -> None:
    """Raise `InputError` if a look at the file crashes or hangs; ordinary errors are left to the reader.

    Parameters
    ----------
    root_only
        Look at the attributes of the file alone, where nothing else of it will be read.
    """
    depth = "root" if root_only else "all"
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", _LOOK, str(path), depth], capture_output=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise _damaged(path, f"no answer within {TIMEOUT_S:g} s") from None
    if done.returncode < 0:  # ended by a signal
        raise _damaged(path, f"the HDF5 library crashed on it, signal {-done.returncode}")


def _damaged(path: str | Path, what: str) -> InputError:
    return InputError(
        found=f"a damaged HDF5 file ({what})",
        where=str(path),
        expected="a complete file",
        repair="copy or download it again and compare its size or md5 with the original",
    )
