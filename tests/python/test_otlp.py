"""OpenTelemetry's SDK for Python and its exporters as clients of `xray sandbox`.

In: spans of the SDK, over HTTP, gRPC and UDP. Out: the traces in the sandbox, in the terms of X-Ray.
"""

import base64
import json
import logging
import socket
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta

import pytest
from aws_xray_sdk.core.models.trace_header import TraceHeader
from opentelemetry import trace as api
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags
from processes import PATIENCE_SECONDS, wait_for
from service import xray_client
from tap import HEADER_LINE

ACCESS_KEY, SECRET_KEY = "xrayd-sandbox", "xrayd-sandbox-secret"


class UdpExporter(SpanExporter):
    """Sends each span like the UDP exporters of AWS's distributions."""

    def __init__(self, sandbox):
        self._sandbox, self.count = sandbox, 0

    def export(self, spans):
        message = base64.b64encode(encode_spans(spans).SerializeToString())
        self._sandbox.send([HEADER_LINE + b"T1S" + message])
        self.count += 1
        return SpanExportResult.SUCCESS


def exporters(sandbox):
    """Returns a constructor for each way to the sandbox."""
    http, grpc = ("http://{}:{}".format(*port) for port in (sandbox.otlp_http, sandbox.otlp_grpc))
    return {
        "http": lambda: HttpExporter(f"{http}/v1/traces"),
        "gzip": lambda: HttpExporter(f"{http}/v1/traces", compression=Compression.Gzip),
        "deflate": lambda: HttpExporter(f"{http}/v1/traces", compression=Compression.Deflate),
        "tcp": lambda: HttpExporter(f"{sandbox.url}/v1/traces/"),
        "grpc": lambda: GrpcExporter(grpc, insecure=True),
        "udp": lambda: UdpExporter(sandbox),
    }


def x_ray_id(trace_id):
    return f"1-{trace_id:032x}"[:10] + "-" + f"{trace_id:032x}"[8:]


def emit(exporter, parent=None):
    """Makes a request with a query and a failure. Each span is exported when it ends, so children come
    before their parents. Returns the id of the trace.
    """
    provider = TracerProvider(resource=Resource.create({"service.name": "shop"}))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("scope", "1.0")
    context = api.set_span_in_context(NonRecordingSpan(parent)) if parent else None
    request = {"http.request.method": "GET", "url.path": "/cart", "http.response.status_code": 500}
    with tracer.start_as_current_span("GET /cart", context, SpanKind.SERVER, request) as span:
        query = {"db.system.name": "postgresql", "db.namespace": "orders", "server.address": "db"}
        with tracer.start_as_current_span("SELECT", kind=SpanKind.CLIENT, attributes=query):
            pass
        with pytest.raises(ValueError), tracer.start_as_current_span("work"):
            raise ValueError("kaputt")
        trace_id = span.get_span_context().trace_id
    provider.shutdown()
    return x_ray_id(trace_id)


def documents(sandbox, trace_id, count):
    """Returns the documents of a trace by name, when the trace has `count` of them."""

    def find():
        try:
            trace = json.loads(sandbox.get(f"/traces/{trace_id}"))
        except urllib.error.HTTPError:
            return None
        return trace["documents"] if len(trace["documents"]) == count else None

    found = wait_for(find, lambda: f"not {count} documents of {trace_id}:\n{sandbox.log()}")
    return {document["name"]: document for document in found}


@pytest.mark.parametrize("way", ["http", "gzip", "deflate", "tcp", "grpc", "udp"])
def test_spans_of_a_real_exporter_are_a_trace(sandbox, way):
    exporter = exporters(sandbox)[way]()
    trace_id = emit(exporter)
    found = documents(sandbox, trace_id, 3)
    shop, query, work = found["shop"], found["orders@db"], found["work"]
    assert (shop["fault"], shop["http"]["request"]["url"]) == (True, "/cart")
    assert "type" not in shop and query["type"] == work["type"] == "subsegment"
    assert query["parent_id"] == work["parent_id"] == shop["id"]
    [exception] = work["cause"]["exceptions"]
    assert (exception["type"], exception["message"]) == ("ValueError", "kaputt")
    assert exception["stack"][0]["path"].endswith("test_otlp.py")
    sandbox.wait_until_sent(getattr(exporter, "count", 0))
    sandbox.wait_for_line("└─ shop")


