"""Endpoints about the section: facts, tiles, genes, cells."""

from __future__ import annotations

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sge2hist.explorer.cells import CellAnswers
from sge2hist.explorer.fields import flag, malformed, not_found, number, text
from sge2hist.explorer.limits import LIMITS
from sge2hist.explorer.scores import SCORES
from sge2hist.explorer.sessions import Sessions
from sge2hist.explorer.tissue import Tissue
from sge2hist.explorer.web.session_access import SessionAccess


class SectionEndpoints(SessionAccess):
    """What is read and never changes anything."""

    def __init__(self, tissue: Tissue, sessions: Sessions, answers: CellAnswers, saving: bool) -> None:
        super().__init__(tissue, sessions)
        self.answers, self._saving = answers, saving
        self._facts: dict[str, Any] | None = None

    async def info(self, request: Request) -> Response:
        """Facts about model and data."""
        if self._facts is None:
            self._facts = await run_in_threadpool(self.tissue.facts, self._saving)
        return JSONResponse(self._facts)

    async def tile(self, request: Request) -> Response:
        """A tile."""
        stem, _, suffix = request.path_params["name"].partition(".")
        column, _, row = stem.partition("_")
        if suffix != "jpg" or not (column.isdecimal() and row.isdecimal() and len(stem) < 20):
            raise not_found("no such tile")
        key, level = request.path_params["layer"], request.path_params["level"]
        content = await run_in_threadpool(self.tissue.tiles.jpeg, key, level, int(column), int(row))
        return Response(content, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"})

    async def genes(self, request: Request) -> Response:
        """Genes by a part of their names."""
        query = dict(request.query_params)
        limit = int(number(query, "limit", 1, 200, 20, whole=True))
        found = await run_in_threadpool(self.tissue.find_genes, text(query, "q", "", longest=60), limit)
        return JSONResponse({"genes": found})

    async def real(self, request: Request) -> Response:
        """A square of the real slide."""
        query, far, config = dict(request.query_params), LIMITS.far_um, self.tissue.bundle.config
        x, y = number(query, "x", -far, far), number(query, "y", -far, far)
        side = number(query, "side", 1, LIMITS.region_um, config.patch_um)
        px = int(number(query, "px", 8, 1024, min(1024, max(8, round(side / config.um_per_px))), whole=True))
        content = await run_in_threadpool(self._real_png, x, y, side, px)
        return Response(content, media_type="image/png")

    def _real_png(self, x: float, y: float, side: float, px: int) -> bytes:
        from sge2hist.display import png_bytes

        layer = self.tissue.tiles.layers["real"]
        um = self.tissue.dataset.um_per_px
        return png_bytes(layer.patch((x / um, y / um), side, px, um))

    async def nearest(self, request: Request) -> Response:
        """The cell nearest to a place."""
        query, far = dict(request.query_params), LIMITS.far_um
        point = (number(query, "x", -far, far), number(query, "y", -far, far))
        found, distance = await run_in_threadpool(self.answers.nearest, point)
        return JSONResponse({"id": found, "distance_um": distance})

    async def cells(self, request: Request) -> Response:
        """Cells in a rectangle."""
        session, query, far = self._session(request), dict(request.query_params), LIMITS.far_um
        x, y = number(query, "x", -far, far), number(query, "y", -far, far)
        width, height = number(query, "width", 0, 2 * far), number(query, "height", 0, 2 * far)
        limit = int(number(query, "limit", 1, LIMITS.cells, 5000, whole=True))
        colour = text(query, "colour", "type", longest=80)
        if colour not in ("type", *SCORES, "uncertainty") and not colour.startswith("gene:"):
            raise malformed(f"colour is type, {', '.join(SCORES)}, uncertainty or gene:SYMBOL")
        outlines, rectangle = flag(query, "outlines", False), (x, y, width, height)

        def answer() -> dict[str, Any]:
            edits, _ = self._now(session)
            revision = session.revision
            edited = self.tissue.edited(edits)
            return {"revision": revision, **self.answers.within(edited, rectangle, limit, colour, outlines)}

        return JSONResponse(await run_in_threadpool(answer))

    async def cell(self, request: Request) -> Response:
        """One cell."""
        session, query = self._session(request), dict(request.query_params)
        cell, genes = text(query, "id"), text(query, "genes", "", longest=2000)
        asked = [name.strip() for name in genes.split(",") if name.strip()][:50]

        def answer() -> dict[str, Any]:
            edits, _ = self._now(session)
            return {"revision": session.revision, **self.answers.describe(self.tissue.edited(edits), cell, asked)}

        return JSONResponse(await run_in_threadpool(answer))

    async def similar(self, request: Request) -> Response:
        """Cells like one."""
        session, query = self._session(request), dict(request.query_params)
        cell, n = text(query, "id"), int(number(query, "n", 1, 100, 12, whole=True))

        def answer() -> dict[str, Any]:
            edits, _ = self._now(session)
            return self.answers.similar(self.tissue.edited(edits), cell, n)

        return JSONResponse(await run_in_threadpool(answer))
