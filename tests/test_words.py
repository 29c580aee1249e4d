"""One word per meaning: private words of earlier versions stay out of code, messages and documents (CONTRIBUTING.md, Words)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BANNED = {
    r"un?told|tells?": "conditioned on, predicted, saved, logged",
    r"judg(e|es|ed|ing)": "evaluate, reference classifier",
    r"surroundings?": "neighbours, neighbourhood, microenvironment",
    r"around_\w+|\w+_around": "neighbour",
    r"left[_ ]out|leave[_ ]out|LeftOut": "exclude",
    r"own[_ ]guidance": "guidance distillation",
    r"square[_ ]places|record[_ ]file": "tile store",
    r"critics?": "discriminator",
    r"grain(s|y)?": "decoder noise",
    r"(LEAST|MOST|SMALLEST|LARGEST)_\w+": "MIN_, MAX_",
    r"(least|most|smallest|largest)_\w+": "min_, max_",
    r"as they are now|of today|of the weights of now|a word": "say the version, or what is meant",
    r"drawn|drawings?|draws": "generated, sampled; outlined",
    r"rim|aside": "halo, tile_offset",
    r"side_by_side": "parallel",
    r"anew": "again, from scratch",
}
"""Pattern (whole words, any case unless it has capitals) -> what to write instead."""
ALLOWED = {
    "src/sge2hist/models/version_0_1.py": {r"around_\w+|\w+_around", r"own[_ ]guidance", r"grain(s|y)?"},
    "tests/models/test_version_0_1.py": {r"around_\w+|\w+_around", r"own[_ ]guidance", r"grain(s|y)?"},
    "tests/test_words.py": {*BANNED},
    "src/sge2hist/training/finetune/guidance_distillation.py": {r"own[_ ]guidance"},  # name of a random stream
    "src/sge2hist/training/finetune/adversarial_decoder.py": {r"drawn|drawings?|draws"},  # name of a random stream
    "src/sge2hist/cli/deprecated.py": {r"left[_ ]out|leave[_ ]out|LeftOut", r"grain(s|y)?"},
}
"""Files that must name an old word: the table of deprecated spellings."""
SUFFIXES = {".py", ".md", ".css", ".js", ".toml", ".yml", ".ipynb"}
FOLDERS = ("src", "tests", "docs", "benchmarks", "recipes", "notebooks")


def _texts() -> list[Path]:
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES]
    skipped = ("_build", "__pycache__", ".min.js", "/_generated/")
    return [*(p for p in found if not any(s in str(p) for s in skipped)), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


@pytest.mark.parametrize("pattern", BANNED)
def test_no_private_words(pattern):
    flags = 0 if re.search("[A-Z]{2}", pattern) else re.IGNORECASE
    word = re.compile(rf"(?<![A-Za-z0-9_])_?(?:{pattern})(?![A-Za-z0-9])", flags)
    found = []
    for path in _texts():
        name = str(path.relative_to(ROOT))
        if pattern in ALLOWED.get(name, set()) or not path.is_file():
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if word.search(line):
                found.append(f"{name}:{number}: {line.strip()[:100]}")
    assert not found, f"write {BANNED[pattern]!r} instead:\n" + "\n".join(found)
