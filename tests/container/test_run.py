"""Runs the image as ECS, Kubernetes and Docker do.

In: containers of the image with the strictest restrictions, an endpoint, and an application with
the X-Ray SDK for Python. Out: traces at the endpoint, and log lines.
"""

import json
import re
import socket

import pytest
from conftest import HARDENED
from podman import ROOT
from processes import wait_for
from skipping import skip

HEADER = b'{"format":"json","version":1}\n'

#: The errors of io_uring's system calls where it is denied: EPERM under Docker 25, ENOSYS under
#: podman.
DENIED = {"EPERM": 1, "ENOSYS": 38}


def segments(count, size=0):
    """Yields datagrams with one segment each."""
    for number in range(count):
        trace_id = f"1-6b02f126-{number:024x}"
        document = {"trace_id": trace_id, "id": f"{number:016x}", "name": "app"}
        document |= {"start_time": 1795354918.5, "end_time": 1795354918.75}
        text = json.dumps(document | {"metadata": {"padding": "x" * size}})
        yield HEADER + text.encode()


def send(address, datagrams):
    """Sends datagrams to a container at once. Its socket queue holds at least 100 of these
    datagrams.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for datagram in datagrams:
            sender.sendto(datagram, address)


def published(container):
    """Returns the address at which the host reaches a container's UDP port."""
    [port] = container.inspect()["NetworkSettings"]["Ports"]["2000/udp"]
    return port["HostIp"], int(port["HostPort"])


