"""Read the key of a quiz and the files of its readers, and put them into one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sge2hist.data.artifacts import FORMAT_VERSION, read_json
from sge2hist.data.errors import InputError, Problems
from sge2hist.quiz.build import KEY_KIND, KEY_NAME
from sge2hist.quiz.config import CONFIDENCES

ANSWERS_KIND = "quiz_answers"
ANSWERS = {"real": True, "generated": False}


@dataclass(frozen=True, kw_only=True)
class Key:
    """Which images are real. K images.

    Attributes:
        quiz: name of the quiz.
        real_K: bool.
        type_K: cell types, text.
        about: the whole file.
    """

    quiz: str
    real_K: np.ndarray
    type_K: np.ndarray
    about: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The answers of R readers to K images; NaN (or -1) where a reader gave none.

    Attributes:
        readers: names.
        says_real_RK: float64, 1 = real, 0 = generated.
        confidence_RK: float64, 1 to 5.
        seconds_RK: float64.
        comments: (reader, image from 1, text), those that are not empty.
    """

    readers: list[str]
    says_real_RK: np.ndarray
    confidence_RK: np.ndarray
    seconds_RK: np.ndarray
    comments: list[tuple[str, int, str]]

    @property
    def given_RK(self) -> np.ndarray:
        """Which images each reader answered, bool."""
        return np.isfinite(self.says_real_RK)


def find_key(answers: Sequence[Path]) -> Path:
    """Return the key.json beside the files of answers, or one folder above; raises `InputError` if there is none."""
    for folder in dict.fromkeys(path.absolute().parent for path in answers):
        for place in (folder, folder.parent):
            if (place / KEY_NAME).is_file():
                return place / KEY_NAME
    raise InputError(
        found=f"no {KEY_NAME} beside the answers, nor one folder above",
        where=str(answers[0].parent),
        expected="the key that was written with the quiz",
        repair="--key quiz/key.json",
    )


def read_key(path: str | Path) -> Key:
    """Read a key; raises `InputError` for any other or incomplete file."""
    content = read_json(path, expected="the key.json of a quiz")
    try:
        if content["kind"] != KEY_KIND or content["format_version"] != FORMAT_VERSION:
            raise ValueError(f"kind {content['kind']!r}, version {content['format_version']!r}")
        images = content["images"]
        if [image["image"] for image in images] != list(range(1, len(images) + 1)):
            raise ValueError("images that are not numbered from 1")
        real = [image["real"] for image in images]
        if not all(isinstance(one, bool) for one in real) or len(set(real)) != 2:
            raise ValueError("images that are not some real, some generated")
        types = np.array([str(image["cell_type"]) for image in images])
        return Key(quiz=str(content["quiz"]), real_K=np.array(real), type_K=types, about=content)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            found=f"no key of a quiz ({error})", where=str(path), expected="the key.json that was written with the quiz"
        ) from error


def read_answers(paths: Sequence[Path], key: Key) -> Answers:
    """Read the files of all readers; every problem is reported, not the first alone.

    Raises
    ------
    InputError
        If a file is no file of answers, belongs to another quiz, holds impossible values or no answer, or two files are of one
        reader.
    """
    problems = Problems()
    found: dict[str, tuple[Path, list[dict[str, Any]]]] = {}
    for path in paths:
        try:
            reader, answers = _read_file(path, key)
        except InputError as error:
            problems.errors.append(error)
            continue
        if reader in found:
            problems.add(
                found=f"a second file of the reader {reader!r}",
                where=str(path),
                expected="one file for each reader",
                repair=f"remove it or {found[reader][0]}; two people need two names",
            )
        found[reader] = (path, answers)
    problems.raise_if_any()
    shape = len(found), len(key.real_K)
    says_real_RK, confidence_RK, seconds_RK = (np.full(shape, np.nan) for _ in range(3))
    comments = []
    for r, (reader, (_, answers)) in enumerate(found.items()):
        for one in answers:
            k = one["image"] - 1
            says_real_RK[r, k] = ANSWERS[one["answer"]]
            confidence_RK[r, k], seconds_RK[r, k] = one["confidence"], one["seconds"]
            if str(one.get("comment", "")).strip():
                comments.append((reader, one["image"], str(one["comment"]).strip()))
    return Answers(
        readers=list(found),
        says_real_RK=says_real_RK,
        confidence_RK=confidence_RK,
        seconds_RK=seconds_RK,
        comments=comments,
    )


def _read_file(path: Path, key: Key) -> tuple[str, list[dict[str, Any]]]:
    """The reader's name and the answers of one file."""
    expected = "the file that a reader downloaded from the quiz"
    content = read_json(path, expected=expected)
    if content.get("kind") != ANSWERS_KIND or content.get("format_version") != FORMAT_VERSION:
        found = f"kind {content.get('kind')!r}, version {content.get('format_version')!r}"
        raise InputError(found=found, where=str(path), expected=expected)
    if content.get("quiz") != key.quiz:
        raise InputError(
            found=f"answers to quiz {content.get('quiz')!r}",
            where=str(path),
            expected=f"answers to quiz {key.quiz!r}, whose key is given",
            repair="score the answers of each quiz with its own --key",
        )
    reader, answers = str(content.get("reader", "")).strip(), content.get("answers")
    if not reader or not isinstance(answers, list) or not answers:
        raise InputError(
            found="no answer" if reader else "no name of a reader", where=str(path), expected="a reader and answers"
        )
    numbers = set()
    for one in answers:
        problem = _problem(one, len(key.real_K))
        if problem is None and one["image"] in numbers:
            problem = "answered twice"
        if problem is not None:
            shown = one.get("image") if isinstance(one, dict) else one
            raise InputError(found=f"image {shown!r}: {problem}", where=str(path), expected=expected)
        numbers.add(one["image"])
    return reader, answers


def _problem(one: Any, n_images: int) -> str | None:
    """What is wrong with one answer, or None."""
    if not isinstance(one, dict):
        return "no answer"
    image, seconds = one.get("image"), one.get("seconds")
    if type(image) is not int or not 1 <= image <= n_images:
        return f"the quiz has images 1 to {n_images}"
    if one.get("answer") not in ("real", "generated"):
        return f"answer {one.get('answer')!r}"
    if type(one.get("confidence")) is not int or one["confidence"] not in CONFIDENCES:
        return f"confidence {one.get('confidence')!r}"
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 <= seconds < float("inf"):
        return f"{seconds!r} seconds"
    return None
