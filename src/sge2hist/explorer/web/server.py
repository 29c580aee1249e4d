"""The HTTP server of the explorer (Starlette). The protocol is in docs/developing/explorer-protocol.md."""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sge2hist.data.errors import InputError
from sge2hist.explorer.cells import CellAnswers
from sge2hist.explorer.exports import SavedEdits
from sge2hist.explorer.fields import RequestError, not_found
from sge2hist.explorer.rendering import Renderer, error_fields
from sge2hist.explorer.sessions import Sessions
from sge2hist.explorer.tissue import Tissue
from sge2hist.explorer.web.guard import Guard
from sge2hist.explorer.web.image_endpoints import ImageEndpoints
from sge2hist.explorer.web.page import page_files
from sge2hist.explorer.web.section_endpoints import SectionEndpoints
from sge2hist.explorer.web.session_endpoints import SessionEndpoints

MAX_THREADS = 8  # requests at work at one time, beside images
Handler = Callable[[Request], Awaitable[Response]]


def error_answer(status: int, code: str, message: str, **fields: str) -> JSONResponse:
    """An error of the protocol."""
    error = {"code": code, "message": message, "found": "", "where": "", "expected": "", "repair": ""} | fields
    return JSONResponse({"error": error}, status)


class ExplorerServer:
    """The endpoints. `app` is the ASGI application; it answers below `/TOKEN/` alone."""

    def __init__(self, tissue: Tissue, token: str, saved: SavedEdits) -> None:
        self.answers = CellAnswers(tissue)
        self.renderer = Renderer(tissue, self.answers)
        self.sessions = Sessions(tissue.settings, tissue.count_cells)
        self._assets = page_files()
        section = SectionEndpoints(tissue, self.sessions, self.answers, saved.folder is not None)
        session = SessionEndpoints(tissue, self.sessions, self.answers, saved)
        images = ImageEndpoints(tissue, self.sessions, self.answers, self.renderer)

        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            from anyio.to_thread import current_default_thread_limiter

            current_default_thread_limiter().total_tokens = MAX_THREADS  # the others wait
            yield
            self.renderer.close()

        s = "/api/sessions/{session}"
        inner = Starlette(
            lifespan=lifespan,
            routes=[
                _route("/api/info", section.info),
                _route("/api/tiles/{layer}/{level:int}/{name}", section.tile),
                _route("/api/genes", section.genes),
                _route("/api/real", section.real),
                _route("/api/nearest", section.nearest),
                _route("/api/saved", session.saved_names),
                _route("/api/sessions", session.new_session, "POST"),
                _route(s, session.state),
                _route(s, session.end_session, "DELETE"),
                _route(s + "/edits", session.add_edit, "POST"),
                _route(s + "/edits", session.replace_edits, "PUT"),
                _route(s + "/edits/{edit}", session.replace_edit, "PUT"),
                _route(s + "/edits/{edit}", session.delete_edit, "DELETE"),
                _route(s + "/settings", session.change_settings, "PUT"),
                _route(s + "/name", session.rename, "PUT"),
                _route(s + "/undo", session.undo, "POST"),
                _route(s + "/redo", session.redo, "POST"),
                _route(s + "/import", session.import_edits, "POST"),
                _route(s + "/save", session.save, "POST"),
                _route(s + "/load", session.load, "POST"),
                _route(s + "/cells", section.cells),
                _route(s + "/cell", section.cell),
                _route(s + "/similar", section.similar),
                _route(s + "/render", images.render, "POST"),
                _route(s + "/samples", images.samples, "POST"),
                _route(s + "/dose", images.dose, "POST"),
                _route(s + "/export/edits", session.export_edits),
                _route(s + "/export/command", session.export_command),
                _route(s + "/export/image", images.export_image, "POST"),
                _route("/{path:path}", self.asset),
            ],
            exception_handlers={HTTPException: _http_error},
        )
        self.app = Guard(inner, token, error_answer)

    async def asset(self, request: Request) -> Response:
        """A file of the page."""
        path = request.path_params["path"] or "index.html"
        if path not in self._assets:
            raise not_found("no such page")
        content, media = self._assets[path]
        return Response(content(), media_type=media)


def _route(path: str, handler: Handler, method: str = "GET") -> Route:
    async def answered(request: Request) -> Response:
        try:
            return await handler(request)
        except RequestError as error:
            return error_answer(error.status, error.code, error.message)
        except InputError as error:
            fields = error_fields(error)
            return error_answer(422, fields.pop("code"), fields.pop("message"), **fields)
        except Exception as error:
            traceback.print_exc()
            return error_answer(500, "failed", f"the server failed ({type(error).__name__})")

    return Route(path, answered, methods=[method])


async def _http_error(request: Request, error: Exception) -> Response:
    """What Starlette itself refuses: an unknown path, another method."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        return error_answer(405, "method_not_allowed", f"not {request.method}")
    if error.status_code == 404:
        return error_answer(404, "not_found", "no such page")
    return error_answer(error.status_code, "malformed", str(error.detail))
