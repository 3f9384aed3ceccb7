"""The output of `xray sandbox`: what to do next, trees in colour, and one message for ports in use.

In: the flag `--demo`, a pseudo-terminal, and sockets that have the ports already. Out: the lines of
the sandbox.
"""

import os
import pty
import re
import socket
import subprocess
from contextlib import ExitStack

import pytest
from processes import ENVIRONMENT, Daemon

#: A part of a line in a colour, or bold or dim.
COLOUR = re.compile(r"\x1b\[(1|2|31|33|34|35)m([^\x1b]*)\x1b\[0m")

#: Flags for free ports, also for OpenTelemetry.
FREE = ["-b", "127.0.0.1:0", "-t", "127.0.0.1:0", "sandbox", "--otlp-http=127.0.0.1:0"]
FREE += ["--otlp-grpc=127.0.0.1:0"]


def printed_in_terminal(folder, until, *arguments, **environment):
    """Runs a sandbox in a pseudo-terminal until it has printed a text. Returns what it printed."""
    own, terminal = pty.openpty()
    variables = ENVIRONMENT | {"TERM": "xterm-256color"} | environment
    child = subprocess.Popen(
        [os.environ["XRAY_BINARY"], *FREE, *arguments],
        cwd=folder,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    text = b""
    try:
        while until.encode() not in text:
            text += os.read(own, 65536)
    finally:
        child.kill()
        child.wait()
        os.close(own)
    return text.decode(errors="replace").replace("\r\n", "\n")


@pytest.fixture
def demo(tmp_path):
    """A sandbox with the demo, which has printed all of its traces."""
    with Daemon(os.environ["XRAY_BINARY"], tmp_path, "sandbox", "--demo") as sandbox:
        sandbox.wait_until_ready()
        sandbox.wait_for_line("ModelTimeout")
        yield sandbox


def test_the_first_lines_say_what_to_do_next(demo):
    lines = "\n".join(demo.output).splitlines()
    at = next(index for index, line in enumerate(lines) if "sandbox is ready" in line)
    assert lines[at].startswith(f"The sandbox is ready: {demo.url}/ ")
    steps = [line for line in lines[at + 1 :] if re.match(r"  [1-9]\. ", line)]
    assert len(steps) == 3
    assert "AWS_XRAY_DAEMON_ADDRESS=" in steps[1]
    assert all(len(line) <= 100 for line in [lines[at], steps[0], steps[2]])
    # The demo has a document of OpenTelemetry's UDP exporters, which is no fault.
    assert not any("not JSON" in line for line in demo.lines)


def test_trees_are_in_colour_in_a_terminal(tmp_path):
    text = printed_in_terminal(tmp_path, "ModelTimeout", "--demo")
    painted = {words for _, words in COLOUR.findall(text)}
    assert {"shop.example", "fault", "throttle", "error", "in progress"} <= painted
    assert "\x1b[31mfault\x1b[0m" in text and "\x1b[1mshop.example\x1b[0m" in text
    # Each colour ends in its line, so that the next line of the log has none.
    assert "\x1b" not in COLOUR.sub("", text)


def test_there_are_no_colours_where_they_are_not_wanted(tmp_path, demo):
    assert "\x1b" not in printed_in_terminal(tmp_path, "ModelTimeout", "--demo", NO_COLOR="1")
    assert "\x1b" not in printed_in_terminal(tmp_path, "ModelTimeout", "--demo", TERM="dumb")
    assert not any("\x1b" in line for line in demo.lines)


def taken(stack, kind):
    """Returns the address of a port that is in use until the end of `stack`."""
    other = stack.enter_context(socket.socket(socket.AF_INET, kind))
    other.bind(("127.0.0.1", 0))
    if kind == socket.SOCK_STREAM:
        other.listen()
    return "{}:{}".format(*other.getsockname())


def test_both_ports_in_use_are_one_message(tmp_path):
    with ExitStack() as stack:
        udp, tcp = taken(stack, socket.SOCK_DGRAM), taken(stack, socket.SOCK_STREAM)
        command = [os.environ["XRAY_BINARY"], "-b", udp, "-t", tcp, "sandbox"]
        ended = subprocess.run(
            command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=60
        )
    assert ended.returncode == 1
    errors = [line for line in (ended.stdout + ended.stderr).splitlines() if "[Error]" in line]
    assert len(errors) == 1
    assert f"UDP {udp} and TCP {tcp} are in use" in errors[0]
    assert "xray sandbox -b 127.0.0.1:3000 -t 127.0.0.1:3000" in errors[0]


def test_one_port_in_use_is_named_alone(tmp_path):
    with ExitStack() as stack:
        tcp = taken(stack, socket.SOCK_STREAM)
        command = [os.environ["XRAY_BINARY"], "-b", "127.0.0.1:0", "-t", tcp, "sandbox"]
        ended = subprocess.run(
            command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=60
        )
    assert ended.returncode == 1
    assert f"TCP {tcp} cannot be opened" in ended.stdout + ended.stderr


def test_both_ports_of_opentelemetry_in_use_are_one_warning(start_daemon):
    with ExitStack() as stack:
        http, grpc = taken(stack, socket.SOCK_STREAM), taken(stack, socket.SOCK_STREAM)
        sandbox = start_daemon("sandbox", f"--otlp-http={http}", f"--otlp-grpc={grpc}")
        sandbox.wait_for_line("cannot be served")
        [warning] = [line for line in sandbox.lines if "[Warn]" in line and "OpenTelemetry" in line]
    assert f"over HTTP at {http} and over gRPC at {grpc} cannot be served" in warning
    assert f"Spans are taken at {sandbox.url}/v1/traces" in warning
