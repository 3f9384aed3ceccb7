"""The service moves to another address: the daemon resolves the name again after a failure.

In: a network namespace with a separate hosts file. A name in this file first has one loopback
address and later another one. Out: segments arrive at the second address, although the first
address still accepts connections.
"""

import os
import signal
import subprocess
import sys
import uuid

import pytest
from processes import Child

NAME, PORT = "xray.test", 8080

#: A program that acts as the service: it accepts every request and prints the number of documents.
SERVICE = """
import http.server, json, sys

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        print("documents", len(body.get("TraceSegmentDocuments", [])), flush=True)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Handler)
print("ready", flush=True)
server.serve_forever()
"""

SEND = """
import socket, sys
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in range(10):
    sender.sendto(b'{"format":"json","version":1}\\n{"id":"%016x"}' % number, ("127.0.0.1", int(sys.argv[1])))
"""


@pytest.fixture
def namespace():
    """The name of a network namespace that only has a loopback interface."""
    name = f"xn{uuid.uuid4().hex[:8]}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True)


def test_a_service_that_moves_is_found_though_its_old_address_takes_connections(
    namespace, tmp_path
):
    within = ["ip", "netns", "exec", namespace]
    hosts, config = tmp_path / "hosts", tmp_path / "cfg.yaml"
    hosts.write_text(f"127.0.0.2 {NAME}\n")
    config.write_text("Version: 2\nUpload: {RequestTimeoutSeconds: 1}\n")
    # `ip netns exec` gives each command its own mounts, so the command of the daemon also mounts
    # its hosts file.
    mount = 'mount --bind "$0" /etc/hosts && exec "$@"'
    daemon_command = [os.environ["XRAY_BINARY"], "-b", "127.0.0.1:2000", "-c", str(config)]
    service = [*within, sys.executable, "-c", SERVICE]

    def send():
        subprocess.run([*within, sys.executable, "-c", SEND, "2000"], check=True)

    with (
        Child([*service, "127.0.0.2", str(PORT)], tmp_path) as old,
        Child([*service, "127.0.0.3", str(PORT)], tmp_path) as new,
        Child(
            [*within, "sh", "-c", mount, str(hosts), *daemon_command],
            tmp_path,
            AWS_ENDPOINT_URL_XRAY=f"http://{NAME}:{PORT}",
        ) as daemon,
    ):
        for service in (old, new):
            service.wait_for_line("ready")
        daemon.wait_for_line("Listening on UDP ")
        send()
        old.wait_for_line("documents 10")
        # The stopped process still receives data over the open connection, but never answers.
        old.signal(signal.SIGSTOP)
        hosts.write_text(f"127.0.0.3 {NAME}\n")
        send()
        new.wait_for_line("documents 10")
        assert "no answer within 1 s" in daemon.log()
        daemon.terminate()
        assert daemon.wait() == 0, daemon.log()
        assert "received=20 replayed=0 sent=20 " in daemon.log()
