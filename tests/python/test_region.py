"""The daemon on a host whose network is not there yet, as at boot.

In: a network namespace of the daemon's own (`unshare --net`), without a route to the instance
metadata. Out: a daemon that waits and keeps segments, until the network and the metadata are there.
No packet leaves the namespace: it has only its loopback interface. It needs root.
"""

import os
import re
import sys
from pathlib import Path

import pytest
from processes import Child, wait_for
from skipping import skip

HERE = Path(__file__).parent
REGION = "ca-central-1"
METADATA = "169.254.169.254"

#: Runs a program before all others of the machine.
FIRST = ["nice", "--adjustment=-19"]

SEND = """
import json, socket, sys, time
document = {"trace_id": f"1-{int(time.time()):08x}-{1:024x}", "id": "70de5b6f19ff9a0a"}
document |= {"name": "boot", "start_time": time.time(), "end_time": time.time()}
datagram = '{"format":"json","version":1}\\n' + json.dumps(document)
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.sendto(datagram.encode(), ("127.0.0.1", int(sys.argv[1])))
"""

GET = """
import sys, urllib.request, urllib.error
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=30).read().decode())
except urllib.error.HTTPError as error:
    print(error.read().decode())
"""

#: How the namespace lacks the network: no route, or a route that rejects.
UNREACHABLE = [
    ("true", "Network is unreachable"),
    (f"ip route add unreachable {METADATA}", "No route to host"),
]


class Host:
    """A network namespace with a daemon in it that has no region."""

    def __init__(self, folder, setup, *arguments, **environment):
        if os.geteuid() != 0:
            skip("root", "a network namespace needs root")
        variables = dict.fromkeys(("AWS_REGION", "AWS_EC2_METADATA_DISABLED"), "")
        script = f'ip link set lo up && {setup} && exec "$@"'
        # The daemon gives a metadata service a second. On a busy machine it and the service need a
        # place before others, or it rightly ends without a region.
        command = [*FIRST, "unshare", "--net", "sh", "-c", script, "sh", os.environ["XRAY_BINARY"]]
        self._folder = folder
        self._environment = environment | variables | {"PATH": os.environ["PATH"]}
        self.daemon = Child([*command, *arguments], folder, **self._environment)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.daemon.__exit__(*exception)

    def child(self, *command, **environment):
        """Starts a command in the namespace."""
        within = ["nsenter", f"--net=/proc/{self.daemon.id()}/ns/net"]
        environment = {"PATH": os.environ["PATH"]} | environment
        return Child([*within, *command], self._folder, **environment)

    def run(self, *command):
        """Runs a command in the namespace. Returns its output."""
        with self.child(*command) as child:
            assert child.wait() == 0, child.log()
            return child.log()


@pytest.mark.parametrize("setup, said", UNREACHABLE)
def test_a_daemon_waits_for_the_network_and_then_sends_what_it_has_kept(tmp_path, setup, said):
    ports = ["-b", "127.0.0.1:0", "-t", "127.0.0.1:0"]
    service = "127.0.0.1:2900"
    variables = {"AWS_ENDPOINT_URL_XRAY": f"http://{service}"}
    variables |= {"AWS_ACCESS_KEY_ID": "xrayd-sandbox"}
    variables |= {"AWS_SECRET_ACCESS_KEY": "xrayd-sandbox-secret"}
    with Host(tmp_path, setup, *ports, **variables) as host:
        daemon = host.daemon
        udp, tcp = daemon.listening("UDP")[1], daemon.listening("TCP")[1]
        host.run(sys.executable, "-c", SEND, str(udp))
        line = daemon.wait_for_line("No region for ")
        assert "[Error]" in line and "because the network is not there yet" in line, line
        assert said in line and "instance metadata: " in line, line
        assert "hop" not in line and ".." not in line.replace("...", ""), line
        ready = host.run(sys.executable, "-c", GET, f"http://127.0.0.1:{tcp}/ready")
        assert '"no_region"' in ready and "the network is not there yet" in ready, ready

        flags = ["-b", "127.0.0.1:0", "-t", service, "--print=false"]
        sandbox = [os.environ["XRAY_BINARY"], "sandbox", *flags, "--otlp-http=off"]
        with (
            host.child(*sandbox, "--otlp-grpc=off") as sandbox,
            host.child(*FIRST, sys.executable, HERE / "metadata.py", REGION) as metadata,
        ):
            sandbox.wait_for_line("Listening on TCP")
            metadata.wait_for_line("serving")
            host.run("sh", "-c", f"ip route flush {METADATA}; ip address add {METADATA} dev lo")
            daemon.wait_for_line(f"in region {REGION}")
            assert re.search(r"The network is there, after \d+ s without", daemon.log())

            def is_sent():
                page = host.run(sys.executable, "-c", GET, f"http://127.0.0.1:{tcp}/metrics")
                return "xray_segments_sent_total 1\n" in page

            wait_for(is_sent, daemon.log)
            daemon.terminate()
            assert daemon.wait() == 0, daemon.log()


def test_verify_gives_advice_that_fits_a_missing_network(tmp_path):
    flags = ["-t", "127.0.0.1:1", "verify"]
    with Host(tmp_path, "true", *flags) as host:
        assert host.daemon.wait() == 1
        [line] = [line for line in host.daemon.lines if "region: " in line]
        assert "Network is unreachable" in line and "Is the network of this host up?" in line, line
        assert "hop" not in line, line
