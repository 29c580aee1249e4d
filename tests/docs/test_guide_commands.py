"""Every command and every Python example of the user guide and the README runs, in their order, on toy data."""

from __future__ import annotations

import glob
import re
import shlex
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from docs.toy_folder import gene_of_toy, write_toy_folder

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guide"
PAGES = (
    *("install", "quickstart", "prepare", "align", "train", "generate", "generate-slide", "layouts"),
    *(
        "view",
        "explore",
        "evaluate",
        "quiz",
        "finetune",
        "xenium",
        "fluorescence",
        "fetch",
        "import-weights",
        "cohorts",
        "troubleshooting",
    ),
)
README = "README"
SMALL: dict[str, dict[str, str]] = {
    "prepare": {"--patch-um": "32", "--patch-px": "32", "--split-block-um": "150"},
    "train": {"--preset": "tiny", "--mixed-precision": "no", "--steps": "2"},
    "sharpen": {"--steps": "2"},
    "distill": {"--steps": "2"},
    "generate": {"--steps": "2", "-n": "24"},
    "generate-slide": {"--steps": "2"},
    "evaluate": {"--extractor": "texture-v1", "--bootstrap": "10"},
    "quiz": {"-n": "8"},
}
"""Options that make each command small enough for a test; they replace those of the guide."""
FLAGS = {"evaluate": ["--no-umap"]}
REPLACED = {"--groups": "1"}  # where they are given
DROPPED = {"--hours"}
BLOCK = re.compile(
    r"(?:^<!-- not run: *(?P<reason>.*?) *-->\n)?^```(?P<language>bash|python)\n(?P<code>.*?)^```", re.M | re.S
)


@dataclass(frozen=True)
class Block:
    """A code block of the guide."""

    page: str
    line: int
    language: str
    code: str
    reason: str | None  # why it is not run

    @property
    def commands(self) -> list[list[str]]:
        """The commands of a bash block as arguments; patterns of file names are left to the shell, here to `expanded`."""
        lines = re.sub(r"\\\n\s*", " ", self.code).splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def text_of(page: str) -> str:
    return (ROOT / "README.md" if page == README else GUIDE / f"{page}.md").read_text(encoding="utf-8")


def blocks_of(page: str) -> list[Block]:
    text = text_of(page)
    return [
        Block(page, text.count("\n", 0, m.start()) + 1, m["language"], m["code"], m["reason"])
        for m in BLOCK.finditer(text)
    ]


def on_toy(words: list[str], gene: str) -> list[str]:
    """Return the arguments of a command with options that are small enough for a test."""
    verb = words[0]
    small = SMALL.get(verb, {})
    out, rest = [verb], iter(words[1:])
    for word in rest:
        if word in DROPPED or word in small:
            next(rest)  # its value
        elif word in REPLACED:
            out += [word, REPLACED[word], *list(rest)[1:]]
        else:
            out += sorted(glob.glob(word)) if "*" in word else [word.replace("GENE=", f"{gene}=")]
    return out + [part for pair in small.items() for part in pair] + FLAGS.get(verb, [])


def test_every_page_of_the_guide_is_listed():
    assert sorted(PAGES) == sorted(path.stem for path in GUIDE.glob("*.md"))


@pytest.mark.parametrize("page", [*PAGES, README])
def test_a_block_that_is_not_run_says_why(page):
    assert text_of(page).count("<!-- not run") == sum(block.reason is not None for block in blocks_of(page))
    for block in blocks_of(page):
        assert block.reason is None or len(block.reason) > 8, f"{page}.md:{block.line}: give the reason"


@pytest.mark.parametrize("page", PAGES)
def test_pages_are_short(page):
    words = [
        word for word in text_of(page).split() if any(letter.isalnum() for letter in word)
    ]  # not the lines of tables
    assert len(words) < 800


def test_the_readme_is_short():
    assert text_of(README).count("\n") < 80


# a model of 20 steps finds new cells everywhere
@pytest.mark.filterwarnings("ignore::sge2hist.generation.applicability.ApplicabilityWarning")
@pytest.mark.parametrize("pages", [PAGES, (README,)], ids=["guide", "readme"])
def test_commands_and_examples_run(pages, tmp_path, monkeypatch):
    """One test for all pages of the guide, because later pages use what earlier ones write. All failures are reported at once."""
    from sge2hist.cli.main import app
    from sge2hist.training.finetune import adversarial_decoder

    few = partial(adversarial_decoder.SharpenConfig, n_generated=32)  # 4,096 take most of a minute
    monkeypatch.setattr(adversarial_decoder, "SharpenConfig", few)
    write_toy_folder(tmp_path)
    gene = gene_of_toy(tmp_path)
    monkeypatch.chdir(tmp_path)
    failures = []
    for block in (block for page in pages for block in blocks_of(page) if block.reason is None):
        where = f"{block.page}.md:{block.line}"
        if block.language == "python":
            try:
                exec(compile(block.code, where, "exec"), {})
            except Exception as error:
                failures.append(f"{where}: {type(error).__name__}: {error}")
            continue
        for words in block.commands:
            assert words[0] == "sge2hist", f"{where}: only commands of sge2hist can be run; mark others as not run"
            result = CliRunner().invoke(app, on_toy(words[1:], gene))
            if result.exit_code:
                failures.append(f"{where}: {' '.join(words)}: {result.exception or result.output}")
    assert not failures, "\n".join(failures)
