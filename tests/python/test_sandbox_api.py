"""The sandbox's API as boto3 and the AWS CLI use it; botocore's model checks each answer.

In: segments of real SDKs, and documents of the test. Out: the documents read back.
"""

import json
import time
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from botocore.exceptions import ClientError
from service import xray_client
from shapes import check_answers
from test_sandbox import ACCESS_KEY, SECRET_KEY

HOUR = timedelta(hours=1)

DESCRIBED = {
    "name": "shop.example",
    "annotations": {"game": "ABC", "age": 30, "paid": True},
    "flags": ["fault"],
    "subsegments": [{"name": "payment", "exception": "the card was declined"}],
}


@pytest.fixture
def client(sandbox):
    """boto3's client for the sandbox. It compares each answer with botocore's model."""
    return check_answers(xray_client(sandbox.url, ACCESS_KEY, SECRET_KEY))


def segment(name="shop", trace_id=None, start=None, seconds=0.25, **fields):
    """Returns the document of a segment that started 5 s ago, or at `start`, and has ended."""
    start = time.time() - 5 if start is None else start
    document = {
        "trace_id": trace_id or f"1-{int(start):08x}-{uuid4().hex[:24]}",
        "id": uuid4().hex[:16],
        "name": name,
        "start_time": start,
        "end_time": start + seconds,
    }
    return document | fields


def put(client, *documents):
    """Sends documents with PutTraceSegments. Fails if one is unprocessed."""
    texts = [json.dumps(document) for document in documents]
    assert client.put_trace_segments(TraceSegmentDocuments=texts)["UnprocessedTraceSegments"] == []


def summaries(client, expression="", **options):
    """Returns the summaries of the traces that match the filter expression, from one hour ago to
    one hour ahead.
    """
    now = datetime.now(UTC)
    times = {"StartTime": now - HOUR, "EndTime": now + HOUR} | options
    return client.get_trace_summaries(FilterExpression=expression, **times)["TraceSummaries"]


def refusal(call, **arguments):
    """Makes a call that must fail. Returns the code and the message of the error."""
    with pytest.raises(ClientError) as error:
        call(**arguments)
    answer = error.value.response
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 400
    return answer["Error"]["Code"], answer["Error"]["Message"]


@pytest.mark.parametrize("sdk", ["python", "node"])
def test_what_an_sdk_sends_is_read_back(sandbox, client, emit, sdk):
    [text] = emit(sdk, sandbox, DESCRIBED)
    document = json.loads(text)
    trace_id = document["trace_id"]
    [summary] = summaries(client)
    assert (summary["Id"], summary["HasFault"], summary["IsPartial"]) == (trace_id, True, False)
    assert summary["EntryPoint"]["Name"] == "shop.example"
    assert 0 <= summary["ResponseTime"] == summary["Duration"] < 30
    values = {key: one["AnnotationValue"] for key, [one] in summary["Annotations"].items()}
    assert values["game"] == {"StringValue": "ABC"}
    assert values["age"] == {"NumberValue": 30}
    assert values["paid"] == {"BooleanValue": True}
    answer = client.batch_get_traces(TraceIds=[trace_id, "1-00000000-" + "0" * 24])
    assert answer["UnprocessedTraceIds"] == ["1-00000000-" + "0" * 24]
    [trace] = answer["Traces"]
    assert (trace["Id"], trace["LimitExceeded"]) == (trace_id, False)
    assert trace["Segments"] == [{"Id": document["id"], "Document": text}]
    now = datetime.now(UTC)
    graphs = [
        client.get_service_graph(StartTime=now - HOUR, EndTime=now)["Services"],
        client.get_trace_graph(TraceIds=[trace_id])["Services"],
    ]
    for services in graphs:
        [shop] = [service for service in services if service["Type"] != "client"]
        assert (shop["Name"], shop["Root"], shop["State"]) == ("shop.example", True, "active")
        assert shop["SummaryStatistics"]["FaultStatistics"]["TotalCount"] == 1


def test_a_group_is_refused_and_not_taken_for_everything(client):
    now = datetime.now(UTC)
    times = {"StartTime": now - HOUR, "EndTime": now}
    assert client.get_service_graph(**times, GroupName="Default")["Services"] == []
    for group in [{"GroupName": "mine"}, {"GroupARN": "arn:aws:xray:us-east-1:1:group/mine/1"}]:
        code, message = refusal(client.get_service_graph, **times, **group)
        assert (code, "no groups" in message) == ("InvalidRequestException", True)


