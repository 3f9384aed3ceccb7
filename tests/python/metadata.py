"""The instance metadata of a host, for a network namespace of a test's own.

    metadata.py REGION

In: the region. Out: a server of the metadata's version 2 on port 80 of all addresses, which prints
`serving` when it listens. It may listen before the namespace has the address of the metadata, so
that no call is refused.
"""

import http.server
import sys


class Metadata(http.server.BaseHTTPRequestHandler):
    """Answers the call for a token and the one for the region."""

    def do_PUT(self):
        """Gives a token."""
        self._answer(200, "token", {"x-aws-ec2-metadata-token-ttl-seconds": "600"})

    def do_GET(self):
        """Gives the region, and nothing else."""
        is_region = self.path == "/latest/meta-data/placement/region"
        self._answer(*((200, sys.argv[1]) if is_region else (404, "")))

    def _answer(self, status, text, headers=()):
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


def main():
    """Serves until the process ends."""
    server = http.server.ThreadingHTTPServer(("0.0.0.0", 80), Metadata)
    print("serving", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
