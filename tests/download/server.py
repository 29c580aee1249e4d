"""A server on the loopback device that serves bytes, and misbehaves as it is asked to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Served:
    """The content of a server, its faults, and what was asked of it."""

    files: dict[str, bytes] = field(default_factory=dict)  # name -> content
    etags: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, str, str]] = field(default_factory=list)  # method, name, Range
    break_after: list[int] = field(default_factory=list)  # bytes after which each next GET breaks off
    answers: list[int] = field(default_factory=list)  # status of each next request, instead of its answer
    ranges: bool = True  # whether Range requests are answered with parts
    wrong_range: bool = False  # answer a Range request with other bytes than asked for
    head_size: int | None = None  # size that HEAD states, instead of the true one
    length: bool = True  # whether the length is stated
    head: bool = True  # whether HEAD is understood
    address: str = ""

    def asked(self, method: str) -> list[str]:
        return [name for m, name, _ in self.requests if m == method]


@contextmanager
def serving(served: Served) -> Iterator[Served]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            name = self.path.rsplit("/", 1)[-1]
            served.requests.append((self.command, name, self.headers.get("Range", "")))
            status = served.answers.pop(0) if served.answers else 0
            if not body and not served.head:
                status = 501
            if not status and name not in served.files:
                status = 404
            if status:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            content, start, tag = served.files[name], 0, served.etags.get(name, '"1"')
            if body and served.ranges and "Range" in self.headers and self.headers.get("If-Range", tag) == tag:
                start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
                start -= served.wrong_range
            self.send_response(206 if start else 200)
            self.send_header("ETag", tag)
            self.send_header("Connection", "close")
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            n_bytes = len(content) - start
            if not body and served.head_size is not None:
                n_bytes = served.head_size
            if served.length:
                self.send_header("Content-Length", str(n_bytes))
            self.end_headers()
            if body:
                end = start + served.break_after.pop(0) if served.break_after else len(content)
                self.wfile.write(content[start:end])

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False  # they are waited for: no socket stays open
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    served.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
