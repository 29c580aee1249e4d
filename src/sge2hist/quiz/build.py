"""Write a reader study: one page for the readers, and the key beside it.

::

    quiz/
     quiz.html       for the readers: images, script and style are inside; no word of which image is real
     key.json        for the person who scores: which image is real, and of which cell
     manifest.json   settings

What could give an image away is the same for both: resampled to the same side, 8 bits, the same colours, one encoder, no
metadata, and the same number of bytes (the PNGs are not compressed: smooth images compress better). The order is random.

Shape letters: T pairs, K = 2 T shown images, P pixels of the side.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from hashlib import blake2b
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from sge2hist.data.artifacts import FORMAT_VERSION, atomic_directory, check_output, write_json, write_manifest
from sge2hist.data.errors import InputError, as_path
from sge2hist.data.output_lock import locks_output
from sge2hist.data.paired import UNKNOWN, PairedDataset
from sge2hist.data.slides.channels import composite
from sge2hist.evaluation.images import ImageSet
from sge2hist.evaluation.open_images import open_image_set, source_path, split_name
from sge2hist.quiz.choose import ANY_TYPE, Pairs, choose_pairs
from sge2hist.quiz.config import CONFIDENCES, QuizConfig

KIND, KEY_KIND = "quiz", "quiz_key"
PAGE_NAME, KEY_NAME = "quiz.html", "key.json"
MAX_BYTES = 200_000_000  # of pixels in a page: browsers become slow beyond
LOSSY = (".jpg", ".jpeg")


@locks_output()
def build_quiz(
    generated: str | Path,
    data: PairedDataset,
    output: str | Path,
    *,
    config: QuizConfig | None = None,
    log: Callable[[str], None] = print,
    overwrite: bool = False,
) -> Path:
    """Write the folder of a reader study; returns the path of the page that readers get.

    Parameters
    ----------
    generated
        A generated set or slide, or a folder of images with a table (see `evaluate`).
    data
        The paired dataset that the real patches come from.
    log
        Called with what the person who plans the study must know.

    Raises
    ------
    InputError
        If the output exists, the images cannot be opened, or too few of them have a real cell to stand beside.
    """
    config = config or QuizConfig()
    check_output(as_path(output, "output"), overwrite=overwrite, kind=KIND)
    name, source = split_name(generated)
    path = source_path(source)
    images = open_image_set(path, data, name, config.split)
    patch_um, side_px = float(images.manifest.get("patch_um", data.patch_um)), images.image_px
    n_bytes = config.n * side_px * side_px * 3
    if n_bytes > MAX_BYTES:
        raise InputError(
            found=f"{config.n} images of {side_px} px, {n_bytes / 1e6:.0f} MB",
            where=str(path),
            expected=f"at most {MAX_BYTES / 1e6:.0f} MB in a page",
            repair=f"-n {max(MAX_BYTES // (side_px * side_px * 6) * 2, 2)}",
        )
    pairs = choose_pairs(images, data, config, patch_um)
    for line in remarks(images, pairs, config):
        log(line)
    shown_KPPC = np.concatenate(
        [images.images(pairs.generated_T), data.patches(pairs.real_T, side_um=patch_um, out_px=side_px)]
    )
    shown_KPP3 = composite(shown_KPPC, data.channels)
    is_real = np.arange(len(shown_KPP3)) >= len(pairs.generated_T)
    order = np.random.default_rng([config.seed, 2]).permutation(len(shown_KPP3))
    pngs = [plain_png(image) for image in shown_KPP3[order]]
    quiz_id = identifier(pngs)
    facts = key_entries(images, pairs, data)
    toy = data.is_toy or images.is_toy
    key = {
        "kind": KEY_KIND,
        "format_version": FORMAT_VERSION,
        "quiz": quiz_id,
        "generated": images.name,
        "data": data.path.name,
        "data_fingerprint": data.fingerprint,
        "toy": toy,
        "match": config.match,
        "images": [{"image": n, "real": bool(is_real[k]), **facts[k]} for n, k in enumerate(order, 1)],
    }
    with atomic_directory(output, overwrite=overwrite, kind=KIND) as partial:
        (partial / PAGE_NAME).write_text(page_html(pngs, quiz_id, patch_um, toy=toy), encoding="utf-8")
        write_json(partial / KEY_NAME, key)
        fields = {"n": len(pngs), "split": config.split, "match": config.match, "seed": config.seed}
        write_manifest(partial, KIND, quiz=quiz_id, generated=str(path), data=str(data.path), toy=toy, **fields)
    return Path(output) / PAGE_NAME


def remarks(images: ImageSet, pairs: Pairs, config: QuizConfig) -> list[str]:
    """Return what weakens the study."""
    found = []
    n_shown = 2 * len(pairs.generated_T)
    if n_shown < config.n:
        found.append(
            f"{n_shown} images instead of {config.n}: no more generated images have a real cell to stand beside"
        )
    if pairs.overlap:
        found.append(
            "warning: some of the shown patches overlap, because there are few cells; repeated tissue is a hint"
        )
    n_any = int((pairs.type_T == ANY_TYPE).sum())
    if n_any:
        found.append(
            f"warning: {n_any} images were made for no type of this dataset; their real partners are of any type"
        )
    if any(images.files_M[i].suffix.lower() in LOSSY for i in pairs.generated_T if images.files_M):
        found.append("warning: the generated images are JPEG files; traces of that compression are a hint")
    return found


def key_entries(images: ImageSet, pairs: Pairs, data: PairedDataset) -> list[dict[str, Any]]:
    """Return what is known of each image: T generated ones, then T real ones."""
    types = [data.types[t] if t >= 0 else UNKNOWN for t in pairs.type_T]
    ids = data.obs.index
    rows = images.row_M[pairs.generated_T]
    generated = [
        {"cell_id": str(ids[row]) if row >= 0 else None, "cell_type": name, "generated_image": int(i)}
        for row, name, i in zip(rows, types, pairs.generated_T, strict=True)
    ]
    of_real = [data.types[t] if t >= 0 else UNKNOWN for t in data.type_of_cell[pairs.real_T]]
    real = [
        {"cell_id": str(ids[row]), "cell_type": name, "row": int(row)}
        for row, name in zip(pairs.real_T, of_real, strict=True)
    ]
    return generated + real


def plain_png(image_PP3: np.ndarray) -> bytes:
    """Return an RGB image as a PNG without metadata and without compression: equal sides give equally many bytes."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image_PP3)).save(buffer, format="PNG", compress_level=0)
    return buffer.getvalue()


def identifier(pngs: list[bytes]) -> str:
    """Return the name of a quiz, from what its page shows alone."""
    digest = blake2b(digest_size=8)
    for png in pngs:
        digest.update(png)
    return digest.hexdigest()


def page_html(pngs: list[bytes], quiz_id: str, patch_um: float, *, toy: bool) -> str:
    """Return the page: images in the order given, nothing else about them."""
    assets = files("sge2hist.quiz").joinpath("assets")
    style, script, body = (
        assets.joinpath(name).read_text(encoding="utf-8") for name in ("quiz.css", "quiz.js", "quiz.html")
    )
    content = {
        "quiz": quiz_id,
        "patch_um": patch_um,
        "confidences": CONFIDENCES,
        "images": [base64.b64encode(png).decode("ascii") for png in pngs],
    }
    mark = '<header class="toy">TOY tissue: made by a simulator</header>' if toy else ""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>Real or generated?</title><style>{style}</style></head><body>{mark}{body}"
        f'<script id="content" type="application/json">{json.dumps(content)}</script>'
        f"<script>{script}</script></body></html>\n"
    )
