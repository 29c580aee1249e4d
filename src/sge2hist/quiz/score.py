"""Score a reader study: how often readers are right, each and together, how well they agree, how long they took.

Shape letters: R readers, K images.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

import sge2hist
from sge2hist.data.artifacts import FORMAT_VERSION, atomic_directory, check_output, write_json, write_manifest
from sge2hist.data.errors import InputError
from sge2hist.data.output_lock import locks_output
from sge2hist.quiz import statistics as st
from sge2hist.quiz.answers import Answers, Key, find_key, read_answers, read_key

KIND = "quiz_scores"
JSON_NAME, SUMMARY_NAME, ROC_NAME = "scores.json", "scores.html", "roc.png"
N_RESAMPLES = 2000
FEW_READERS = 5
MIN_OF_TYPE = 4


@locks_output()
def score_quiz(
    answers: Sequence[str | Path],
    output: str | Path | None = None,
    *,
    key: str | Path | None = None,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Return the scores of the readers; written to a folder with a page and the ROC curves where `output` is given.

    Parameters
    ----------
    answers
        The files that readers downloaded from one quiz.
    key
        The ``key.json`` written with the quiz; None: beside the answers, or one folder above.
    seed
        Of the bootstrap.

    Raises
    ------
    InputError
        If a file cannot be used, belongs to another quiz, or the output exists.
    """
    from sge2hist.quiz.summary import summary_html, write_roc

    paths = [Path(path) for path in answers]
    if not paths:
        raise InputError(found="no file of answers", expected="one for each reader, downloaded from the quiz")
    if output is not None:
        check_output(output, overwrite=overwrite, kind=KIND)
    read = read_key(key or find_key(paths))
    scores = scores_of(read_answers(paths, read), read, seed=seed, n_resamples=n_resamples)
    if output is not None:
        with atomic_directory(output, overwrite=overwrite, kind=KIND) as partial:
            write_json(partial / JSON_NAME, scores)
            picture = write_roc(partial / ROC_NAME, scores)
            (partial / SUMMARY_NAME).write_text(summary_html(scores, picture), encoding="utf-8")
            write_manifest(partial, KIND, quiz=read.quiz, readers=[one["reader"] for one in scores["readers"]])
    return scores


def scores_of(answers: Answers, key: Key, *, seed: int = 0, n_resamples: int = N_RESAMPLES) -> dict[str, Any]:
    """Return everything that is measured, as plain values."""
    rng = np.random.default_rng(seed)
    n_readers = len(answers.readers)
    return {
        "kind": KIND,
        "format_version": FORMAT_VERSION,
        "sge2hist_version": sge2hist.__version__,
        "quiz": key.quiz,
        "generated": key.about.get("generated"),
        "data": key.about.get("data"),
        "match": key.about.get("match"),
        "toy": bool(key.about.get("toy", False)),
        "n_images": len(key.real_K),
        "n_real": int(key.real_K.sum()),
        "resamples": n_resamples,
        "seed": seed,
        "readers": [_of_readers(answers, key, [r], rng, n_resamples) for r in range(n_readers)],
        "pooled": _of_readers(answers, key, list(range(n_readers)), rng, n_resamples),
        "agreement": agreement(answers),
        "types": _types(answers, key),
        "comments": [{"reader": reader, "image": image, "comment": text} for reader, image, text in answers.comments],
        "notes": notes(answers, key),
    }


