"""Features of a GeoJSON file one after the other, plain, gzipped or zipped, whatever its size."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from sge2hist.data.annotations import EXPECTED, SUFFIXES
from sge2hist.data.errors import InputError
from sge2hist.data.packed_text import open_text

_PIECE = 1 << 22  # characters read at a time
_MAX_TOKEN = 1 << 16  # characters: a token cut by the end of a piece starts this close to it
_FEATURES = re.compile(r'"features"\s*:\s*\[')
_BETWEEN = re.compile(r"[\s,]*")


def features_of(path: str | Path) -> Iterator[Any]:
    """Decode the features of a FeatureCollection, of a plain list of features, or a single feature, one after the other.

    The text is read in pieces, so memory is that of one piece or one feature, and of what the caller keeps. With few Python
    objects alive the garbage collector has little to walk: 60,000 polygons decode three times as fast as with `json.load`.

    Raises
    ------
    InputError
        If the file cannot be read, is cut off or damaged, or has no list of features.
    """
    path = Path(path)
    with open_text(path, suffixes=SUFFIXES, expected=EXPECTED) as file:
        try:
            text, single = _start(file, path)
            yield from [single] if single is not None else _decode(file, text, path)
        except RecursionError as error:
            raise InputError(found="JSON that is nested too deep", where=str(path), expected=EXPECTED) from error


def _start(file: TextIO, path: Path) -> tuple[str, dict[str, Any] | None]:
    """Read up to the list of features: the text after its opening bracket, or the one feature that the file holds."""
    text = file.read(_PIECE)
    if text.lstrip().startswith("["):
        return text[text.index("[") + 1 :], None
    while not (match := _FEATURES.search(text)):
        piece = file.read(max(_PIECE, len(text)))
        if not piece:
            return "", _single(text, path)
        text += piece
    return text[match.end() :], None


def _single(text: str, path: Path) -> dict[str, Any]:
    try:
        feature = json.loads(text)
    except ValueError:
        feature = None
    if isinstance(feature, dict) and feature.get("type") == "Feature":
        return feature
    raise InputError(found='no list "features"', where=str(path), expected=EXPECTED)


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
            is_cut = error.pos >= len(text) - _MAX_TOKEN
            # as much again as the feature has so far: one of n characters is decoded log(n) times
            piece = file.read(max(_PIECE, len(text) - position)) if is_cut else ""
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
