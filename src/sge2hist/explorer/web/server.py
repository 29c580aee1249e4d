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
from sge2hist.explorer.fields import RequestError
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
                _route("/api/info", GET=section.info),
                _route("/api/tiles/{layer}/{level:int}/{name}", GET=section.tile),
                _route("/api/genes", GET=section.genes),
                _route("/api/real", GET=section.real),
                _route("/api/nearest", GET=section.nearest),
                _route("/api/saved", GET=session.saved_names),
                _route("/api/sessions", POST=session.new_session),
                _route(s, GET=session.state, DELETE=session.end_session),
                _route(s + "/edits", POST=session.add_edit, PUT=session.replace_edits),
                _route(s + "/edits/{edit}", PUT=session.replace_edit, DELETE=session.delete_edit),
                _route(s + "/settings", PUT=session.change_settings),
                _route(s + "/name", PUT=session.rename),
                _route(s + "/undo", POST=session.undo),
                _route(s + "/redo", POST=session.redo),
                _route(s + "/import", POST=session.import_edits),
                _route(s + "/save", POST=session.save),
                _route(s + "/load", POST=session.load),
                _route(s + "/cells", GET=section.cells),
                _route(s + "/cell", GET=section.cell),
                _route(s + "/similar", GET=section.similar),
                _route(s + "/render", POST=images.render),
                _route(s + "/samples", POST=images.samples),
                _route(s + "/dose", POST=images.dose),
                _route(s + "/export/edits", GET=session.export_edits),
                _route(s + "/export/command", GET=session.export_command),
                _route(s + "/export/image", POST=images.export_image),
                *(_route(f"/{path}", GET=_file(*found)) for path, found in page_files().items()),
                _route("/", GET=_file(*page_files()["index.html"])),
            ],
            exception_handlers={HTTPException: _http_error},
        )
        inner.router.redirect_slashes = False  # a redirect would lack the token
        self.app = Guard(inner, token, error_answer)


def _file(content: Callable[[], bytes], media: str) -> Handler:
    """A handler that answers a file of the page."""

    async def answer(request: Request) -> Response:
        return Response(content(), media_type=media)

    return answer


def _route(path: str, **handlers: Handler) -> Route:
    """A path and what answers each of its methods; the others are 405."""

    async def answered(request: Request) -> Response:
        try:
            return await handlers["GET" if request.method == "HEAD" else request.method](request)
        except RequestError as error:
            return error_answer(error.status, error.code, error.message)
        except InputError as error:
            fields = error_fields(error)
            return error_answer(422, fields.pop("code"), fields.pop("message"), **fields)
        except Exception as error:
            traceback.print_exc()
            return error_answer(500, "failed", f"the server failed ({type(error).__name__})")

    return Route(path, answered, methods=list(handlers))


async def _http_error(request: Request, error: Exception) -> Response:
    """What Starlette itself refuses: an unknown path, another method."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        answer = error_answer(405, "method_not_allowed", f"not {request.method}")
        answer.headers.update(error.headers or {})  # Allow
        return answer
    if error.status_code == 404:
        return error_answer(404, "not_found", "no such page")
    return error_answer(error.status_code, "malformed", str(error.detail))
