"""Sends all header lines to one daemon, each with a document of its own, in a network namespace of
its own.

In: the binary. Out: a JSON list that says for each header line whether its document arrived.
"""

import http.server
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import ClassVar

import headers
import observe

#: The datagrams that are sent before the queue of the daemon must be empty again.
WINDOW_COUNT = 20


class Service(http.server.BaseHTTPRequestHandler):
    """An X-Ray service that accepts everything."""

    protocol_version = "HTTP/1.1"
    documents: ClassVar = set()

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/TraceSegments":
            self.documents.update(json.loads(body)["TraceSegmentDocuments"])
        self.send_response(200)
        self.send_header("x-amzn-RequestId", "1-2-3")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")


def queued_bytes():
    """Returns the bytes in the queues of UDP port 2000, or None if nothing listens there."""
    rows = []
    for name in ("udp", "udp6"):
        with open(f"/proc/net/{name}", encoding="ascii") as table:
            rows += [line.split() for line in table][1:]
    sizes = [int(row[4].split(":")[1], 16) for row in rows if row[1].endswith(":07D0")]
    return max(sizes, default=None)


def wait_for(condition, what):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def main(binary):
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", observe.FAKE_PORT), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        text = f"Version: 2\nEndpoint: http://127.0.0.1:{observe.FAKE_PORT}\n"
        (Path(folder) / "cfg.yaml").write_text(text)
        arguments = ["-c", "cfg.yaml", "-n", "us-east-1", "-o", "-l", "error", "-m", "100"]
        process = subprocess.Popen([binary, *arguments], cwd=folder, env=observe.ENVIRONMENT,
                                   stdout=subprocess.DEVNULL)  # fmt: skip
        try:
            wait_for(lambda: queued_bytes() is not None, "the daemon does not listen")
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sender.connect(("127.0.0.1", 2000))
            lines = [*headers.headers(), ("end", headers.line().encode())]
            for number, (_, header) in enumerate(lines):
                sender.send(header + b"\ndocument %d" % number)
                if number % WINDOW_COUNT == 0:
                    wait_for(lambda: not queued_bytes(), "the daemon does not receive")
            # Batches may overtake each other, so the last ones leave at the shutdown.
            last = f"document {len(lines) - 1}"
            wait_for(lambda: last in Service.documents, "the last document does not arrive")
            process.terminate()
            process.wait(20)
        finally:
            process.kill()
            process.wait()
    arrived = [f"document {number}" in Service.documents for number in range(len(lines) - 1)]
    print(json.dumps(arrived))
    sys.stdout.flush()
    os._exit(0)


main(sys.argv[1])
