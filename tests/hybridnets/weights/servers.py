"""A web server with one fault at a time."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

ETAG = '"v1"'


@dataclass
class Faults:
    """How the server answers; tests change it between requests.

    `cut`: bytes of the body after which the connection ends, one value for each request, the last one stays.
    """

    body: bytes
    etag: str | None = ETAG
    ranges: bool = True
    length: bool = True
    if_range: bool = True
    cut: list[int | None] = field(default_factory=lambda: [None])
    codes: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    extra: bytes = b""
    shift: int = 0
    content_type: str = "application/octet-stream"
    location: str | None = None
    before: Callable[[int], None] = lambda _: None
    requests: list[dict[str, str]] = field(default_factory=list)


@contextmanager
def serve(faults: Faults) -> Iterator[str]:
    """The address of a file on a server of this machine."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            number = len(faults.requests)
            faults.requests.append({"path": self.path, **{key.lower(): value for key, value in self.headers.items()}})
            faults.before(number)
            if faults.codes and (code := faults.codes.pop(0)) != 200:
                self.send_response(code)
                for key, value in faults.headers.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if faults.location and self.path != "/moved":
                self.send_response(302)
                self.send_header("Location", faults.location)
                self.end_headers()
                return
            self._send(number)

        def _send(self, number: int) -> None:
            wanted, start = self.headers.get("Range"), 0
            same = not faults.if_range or self.headers.get("If-Range") in (None, faults.etag)
            if wanted and faults.ranges and same:
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(faults.body) and start:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(faults.body)}")
                self.end_headers()
                return
            rest = faults.body[start:]
            self.send_response(206 if start else 200)
            if start:
                first = start + faults.shift
                self.send_header("Content-Range", f"bytes {first}-{len(faults.body) - 1}/{len(faults.body)}")
            if faults.etag:
                self.send_header("ETag", faults.etag)
            if faults.length:
                self.send_header("Content-Length", str(len(rest)))
            self.send_header("Content-Type", faults.content_type)
            self.end_headers()
            cut = faults.cut[min(number, len(faults.cut) - 1)]
            self.wfile.write((rest + faults.extra) if cut is None else rest[:cut])
            self.close_connection = True

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/weights.pth"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