def test_a_call_between_services_is_an_edge(client):
    call = segment("stock.internal", namespace="remote", error=True)
    shop = segment(origin="AWS::EC2::Instance", subsegments=[call])
    stock = segment("stock", shop["trace_id"], parent_id=call["id"], seconds=0.125)
    put(client, shop, stock)
    services = client.get_trace_graph(TraceIds=[shop["trace_id"]])["Services"]
    by_name = {(service["Name"], service["Type"]): service for service in services}
    assert set(by_name) == {
        ("shop", "client"),
        ("shop", "AWS::EC2::Instance"),
        ("stock", ""),
    }
    [edge] = by_name["shop", "AWS::EC2::Instance"]["Edges"]
    assert edge["ReferenceId"] == by_name["stock", ""]["ReferenceId"]
    assert edge["SummaryStatistics"]["ErrorStatistics"]["OtherCount"] == 1
    statistics = by_name["stock", ""]["SummaryStatistics"]
    assert (statistics["OkCount"], statistics["TotalCount"]) == (1, 1)
    assert abs(statistics["TotalResponseTime"] - 0.125) < 1e-6


@pytest.mark.parametrize(
    "expression, names",
    [
        ("", {"fast", "slow", "broken"}),
        ("responsetime > 1", {"slow"}),
        ("duration <= 1 AND ok", {"fast"}),
        ("error OR fault", {"broken"}),
        ('http.url CONTAINS "/cart"', {"slow"}),
        ("http.status >= 500", {"broken"}),
        ('http.method = "PUT" AND http.clientip = "10.0.0.7"', {"broken"}),
        ('http.useragent BEGINSWITH "curl"', {"slow"}),
        ('user = "ann"', {"fast"}),
        ('!service("table") AND !partial', {"fast", "broken"}),
        ('service("table") { throttle }', {"slow"}),
        ('edge("slow", "table") { error }', {"slow"}),
        ('edge("table", "slow")', set()),
        ("annotation.age > 29 AND annotation.age < 31", {"fast"}),
        ('annotation[game] = "ABC" OR annotation.paid', {"slow", "broken"}),
    ],
)
def test_a_filter_finds_what_it_describes(client, expression, names):
    call = segment("DynamoDB", namespace="aws", error=True, throttle=True)
    call["aws"] = {"table_name": "table"}
    request = {"url": "http://shop/cart", "method": "GET", "user_agent": "curl/8"}
    put(
        client,
        segment("fast", user="ann", annotations={"age": 30}),
        segment(
            "slow",
            seconds=2.0,
            subsegments=[call],
            annotations={"game": "ABC"},
            http={"request": request, "response": {"status": 200}},
        ),
        segment(
            "broken",
            fault=True,
            annotations={"paid": True},
            http={
                "request": {"method": "PUT", "client_ip": "10.0.0.7"},
                "response": {"status": 503},
            },
        ),
    )
    assert {one["EntryPoint"]["Name"] for one in summaries(client, expression)} == names


def test_a_bad_filter_is_refused_with_its_position(client):
    now = datetime.now(UTC)
    times = {"StartTime": now - HOUR, "EndTime": now}
    code, message = refusal(
        client.get_trace_summaries, **times, FilterExpression="ok AND speed > 1"
    )
    assert code == "InvalidRequestException"
    assert "at character 8" in message and "speed" in message
    for keyword in ["rootcause.fault.entity", "group.name", "coverage"]:
        expression = f'ok AND {keyword} = "x"'
        _, message = refusal(client.get_trace_summaries, **times, FilterExpression=expression)
        assert f"the sandbox does not have {keyword}" in message


def test_the_time_range_is_that_of_start_end_or_arrival(client):
    start = time.time() - 1000
    put(client, segment(start=start, seconds=500))
    moment = lambda seconds: datetime.fromtimestamp(seconds, UTC)
    for kind, around in [("TraceId", start), ("Service", start + 500), ("Event", time.time())]:
        for shift, count in [(0, 1), (-300, 0)]:
            times = {
                "StartTime": moment(around + shift - 100),
                "EndTime": moment(around + shift + 100),
            }
            found = summaries(client, TimeRangeType=kind, **times)
            assert len(found) == count, (kind, shift)
    now = datetime.now(UTC)
    code, _ = refusal(client.get_trace_summaries, StartTime=now, EndTime=now - HOUR)
    assert code == "InvalidRequestException"


def test_pages_hold_every_trace_once_the_newest_first(client):
    now = time.time()
    documents = [segment(start=now - number) for number in range(250)]
    for first in range(0, 250, 50):
        put(client, *documents[first : first + 50])
    times = {
        "StartTime": datetime.fromtimestamp(now - 3600, UTC),
        "EndTime": datetime.fromtimestamp(now + 3600, UTC),
    }
    pages = list(client.get_paginator("get_trace_summaries").paginate(**times))
    ids = [summary["Id"] for page in pages for summary in page["TraceSummaries"]]
    assert len(pages) == 3
    assert ids == [document["trace_id"] for document in documents]
    code, _ = refusal(client.get_trace_summaries, **times, NextToken="mine")
    assert code == "InvalidRequestException"


def test_no_more_than_five_traces_are_given_at_once(client):
    ids = ["1-00000000-" + "0" * 24] * 6
    assert client.batch_get_traces(TraceIds=ids[:5])["UnprocessedTraceIds"] == ids[:5]
    code, message = refusal(client.batch_get_traces, TraceIds=ids)
    assert (code, "At most 5" in message) == ("InvalidRequestException", True)


