"""Who may ask: the loopback names in Host, the same origin, the token in the path; and headers for every answer."""

from __future__ import annotations

import hmac
import re
from typing import Any

LOOPBACK = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def refusal(host: str, origin: str | None) -> str | None:
    """Why a request is refused; None if it may pass.

    A page of another site that resolves its own name to this machine has that name as Host (DNS rebinding). The port is free: a
    tunnel may have another one at its near end.

    >>> refusal("localhost:9000", "http://localhost:9000") is None
    True
    >>> refusal("attacker.example:8765", None)
    'Host is not this machine'
    """
    if not LOOPBACK.fullmatch(host.casefold()):
        return "Host is not this machine"
    if origin is not None and origin.casefold() != f"http://{host.casefold()}":
        return "Origin is another site"
    return None


class Guard:
    """ASGI middleware: checks Host, Origin and token of every request, and removes the token from its path."""

    def __init__(self, app: Any, token: str, answer_error: Any) -> None:
        self.app, self.token, self.answer_error = app, token, answer_error

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Pass a request on, or answer 403 or 404."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                own = {name for name, _ in message["headers"]}
                extra = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in own]
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        if scope["type"] != "http":  # there are no web sockets
            await send({"type": "websocket.close", "code": 1003})
            return
        headers = scope["headers"]
        hosts = [value for name, value in headers if name == b"host"]
        origins = [value.decode("latin-1") for name, value in headers if name == b"origin"]
        why = refusal(hosts[0].decode("latin-1"), origins[0] if origins else None) if len(hosts) == 1 else "no Host"
        if why is not None:
            await self.answer_error(403, "forbidden", why)(scope, receive, send_with_headers)
            return
        _, _, rest = scope["path"].partition("/")
        token, slash, rest = rest.partition("/")
        if not slash or not hmac.compare_digest(token.encode(), self.token.encode()):
            await self.answer_error(404, "not_found", "no such page: the address holds a token")(
                scope, receive, send_with_headers
            )
            return
        # the path below the token; nothing below this point reads raw_path
        await self.app({**scope, "path": f"/{rest}", "raw_path": f"/{rest}".encode()}, receive, send_with_headers)
