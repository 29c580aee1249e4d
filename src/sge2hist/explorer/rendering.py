"""Images of a session: a preview on the way, then full quality; a newer request ends the work on an older one.

The preview is what the network expects of the image part of the way, decoded: the same noise, the same cells, and no work of its
own but the decoding.
"""

from __future__ import annotations

import threading
import time
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import torch

from sge2hist.data.errors import InputError
from sge2hist.explorer.cells import CellAnswers
from sge2hist.explorer.fields import RequestError
from sge2hist.explorer.limits import LIMITS
from sge2hist.explorer.pictures import png
from sge2hist.explorer.targets import PATCH_THREADS, Decode, Look, Target, generate_target, place_um
from sge2hist.explorer.tissue import Tissue
from sge2hist.generation.edited_patches import joined
from sge2hist.generation.patches import image_batches
from sge2hist.generation.requests import GenerationRequest
from sge2hist.generation.slide.edits import Edit
from sge2hist.generation.windows import image_seed
from sge2hist.models.image.conditioning import PlacedCells
from sge2hist.threads import threads_with_limits

Emit = Callable[[dict[str, Any]], None]
PREVIEW_SHARE = 0.45  # of the evaluations before the preview
MIN_PREVIEW_STEPS = 4  # fewer: the full image comes as soon
DIFFERENCE_RANGE = 64.0  # grey levels from black to white
CORRELATION_UM = 8.0
MAX_IMAGES, MAX_IMAGE_BYTES = 64, 128 * 2**20  # kept in memory
WORKERS = 2  # images under way at one time: patches, and as many others


class Cancelled(Exception):
    """A newer request came, or the client has gone."""


