"""A local HTTP server for tests of downloads."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial


class FileServer(http.server.ThreadingHTTPServer):
    """Serves `files` and records the Range header of each request.

    `limit` is the number of bytes after which a response breaks off, `ranges` whether
    the server honors Range, and `sends_length` whether it sends Content-Length.
    """

    limit: int | None = None
    ranges = True
    sends_length = True

    def __init__(self, files: dict[str, bytes]):
        self.files = files
        self.requests: list[str | None] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        requested_range = self.headers.get("Range")
        self.server.requests.append(requested_range)
        content = self.server.files.get(self.path.removeprefix("/"))
        if content is None:
            self.send_error(404)
            return
        start = 0
        if requested_range and self.server.ranges:
            start = int(requested_range.removeprefix("bytes=").removesuffix("-"))
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if self.server.sends_length:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        stop = None if self.server.limit is None else start + self.server.limit
        self.wfile.write(content[start:stop])

    def log_message(self, *args):
        pass


@contextmanager
def serve(files: dict[str, bytes]) -> Iterator[FileServer]:
    """Serve {name: content} until the block ends."""
    with FileServer(files) as server:
        # `shutdown` waits for the end of a poll.
        serve_forever = partial(server.serve_forever, poll_interval=0.01)
        threading.Thread(target=serve_forever, daemon=True).start()
        yield server
        server.shutdown()
