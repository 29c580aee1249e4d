"""Spellings of earlier versions: they keep working, are not shown in the help, and give a hint on standard error."""

from __future__ import annotations

from collections.abc import Callable

Spellings = dict[str, tuple[str, ...]]
_EXCLUDE: Spellings = {"--leave-out": ("--exclude",)}

OPTIONS: dict[str, Spellings] = {
    "train": {
        **_EXCLUDE,
        "--start": ("--warm-start",),
        "--renew-genes": ("--refit-genes",),
        "--labels": ("--type-labels",),
        "--no-labels": ("--no-type-labels",),
    },
    "sharpen": {"--on": ("--data",), **_EXCLUDE, "--grain": ("--decoder-noise",)},
    "distill": {"--on": ("--data",), **_EXCLUDE, "--guidance": ("--learn", "guidance")},
    "train-upsampler": _EXCLUDE,
    "generate": {"--from": ("--data",)},
    "generate-slide": {"--from": ("--data",)},
    "evaluate": {"--against": ("--data",)},
    "view": {"--against": ("--data",)},
    "types": {"--kinds": ("--groups",)},
}
"""Verb -> old option -> what to write now."""

VALUES: dict[str, dict[str, dict[str, str]]] = {
    "generate": {"--context": {"field": "homotypic", "centre": "single_cell"}},
}
"""Verb -> option -> old value -> new value."""

VERB_FLAGS: dict[tuple[str, str], str] = {("generate", "--slide"): "generate-slide"}
"""(Verb, flag) that is a verb of its own now."""


def current_verb(words: list[str], hint: Callable[[str], None]) -> list[str]:
    """Replace a verb with a flag by the verb that it became.

    >>> current_verb(["generate", "kidney.model", "--slide"], print)
    'generate --slide' is now 'generate-slide'
    ['generate-slide', 'kidney.model']
    """
    for (verb, flag), new in VERB_FLAGS.items():
        if words[:1] == [verb] and flag in words:
            hint(f"'{verb} {flag}' is now '{new}'")
            return [new, *(word for word in words[1:] if word != flag)]
    return words


def current_options(verb: str, words: list[str], hint: Callable[[str], None]) -> list[str]:
    """Replace old options and values of a verb by the current ones.

    >>> current_options("distill", ["kidney.model", "--on=kidney.paired", "--guidance"], print)
    '--on' is now '--data'
    '--guidance' is now '--learn guidance'
    ['kidney.model', '--data=kidney.paired', '--learn', 'guidance']
    """
    renamed: list[str] = []
    for word in words:
        option, equals, value = word.partition("=")
        new = OPTIONS.get(verb, {}).get(option)
        if new is not None:
            hint(f"'{option}' is now '{' '.join(new)}'")
            option, renamed = new[-1], [*renamed, *new[:-1]]
        previous = option if equals else renamed[-1] if renamed else ""
        known = VALUES.get(verb, {}).get(previous, {})
        if equals and value in known:
            hint(f"'{previous} {value}' is now '{previous} {known[value]}'")
            value = known[value]
        elif not equals and option in known:
            hint(f"'{previous} {option}' is now '{previous} {known[option]}'")
            option = known[option]
        renamed.append(option + equals + value)
    return renamed
