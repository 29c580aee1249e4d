"""Every old spelling keeps working, with a hint on standard error that names the new one."""

from __future__ import annotations

import pytest
import typer

from sge2hist.cli.deprecated import OPTIONS, VALUES, VERB_FLAGS, current_options, current_verb
from sge2hist.cli.main import app

COMMANDS = typer.main.get_command(app).commands
ALIASES = [(verb, old, new) for verb, options in OPTIONS.items() for old, new in options.items()]
OLD_VALUES = [
    (verb, option, old, new)
    for verb, options in VALUES.items()
    for option, values in options.items()
    for old, new in values.items()
]


def _options_of(verb: str) -> dict[str, typer.core.TyperOption]:
    return {
        name: parameter
        for parameter in COMMANDS[verb].params
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("-")
    }


@pytest.mark.parametrize(("verb", "old", "new"), ALIASES)
def test_an_old_option_becomes_the_new_one(verb, old, new):
    hints: list[str] = []
    assert current_options(verb, ["a", old, "b"], hints.append) == ["a", *new, "b"]
    assert hints == [f"'{old}' is now '{' '.join(new)}'"]
    known = _options_of(verb)
    assert new[0] in known
    assert old not in known  # hidden: in no help
    if not known[new[0]].is_flag and len(new) == 1:
        assert current_options(verb, [f"{old}=b=c"], hints.append) == [f"{new[0]}=b=c"]


@pytest.mark.parametrize(("verb", "option", "old", "new"), OLD_VALUES)
def test_an_old_value_becomes_the_new_one(verb, option, old, new):
    hints: list[str] = []
    assert current_options(verb, [option, old], hints.append) == [option, new]
    assert current_options(verb, [f"{option}={old}"], hints.append) == [f"{option}={new}"]
    assert hints == [f"'{option} {old}' is now '{option} {new}'"] * 2
    assert current_options(verb, ["-o", old], hints.append) == ["-o", old]  # a folder of that name
    assert option in _options_of(verb)


@pytest.mark.parametrize(("old", "new"), VERB_FLAGS.items())
def test_a_flag_that_became_a_verb(old, new):
    hints: list[str] = []
    verb, flag = old
    assert current_verb([verb, "a", flag, "b"], hints.append) == [new, "a", "b"]
    assert current_verb([verb, "a"], hints.append) == [verb, "a"]
    assert len(hints) == 1
    assert new in COMMANDS


def test_old_commands_run_and_hint(tiny_model, tiny_paired, tmp_path):
    from typer.testing import CliRunner

    output = tmp_path / "s.generated"
    words = ["generate", tiny_model, "--slide", "--from", tiny_paired.path, "--steps", 1]
    words += ["--region", "300,400,40,40", "-o", output]
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "hint: 'generate --slide' is now 'generate-slide'" in result.stderr
    assert "hint: '--from' is now '--data'" in result.stderr
    assert (output / "slide.ome.tif").is_file()
