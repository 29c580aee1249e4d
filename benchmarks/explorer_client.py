"""One tab of the explorer, for its benchmarks: requests over HTTP, and answers that come line by line."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlsplit


class Refused(Exception):
    """An answer of 400 or more."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Client:
    """One tab: a session of its own."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host, self.base = parts.netloc, parts.path
        self.session = f"api/sessions/{self('POST', 'api/sessions', {})['session']}"

    def lines(self, method: str, path: str, body: object = None) -> Iterator[dict]:
        """Lines of an answer as they come; ending the loop early closes the connection."""
        with closing(http.client.HTTPConnection(self.host, timeout=600)) as connection:
            for line in self._answer(connection, method, path, body):
                yield json.loads(line)

    def __call__(self, method: str, path: str, body: object = None) -> dict:
        """The answer to a request."""
        return json.loads(self.bytes(method, path, body))

    def bytes(self, method: str, path: str, body: object = None) -> bytes:
        """The answer to a request as it comes: of a file."""
        with closing(http.client.HTTPConnection(self.host, timeout=600)) as connection:
            return self._answer(connection, method, path, body).read()

    def _answer(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: object
    ) -> http.client.HTTPResponse:
        content = None if body is None else json.dumps(body)
        connection.request(method, self.base + path, content, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status >= 400:
            raise Refused(answer.status, answer.read().decode())
        return answer
