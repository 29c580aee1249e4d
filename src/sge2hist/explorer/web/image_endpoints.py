"""Endpoints of images: stages of work, line by line, and files."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from sge2hist.data.errors import InputError
from sge2hist.explorer import exports
from sge2hist.explorer.cells import CellAnswers
from sge2hist.explorer.fields import RequestError, flag, malformed, number, text
from sge2hist.explorer.limits import LIMITS
from sge2hist.explorer.rendering import Emit, Renderer
from sge2hist.explorer.sessions import Session, Sessions
from sge2hist.explorer.targets import Target, read_dose, read_target, threads_of
from sge2hist.explorer.tissue import Tissue
from sge2hist.explorer.web.requests import body_of
from sge2hist.explorer.web.session_access import SessionAccess, download

GONE_SECONDS = 0.2  # between looks whether the client is still there
Work = Callable[[Emit, Callable[[], None]], None]


class ImageEndpoints(SessionAccess):
    """What runs the network."""

    def __init__(self, tissue: Tissue, sessions: Sessions, answers: CellAnswers, renderer: Renderer) -> None:
        super().__init__(tissue, sessions)
        self.answers, self.renderer = answers, renderer

    async def render(self, request: Request) -> Response:
        """Preview and full image of a target."""
        body, session = await body_of(request), self._session(request)
        target = read_target(body, self.tissue, self.answers.number_of)
        with session.lock:
            session.expect(body)
        edits, settings = self._now(session)
        asked: dict[str, Any] = {"target": target, "edits": edits, "settings": settings, "revision": session.revision}
        asked |= {"preview": flag(body, "preview", True), "before": flag(body, "before", True)}
        threads = threads_of(self.tissue, target)
        return self._stream(request, session, body, "main", partial(self.renderer.render, **asked), threads)

    async def samples(self, request: Request) -> Response:
        """More images of a cell."""
        body, session = await body_of(request), self._session(request)
        target = self._cell(body)
        n = int(number(body, "n", 1, LIMITS.samples, 4, whole=True))
        edits, settings = self._now(session)
        work = partial(self.renderer.samples, target=target, n=n, edits=edits, settings=settings)
        return self._stream(request, session, body, "samples", work, threads_of(self.tissue, target))

    async def dose(self, request: Request) -> Response:
        """Images of a cell with other counts of a gene."""
        body, session = await body_of(request), self._session(request)
        target = self._cell(body)
        genes, factors = read_dose(body)
        settings = self._now(session)[1]

        def check() -> None:
            for gene in genes:
                edit = {"scope": {"cell": target.cell}, "action": {"gene": gene, "factor": 1.0}, "name": ""}
                self.tissue.count_cells(edit)
            columns = [self.tissue.gene_column(gene) for gene in genes]
            if not any(self.tissue.gene_counts(column)[target.number] for column in columns):
                raise InputError(
                    found=f"no counts of {', '.join(genes)} in cell {target.cell!r}, so that no factor changes it",
                    expected="a cell that expresses the gene",
                )

        await run_in_threadpool(check)
        work = partial(self.renderer.dose, target=target, genes=genes, factors=factors, settings=settings)
        return self._stream(request, session, body, "dose", work, threads_of(self.tissue, target, dose=True))

    def _cell(self, body: dict[str, Any]) -> Target:
        return read_target({"target": {"cell": body.get("cell")}}, self.tissue, self.answers.number_of)

    def _stream(
        self, request: Request, session: Session, body: dict[str, Any], slot: str, work: Work, threads: int
    ) -> Response:
        """Start work and answer its stages line by line."""
        stages = self._started(request, session, text(body, "slot", slot, longest=20), work, threads)

        async def answer() -> AsyncIterator[bytes]:
            async for line in stages:
                yield json.dumps(line).encode() + b"\n"

        return StreamingResponse(answer(), media_type="application/x-ndjson")

    def _started(
        self, request: Request, session: Session, slot: str, work: Work, threads: int
    ) -> AsyncIterator[dict[str, Any]]:
        """Start work; the stages as they come, until the last one or until the client has gone, which ends the work."""
        loop, lines = asyncio.get_running_loop(), asyncio.Queue[dict[str, Any]]()

        def emit(line: dict[str, Any]) -> None:
            loop.call_soon_threadsafe(lines.put_nowait, line)

        cancel, _ = self.renderer.start(session.key, slot, work, emit, threads)

        async def stages() -> AsyncIterator[dict[str, Any]]:
            try:
                while True:
                    try:
                        line = await asyncio.wait_for(lines.get(), GONE_SECONDS)
                    except TimeoutError:
                        if await request.is_disconnected():
                            return
                        continue
                    yield line
                    if line["stage"] in ("full", "cancelled", "error"):
                        return
            finally:
                cancel.set()

        return stages()

    async def export_image(self, request: Request) -> Response:
        """An image as a file."""
        body, session = await body_of(request), self._session(request)
        target = read_target(body, self.tissue, self.answers.number_of)
        form = text(body, "format", "png", longest=10)
        if form not in ("png", "ome-tiff"):
            raise malformed("format is png or ome-tiff")
        edits, settings = self._now(session)
        made: list[bytes] = []

        def work(emit: Emit, check: Callable[[], None]) -> None:
            image, _ = self.renderer.image(target, edits, settings, lambda latents, decode: check())
            made.append(exports.image_file(self.tissue, image, form))
            emit({"stage": "full"})

        started = self._started(request, session, "export", work, threads_of(self.tissue, target))
        stages = [line async for line in started]
        line: dict[str, Any] = stages[-1] if stages else {"stage": "cancelled"}
        if line["stage"] == "cancelled":
            raise RequestError(409, "conflict", "a newer export came")
        if line["stage"] == "error":
            error = line["error"]
            raise RequestError(422 if error["code"] == "unusable" else 500, error["code"], error["message"])
        stem = exports.file_name(f"synthetic_{target.cell or 'region'}")
        suffix, media = ("png", "image/png") if form == "png" else ("ome.tif", "image/tiff")
        return download(made[0], media, f"{stem}.{suffix}")
