"""A store that speaks as much of S3 as a sweep needs, and delays each answer.

Arguments: a port, and the seconds until each answer. ``PUT`` stores the keys of the body, and
``GET`` returns how many there are, and how many requests to delete it has answered. Unlike moto it
takes next to no time itself: there a thousand keys take 100 ms in one thread.
"""

from __future__ import annotations

import re
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEYS: set[bytes] = set()
DELETIONS: list[int] = []
DONE = b'<DeleteResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"></DeleteResult>'
find_keys = re.compile(b"<Key>([^<]*)</Key>").findall


class Store(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        keys = find_keys(self._body())
        KEYS.difference_update(keys)
        DELETIONS.append(len(keys))
        time.sleep(float(sys.argv[2]))
        self._answer(DONE)

    def do_DELETE(self) -> None:
        self.send_response(204)
        self.end_headers()

    def do_PUT(self) -> None:
        KEYS.update(self._body().split())
        self._answer(b"")

    def do_GET(self) -> None:
        self._answer(b"%d %d" % (len(KEYS), len(DELETIONS)))

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay silent."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Store).serve_forever()
