"""Reading requests: JSON bodies within their limit, and query values."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sge2hist.explorer.fields import RequestError, fields_of, malformed, too_large
from sge2hist.explorer.limits import LIMITS

if TYPE_CHECKING:
    from starlette.requests import Request


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


async def body_of(request: Request, *, required: bool = True) -> dict[str, Any]:
    """The JSON object that a request carries; {} for none, if that is allowed."""
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > LIMITS.body_bytes:
            raise too_large(f"a body of over {LIMITS.body_bytes:,} bytes")
    if not content and not required:
        return {}
    kind_of = request.headers.get("content-type", "").partition(";")[0].strip().casefold()
    if kind_of not in ("application/json", "application/geo+json"):
        raise RequestError(415, "not_json", "the body is not application/json")
    try:
        return fields_of(json.loads(content.decode("utf-8"), parse_constant=_no_constant), "the body")
    except (ValueError, RecursionError) as error:
        raise malformed("the body is no JSON") from error
