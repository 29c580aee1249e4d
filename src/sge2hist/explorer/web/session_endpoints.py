"""Endpoints of the list of edits: changes, history, saving, exports as text."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sge2hist.explorer import exports
from sge2hist.explorer.cells import CellAnswers
from sge2hist.explorer.fields import fields_of, items, malformed, text
from sge2hist.explorer.limits import LIMITS
from sge2hist.explorer.sessions import Session, Sessions
from sge2hist.explorer.targets import read_dose, read_target
from sge2hist.explorer.tissue import Tissue
from sge2hist.explorer.web.requests import body_of
from sge2hist.explorer.web.session_access import SessionAccess, download


class SessionEndpoints(SessionAccess):
    """What changes a session, or takes it out."""

    def __init__(self, tissue: Tissue, sessions: Sessions, answers: CellAnswers, saved: exports.SavedEdits) -> None:
        super().__init__(tissue, sessions)
        self.answers, self.saved = answers, saved

    async def _changed(
        self, request: Request, change: Callable[[Session, dict[str, Any]], None], *, required: bool = True
    ) -> Response:
        """Apply a change to the session and answer its state."""
        body = await body_of(request, required=required)
        session = self._session(request)

        def apply() -> dict[str, Any]:
            with session.lock:
                session.expect(body)
                change(session, body)
                return session.state()

        return JSONResponse(await run_in_threadpool(apply))

    async def new_session(self, request: Request) -> Response:
        """Begin a session."""
        await body_of(request, required=False)
        return JSONResponse(self.sessions.new().state(), 201)

    async def state(self, request: Request) -> Response:
        """State of a session."""
        return JSONResponse(self._session(request).state())

    async def end_session(self, request: Request) -> Response:
        """End a session."""
        self.sessions.end(request.path_params["session"])
        return JSONResponse({})

    async def add_edit(self, request: Request) -> Response:
        """Add an edit."""
        return await self._changed(request, lambda session, body: session.add(body))

    async def replace_edits(self, request: Request) -> Response:
        """Replace the list."""

        def change(session: Session, body: dict[str, Any]) -> None:
            name = text(body, "name", longest=80) if body.get("name") is not None else None
            session.replace_all(items(body, "edits", LIMITS.edits, at_least=0), name)

        return await self._changed(request, change)

    async def replace_edit(self, request: Request) -> Response:
        """Replace an edit."""
        key = request.path_params["edit"]
        return await self._changed(request, lambda session, body: session.replace(key, body))

    async def delete_edit(self, request: Request) -> Response:
        """Delete an edit."""
        key = request.path_params["edit"]
        return await self._changed(request, lambda session, _: session.delete(key), required=False)

    async def change_settings(self, request: Request) -> Response:
        """Change seed, steps or guidance."""
        return await self._changed(request, lambda session, body: session.set(body))

    async def rename(self, request: Request) -> Response:
        """Name the list."""
        return await self._changed(request, lambda session, body: session.rename(body))

    async def undo(self, request: Request) -> Response:
        """Undo."""
        return await self._changed(request, lambda session, _: session.undo(), required=False)

    async def redo(self, request: Request) -> Response:
        """Redo."""
        return await self._changed(request, lambda session, _: session.redo(), required=False)

    async def import_edits(self, request: Request) -> Response:
        """Replace the list by GeoJSON."""
        replace = exports.replace_by_collection
        return await self._changed(request, lambda session, body: replace(self.tissue, session, body))

    async def saved_names(self, request: Request) -> Response:
        """Names of saved lists."""
        return JSONResponse({"names": await run_in_threadpool(self.saved.names)})

    async def save(self, request: Request) -> Response:
        """Save the list."""
        body, session = await body_of(request), self._session(request)
        name = text(body, "name", longest=64)
        with session.lock:
            content = exports.collection(self.tissue, session)
        await run_in_threadpool(self.saved.save, name, content)
        return JSONResponse({"saved": name})

    async def load(self, request: Request) -> Response:
        """Replace the list by a saved one."""

        def change(session: Session, body: dict[str, Any]) -> None:
            name = text(body, "name", longest=64)
            exports.replace_by_collection(self.tissue, session, self.saved.load(name), name)

        return await self._changed(request, change)

    async def export_edits(self, request: Request) -> Response:
        """The list as GeoJSON."""
        session = self._session(request)
        content = json.dumps(exports.collection(self.tissue, session), indent=1) + "\n"
        name = f"{exports.file_name(session.name)}.geojson"
        return download(content.encode(), "application/geo+json", name)

    async def export_command(self, request: Request) -> Response:
        """The command line and the Python that repeat an image."""
        session = self._session(request)
        try:
            asked = fields_of(json.loads(text(dict(request.query_params), "target", longest=4000)), "target")
        except ValueError as error:
            raise malformed("target is no JSON") from error
        sample = asked.get("sample", 0)
        target = read_target({"target": asked, "sample": sample}, self.tissue, self.answers.number_of)
        dose = None
        if asked.get("dose") is not None:
            dose = read_dose(fields_of(asked["dose"], "dose"))
        return JSONResponse(exports.repeat_commands(self.tissue, session, target, dose))
