"""`xray tail` with a daemon: its output, and its access control.

In: segments of the Python SDK, sent to a daemon in front of moto. Out: the trees that a second
process prints.
"""

import http.client
import json
import os
from pathlib import Path

import pytest
from processes import PATIENCE_SECONDS, Child
from tap import HEADER_LINE

DESCRIBED = {"name": "shop.example", "subsegments": [{"name": "query"}]}


@pytest.fixture
def start_followed(start_daemon, service, tmp_path):
    """Returns a function that starts a daemon. `may` says whether the daemon allows `xray tail`."""

    def start(may):
        config = tmp_path / "cfg.yaml"
        config.write_text(f"Version: 2\nTail: {may}\n")
        return start_daemon("-c", str(config), AWS_ENDPOINT_URL_XRAY=service.url)

    return start


def tail(daemon, folder):
    """Starts `xray tail`, which follows the daemon."""
    command = [os.environ["XRAY_BINARY"], "-t", "{}:{}".format(*daemon.tcp), "tail"]
    return Child(command, folder)


def status(daemon, **headers):
    """Sends a GET for /tail with these headers, and returns the status of the answer."""
    connection = http.client.HTTPConnection(*daemon.tcp, timeout=PATIENCE_SECONDS)
    connection.request("GET", "/tail?after=999", headers=headers)
    return connection.getresponse().status


def test_segments_are_followed_as_trees_until_the_daemon_ends(start_followed, emit, tmp_path):
    daemon = start_followed("true")
    with tail(daemon, tmp_path) as follower:
        follower.wait_for_line("Following the daemon")
        [document] = emit("python", daemon, DESCRIBED)
        trace_id = json.loads(document)["trace_id"]
        assert follower.wait_for_line(trace_id).endswith("1 segment, 1 subsegment")
        follower.wait_for_line("   └─ query")
        daemon.end_in_order()
        assert follower.wait() == 1
        assert "no answer on TCP" in follower.log()


def test_half_an_emoji_and_a_large_number_hide_no_tree(start_followed, tmp_path):
    daemon = start_followed("true")
    trace_id = "1-6b0c71a6-89fa14ac8d4c062af603ec08"
    document = {"trace_id": trace_id, "id": "e3749ea6d7cb5d05", "name": "shop \ud83d", "n": 2**64}
    with tail(daemon, tmp_path) as follower:
        follower.wait_for_line("Following the daemon")
        daemon.send([HEADER_LINE + json.dumps(document).encode()])
        follower.wait_for_line(trace_id)
        follower.wait_for_line("└─ shop \ufffd")
    daemon.end()


def test_what_is_no_segment_is_shown_as_a_line_without_control_characters(start_followed, tmp_path):
    daemon = start_followed("true")
    with tail(daemon, tmp_path) as follower:
        follower.wait_for_line("Following the daemon")
        daemon.send([b'{"format":"json","version":1}\nT1S\x1b[2JAAECAw=='])
        line = follower.wait_for_line("not a segment")
        assert line == r"not a segment, 15 bytes: T1S\u{1b}[2JAAECAw=="
    daemon.end()


def test_spans_of_a_udp_exporter_are_drawn_and_metrics_are_named_once(start_followed, tmp_path):
    daemon = start_followed("true")
    recorded = Path(__file__).parent.parent / "segments"
    with tail(daemon, tmp_path) as follower:
        follower.wait_for_line("Following the daemon")
        names = ["adot-python-metric-01", "adot-python-metric-01", "adot-python-sampled-01"]
        daemon.send([(recorded / f"{name}.bin").read_bytes() for name in names])
        follower.wait_for_line("GET /cart")
        assert follower.log().count("metrics of OpenTelemetry are not shown") == 1
        assert "not a segment" not in follower.log()
    daemon.end()


def test_a_daemon_is_followed_only_where_its_configuration_says_so(start_followed, tmp_path):
    daemon = start_followed("false")
    with tail(daemon, tmp_path) as follower:
        assert follower.wait() == 1
        advice = f"put the line `Tail: true` into {tmp_path / 'cfg.yaml'}, and restart the daemon"
        assert advice in follower.log(), follower.log()
    assert status(daemon) == 404


def test_the_file_to_make_is_named_where_there_is_none_but_not_to_other_hosts(
    start_daemon, service, tmp_path
):
    daemon = start_daemon(AWS_ENDPOINT_URL_XRAY=service.url)
    with tail(daemon, tmp_path) as follower:
        assert follower.wait() == 1
        assert "make the file /etc/amazon/xray/cfg.yaml with the lines" in follower.log()
    connection = http.client.HTTPConnection(*daemon.tcp, timeout=PATIENCE_SECONDS)
    connection.request("GET", "/tail", headers={"Host": "10.0.0.7:2000"})
    answer = connection.getresponse()
    assert answer.status == 404 and b"cfg.yaml" not in answer.read()


def test_no_browser_and_no_other_name_may_follow(start_followed):
    daemon = start_followed("true")
    assert status(daemon) == 200
    own = "{}:{}".format(*daemon.tcp)
    for headers in [
        {"Host": "rebound.example"},
        {"Host": "10.0.0.7:2000"},
        {"Origin": f"http://{own}"},
        {"Sec-Fetch-Site": "same-origin"},
    ]:
        assert status(daemon, **headers) == 403, headers
