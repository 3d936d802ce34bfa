"""A web server on this machine that can fail in the ways real ones do."""

import http.server
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock


class Behaviour:
    """What the server does, to be changed while it runs, and what it was asked for."""

    def __init__(self) -> None:
        self.ranges = True
        """Whether it can send a part of a file (HTTP Range)."""
        self.cut_after: list[int] = []
        """Bytes after which the next answers break off, one number for each."""
        self.lengths = True
        """Whether it says how much is to come; else it sends in chunks of unknown number, as GitHub does."""
        self.status = 0
        """Answer everything with this status."""
        self.headers: dict[str, str] = {}
        """Further headers of the answers."""
        self.asked: list[str] = []
        """The Range of each request, empty for the whole file."""


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, Behaviour]]:
    """Serve the files of a folder; yields the address and the behaviour."""
    behaviour = Behaviour()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            behaviour.asked.append(asked)
            path = folder / self.path.partition("?")[0].lstrip("/")
            self.close_connection = True
            if behaviour.status or not path.exists():
                self.send_error(behaviour.status or 404)
                return
            content, start = path.read_bytes(), 0
            if asked and behaviour.ranges:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            for name, value in behaviour.headers.items():
                self.send_header(name, value)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self._send(content[start:], behaviour.cut_after.pop(0) if behaviour.cut_after else None)

        def _send(self, content: bytes, cut: int | None) -> None:
            if behaviour.lengths:
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[:cut])
                return
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n" % len(content) + content[:cut])
            if cut is None:
                self.wfile.write(b"\r\n0\r\n\r\n")

        def log_message(self, *_arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        with mock.patch.dict(os.environ, no_proxy="127.0.0.1"):
            yield f"http://127.0.0.1:{server.server_port}", behaviour
    finally:
        server.shutdown()
        server.server_close()
