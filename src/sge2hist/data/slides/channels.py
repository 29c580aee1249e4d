"""Channels of an image: RGB of bright-field H&E, or named fluorescence channels (DAPI, boundary stain, ...).

An image is uint8 [..., C] with one name per channel. What depends on the type of image is decided here: how empty
glass looks, which channel shows nuclei, and how channels become colours on a screen.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sge2hist.data.errors import InputError

Channels = tuple[str, ...]
RGB: Channels = ("red", "green", "blue")
ALL: Channels = ("all",)  # as a request: every channel that the file names
NUCLEAR_STAINS = ("dapi", "hoechst", "draq5", "syto", "topro", "nuclei", "ssdna")
# Nuclei first; colours are added, so that channels overlap visibly.
COLOURS = np.array(
    [[0, 0, 255], [0, 255, 0], [255, 0, 0], [160, 160, 160], [0, 255, 255], [255, 0, 255], [255, 255, 0]], np.float32
)


def is_rgb(channels: Sequence[str]) -> bool:
    """Whether an image with these channels is a bright-field colour picture."""
    return tuple(channels) == RGB


def background_level(channels: Sequence[str]) -> int:
    """Grey level of what lies beyond the slide: white for bright field, black for fluorescence."""
    return 255 if is_rgb(channels) else 0


def nuclear_channel(channels: Sequence[str]) -> int:
    """Number of the channel that shows nuclei: the first that is named after a nuclear stain, else the first."""
    named = [i for i, name in enumerate(channels) if is_nuclear(name)]
    return named[0] if named else 0


def composite(image: np.ndarray, channels: Sequence[str]) -> np.ndarray:
    """Colours for display: uint8 [..., C] -> uint8 [..., 3]; RGB unchanged, one channel in grey, else colours added up.

    The nuclear stain is blue, the others green, red, grey, cyan, ... in their order.

    >>> composite(np.array([[[200, 0], [0, 100]]], np.uint8), ("DAPI", "Boundary")).tolist()
    [[[0, 0, 200], [0, 100, 0]]]
    """
    if is_rgb(channels):
        return image
    if len(channels) == 1:
        return np.repeat(image, 3, axis=-1)
    nuclear = nuclear_channel(channels)
    order = [nuclear, *(i for i in range(len(channels)) if i != nuclear)]
    colour_C3 = np.empty((len(channels), 3), np.float32)
    colour_C3[order] = COLOURS[np.arange(len(order)) % len(COLOURS)] / 255
    return (image.astype(np.float32) @ colour_C3 + 0.5).clip(0, 255).astype(np.uint8)


def describe_channels(channels: Sequence[str]) -> str:
    """Words for messages: "RGB" or the names."""
    return "RGB" if is_rgb(channels) else ", ".join(channels)


def require_same_channels(found: Sequence[str], expected: Sequence[str], *, where: str, repair: str = "") -> None:
    """Raise `InputError` unless an image has the channels that are expected, in the same order."""
    if tuple(found) != tuple(expected):
        raise InputError(
            found=f"images of {describe_channels(found)}",
            where=where,
            expected=f"images of {describe_channels(expected)}, in this order",
            repair=repair,
        )


def parse_channels(text: str | None) -> Channels | None:
    """Channels from the text of an option: "DAPI,Boundary", "all", or None for a bright-field RGB picture.

    Raises
    ------
    InputError
        If a name is empty or repeated.
    """
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise InputError(
            found=f"--channels {text!r}", expected='different names with commas between ("DAPI,Boundary"), or all'
        )
    return ALL if names == ("all",) else names


def choose_channels(requested: Channels, in_file: Sequence[str], count: int, where: str) -> tuple[list[int], Channels]:
    """Numbers and names of the channels of a file that are requested.

    Parameters
    ----------
    requested
        Names, or `ALL`.
    in_file
        Names that the file states; empty when it states none. Then `requested` must name all `count` channels in their order.

    Raises
    ------
    InputError
        If a name is not in the file, or the file has no names and the number of names differs.
    """
    if not in_file:
        if requested == ALL or len(requested) != count:
            raise InputError(
                found=f"{count} channel(s) without names",
                where=where,
                expected=f"{count} name(s) in the order of the channels, by --channels",
            )
        return list(range(count)), requested
    if requested == ALL:
        return list(range(count)), tuple(in_file)
    number = {name.casefold(): i for i, name in enumerate(in_file)}
    missing = [name for name in requested if name.casefold() not in number]
    if missing:
        raise InputError(
            found=f"no channel {', '.join(missing)}",
            where=where,
            expected=f"names of its channels: {', '.join(in_file)}",
        )
    chosen = [number[name.casefold()] for name in requested]
    return chosen, tuple(in_file[i] for i in chosen)


def is_nuclear(name: str) -> bool:
    """Whether a channel is named after a nuclear stain."""
    plain = name.casefold().replace("-", "").replace(" ", "")
    return any(stain in plain for stain in NUCLEAR_STAINS)
