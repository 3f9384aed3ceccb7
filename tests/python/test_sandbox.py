"""A real SDK and boto3 as clients of `xray sandbox`.

In: segments of the Python SDK, and calls of boto3 and of the SDK's own connector. Out: the pages,
the printed trees and the answers of the sandbox.
"""

import http.client
import json
import re
import urllib.request
from datetime import UTC, datetime

import pytest
from aws_xray_sdk.core.sampling.connector import ServiceConnector
from botocore.exceptions import ClientError
from processes import PATIENCE_SECONDS
from service import xray_client
from tap import HEADER_LINE

#: The credentials that the sandbox accepts. They are public: src/daemon/sandbox.rs contains them.
ACCESS_KEY, SECRET_KEY = "xrayd-sandbox", "xrayd-sandbox-secret"

DESCRIBED = {
    "name": "shop.example",
    "subsegments": [
        {"name": "größe 価格", "subsegments": [{"name": "query"}]},
        {"name": "payment", "exception": "the card was declined"},
    ],
}

TREE = [
    "└─ shop.example",
    "   ├─ größe 価格",
    "   │  └─ query",
    "   └─ payment",
]

DOCUMENT = {
    "trace_id": "1-6b02f126-17016b9abacffab6c69d649c",
    "id": "b9cdb6b3ccc721d9",
    "name": "shop.example",
    "start_time": 1795354918.5,
    "end_time": 1795354918.75,
}


def test_a_trace_of_the_python_sdk_is_on_the_pages(sandbox, emit):
    [document] = map(json.loads, emit("python", sandbox, DESCRIBED))
    [summary] = json.loads(sandbox.get("/traces"))
    assert summary["id"] == document["trace_id"]
    assert (summary["services"], summary["segment_count"]) == (["shop.example"], 1)
    assert (summary["fault"], summary["error"], summary["in_progress"]) == (True, False, False)
    trace = json.loads(sandbox.get(f"/traces/{document['trace_id']}"))
    assert trace == {"id": document["trace_id"], "documents": [document]}


def test_a_trace_of_the_python_sdk_is_printed_as_a_tree(sandbox, emit):
    [document] = map(json.loads, emit("python", sandbox, DESCRIBED))
    sandbox.wait_for_line("payment")
    text = "\n".join(sandbox.output)
    headline, *lines = text[text.index(document["trace_id"]) :].splitlines()[: 1 + len(TREE)]
    assert headline.endswith("1 segment, 3 subsegments")
    # Each line has a duration after the name. The comparison leaves the duration out.
    assert [re.sub(r"  [0-9.]+ (us|ms|s)\b.*", "", line) for line in lines] == TREE
    assert lines[-1].endswith("Expected: the card was declined")


def test_half_an_emoji_and_numbers_of_any_size_hide_no_trace(sandbox):
    odd = {"annotations": {"title": "Ann \ud83d"}, "metadata": {"large": [2**64, -(10**400), 12.5]}}
    text = json.dumps(DOCUMENT | odd).replace("12.5", "1e999")
    sandbox.send([HEADER_LINE + text.encode()])
    sandbox.wait_until_sent(1)
    sandbox.wait_for_line(DOCUMENT["trace_id"])
    sandbox.wait_for_line("└─ shop.example  250 ms")
    client = xray_client(sandbox.url, ACCESS_KEY, SECRET_KEY)
    [trace] = client.batch_get_traces(TraceIds=[DOCUMENT["trace_id"]])["Traces"]
    assert [segment["Document"] for segment in trace["Segments"]] == [text]
    summaries = client.get_trace_summaries(
        StartTime=datetime.fromtimestamp(DOCUMENT["start_time"] - 60, UTC),
        EndTime=datetime.fromtimestamp(DOCUMENT["end_time"] + 60, UTC),
        TimeRangeType="TraceId",
        FilterExpression='annotation.title = "Ann \ufffd"',
    )["TraceSummaries"]
    assert [summary["Id"] for summary in summaries] == [DOCUMENT["trace_id"]]


def test_boto3_is_given_the_default_sampling_rule(sandbox):
    client = xray_client(sandbox.url, ACCESS_KEY, SECRET_KEY)
    [record] = client.get_sampling_rules()["SamplingRuleRecords"]
    rule = record["SamplingRule"]
    assert (rule["RuleName"], rule["FixedRate"], rule["ReservoirSize"]) == ("Default", 1.0, 1)


