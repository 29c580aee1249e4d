"""The command line as a user meets it: help that answers at once, one error message, no traceback."""

from __future__ import annotations

import subprocess
import sys

import pytest

import sge2hist

VERBS = (
    "prepare",
    "train",
    "sharpen",
    "distill",
    "generate",
    "view",
    "merge",
    "types",
    "evaluate",
    "inspect",
    "export",
    "demo",
)


def _run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sge2hist", *(str(a) for a in arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_help_names_every_verb_and_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['sge2hist', '--help']\n"
        "from sge2hist.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'anndata', 'scanpy', 'pandas', 'matplotlib', 'skimage', 'sklearn', 'scipy'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy))\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "HEAVY []" in shown
    for verb in VERBS:
        assert verb in shown


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb):
    from typer.testing import CliRunner

    from sge2hist.cli.main import app

    shown = CliRunner().invoke(app, [verb, "--help"])
    assert shown.exit_code == 0
    assert len(shown.output) > 300


def test_version():
    assert _run("--version").stdout.strip() == f"sge2hist {sge2hist.__version__}"


def test_train_generate_types(tiny_paired, tiny_model, tmp_path):
    done = _run(
        "generate", tiny_model, "--from", tiny_paired.path, "-n", 3, "--steps", 2, "-o", tmp_path / "a.generated"
    )
    assert done.returncode == 0, done.stderr
    assert "toy tissue" in done.stdout
    assert len(list((tmp_path / "a.generated" / "images").iterdir())) == 3
    done = _run("types", tiny_model)
    assert "alpha" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("generate", "{model}", "-o", "{out}"), "neither --from nor --types"),
        (("generate", "{model}", "--types", "delta", "-o", "{out}"), "cell type 'delta'"),
        (("generate", "{model}", "--from", "{paired}", "--split", "later", "-o", "{out}"), "split 'later'"),
        (("generate", "{model}", "--types", "alpha", "-o", "{model}"), "existing output"),
        (("generate", "{nothing}", "--types", "alpha", "-o", "{out}"), "no model"),
        (("generate", "{model}", "--types", "alpha", "--sampler", "magic", "-o", "{out}"), "magic"),
        (("generate", "{model}", "--types", "alpha", "--guidance-levels", "5,1", "-o", "{out}"), "must rise"),
        (("generate", "{model}", "--types", "alpha", "--guidance-levels", "5", "-o", "{out}"), "two numbers"),
        (
            ("generate", "{model}", "--types", "alpha", "--guidance", "1", "--guidance-levels", "1,5", "-o", "{out}"),
            "without",
        ),
        (("train", "{paired}", "-o", "{out}", "--preset", "huge"), "--preset huge"),
        (("train", "{paired}", "-o", "{out}", "--resume"), "nothing to resume"),
        (("train", "{nothing}", "-o", "{out}"), "nothing"),
        (("types", "{nothing}"), "no model"),
        (("types", "pretrained:liver"), "no model 'liver' in the package"),
        (("generate", "pretrained:liver", "--types", "alpha", "-o", "{out}"), "no model 'liver' in the package"),
        (("generate", "{model}", "--types", "alpha", "--z2", "mine", "-o", "{out}"), "z2 'mine'"),
        (("distill", "{nothing}", "--on", "{paired}", "-o", "{out}"), "no model"),
        (("distill", "{model}", "--on", "{paired}", "--steps", "0", "-o", "{out}"), "no length"),
        (("distill", "{model}", "--on", "{paired}", "--guidance", "--steps", "0", "-o", "{out}"), "no length"),
        (("distill", "{model}", "--on", "{paired}", "--guidance", "-o", "{out}"), "single evaluations already"),
        (
            ("distill", "{model}", "--on", "{paired}", "--guidance", "--evaluations", "2", "-o", "{out}"),
            "--guidance keeps the steps",
        ),
        (("sharpen", "{model}", "--on", "{paired}", "--hours", "0", "-o", "{out}"), "no length"),
        (("sharpen", "{model}", "--on", "{paired}", "--grain", "--hours", "0", "-o", "{out}"), "no length"),
        (("sharpen", "{model}", "--on", "{paired}", "-o", "{model}", "--overwrite"), "the model itself"),
        (("types", "{model}", "--rename", "alpha"), "old name=new name"),
    ],
)
def test_errors_are_one_message_and_nothing_is_written(arguments, message, tiny_paired, tiny_model, tmp_path):
    places = {"model": tiny_model, "paired": tiny_paired.path, "out": tmp_path / "out", "nothing": tmp_path / "nothing"}
    done = _run(*(a.format(**places) for a in arguments))
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
