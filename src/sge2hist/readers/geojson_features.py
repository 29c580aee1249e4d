"""The features of a GeoJSON file, one after the other, from a text read in pieces.

Each feature can become arrays at once, so memory is that of the arrays and of one piece; and because few Python
objects are alive at a time, the garbage collector has little to walk: 60,000 polygons decode three times as fast as
with `json.load`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from sge2hist.data.errors import InputError

EXPECTED = "a GeoJSON FeatureCollection of polygons"
_PIECE = 1 << 22  # characters read at a time
_LONGEST_TOKEN = (
    1 << 16
)  # characters: a string or number that was cut off by the end of a piece starts this close to it
_FEATURES = re.compile(r'"features"\s*:\s*\[')
_BETWEEN = re.compile(r"[\s,]*")


def features_of(path: str | Path) -> Iterator[Any]:
    """Decode the features of a FeatureCollection, or the members of a plain list of features.

    Raises
    ------
    InputError
        If the file cannot be read, is cut off or damaged, or has no list of features.
    """
    path = Path(path)
    try:
        with open(path, encoding="utf-8-sig") as file:
            yield from _decode(file, _start(file, path), path)
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(found=f"a file that cannot be read ({error})", where=str(path), expected=EXPECTED) from error


def _start(file: TextIO, path: Path) -> str:
    """Read up to the list of features and return what was read after its opening bracket."""
    text = file.read(_PIECE)
    if text.lstrip().startswith("["):
        return text[text.index("[") + 1 :]
    while not (match := _FEATURES.search(text)):
        piece = file.read(_PIECE)
        if not piece:
            raise InputError(found='no list "features"', where=str(path), expected=EXPECTED)
        text += piece
    return text[match.end() :]


def _decode(file: TextIO, text: str, path: Path) -> Iterator[Any]:
    decoder, position = json.JSONDecoder(), 0
    while True:
        position = _skip(text, position)
        if text[position : position + 1] == "]":
            return
        try:
            feature, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            # a feature that the end of the piece cuts fails close to that end; a damaged one fails anywhere
            piece = "" if error.pos < len(text) - _LONGEST_TOKEN else file.read(_PIECE)
            if not piece:
                found = f"JSON that is damaged or cut off ({error.msg})"
                raise InputError(
                    found=found, where=str(path), expected=EXPECTED, repair="copy the file again"
                ) from None
            text, position = text[position:] + piece, 0
            continue
        yield feature


def _skip(text: str, position: int) -> int:
    """First character at or after `position` that is neither white space nor a comma."""
    match = _BETWEEN.match(text, position)
    return match.end() if match else position