def test_a_trace_of_both_sdks_is_one_trace_in_the_terms_of_x_ray(sandbox):
    now = time.time()
    trace_id = f"1-{int(now):08x}-17016b9abacffab6c69d649c"
    call, header = "53995c3f42cd8ad8", TraceHeader(trace_id, "53995c3f42cd8ad8", 1)
    assert header.to_header_str().startswith(f"Root={trace_id};Parent={call}")
    parent = SpanContext(
        int(trace_id.replace("-", "")[1:], 16), int(call, 16), True, TraceFlags(TraceFlags.SAMPLED)
    )
    assert emit(exporters(sandbox)["http"](), parent) == trace_id
    segment = {"trace_id": trace_id, "id": "70de5b6f19ff9a0a", "name": "web"}
    times = {"start_time": now - 1, "end_time": now + 1}
    subsegment = {"id": call, "name": "shop", "namespace": "remote"} | times
    document = segment | times | {"subsegments": [subsegment]}
    sandbox.send([HEADER_LINE + json.dumps(document).encode()])
    sandbox.wait_until_sent(1)
    client = xray_client(sandbox.url, ACCESS_KEY, SECRET_KEY)
    [found] = client.batch_get_traces(TraceIds=[trace_id])["Traces"]
    assert len(found["Segments"]) == 4
    moment = datetime.fromtimestamp(now, UTC)
    span = {"StartTime": moment - timedelta(minutes=1), "EndTime": moment + timedelta(minutes=1)}
    filters = 'service("shop") { fault } AND edge("web", "shop")'
    [summary] = client.get_trace_summaries(**span, FilterExpression=filters)["TraceSummaries"]
    assert (summary["Id"], summary["HasFault"]) == (trace_id, False)
    services = client.get_service_graph(**span)["Services"]
    names = {service["ReferenceId"]: service["Name"] for service in services}
    edges = {
        (service["Name"], names[edge["ReferenceId"]])
        for service in services
        for edge in service["Edges"]
    }
    assert edges == {("web", "web"), ("web", "shop"), ("shop", "orders@db")}


def post(url, body, content_type):
    request = urllib.request.Request(url, body, {"Content-Type": content_type})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_other_signals_are_refused_by_name(sandbox):
    for signal in ["metrics", "logs"]:
        url = "http://{}:{}/v1/{}".format(*sandbox.otlp_http, signal)
        status, body = post(url, b"{}", "application/json")
        assert status == 404 and f"no {signal}" in json.loads(body)["message"]


def test_metrics_over_udp_are_no_error_and_the_log_says_so_once(sandbox):
    sandbox.send([HEADER_LINE + b"M1CqYCCuoB"] * 3)
    sandbox.wait_until_sent(3)
    sandbox.wait_for_line("sends metrics over UDP. The sandbox shows traces only")
    assert sandbox.log().count("sends metrics over UDP") == 1
    assert "rejected" not in sandbox.log().replace("rejected=0", "")


def test_a_port_that_is_taken_is_a_warning(start_daemon, caplog):
    caplog.set_level(logging.CRITICAL)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = "{}:{}".format(*taken.getsockname())
        sandbox = start_daemon("sandbox", "--otlp-http", address, "--otlp-grpc=off")
        line = sandbox.wait_for_line("cannot be served")
        assert f"over HTTP at {address} cannot be served" in line
        assert f"{sandbox.url}/v1/traces" in line
        sandbox.wait_for_line(f"OTEL_EXPORTER_OTLP_ENDPOINT={sandbox.url}")
        trace_id = emit(HttpExporter(f"{sandbox.url}/v1/traces"))
        assert len(documents(sandbox, trace_id, 3)) == 3