@pytest.mark.parametrize(
    "fields, code",
    [
        ({"id": "xyz"}, "InvalidId"),
        ({"trace_id": "1-2-3"}, "InvalidTraceId"),
        ({"name": "<script>"}, "InvalidName"),
        ({"name": "x" * 201}, "InvalidName"),
        ({"start_time": "now"}, "InvalidStartTime"),
        ({"end_time": None}, "MissingEndTime"),
        ({"type": "subsegment"}, "MissingParentId"),
        ({"subsegments": [{"name": "no id"}]}, "MissingId"),
        ({"metadata": "x" * 65_536}, "DocumentTooLarge"),
    ],
)
def test_a_document_against_the_rules_is_unprocessed_and_the_others_are_kept(client, fields, code):
    good = segment("good")
    texts = [json.dumps(segment() | fields), json.dumps(good)]
    [fault] = client.put_trace_segments(TraceSegmentDocuments=texts)["UnprocessedTraceSegments"]
    assert (fault["ErrorCode"], code in fault["Message"]) == (code, True)
    assert [one["Id"] for one in summaries(client)] == [good["trace_id"]]


def test_hostile_documents_are_given_back_as_they_are_and_break_nothing(client):
    markup = "<script>alert(1)</script>\"'&\u202e\x00"
    hostile = segment(
        annotations={markup: markup, "n": 1e308},
        metadata={markup: markup * 100},
        user=markup,
        http={"request": {"url": markup, "method": markup}, "response": {"status": 1e99}},
        cause={"exceptions": [{"message": markup, "type": markup}]},
    )
    # Subsegments may be nested 128 levels deep.
    inner = segment("inner", sql={"sanitized_query": markup})
    for _ in range(55):
        inner = segment("inner", metadata={markup: markup}, subsegments=[inner])
    hostile["subsegments"] = [inner]
    loop = segment("loop", hostile["trace_id"], type="subsegment", namespace="remote", user=markup)
    loop["parent_id"] = loop["id"]
    put(client, hostile, loop)
    [summary] = summaries(client, "service() { ok }")
    assert summary["Users"][0]["UserName"] == markup
    [trace] = client.batch_get_traces(TraceIds=[hostile["trace_id"]])["Traces"]
    documents = [json.loads(one["Document"]) for one in trace["Segments"]]
    assert documents == [hostile, loop]
    assert client.get_trace_graph(TraceIds=[hostile["trace_id"]])["Services"]


def test_ten_thousand_subsegments_of_one_trace_are_bounded_and_said(client):
    shop = segment()
    put(client, shop)
    trace_id = shop["trace_id"]
    for _ in range(0, 10_000, 50):
        put(
            client,
            *(
                segment(f"call {n}", trace_id, parent_id=shop["id"], type="subsegment")
                for n in range(50)
            ),
        )
    [trace] = client.batch_get_traces(TraceIds=[trace_id])["Traces"]
    assert trace["LimitExceeded"]
    assert 100 < len(trace["Segments"]) <= 1_000
    assert len(summaries(client)) == 1


def test_sampling_rules_are_created_changed_and_deleted(client):
    rule = dict.fromkeys(
        ["ResourceARN", "ServiceName", "ServiceType", "Host", "HTTPMethod", "URLPath"], "*"
    )
    rule |= {"RuleName": "mine", "Priority": 5, "FixedRate": 0.5, "ReservoirSize": 7, "Version": 1}
    record = client.create_sampling_rule(SamplingRule=rule)["SamplingRuleRecord"]
    assert record["SamplingRule"] | rule == record["SamplingRule"]
    arn = record["SamplingRule"]["RuleARN"]
    update = {"RuleARN": arn, "FixedRate": 1.0}
    record = client.update_sampling_rule(SamplingRuleUpdate=update)["SamplingRuleRecord"]
    assert (record["SamplingRule"]["FixedRate"], record["SamplingRule"]["Priority"]) == (1.0, 5)
    names = lambda: [
        record["SamplingRule"]["RuleName"]
        for record in client.get_sampling_rules()["SamplingRuleRecords"]
    ]
    assert names() == ["mine", "Default"]
    code, _ = refusal(client.create_sampling_rule, SamplingRule=rule)
    assert code == "InvalidRequestException"
    client.delete_sampling_rule(RuleName="mine")
    assert names() == ["Default"]
    code, _ = refusal(client.delete_sampling_rule, RuleName="Default")
    assert code == "InvalidRequestException"
    for number in range(25):
        client.create_sampling_rule(SamplingRule=rule | {"RuleName": f"r{number}"})
    code, _ = refusal(client.create_sampling_rule, SamplingRule=rule)
    assert code == "RuleLimitExceededException"


def test_rules_are_changed_by_nobody_without_the_credentials(sandbox):
    client = xray_client(sandbox.url, ACCESS_KEY, "wrong")
    with pytest.raises(ClientError) as error:
        client.delete_sampling_rule(RuleName="Default")
    assert error.value.response["Error"]["Code"] == "InvalidSignatureException"
