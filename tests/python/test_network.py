"""A real network interface between client and daemon: two network namespaces and a veth pair.

In: datagrams from one namespace. Out: the traces of the sandbox in the other one. Datagrams that
are larger than the link's MTU arrive in fragments and must be complete, with each receive backend.
"""

import json
import os
import subprocess
import sys
import uuid

import pytest
from processes import ENVIRONMENT, PATIENCE_SECONDS, Child, wait_for

#: Addresses reserved for documentation (RFC 5737). They exist only on the link between the two
#: namespaces.
#: The ports for OpenTelemetry are not needed.
NO_OTLP = ["--otlp-http=off", "--otlp-grpc=off"]

DAEMON, SENDER = "192.0.2.1", "192.0.2.2"

SEND = """
import json, socket, sys
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for document in json.load(sys.stdin):
    datagram = '{"format":"json","version":1}\\n' + document
    sender.sendto(datagram.encode(), (sys.argv[1], int(sys.argv[2])))
"""

GET = """
import sys, urllib.request
print(urllib.request.urlopen(sys.argv[1], timeout=30).read().decode())
"""


def run(*command, **options):
    """Runs a command that must succeed, and returns its output."""
    options = {"check": True, "capture_output": True, "text": True} | options
    return subprocess.run(command, timeout=PATIENCE_SECONDS, **options).stdout


@pytest.fixture
def namespaces():
    """The names of two namespaces with a link between them, for a daemon and a client."""
    name = uuid.uuid4().hex[:8]
    daemon, sender = f"xd{name}", f"xs{name}"
    try:
        for namespace in (daemon, sender):
            run("ip", "netns", "add", namespace)
            run("ip", "-n", namespace, "link", "set", "lo", "up")
        link = ["type", "veth", "peer", "name", "out", "netns", sender]
        run("ip", "-n", daemon, "link", "add", "in", *link)
        for namespace, device, address in [(daemon, "in", DAEMON), (sender, "out", SENDER)]:
            run("ip", "-n", namespace, "address", "add", f"{address}/24", "dev", device)
            run("ip", "-n", namespace, "link", "set", device, "mtu", "1500", "up")
        yield daemon, sender
    finally:
        for namespace in (daemon, sender):
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True)


@pytest.mark.parametrize("backend", ["uring", "recvmmsg", "tokio-uring"])
def test_fragmented_datagrams_arrive_whole_through_a_real_interface(namespaces, tmp_path, backend):
    daemon_namespace, sender_namespace = namespaces
    within = ["ip", "netns", "exec", daemon_namespace]
    flags = ["-b", f"{DAEMON}:0", "-t", "127.0.0.1:0", "--receiver", backend]
    trace_id = "1-6b02f126-17016b9abacffab6c69d649c"
    documents = [
        json.dumps(
            {
                "trace_id": trace_id,
                "id": f"{number:016x}",
                "name": "shop.example",
                "start_time": 1795354918.5,
                "end_time": 1795354918.75,
                "metadata": {"text": chr(ord("a") + number) * length},
            }
        )
        for number, length in enumerate([10, 1_400, 1_500, 9_000, 30_000, 60_000])
    ]
    with Child(
        [*within, os.environ["XRAY_BINARY"], *flags, "sandbox", *NO_OTLP], tmp_path
    ) as daemon:
        assert f"(receive backend {backend}, " in daemon.wait_for_line("Listening on UDP ")
        (_, port), tcp = daemon.listening("UDP"), daemon.listening("TCP")
        send = ["ip", "netns", "exec", sender_namespace, sys.executable, "-c", SEND]
        run(*send, DAEMON, str(port), input=json.dumps(documents), env=ENVIRONMENT | os.environ)

        url = "http://{}:{}".format(*tcp)

        def received():
            page = run(*within, sys.executable, "-c", GET, f"{url}/metrics")
            return f"xray_segments_sent_total {len(documents)}\n" in page

        wait_for(received, daemon.log)
        trace = json.loads(run(*within, sys.executable, "-c", GET, f"{url}/traces/{trace_id}"))
        shown = sorted(trace["documents"], key=lambda document: document["id"])
        assert shown == [json.loads(document) for document in documents]
        daemon.terminate()
        assert daemon.wait() == 0, daemon.log()
        account = f"received={len(documents)} replayed=0 sent={len(documents)} rejected=0 dropped=0"
        assert account in daemon.log()
