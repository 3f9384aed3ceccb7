"""Compares the daemon's signatures with botocore's.

In: two requests as a test endpoint receives them. The daemon sends each of them for the same two
recorded datagrams. botocore signs each request again, with the same time and headers, and must
produce the same Authorization header.
"""

import json
import re
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from processes import SECRET_KEY
from recorder import Recorder, signed_headers

SEGMENTS = Path(__file__).parent.parent / "segments"
DATAGRAMS = [(SEGMENTS / name).read_bytes() for name in ("python-01.bin", "node-01.bin")]

#: A token with the special characters of real session tokens.
TOKEN = "FwoGZXIvYXdzEB4aDH+/session//token=="


@pytest.fixture
def receive(start_daemon):
    """Returns a function that makes a daemon send the datagrams and returns its requests."""
    with Recorder() as recorder:

        def receive(path="", **environment):
            daemon = start_daemon(AWS_ENDPOINT_URL_XRAY=recorder.url + path, **environment)
            # The daemon makes two requests. It signs the second one from a template that it kept
            # from the first one.
            for number in (1, 2):
                daemon.send(DATAGRAMS)
                daemon.wait_until_sent(number * len(DATAGRAMS))
            return recorder.requests

        yield receive


@pytest.mark.parametrize("path", ["", "/prefix", "/two/parts/", "/with%20space"])
@pytest.mark.parametrize("token", [None, TOKEN])
def test_botocore_comes_to_the_same_authorization_header(receive, sign, path, token):
    for request in receive(path, **({"AWS_SESSION_TOKEN": token} if token else {})):
        assert request.method == "POST"
        assert request.path == path.rstrip("/") + "/TraceSegments"
        assert request.headers.get_all("X-Amz-Security-Token", []) == ([token] if token else [])
        assert request.headers.get_all("Authorization") == [sign(request, token)]


def test_what_a_proxy_must_not_change_is_signed(receive):
    for request in receive(AWS_SESSION_TOKEN=TOKEN):
        assert set(signed_headers(request)) >= {
            "host",
            "content-type",
            "x-amz-date",
            "x-amz-security-token",
            "x-amzn-xray-timestamp",
        }


def test_another_body_key_or_token_gives_another_signature(receive, sign):
    for request in receive(AWS_SESSION_TOKEN=TOKEN):
        authorization = request.headers["Authorization"]
        assert sign(request, TOKEN, body=request.body + b" ") != authorization
        assert sign(request, TOKEN, secret_key=SECRET_KEY.lower()) != authorization
        assert sign(request, TOKEN.lower()) != authorization


def test_the_bodies_hold_the_documents_of_all_datagrams(receive):
    bodies = [json.loads(request.body) for request in receive()]
    assert all(list(body) == ["TraceSegmentDocuments"] for body in bodies)
    documents = [document for body in bodies for document in body["TraceSegmentDocuments"]]
    expected = [datagram.split(b"\n", 1)[1].decode() for datagram in 2 * DATAGRAMS]
    assert sorted(documents) == sorted(expected)


def test_the_headers_are_those_that_the_service_expects(receive):
    for request in receive():
        headers = request.headers
        assert headers.get_all("Content-Type") == ["application/json"]
        timestamp = headers["X-Amzn-Xray-Timestamp"]
        assert re.fullmatch(r"\d+\.\d{9}", timestamp)
        assert abs(float(timestamp) - time.time()) < 60
        # A request has two timestamps. Both are the same time.
        second = datetime.fromtimestamp(int(timestamp.split(".")[0]), UTC)
        assert headers["X-Amz-Date"] == second.strftime("%Y%m%dT%H%M%SZ")


@pytest.mark.parametrize("name", [None, "AWS_ECS_FARGATE"])
def test_the_user_agent_names_the_daemon_and_its_surroundings(receive, name):
    for request in receive(**({"AWS_EXECUTION_ENV": name} if name else {})):
        words = request.headers["User-Agent"].split()
        assert any(re.fullmatch(r"xray-agent/xray-daemon/\d+\.\d+\.\d+", word) for word in words)
        assert f"exec-env/{name or 'UNKNOWN'}" in words
