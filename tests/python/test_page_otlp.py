"""The sandbox's page in a real browser: a trace with segments of an X-Ray SDK and spans of
OpenTelemetry.

In: spans of OpenTelemetry's SDK below a segment. Out: one trace on the page, in the service map, and
the original of each document.
"""

import json
import time

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.trace import SpanContext, TraceFlags
from page_traces import named
from test_otlp import emit

CALL = "53995c3f42cd8ad8"


def put_mixed_trace(page, sandbox):
    """Sends a trace of a segment, a call in it, and the spans of the called service."""
    now = time.time()
    web = named("web", now - 1) | {"end_time": now + 1}
    call = {"id": CALL, "name": "shop", "namespace": "remote", "start_time": now - 0.5}
    web["subsegments"] = [call | {"end_time": now + 0.5}]
    trace_id = int(web["trace_id"].replace("-", "")[1:], 16)
    parent = SpanContext(trace_id, int(CALL, 16), True, TraceFlags(TraceFlags.SAMPLED))
    url = "http://{}:{}/v1/traces".format(*sandbox.otlp_http)
    emit(OTLPSpanExporter(url), parent)
    page.put([web])
    return web["trace_id"]


def test_a_trace_of_both_sdks_is_one_waterfall_with_the_parts_of_each_span(page, sandbox):
    trace_id = put_mixed_trace(page, sandbox)
    page.open(f"#/trace/{trace_id}")
    page.wait_for_count(".wf-row[data-node-id]", 5)
    assert page.texts(".wf-name") == ["web", "shop", "shop", "orders@db", "work"]
    levels = "return [...document.querySelectorAll('.wf-row[data-node-id]')]"
    assert page.js(f"{levels}.map((it) => it.ariaLevel)") == ["1", "2", "3", "4", "4"]
    page.click(".wf-note", "GET /cart 500")
    page.wait_for_text(".details", "SERVER")
    headings = "return [...document.querySelectorAll('.details h3')].map((it) => it.textContent)"
    assert "OpenTelemetry" in page.js(headings)
    page.wait_for_text(".details", "otel.resource.service.name")
    for width in (1400, 800, 400):
        page.resize(width, 900)
        for scheme in ("light", "dark"):
            page.prefer(scheme)
            page.picture(f"otlp-trace-{width}-{scheme}")
    page.resize(1400, 900)
    page.click(".wf-name", "work")
    page.wait_for_text(".exception", "kaputt")
    page.wait_for_text(".stack", "test_otlp.py")
    page.click(".wf-name", "web")
    page.wait_for_text(".details-title", "web")
    assert "OpenTelemetry" not in page.js(headings)


def test_the_original_of_a_span_is_its_otlp_json(page, sandbox):
    trace_id = put_mixed_trace(page, sandbox)
    page.open(f"#/trace/{trace_id}")
    page.wait_for_count(".wf-row[data-node-id]", 5)
    page.click(".wf-name", "work")
    page.press("r")
    page.wait_for_text(".raw-bar", "OTLP")
    [resource_spans] = json.loads(page.texts(".raw-text")[0])["resourceSpans"]
    [scope_spans] = resource_spans["scopeSpans"]
    [span] = scope_spans["spans"]
    assert (span["name"], span["traceId"]) == ("work", trace_id.replace("-", "")[1:])
    assert scope_spans["scope"] == {"name": "scope", "version": "1.0"}
    for scheme in ("light", "dark"):
        page.prefer(scheme)
        page.picture(f"otlp-raw-{scheme}")
    page.click(".raw-bar label", "As X-Ray")
    page.wait_for_text(".raw-text", '"type":"subsegment"')
    assert json.loads(page.texts(".raw-text")[0])["id"] == span["spanId"]


def test_a_service_with_opentelemetry_is_in_the_service_map(page, sandbox):
    put_mixed_trace(page, sandbox)
    page.open("#/map")
    nodes = "[...document.querySelectorAll('.map-node:not(.client)')]"
    shown = lambda: set(page.js(f"return {nodes}.map((it) => it.dataset.name)"))
    page.wait(lambda: shown() == {"web", "shop", "orders@db"}, "not these services")
    page.picture("otlp-map")


def test_the_guide_has_lines_for_opentelemetry_in_each_language(page, sandbox):
    page.open("#/connect")
    page.wait_for_text(".connect h1", "Connect an application")
    http, grpc = ("{}:{}".format(*port) for port in (sandbox.otlp_http, sandbox.otlp_grpc))
    page.wait_for_text(".connect .guide", http)
    for name in ("Python", "Node.js", "Java", "Go", ".NET", "Ruby", "OpenTelemetry"):
        page.click(".connect .guide-tab", name)
        text = "\n".join(page.texts(".connect .snippet pre"))
        assert f"OTEL_EXPORTER_OTLP_ENDPOINT=http://{http} " in text, name
        assert "OTEL_METRICS_EXPORTER=none" in text, name
    assert f"OTEL_EXPORTER_OTLP_ENDPOINT=http://{grpc} OTEL_EXPORTER_OTLP_PROTOCOL=grpc" in text
    for width in (1400, 800, 400):
        page.resize(width, 900)
        for scheme in ("light", "dark"):
            page.prefer(scheme)
            page.picture(f"otlp-guide-{width}-{scheme}")