def _of_readers(
    answers: Answers, key: Key, readers: list[int], rng: np.random.Generator, n_resamples: int
) -> dict[str, Any]:
    """The scores of some readers together; of one alone, or of all."""
    says_real, given = answers.says_real_RK[readers], answers.given_RK[readers]
    score = st.suspicion(says_real, answers.confidence_RK[readers])
    real = np.broadcast_to(key.real_K, given.shape)
    right = (says_real == real) & given

    def accuracy_of(some: np.ndarray, images: np.ndarray) -> float:
        n = given[np.ix_(some, images)].sum()
        return float(right[np.ix_(some, images)].sum() / n) if n else float("nan")

    def auc_of(some: np.ndarray, images: np.ndarray) -> float:
        cut = np.ix_(some, images)
        return st.auc(real[cut][given[cut]], score[cut][given[cut]])

    everyone, all_images = np.arange(len(readers)), np.arange(len(key.real_K))
    clustered = st.bootstrap(accuracy_of, key.real_K, len(readers), n_resamples, rng) if len(readers) > 1 else None
    seconds = answers.seconds_RK[readers][given]
    both = bool(real[given].any() and (~real[given]).any())
    found = {
        "reader": answers.readers[readers[0]] if len(readers) == 1 else None,
        "n": int(given.sum()),
        "accuracy": _share(right, given),
        "accuracy_clustered": None
        if clustered is None
        else {"low": _plain(clustered[0]), "high": _plain(clustered[1])},
        "real_called_real": _share(right & real, given & real),
        "generated_called_generated": _share(right & ~real, given & ~real),
        "auc": _figure(
            auc_of(everyone, all_images), st.bootstrap(auc_of, key.real_K, len(readers), n_resamples, rng), given.sum()
        ),
        "roc": st.roc(real[given], score[given]).tolist() if both else None,
        "mean_confidence_right": _plain(_mean(answers.confidence_RK[readers][right])),
        "mean_confidence_wrong": _plain(_mean(answers.confidence_RK[readers][given & ~right])),
        "seconds": dict(zip(("low", "value", "high"), np.percentile(seconds, [25, 50, 75]).tolist(), strict=True)),
        "minutes": float(seconds.sum() / 60),
    }
    return found


def _share(right: np.ndarray, given: np.ndarray) -> dict[str, Any]:
    """A share with its Wilson interval, as if all answers were independent."""
    n, successes = int(given.sum()), int(right.sum())
    return _figure(successes / n if n else float("nan"), st.wilson(successes, n), n)


def _figure(value: float, interval: st.Interval, n: int) -> dict[str, Any]:
    return {"value": _plain(value), "low": _plain(interval[0]), "high": _plain(interval[1]), "n": int(n)}


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def agreement(answers: Answers) -> dict[str, Any]:
    """Return Cohen's kappa of every two readers, and Fleiss' kappa of all on the images that all answered."""
    names, says, given = answers.readers, answers.says_real_RK, answers.given_RK
    pairs = []
    for a, b in combinations(range(len(names)), 2):
        shared = given[a] & given[b]
        kappa = st.cohen_kappa(says[a, shared], says[b, shared])
        pairs.append({"readers": [names[a], names[b]], "kappa": _plain(kappa), "n": int(shared.sum())})
    if len(names) < 2:
        return {"cohen": [], "fleiss": None}
    by_all = given.all(0)
    says_real = says[:, by_all].sum(0)
    counts_KC = np.stack([says_real, len(names) - says_real], 1)
    return {"cohen": pairs, "fleiss": {"kappa": _plain(st.fleiss_kappa(counts_KC)), "n": int(by_all.sum())}}


def _types(answers: Answers, key: Key) -> list[dict[str, Any]]:
    """Accuracy by cell type, of all readers; types with few answers are omitted."""
    given = answers.given_RK
    right = (answers.says_real_RK == key.real_K) & given
    found = []
    for name in sorted(set(key.type_K.tolist())):
        mine = key.type_K == name
        if given[:, mine].sum() >= MIN_OF_TYPE:
            found.append({"type": name, "accuracy": _share(right[:, mine], given[:, mine])})
    return found


def notes(answers: Answers, key: Key) -> list[str]:
    """Return what must be known beside the numbers."""
    found, n_readers, n_images = [], len(answers.readers), len(key.real_K)
    for reader, n in zip(answers.readers, answers.given_RK.sum(1), strict=True):
        if n < n_images:
            found.append(f"{reader} answered {n} of {n_images} images.")
    if n_readers == 1:
        found.append("One reader: the figures hold for this reader, not for readers in general.")
    else:
        found.append(
            f"{n_readers} readers saw the same {n_images} images, so answers are not independent: the pooled Wilson interval is "
            "too narrow; the clustered one resamples readers and images."
        )
        if n_readers < FEW_READERS:
            found.append(
                f"With fewer than {FEW_READERS} readers even the clustered interval says little about other readers."
            )
    return found
