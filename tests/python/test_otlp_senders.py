"""OpenTelemetry's exporters for Node.js, Java and Go as clients of the daemon's ports for spans.

In: spans of the SDKs, over HTTP and gRPC, recorded on the way. Out: requests at an endpoint: signed,
with each span once, byte for byte. test_otlp_ports.py has the exporters for Python.
"""

import collections
import gzip
import json

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from otlp_tap import OtlpTap, spans_of
from processes import Child, wait_for
from recorder import Recorder
from sdks import OTLP_EXPORTERS, application

TRACE_COUNT = 200

#: What the exporters can: protocol and compression.
WAYS = [("http", "none"), ("http", "gzip"), ("grpc", "none"), ("grpc", "gzip")]

#: The answers of the service before it accepts all. A client may try again after each of them.
TROUBLES = {"well": [], "trouble": [503, 429, 429, 503, 500, 502]}

CONFIGURATION = """
Version: 2
Otlp: {HttpAddress: "127.0.0.1:0", GrpcAddress: "127.0.0.1:0"}
"""


def protobuf_spans_of(body):
    """Returns the bytes of the spans in a request, each with its resource and scope."""
    return spans_of(ExportTraceServiceRequest.FromString(body))


def json_spans_of(body):
    """Does the same for a request in JSON. The text of each part is the same if it is unchanged."""
    return [
        tuple(json.dumps(part) for part in (resource_spans["resource"], scope_spans["scope"], span))
        for resource_spans in json.loads(body)["resourceSpans"]
        for scope_spans in resource_spans["scopeSpans"]
        for span in scope_spans["spans"]
    ]


class Service(Recorder):
    """An endpoint for spans that answers the first requests with `answers`."""

    def __init__(self, media, read, answers=()):
        super().__init__(self._answer)
        self._media, self._read, self._answers = media, read, list(answers)

    def _answer(self, request):
        status = self._answers.pop(0) if self._answers else 200
        request.is_accepted = status == 200
        body = b"{}" if self._media == "application/json" else b""
        return status, {"Content-Type": self._media}, body

    def spans(self):
        """Returns the bytes of the spans in all requests that were accepted."""
        found = []
        for request in list(self.requests):
            assert (request.method, request.path) == ("POST", "/v1/traces")
            assert request.headers["Content-Type"] == self._media
            is_gzip = request.headers["Content-Encoding"] == "gzip"
            body = gzip.decompress(request.body) if is_gzip else request.body
            # The answer is decided after the request is recorded.
            if getattr(request, "is_accepted", False):
                found += self._read(body)
        return found


def service(protocol, answers=()):
    """Returns an endpoint for what an exporter with this protocol sends."""
    if protocol == "json":
        return Service("application/json", json_spans_of, answers)
    return Service("application/x-protobuf", protobuf_spans_of, answers)


@pytest.fixture
def start(start_daemon, tmp_path):
    """Returns a function that starts a daemon with both ports."""

    def start(url, configuration=""):
        path = tmp_path / "cfg.yaml"
        path.write_text(CONFIGURATION + configuration)
        return start_daemon("-c", str(path), AWS_ENDPOINT_URL_XRAY=url)

    return start


@pytest.fixture
def run(tmp_path):
    """Returns a function that lets an exporter send spans to a daemon, and returns the bodies of its
    requests.
    """

    def run(sdk, daemon, protocol, compression, trace_count):
        port = daemon.otlp_port("gRPC" if protocol == "grpc" else "HTTP")
        with OtlpTap(port) as tap:
            arguments = [protocol, compression, tap.address, str(trace_count)]
            with Child([*application(sdk, "otlp_emit"), *arguments], tmp_path) as running:
                # An exporter that cannot send logs an error and continues.
                assert (running.wait(), running.log()) == (0, "")
        return tap.bodies()

    return run


@pytest.fixture
def emit(run):
    """Returns a function that lets an exporter send spans to a daemon, and returns their bytes."""

    def emit(sdk, daemon, protocol, compression):
        bodies = run(sdk, daemon, protocol, compression, TRACE_COUNT)
        read = json_spans_of if protocol == "json" else protobuf_spans_of
        spans = [span for body in bodies for span in read(body)]
        assert len(spans) == 3 * TRACE_COUNT
        # Each request was accepted as it is, and none was tried again.
        accepted = (
            f'xray_otlp_port_requests_total{{signal="spans",outcome="accepted"}} {len(bodies)}\n'
        )
        assert accepted in daemon.get("/metrics")
        return spans

    return emit


def check(service, daemon, sent, sign):
    """Waits until the service has all spans, and checks that it has each once, and signed."""
    wait_for(lambda: len(service.spans()) >= len(sent), daemon.log)
    daemon.end_in_order()
    assert collections.Counter(service.spans()) == collections.Counter(sent)
    for request in service.requests:
        assert request.headers["Authorization"] == sign(request)


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize(("protocol", "compression"), WAYS)
@pytest.mark.parametrize("sdk", OTLP_EXPORTERS)
def test_every_span_arrives_once_byte_for_byte_and_signed_also_after_an_outage(
    start, emit, sign, sdk, protocol, compression, trouble
):
    with service(protocol, TROUBLES[trouble]) as endpoint:
        daemon = start(endpoint.url)
        sent = emit(sdk, daemon, protocol, compression)
        check(endpoint, daemon, sent, sign)


@pytest.mark.sdks
@pytest.mark.parametrize("trouble", TROUBLES)
def test_every_span_of_the_exporter_for_json_arrives_once_unchanged_and_signed(
    start, emit, sign, trouble
):
    with service("json", TROUBLES[trouble]) as endpoint:
        daemon = start(endpoint.url)
        check(endpoint, daemon, emit("otel-node", daemon, "json", "gzip"), sign)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("sdk", OTLP_EXPORTERS)
def test_spans_that_wait_in_the_spool_when_the_daemon_ends_are_sent_by_the_next_one(
    start, emit, sign, tmp_path, sdk, protocol
):
    configuration = f"ShutdownSeconds: 1\nSpool: {{Path: {tmp_path}/spool}}\n"
    is_down = True
    with service(protocol) as endpoint:
        accept = endpoint.answer
        endpoint.answer = lambda request: (503, {}, b"") if is_down else accept(request)
        daemon = start(endpoint.url, configuration)
        sent = emit(sdk, daemon, protocol, "gzip")
        daemon.end()
        assert f"spooled={len(sent)} held=0" in daemon.log()
        is_down = False
        daemon = start(endpoint.url, configuration)
        check(endpoint, daemon, sent, sign)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("sdk", OTLP_EXPORTERS)
def test_the_sandbox_shows_the_spans_of_each_exporter(sandbox, run, sdk, protocol):
    bodies = run(sdk, sandbox, protocol, "gzip", 2)
    spans = [
        span
        for body in bodies
        for resource_spans in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope_spans in resource_spans.scope_spans
        for span in scope_spans.spans
    ]
    trace_ids = {span.trace_id.hex() for span in spans}
    assert (len(spans), len(trace_ids)) == (6, 2)
    for trace_id in trace_ids:
        trace = json.loads(sandbox.get(f"/traces/1-{trace_id[:8]}-{trace_id[8:]}"))
        found = {document["name"]: document for document in trace["documents"]}
        assert set(found) == {"shop.example", "SELECT stock", "payment"}
        assert {document["id"] for document in found.values()} == {
            span.span_id.hex() for span in spans if span.trace_id.hex() == trace_id
        }
        [exception] = found["payment"]["cause"]["exceptions"]
        assert exception["message"] == 'no "disk"\nleft'
