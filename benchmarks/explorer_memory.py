"""The command line with a log of what holds its memory: every half a minute one line of JSON. Started by `explorer_soak.py`.

    python benchmarks/explorer_memory.py held.jsonl explore pretrained:kidney --data kidney.paired --no-browser

`lines`: bytes by the line of Python that asked for them (tracemalloc; NumPy too). `in_use`, `free`, `mapped`: bytes that malloc
has given out, holds back, and maps for large blocks (mallinfo2 of glibc; tensors of torch too). Memory that rises while none of
`in_use` and `mapped` does is what malloc holds back, no leak.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
import threading
import time
import tracemalloc
from pathlib import Path

EVERY_SECONDS = 30.0
FIELDS = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")


class MallInfo(ctypes.Structure):
    """struct mallinfo2 of malloc.h."""

    _fields_ = [(name, ctypes.c_size_t) for name in FIELDS]


def malloc_bytes() -> dict[str, int]:
    """Bytes of malloc, of all arenas; empty where the C library has no mallinfo2."""
    try:
        mallinfo2 = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError):
        return {}
    mallinfo2.restype = MallInfo
    found = mallinfo2()
    return {"in_use": found.uordblks, "free": found.fordblks, "mapped": found.hblkhd}


def held() -> dict[str, object]:
    """What holds memory now."""
    gc.collect()
    snapshot = tracemalloc.take_snapshot()
    lines = {
        f"{one.traceback[0].filename}:{one.traceback[0].lineno}": one.size for one in snapshot.statistics("lineno")
    }
    return {**malloc_bytes(), "lines": {place: size for place, size in lines.items() if size >= 1000}}


def log(path: Path) -> None:
    """Append to the log until the process ends."""
    start = time.monotonic()
    while True:
        time.sleep(EVERY_SECONDS)
        entry = {"minutes": round((time.monotonic() - start) / 60, 2), **held()}
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def growth(path: Path, since_minutes: float, n: int = 12) -> list[str]:
    """Growth from the first entry after some minutes to the last one, as lines of text: of malloc, and of the lines most."""
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    entries = [entry for entry in entries if entry["minutes"] >= since_minutes]
    if len(entries) < 2:
        return [f"no two entries of {path} after minute {since_minutes:g}"]
    first, last = entries[0], entries[-1]
    out = [f"growth from minute {first['minutes']:.0f} to {last['minutes']:.0f}:"]
    out += [
        f"{(last[name] - first[name]) / 1e6:+8.1f} MB  malloc, {name} ({last[name] / 1e6:.0f} MB at the end)"
        for name in ("in_use", "free", "mapped")
        if name in first and name in last
    ]
    before, after = first["lines"], last["lines"]
    change = {place: after.get(place, 0) - before.get(place, 0) for place in {*before, *after}}
    out.append(
        f"{sum(change.values()) / 1e6:+8.1f} MB  all lines of Python ({sum(after.values()) / 1e6:.0f} MB at the end)"
    )
    most = sorted(change, key=lambda place: -abs(change[place]))[:n]
    return out + [f"{change[place] / 1e6:+8.2f} MB  {place}" for place in most]


def main() -> None:
    tracemalloc.start()
    path = Path(sys.argv[1])
    path.unlink(missing_ok=True)
    threading.Thread(target=log, args=(path,), daemon=True).start()
    from sge2hist.cli.main import app

    app(sys.argv[2:])


if __name__ == "__main__":
    main()
