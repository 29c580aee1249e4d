"""The command line as a user meets it: help that answers at once, one error message, no traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import sge2hist

VERBS = (
    "prepare",
    "train",
    "sharpen",
    "train-detail",
    "distill",
    "train-upsampler",
    "generate",
    "generate-slide",
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


HEAVY = {
    "numpy",
    "torch",
    "anndata",
    "scanpy",
    "pandas",
    "pyarrow",
    "matplotlib",
    "skimage",
    "sklearn",
    "scipy",
    "h5py",
    "PIL",
    "tifffile",
}
"""Packages that must not be loaded before a verb runs."""


def test_help_names_every_verb_and_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['sge2hist', '--help']\n"
        "from sge2hist.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"print('HEAVY', sorted({HEAVY} & set(sys.modules)))\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "HEAVY []" in shown
    for verb in VERBS:
        assert verb in shown


def _invoke(*words: object):
    from typer.testing import CliRunner

    from sge2hist.cli.main import app

    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_one_example(verb):
    shown = _invoke(verb, "--help")
    assert shown.exit_code == 0
    text = " ".join(shown.output.replace("│", " ").split())
    assert f"sge2hist {verb} " in text.split("Usage:", 1)[1].split("[OPTIONS]", 1)[1]
    assert ("--quiet" in text) == ("--threads" in text) == (verb not in ("types", "inspect"))


def test_the_options_of_all_verbs_need_no_heavy_package():
    code = f"import sge2hist.cli.main, sys; print({HEAVY} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_options_mean_the_same_in_all_verbs():
    """--data is a path, --guidance a number, --labels a file of outlines: in every verb that has them."""
    from types import NoneType
    from typing import get_args, get_type_hints

    from sge2hist.cli.main import app

    found: dict[str, set[type]] = {}
    for command in app.registered_commands:
        for name, hint in get_type_hints(command.callback).items():
            found.setdefault(name, set()).update(set(get_args(hint) or [hint]) - {NoneType})
    assert found["data"] == found["labels"] == found["exclude"] == {Path}
    assert found["guidance"] == {float}


@pytest.mark.parametrize(
    ("words", "suggestion"),
    [
        (("generate", "kidney.model", "--region", "0,0,1,1", "-o", "x"), "option of: sge2hist generate-slide"),
        (("generate", "--model", "kidney.model", "-o", "x"), "sge2hist generate MODEL"),
        (("train", "a.paired", "-o", "x", "--min-counts", "3"), "option of: sge2hist prepare"),
        (("generate", "kidney.model", "--tipes", "a", "-o", "x"), "--types"),
    ],
)
def test_an_option_of_another_verb_is_named_as_such(words, suggestion):
    shown = _invoke(*words)
    assert shown.exit_code == 2
    text = " ".join((shown.output + shown.stderr).replace("│", " ").split())
    assert "No such option" in text
    assert suggestion in text


def test_shells_complete_verbs_and_options():
    import os

    def completions(line: str) -> str:
        settings = {
            "_SGE2HIST_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split()) - 1),
        }
        command = [
            sys.executable,
            "-c",
            "import atexit, sys; sys.argv = ['sge2hist']; from sge2hist.cli.main import main\n"
            f"atexit.register(lambda: print('HEAVY', sorted({HEAVY} & set(sys.modules))))\n"
            "main()",
        ]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | settings, check=False)
        assert done.stderr == ""
        shown, _, heavy = done.stdout.partition("HEAVY ")
        assert heavy.strip() == "[]"
        return shown

    assert completions("sge2hist gen").split() == ["generate", "generate-slide"]
    assert "--data" in completions("sge2hist evaluate --da").split()
    assert completions("sge2hist distill --on x.paired --lea").split()[0] == "--learn"


def test_quiet_prints_the_result_alone(tiny_paired, tiny_model, tmp_path):
    done = _run(
        "generate",
        tiny_model,
        "--data",
        tiny_paired.path,
        "-n",
        2,
        "--steps",
        1,
        "--quiet",
        "-o",
        tmp_path / "a.generated",
    )
    assert done.stdout == f"wrote 2 images to {tmp_path / 'a.generated'}\n"
    assert done.stderr == ""
    done = _run("generate", tiny_model, "--types", "nothing", "--quiet", "-o", tmp_path / "b.generated")
    assert "error: found cell type 'nothing'" in done.stderr


def test_quiet_training_names_its_model(tiny_model, tiny_paired):
    done = _run("train", tiny_paired.path, "-o", tiny_model, "--preset", "tiny", "--mixed-precision", "no", "--quiet")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"wrote {tiny_model}\n"


def test_threads_are_set_before_the_work(monkeypatch):
    import torch

    from sge2hist.cli.command import with_running_options

    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "2")
    before, seen = torch.get_num_threads(), []
    try:
        with_running_options(lambda: seen.append(torch.get_num_threads()))(threads=3)
    finally:
        torch.set_num_threads(before)
    assert seen == [3]


def test_version():
    assert _run("--version").stdout.strip() == f"sge2hist {sge2hist.__version__}"


def test_train_generate_types(tiny_paired, tiny_model, tmp_path):
    done = _run(
        "generate", tiny_model, "--data", tiny_paired.path, "-n", 3, "--steps", 2, "-o", tmp_path / "a.generated"
    )
    assert done.returncode == 0, done.stderr
    assert "toy tissue" in done.stdout
    assert len(list((tmp_path / "a.generated" / "images").iterdir())) == 3
    done = _run("types", tiny_model)
    assert "alpha" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("generate", "{model}", "-o", "{out}"), "neither --data nor --types"),
        (("generate", "{model}", "--types", "delta", "-o", "{out}"), "cell type 'delta'"),
        (("generate", "{model}", "--data", "{paired}", "--split", "later", "-o", "{out}"), "split 'later'"),
        (("generate", "{model}", "--types", "alpha", "-o", "{model}"), "existing output"),
        (("generate", "{nothing}", "--types", "alpha", "-o", "{out}"), "no model"),
        (("generate", "{model}", "--types", "alpha", "--sampler", "magic", "-o", "{out}"), "magic"),
        (("generate", "{model}", "--types", "alpha", "--guidance-levels", "5,1", "-o", "{out}"), "the first smaller"),
        (("generate", "{model}", "--types", "alpha", "--guidance-levels", "5", "-o", "{out}"), "two noise levels"),
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
        (("distill", "{nothing}", "--data", "{paired}", "-o", "{out}"), "no model"),
        (("distill", "{model}", "--data", "{paired}", "--steps", "0", "-o", "{out}"), "of at least 1"),
        (
            ("distill", "{model}", "--data", "{paired}", "--learn", "guidance", "--steps", "0", "-o", "{out}"),
            "of at least 1",
        ),
        (
            ("distill", "{model}", "--data", "{paired}", "--learn", "guidance", "-o", "{out}"),
            "single evaluations already",
        ),
        (
            ("distill", "{model}", "--data", "{paired}", "--learn", "guidance", "--evaluations", "2", "-o", "{out}"),
            "guidance keeps the steps",
        ),
        (
            ("distill", "{model}", "--data", "{paired}", "--learn", "few-steps", "-o", "{out}"),
            "single evaluations already",
        ),
        (
            ("distill", "{model}", "--data", "{paired}", "--learn", "few-steps", "--evaluations", "0", "-o", "{out}"),
            "of at least 1",
        ),
        (("distill", "{model}", "--data", "{paired}", "--learn", "all", "-o", "{out}"), "steps, guidance or few-steps"),
        (("sharpen", "{model}", "--data", "{paired}", "--hours", "0", "-o", "{out}"), "expected a positive number"),
        (
            ("sharpen", "{model}", "--data", "{paired}", "--decoder-noise", "--hours", "0", "-o", "{out}"),
            "expected a positive number",
        ),
        (("sharpen", "{model}", "--data", "{paired}", "-o", "{model}", "--overwrite"), "the model itself"),
        (("train-detail", "{model}", "--data", "{paired}", "-o", "{model}", "--overwrite"), "the model itself"),
        (("train-detail", "{model}", "--data", "{paired}", "--width", "12", "-o", "{out}"), "a multiple of 8"),
        (("types", "{model}", "--rename", "alpha"), "old name=new name"),
    ],
)
def test_errors_are_one_message_and_nothing_is_written(
    arguments, message, tiny_paired, tiny_model, tmp_path, monkeypatch, capsys
):
    from sge2hist.cli.main import main

    paths = {"model": tiny_model, "paired": tiny_paired.path, "out": tmp_path / "out", "nothing": tmp_path / "nothing"}
    monkeypatch.setattr(sys, "argv", ["sge2hist", *(word.format(**paths) for word in arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    shown = capsys.readouterr().err
    assert shown.count("error: ") == 1
    assert message in shown
    assert list(tmp_path.iterdir()) == []


def test_an_error_is_no_traceback(tmp_path):
    done = _run("types", tmp_path / "nothing")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
