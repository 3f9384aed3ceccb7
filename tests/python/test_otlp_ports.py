"""OpenTelemetry's exporters for Python as clients of the daemon's ports for spans.

In: spans of the SDK, over HTTP and gRPC. Out: requests at an endpoint that records them: signed, with
each span once, byte for byte.
"""

import collections
import gzip
import itertools

import grpc
import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import (
    OTLPMetricExporter as GrpcMetricExporter,
)
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import (
    OTLPMetricExporter as HttpMetricExporter,
)
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExportResult, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from otlp_tap import spans_of
from processes import wait_for
from recorder import Recorder

PROTOBUF = {"Content-Type": "application/x-protobuf"}

#: Both ports, on free ports of the system.
CONFIGURATION = """
Version: 2
Otlp: {HttpAddress: "127.0.0.1:0", GrpcAddress: "127.0.0.1:0"}
"""

WAYS = {
    "http": lambda http, _: HttpExporter(f"{http}/v1/traces"),
    "slash": lambda http, _: HttpExporter(f"{http}/v1/traces/"),
    "gzip": lambda http, _: HttpExporter(f"{http}/v1/traces", compression=Compression.Gzip),
    "deflate": lambda http, _: HttpExporter(f"{http}/v1/traces", compression=Compression.Deflate),
    "grpc": lambda http, url: GrpcExporter(url, insecure=True),
    "grpc-gzip": lambda http, url: GrpcExporter(
        url, insecure=True, compression=grpc.Compression.Gzip
    ),
}


class Keeping(SpanExporter):
    """Passes spans to an exporter, and keeps the bytes of each one that the exporter has sent."""

    def __init__(self, exporter):
        self._exporter, self.sent = exporter, []

    def export(self, spans):
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            self.sent += spans_of(encode_spans(spans))
        return result

    def shutdown(self):
        self._exporter.shutdown()


def arrived(recorder, accepted=lambda request: True):
    """Returns the bytes of all spans in the requests of a recorder."""
    spans = []
    for request in recorder.requests:
        assert (request.method, request.path) == ("POST", "/v1/traces")
        assert request.headers["Content-Type"] == "application/x-protobuf"
        is_gzip = request.headers["Content-Encoding"] == "gzip"
        body = gzip.decompress(request.body) if is_gzip else request.body
        if accepted(request):
            spans += spans_of(ExportTraceServiceRequest.FromString(body))
    return spans


@pytest.fixture
def start(start_daemon, tmp_path):
    """Returns a function that starts a daemon with both ports and returns it with their URLs."""
    path = tmp_path / "cfg.yaml"

    def start(url, configuration=""):
        path.write_text(CONFIGURATION + configuration)
        daemon = start_daemon("-c", str(path), AWS_ENDPOINT_URL_XRAY=url)
        urls = ("http://{}:{}".format(*daemon.otlp_port(it)) for it in ("HTTP", "gRPC"))
        return daemon, *urls

    return start


def emit(exporter, count):
    """Makes `count` spans, some with children, and waits until the exporter has sent them."""
    provider = TracerProvider(resource=Resource.create({"service.name": "shop"}))
    provider.add_span_processor(BatchSpanProcessor(exporter, max_export_batch_size=64))
    tracer = provider.get_tracer("scope", "1.0")
    for index in range(count // 2):
        attributes = {"index": index, "ü": "ß" * 90}
        with (
            tracer.start_as_current_span("GET /cart", attributes=attributes),
            tracer.start_as_current_span("SELECT"),
        ):
            pass
    provider.shutdown()


@pytest.mark.parametrize("way", WAYS)
def test_every_span_of_a_real_exporter_arrives_once_byte_for_byte_and_signed(start, sign, way):
    with Recorder(lambda _: (200, PROTOBUF, b"")) as recorder:
        daemon, http, grpc_url = start(recorder.url)
        exporter = Keeping(WAYS[way](http, grpc_url))
        emit(exporter, 300)
        assert len(exporter.sent) == 300
        wait_for(lambda: len(arrived(recorder)) >= 300, daemon.log)
        assert collections.Counter(arrived(recorder)) == collections.Counter(exporter.sent)
        for request in recorder.requests:
            assert request.headers["Authorization"] == sign(request)
        daemon.end_in_order()


def answer_while(is_up):
    """Returns the answers of a service that is away and throttles while `is_up` is empty."""
    refusals = itertools.cycle([503, 429])

    def answer(request):
        request.is_accepted = bool(is_up)
        return (200 if is_up else next(refusals), PROTOBUF, b"")

    return answer


def found(recorder):
    """Returns the bytes of all spans in the requests that were accepted."""
    # The answer is decided after the request is recorded.
    return arrived(recorder, lambda request: getattr(request, "is_accepted", False))


def test_spans_that_were_accepted_in_an_outage_arrive_when_it_is_over(start):
    is_up = []

    with Recorder(answer_while(is_up)) as recorder:
        daemon, http, grpc_url = start(recorder.url)
        exporters = [Keeping(WAYS[way](http, grpc_url)) for way in ("gzip", "grpc")]
        for exporter in exporters:
            emit(exporter, 100)
        # The service has answered with both refusals.
        wait_for(lambda: len(recorder.requests) > 2, daemon.log)
        is_up.append(True)
        wait_for(lambda: len(found(recorder)) >= 200, daemon.log)
        sent = exporters[0].sent + exporters[1].sent
        assert collections.Counter(found(recorder)) == collections.Counter(sent)
        daemon.end_in_order()


def test_spans_in_the_spool_of_a_daemon_that_has_ended_are_sent_by_the_next_one(start, tmp_path):
    is_up, configuration = [], f"ShutdownSeconds: 1\nSpool: {{Path: {tmp_path}/spool}}\n"
    with Recorder(answer_while(is_up)) as recorder:
        daemon, http, grpc_url = start(recorder.url, configuration)
        exporters = [Keeping(WAYS[way](http, grpc_url)) for way in ("gzip", "grpc")]
        for exporter in exporters:
            emit(exporter, 100)
        daemon.end()
        assert "spooled=200 held=0" in daemon.log()
        is_up.append(True)
        daemon, _, _ = start(recorder.url, configuration)
        wait_for(lambda: len(found(recorder)) >= 200, daemon.log)
        sent = exporters[0].sent + exporters[1].sent
        assert collections.Counter(found(recorder)) == collections.Counter(sent)
        daemon.end_in_order()


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_an_exporter_of_metrics_is_refused_once_and_does_not_try_again(start, caplog, protocol):
    with Recorder(lambda _: (200, PROTOBUF, b"")) as recorder:
        daemon, http, grpc_url = start(recorder.url)
        exporters = {
            "http": lambda: HttpMetricExporter(f"{http}/v1/metrics"),
            "grpc": lambda: GrpcMetricExporter(grpc_url, insecure=True),
        }
        exporter = exporters[protocol]()
        reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
        provider = MeterProvider([reader])
        provider.get_meter("scope").create_counter("requests").add(1)
        results, export = [], exporter.export
        exporter.export = lambda *args, **kwargs: results.append(export(*args, **kwargs))
        provider.shutdown()
        assert results == [MetricExportResult.FAILURE]
        line = 'xray_otlp_port_requests_total{signal="spans",outcome="other_signal"} 1\n'
        assert line in daemon.get("/metrics")
        assert "OTEL_METRICS_EXPORTER=none" in daemon.log()
        daemon.end_in_order()
