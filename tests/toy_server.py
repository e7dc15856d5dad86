"""What the servers of tests have in common."""

from http.server import BaseHTTPRequestHandler
from typing import Any


class QuietHandler(BaseHTTPRequestHandler):
    """Answers with bodies of known length and logs nothing."""

    def answer(self, code: int, body: bytes, **headers: str) -> None:
        """A status, headers and, unless they are all that was asked for, a body."""
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""
