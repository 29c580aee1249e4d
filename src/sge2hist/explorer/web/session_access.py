"""What all endpoints have: the tissue, the sessions, and a session at one moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sge2hist.explorer.sessions import Session, Sessions
from sge2hist.explorer.tissue import Tissue

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


class SessionAccess:
    """Finds the session of a request."""

    def __init__(self, tissue: Tissue, sessions: Sessions) -> None:
        self.tissue, self.sessions = tissue, sessions

    def _session(self, request: Request) -> Session:
        return self.sessions.get(request.path_params["session"])

    def _now(self, session: Session) -> tuple[list[Any], dict[str, Any]]:
        """Edits and settings of a session at this moment."""
        with session.lock:
            return self.tissue.edits(session.edits), dict(session.settings)


def download(content: bytes, media: str, name: str) -> Response:
    """An answer that the browser saves as a file."""
    from starlette.responses import Response

    return Response(content, media_type=media, headers={"content-disposition": f'attachment; filename="{name}"'})