class Renderer:
    """Generates images in threads of its own."""

    def __init__(self, tissue: Tissue, answers: CellAnswers) -> None:
        self.tissue, self.answers = tissue, answers
        self._pools = {n: threads_with_limits(WORKERS, n, "explorer") for n in {PATCH_THREADS, tissue.threads}}
        self._slots: dict[tuple[str, str], threading.Event] = {}
        self._kept: OrderedDict[tuple[Any, ...], np.ndarray] = OrderedDict()
        self._lock, self._n_running = threading.Lock(), 0
        self.last: np.ndarray | None = None  # the last image of a session at full quality, uint8 [H, W, C]

    def close(self) -> None:
        """End all work."""
        with self._lock:
            for cancel in self._slots.values():
                cancel.set()
        for pool in self._pools.values():
            pool.shutdown(cancel_futures=True)

    def start(
        self,
        session: str,
        slot: str,
        work: Callable[[Emit, Callable[[], None]], None],
        emit: Emit,
        threads: int = PATCH_THREADS,
    ) -> tuple[threading.Event, Future[None]]:
        """Run `work(emit, check)` in the background, on so many CPU threads (:func:`~sge2hist.explorer.targets.threads_of`);
        `check` raises once the work is cancelled. `emit` gets the stages, of which the last is full, cancelled or error.
        """
        cancel = threading.Event()
        with self._lock:
            older = self._slots.pop((session, slot), None)
            if older is not None:
                older.set()
            if self._n_running >= LIMITS.running:
                raise RequestError(429, "too_many", f"{self._n_running} images under way; at most {LIMITS.running}")
            self._n_running += 1
            self._slots[session, slot] = cancel

        def check() -> None:
            if cancel.is_set():
                raise Cancelled

        def run() -> None:
            try:
                check()
                work(emit, check)
            except Cancelled:
                emit({"stage": "cancelled"})
            except Exception as error:
                emit({"stage": "error", "error": error_fields(error)})
            finally:
                with self._lock:
                    self._n_running -= 1
                    if self._slots.get((session, slot)) is cancel:
                        del self._slots[session, slot]

        return cancel, self._pools[threads].submit(run)

    # --- kinds of work ---------------------------------------------------------------------------------------------

    def image(
        self, target: Target, edits: Sequence[Edit], settings: dict[str, Any], look: Look = lambda latents, decode: None
    ) -> tuple[np.ndarray, bool]:
        """The image of a target at full quality, uint8 [H, W, C], and whether it was kept from before."""
        key = (target, tuple(edit.fingerprint() for edit in edits), *sorted(settings.items()))
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key], True
        made = generate_target(self.tissue, target, edits, settings, look)
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > MAX_IMAGES or sum(one.nbytes for one in self._kept.values()) > MAX_IMAGE_BYTES:
                self._kept.popitem(last=False)
        return made, False

    def render(
        self,
        emit: Emit,
        check: Callable[[], None],
        *,
        target: Target,
        edits: Sequence[Edit],
        settings: dict[str, Any],
        revision: int,
        preview: bool = True,
        before: bool = True,
    ) -> None:
        """Emit a preview and the full image after the edits, with the image before them and the difference."""
        start = time.perf_counter()
        n = len(self.tissue.bundle.model.image.denoiser.evaluations(self.tissue.sampler(settings)))
        shown: list[np.ndarray] = []
        seen = [0]

        def say(stage: str, **fields: Any) -> None:
            seconds = round(time.perf_counter() - start, 4)
            emit({"stage": stage, "revision": revision, "seconds": seconds, **fields})

        def look(latents: torch.Tensor, decode: Decode) -> None:
            check()
            seen[0] += 1
            if preview and n >= MIN_PREVIEW_STEPS and seen[0] == round(PREVIEW_SHARE * n):
                shown.append(decode(latents))
                say("preview", after=self.shown(shown[0]), evaluations=[seen[0], n])

        after, cached = self.image(target, edits, settings, look)
        self.last = after
        fields: dict[str, Any] = {"after": self.shown(after), "cached": cached, "evaluations": [n, n]}
        names = ("x_um", "y_um", "width_um", "height_um")
        fields |= dict(zip(names, place_um(self.tissue, target), strict=True))
        if shown:
            fields["preview_correlation"] = self.correlation(shown[0], after)
        if before:
            if edits:
                say("preview", after=fields["after"], evaluations=[n, n])
            plain, _ = self.image(target, [], settings, lambda latents, decode: check())
            difference = np.abs(after.astype(np.int16) - plain).mean(axis=-1)
            fields |= {
                "before": self.shown(plain),
                "difference": data_url(difference_map(difference)),
                "mean_difference": round(float(difference.mean()), 3),
            }
        say("full", **fields)

    def samples(
        self,
        emit: Emit,
        check: Callable[[], None],
        *,
        target: Target,
        n: int,
        edits: Sequence[Edit],
        settings: dict[str, Any],
    ) -> None:
        """Emit several images of a cell, with different noise."""
        for sample in range(n):
            one = Target(cell=target.cell, number=target.number, sample=sample)
            image, _ = self.image(one, edits, settings, lambda latents, decode: check())
            emit({"stage": "image", "sample": sample, "after": self.shown(image)})
        emit({"stage": "full"})

    def dose(
        self,
        emit: Emit,
        check: Callable[[], None],
        *,
        target: Target,
        genes: Sequence[str],
        factors: Sequence[float],
        settings: dict[str, Any],
    ) -> None:
        """Emit the image of a cell with the counts of genes times each factor: those of `generate --gene`."""
        import pandas as pd

        bundle, seed = self.tissue.bundle, image_seed(settings["seed"], str(target.cell), 0)
        edits = [[Edit(cells=(str(target.cell),), gene=gene, factor=factor) for gene in genes] for factor in factors]

        def placed_cells(part: slice) -> PlacedCells:
            check()
            return joined([self.tissue.patch(target.number, own).placed for own in edits[part]])

        request = GenerationRequest(obs=pd.DataFrame({"seed": [seed] * len(factors)}), placed_cells=placed_cells)
        done = 0
        for images in image_batches(bundle, request, self.tissue.sampler(settings)):
            for image in images:
                novelty = self.answers.novelty(self.tissue.edited(edits[done]), target.number)
                emit({"stage": "image", "factor": factors[done], "after": self.shown(image), "novelty": novelty})
                done += 1
            check()
        emit({"stage": "full"})

    def shown(self, image: np.ndarray) -> str:
        """An image as a data URL, in the colours of the slides."""
        return data_url(self.tissue.colours.show(image))

    def correlation(self, one: np.ndarray, other: np.ndarray) -> float:
        """Correlation of two images over squares of 8 um."""
        side = max(1, round(CORRELATION_UM / self.tissue.bundle.config.um_per_px))
        a, b = (_pooled(image, side) for image in (one, other))
        if a.std() == 0 or b.std() == 0:
            return 1.0 if np.array_equal(a, b) else 0.0
        return round(float(np.corrcoef(a, b)[0, 1]), 4)


def _pooled(image: np.ndarray, side: int) -> np.ndarray:
    height, width = (max(1, size // side) for size in image.shape[:2])
    side = min(side, *image.shape[:2])
    cut = image[: height * side, : width * side].astype(np.float32)
    return cut.reshape(height, side, width, side, -1).mean(axis=(1, 3)).ravel()


def difference_map(difference: np.ndarray) -> np.ndarray:
    """Mean absolute difference in grey levels as RGB, black 0 to white `DIFFERENCE_RANGE`."""
    grey = (difference / DIFFERENCE_RANGE * 255).round().clip(0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def data_url(image_RGB: np.ndarray) -> str:
    """RGB as a data URL."""
    return "data:image/png;base64," + b64encode(png(image_RGB)).decode()


def error_fields(error: Exception) -> dict[str, Any]:
    """The `error` of the protocol. A fault of the server shows its type alone."""
    fields = {"found": "", "where": "", "expected": "", "repair": ""}
    if isinstance(error, RequestError):
        return {"code": error.code, "message": error.message, **fields}
    if isinstance(error, InputError):
        own = {name: getattr(error, name) for name in fields}
        return {"code": "unusable", "message": str(error).replace("\n", " ")[:1000], **own}
    return {"code": "failed", "message": f"the server failed ({type(error).__name__})", **fields}