def account(container):
    """Returns the numbers of the account in the log."""
    line = container.wait_for_line("Account: ")
    return {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", line)}


def test_arguments_are_appended_as_ecs_does(podman, image):
    role = "arn:aws:iam::123456789012:role/traces"
    command = ["-n", "eu-central-1", "-m", "16", "-r", role, "config"]
    flags = ["run", "--rm", "--network=none", *HARDENED, image]
    settings = {}
    for line in podman(*flags, *command).splitlines()[1:]:
        key, value, source, *_ = line.split()
        settings[key] = value, source
    assert settings["Socket.UDPAddress"] == ("0.0.0.0:2000", "flag")
    assert settings["Socket.TCPAddress"] == ("0.0.0.0:2000", "flag")
    assert settings["Region"] == ("eu-central-1", "flag")
    assert settings["TotalBufferSizeMB"] == ("16", "flag")
    assert settings["RoleARN"] == (role, "flag")


@pytest.mark.parametrize("names", ["hosts file", "name server"])
def test_a_trace_of_an_sdk_in_a_second_container_arrives(names, endpoint, start_daemon, emit):
    """ECS' links write names into /etc/hosts; networks of Docker have a name server."""
    if names == "hosts file":
        flags = [f"--add-host=service:{endpoint.address}"]
        daemon = start_daemon(*flags, "--network-alias=xray-daemon", url="http://service:2000")
    else:
        daemon = start_daemon("--network-alias=xray-daemon")
    emit("xray-daemon:2000", {"name": "shop.example", "subsegments": [{"name": "query"}]})
    wait_for(endpoint.traces, daemon.log)
    [trace] = endpoint.traces()
    [document] = endpoint.documents(trace["id"])
    assert document["name"] == "shop.example"
    assert [child["name"] for child in document["subsegments"]] == ["query"]


def test_a_segment_from_the_host_arrives_through_the_published_port(endpoint, start_daemon):
    daemon = start_daemon("--publish=127.0.0.1::2000/udp")
    send(published(daemon), segments(1))
    wait_for(endpoint.traces, daemon.log)


def test_the_daemon_is_another_user_on_a_file_system_that_nobody_can_write(podman, start_daemon):
    daemon = start_daemon()
    [process] = podman("top", daemon.name, "user", "group", "capeff", "seccomp").splitlines()[1:]
    assert process.split() == ["xray", "xray", "none", "filter"]
    assert daemon.inspect()["HostConfig"]["ReadonlyRootfs"]


def test_an_outage_under_load_stays_within_64_megabytes(podman, start_daemon):
    """The load exceeds the memory: the oldest segments are dropped, and the container is not
    killed.
    """
    daemon = start_daemon("--publish=127.0.0.1::2000/udp", url="http://127.0.0.1:9")
    address = published(daemon)
    for _ in range(20):
        send(address, segments(2_000, size=1_000))
    daemon.wait_for_line("Spilling over")
    assert daemon.stop(30) == 0
    assert not daemon.inspect()["State"]["OOMKilled"]
    counts = account(daemon)
    assert counts["received"] == counts["dropped"] > 1_000
    assert counts["received"] + counts["kernel_drops"] == 40_000


@pytest.mark.parametrize("code", DENIED)
def test_without_io_uring_it_receives_otherwise_and_says_so(code, tmp_path, endpoint, start_daemon):
    rule = {"names": ["io_uring_setup", "io_uring_enter", "io_uring_register"]}
    rule |= {"action": "SCMP_ACT_ERRNO", "errnoRet": DENIED[code]}
    profile = tmp_path / "profile.json"
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    daemon = start_daemon(f"--security-opt=seccomp={profile}", "--publish=127.0.0.1::2000/udp")
    assert "receive backend recvmmsg" in daemon.wait_for_line("Listening on UDP")
    assert "seccomp profile denies io_uring" in daemon.wait_for_line("recvmmsg instead")
    send(published(daemon), segments(3))
    wait_for(lambda: len(endpoint.traces()) == 3, daemon.log)


def test_the_engines_own_profile_is_enough(endpoint, start_daemon):
    daemon = start_daemon("--publish=127.0.0.1::2000/udp")
    send(published(daemon), segments(3))
    wait_for(lambda: len(endpoint.traces()) == 3, daemon.log)


def test_with_our_profile_io_uring_is_in_force(endpoint, start_daemon):
    free = start_daemon("--security-opt=seccomp=unconfined")
    if "receive backend uring" not in free.wait_for_line("Listening on UDP"):
        skip("uring", "this kernel has no io_uring for containers: " + free.log())
    profile = ROOT / "deploy" / "seccomp" / "xray.json"
    daemon = start_daemon(f"--security-opt=seccomp={profile}", "--publish=127.0.0.1::2000/udp")
    assert "receive backend uring" in daemon.wait_for_line("Listening on UDP")
    send(published(daemon), segments(3))
    wait_for(lambda: len(endpoint.traces()) == 3, daemon.log)


def test_a_stop_sends_what_is_left_and_ends_with_0(endpoint, start_daemon):
    daemon = start_daemon("--publish=127.0.0.1::2000/udp")
    # When the container is stopped, segments are waiting and the daemon has no connection to the
    # service yet.
    send(published(daemon), segments(100))
    assert daemon.stop(30) == 0
    assert daemon.inspect()["State"]["ExitCode"] == 0
    counts = account(daemon)
    assert (counts["received"], counts["sent"]) == (100, 100), daemon.log()


def test_health_becomes_healthy_and_outlives_the_service(endpoint, start_daemon):
    daemon = start_daemon("--publish=127.0.0.1::2000/udp")
    daemon.wait_for_line("Listening on TCP")
    assert daemon.health() == "starting"
    assert daemon.check_health() == "healthy"
    endpoint.container.stop(0)
    send(published(daemon), segments(3))
    daemon.wait_for_line("Sending segment batch failed with")
    assert daemon.check_health() == "healthy"


def test_readiness_says_what_is_wrong_while_liveness_is_well(podman, start_daemon):
    daemon = start_daemon("--publish=127.0.0.1::2000/udp", url="http://127.0.0.1:9")
    daemon.wait_for_line("Listening on TCP")
    send(published(daemon), segments(1))
    healthcheck = ["exec", daemon.name, "/xray", "healthcheck"]

    def is_unready():
        return not podman(*healthcheck, "--ready", okay=None)

    wait_for(is_unready, daemon.log)
    podman(*healthcheck)


def test_the_health_check_of_a_daemon_that_stands_still_fails(podman, endpoint, start_daemon):
    daemon = start_daemon()
    daemon.wait_for_line("Listening on TCP")
    assert daemon.check_health() == "healthy"
    podman("kill", "--signal=STOP", daemon.name)
    # The test runs the check itself: podman's own status ignores failures within the start period.
    assert not podman("exec", daemon.name, "/xray", "healthcheck", okay=None)
