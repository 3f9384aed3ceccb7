"""`GET /metrics` as Prometheus reads it, with the parser of Prometheus' own client.

In: a daemon's page before, under and after load. Out: metric families with the names and types of
docs/configuration.md, and values that agree with the sent segments.
"""

import json
import os
import re
import socket
from pathlib import Path

from processes import Daemon, wait_for
from prometheus_client import parser
from prometheus_client.openmetrics.parser import text_string_to_metric_families

DOCS = (Path(__file__).parents[2] / "docs/configuration.md").read_text()

HEADER = '{"format":"json","version":1}\n'


def families(daemon):
    """Returns the metric families on the daemon's page, by name. Fails if the page is not
    OpenMetrics.
    """
    page = daemon.get("/metrics", Accept="application/openmetrics-text")
    return {family.name: family for family in text_string_to_metric_families(page)}


def test_the_plain_text_has_the_same_metrics_with_the_same_types(start_daemon):
    daemon = start_daemon("sandbox")
    plain = list(parser.text_string_to_metric_families(daemon.get("/metrics")))
    samples = {sample.name for family in plain for sample in family.samples}
    open_metrics = families(daemon).values()
    assert samples == {sample.name for family in open_metrics for sample in family.samples}
    kinds = {family.name: family.type for family in plain}
    for family in open_metrics:
        name = f"{family.name}_info" if family.type == "info" else family.name
        assert kinds[name] == ("gauge" if family.type == "info" else family.type)
    assert all(family.documentation for family in plain)


def values(family):
    """Returns the values of a family's samples, by name and labels."""
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value for sample in family.samples
    }


def documents(count):
    """Returns datagrams with this many segments of one trace."""
    document = {
        "trace_id": "1-6b02f126-17016b9abacffab6c69d649c",
        "name": "shop.example",
        "start_time": 1795354918.5,
        "end_time": 1795354918.75,
    }
    texts = [json.dumps(document | {"id": f"{number:016x}"}) for number in range(count)]
    return [(HEADER + text).encode() for text in texts]


def test_every_metric_is_in_the_documentation_and_nothing_else_is(start_daemon):
    found = families(start_daemon("sandbox"))
    section = DOCS.split("\n## Metrics\n")[1].split("\n## ")[0]
    documented = {}
    for cells in re.findall(r"^\| (`.*?) \| (\w+) \|", section, re.MULTILINE):
        for name in re.findall(r"`((?:xray|process)_\w+)", cells[0]):
            documented[name] = cells[1]
    suffixes = {"counter": "_total", "info": "_info"}
    shown = {family.name + suffixes.get(family.type, ""): family.type for family in found.values()}
    assert shown == documented
    assert all(family.documentation for family in found.values())


def test_every_metric_of_spans_is_in_the_documentation_and_nothing_else_is(start_daemon, tmp_path):
    configuration = tmp_path / "cfg.yaml"
    configuration.write_text('Version: 2\nOtlp: {HttpAddress: "127.0.0.1:0"}\n')
    found = families(start_daemon("-c", str(configuration))).values()
    section = DOCS.split("\n### Metrics of spans\n")[1].split("\nThe parts of")[0]
    documented = set(re.findall(r"`(xray_otlp_\w+)", section))
    shown = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in found
        if family.name.startswith("xray_otlp_")
    }
    assert shown == documented
    signals = {
        sample.labels.get("signal")
        for family in found
        if family.name.startswith("xray_otlp_")
        for sample in family.samples
    }
    assert signals == {"spans"}


def test_what_is_counted_agrees_with_what_was_sent(service, start_daemon):
    daemon = start_daemon(AWS_ENDPOINT_URL_XRAY=service.url)
    before = families(daemon)
    assert values(before["xray_batch_documents"])[("xray_batch_documents_count",)] == 0
    daemon.send(documents(120))
    daemon.wait_until_sent(120)
    after = families(daemon)
    sent = values(after["xray_requests_sent"])[("xray_requests_sent_total",)]
    batches = values(after["xray_batch_documents"])
    assert batches[("xray_batch_documents_sum",)] == 120
    assert batches[("xray_batch_documents_count",)] == sent >= 3
    assert batches[("xray_batch_documents_bucket", ("le", "+Inf"))] == sent
    bodies = values(after["xray_batch_bytes"])
    assert bodies[("xray_batch_bytes_count",)] == sent
    assert bodies[("xray_batch_bytes_sum",)] > sum(map(len, documents(120))) - 120 * len(HEADER)
    requests = values(after["xray_request_duration_seconds"])
    accepted = ("xray_request_duration_seconds_count", ("outcome", "accepted"))
    assert requests[accepted] == sent
    assert 0 < requests[("xray_request_duration_seconds_sum", ("outcome", "accepted"))] < 30 * sent
    assert requests[("xray_request_duration_seconds_count", ("outcome", "failed"))] == 0
    assert values(after["xray_alive"]) == {("xray_alive",): 1}
    assert values(after["xray_ready"]) == {("xray_ready",): 1}
    assert not any(values(after["xray_trouble"]).values())


def test_while_nothing_can_be_sent_each_chunk_of_memory_has_its_holder(tmp_path):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = "http://{}:{}".format(*nobody.getsockname())
        binary = os.environ["XRAY_BINARY"]
        with Daemon(binary, tmp_path, "-m", "16", AWS_ENDPOINT_URL_XRAY=url) as daemon:
            daemon.wait_until_ready()
            check_holders(daemon)


def check_holders(daemon):
    """Sends segments to a daemon that cannot deliver them. Fails if the holders together do not
    have all used memory.
    """

    def holders():
        found = families(daemon)
        [held] = values(found["xray_segments_held"]).values()
        [used] = values(found["xray_memory_used_bytes"]).values()
        samples = found["xray_memory_holder_bytes"].samples
        by_name = {sample.labels["holder"]: sample.value for sample in samples}
        chunks = sum(by_name[name] for name in ("rings", "open_batches", "waiting", "in_flight"))
        has_failed = values(found["xray_ready"]) == {("xray_ready",): 0}
        is_at_rest = held == 2_000 and has_failed and by_name["waiting"] > 0 == by_name["rings"]
        return is_at_rest and chunks == used and (found, by_name)

    daemon.send(documents(2_000))
    found, by_name = wait_for(holders, lambda: daemon.get("/metrics"))
    assert by_name["socket_queues"] == by_name["spool"] == 0
    assert by_name["receive_slots"] > 0
    assert sum(values(found["xray_batches_held"]).values()) >= 2_000 / 50
    assert values(found["xray_trouble"])[("xray_trouble", ("code", "uploads_failing"))] == 1
    failed = ("xray_request_duration_seconds_count", ("outcome", "failed"))
    assert values(found["xray_request_duration_seconds"])[failed] >= 1
    assert values(found["xray_alive"]) == {("xray_alive",): 1}
