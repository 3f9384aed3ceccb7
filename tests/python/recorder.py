"""An endpoint that accepts every POST request and records it unchanged.

In: HTTP requests on a free port, and a function that returns the answers. Out: a list of `Request`.
There is one thread per connection, because the daemon keeps several connections.
"""

import re
import threading
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Request:
    """A request as it was received."""

    method: str
    path: str
    headers: Message
    body: bytes


def signed_headers(request):
    """Returns the names of the headers that are part of a request's signature."""
    return re.search("SignedHeaders=([^,]+)", request.headers["Authorization"])[1].split(";")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = Request(self.command, self.path, self.headers, body)
        self.server.requests.append(request)
        answer = self.server.answer(request)
        status, headers, answer = answer if isinstance(answer, tuple) else (200, {}, answer)
        self.send_response_only(status)
        for name, value in ({"Content-Type": "application/json"} | headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


class Recorder(ThreadingHTTPServer):
    """Records requests within its `with` block. `answer` returns the body of an answer, or a tuple
    of status, headers and body.
    """

    def __init__(self, answer=lambda _: b'{"UnprocessedTraceSegments":[]}'):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = answer
        self.requests = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self):
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self._thread.join()
        self.server_close()