def test_boto3_is_given_a_sampling_target_for_the_default_rule_only(sandbox):
    client = xray_client(sandbox.url, ACCESS_KEY, SECRET_KEY)
    common = {"ClientID": "0123456789abcdef01234567", "Timestamp": datetime.now(UTC)}
    common |= {"RequestCount": 10, "SampledCount": 1, "BorrowCount": 0}
    answer = client.get_sampling_targets(
        SamplingStatisticsDocuments=[
            {"RuleName": "Default"} | common,
            {"RuleName": "mine"} | common,
        ]
    )
    [target] = answer["SamplingTargetDocuments"]
    assert (target["RuleName"], target["FixedRate"]) == ("Default", 1.0)
    assert [rest["RuleName"] for rest in answer["UnprocessedStatistics"]] == ["mine"]


def test_the_python_sdk_understands_the_rules_and_targets(sandbox):
    connector = ServiceConnector()
    connector.setup_xray_client(*sandbox.tcp, None)
    [rule] = connector.fetch_sampling_rules()
    assert (rule.name, rule.rate) == ("Default", 1.0)
    targets, modified_at = connector.fetch_sampling_target([rule])
    assert targets["Default"]["rate"] == 1.0
    # The time of the last change is before the SDK's fetch. Otherwise the SDK would fetch the rules
    # again and again.
    assert modified_at < datetime.now(UTC).timestamp()


def test_boto3_puts_a_segment_with_the_right_credentials(sandbox):
    client = xray_client(sandbox.url, ACCESS_KEY, SECRET_KEY)
    answer = client.put_trace_segments(TraceSegmentDocuments=[json.dumps(DOCUMENT)])
    assert answer["UnprocessedTraceSegments"] == []
    trace = json.loads(sandbox.get(f"/traces/{DOCUMENT['trace_id']}"))
    assert trace["documents"] == [DOCUMENT]


def test_boto3_is_told_which_segment_was_not_processed(sandbox):
    client = xray_client(sandbox.url, ACCESS_KEY, SECRET_KEY)
    bad = json.dumps(DOCUMENT | {"trace_id": "not an id"})
    answer = client.put_trace_segments(TraceSegmentDocuments=[bad, json.dumps(DOCUMENT)])
    [unprocessed] = answer["UnprocessedTraceSegments"]
    assert (unprocessed["Id"], unprocessed["ErrorCode"]) == (DOCUMENT["id"], "InvalidTraceId")
    assert len(json.loads(sandbox.get("/traces"))) == 1


@pytest.mark.parametrize(
    "access_key, secret_key, code",
    [
        (ACCESS_KEY, "wrong", "InvalidSignatureException"),
        ("unknown", SECRET_KEY, "UnrecognizedClientException"),
    ],
)
def test_boto3_is_refused_with_the_wrong_credentials(sandbox, access_key, secret_key, code):
    client = xray_client(sandbox.url, access_key, secret_key)
    with pytest.raises(ClientError) as refusal:
        client.put_trace_segments(TraceSegmentDocuments=[json.dumps(DOCUMENT)])
    assert refusal.value.response["Error"]["Code"] == code
    assert refusal.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    assert json.loads(sandbox.get("/traces")) == []


def test_traces_are_kept_from_one_run_to_the_next(start_daemon, emit, tmp_path):
    kept = tmp_path / "traces.jsonl"
    first = start_daemon("sandbox", "--keep", str(kept))
    [text] = emit("python", first, DESCRIBED)
    trace_id = json.loads(text)["trace_id"]
    first.end_in_order()
    assert [json.loads(line) for line in kept.read_text().splitlines()] == [text]
    with kept.open("a") as file:
        file.write('"half a li')
    second = start_daemon("sandbox", "--keep", str(kept))
    page = json.loads(second.get(f"/api/traces/{trace_id}"))
    assert page["forest"]["rows"][0]["name"] == DESCRIBED["name"]
    assert (page["id"], page["documents"], page["otlp"]) == (trace_id, [text], [None])
    # The second run does not print the trace: the first run did so when the trace arrived.
    assert not any(trace_id in line for line in second.output)
    clear = urllib.request.Request(f"{second.url}/api/traces", method="DELETE")
    urllib.request.urlopen(clear, timeout=PATIENCE_SECONDS).close()
    assert kept.read_text() == ""


def test_a_name_is_answered_to_when_it_is_allowed(start_daemon):
    sandbox = start_daemon("sandbox", "--allow-host", "xray")

    def status(host):
        connection = http.client.HTTPConnection(*sandbox.tcp, timeout=PATIENCE_SECONDS)
        connection.request("GET", "/traces", headers={"Host": host})
        return connection.getresponse().status

    assert status("xray:2000") == 200
    assert status("other:2000") == 403


def test_nothing_is_printed_where_that_is_switched_off(start_daemon, emit):
    sandbox = start_daemon("sandbox", "--print=false")
    emit("python", sandbox, DESCRIBED)
    sandbox.end_in_order()
    assert not any("shop.example" in line for line in sandbox.output)
