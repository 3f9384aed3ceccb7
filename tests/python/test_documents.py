"""Real SDKs send through the daemon to moto, and boto3 reads the documents back.

In: descriptions of segments. Each test makes each SDK send its segments. The service must have
exactly the documents that left the SDK, byte for byte, each once. The test then compares these
documents with the descriptions, so that an SDK that sends nothing fails the test.
"""

import json

import pytest
from sdks import X_RAY

PLAIN = {
    "name": "shop.example",
    "annotations": {"customer": "c-17", "gold": True, "amount": 12.5},
    "metadata": {"cart": {"items": [{"sku": "a-1", "count": 2}], "note": None}},
}

NESTED = {
    "name": "shop.example",
    "subsegments": [
        {
            "name": "checkout",
            "subsegments": [
                {"name": "stock", "subsegments": [{"name": "query", "annotations": {"rows": 3}}]},
                {"name": "payment", "metadata": {"currency": "EUR"}},
            ],
        },
        {"name": "render"},
    ],
}

STREAMED = {
    "name": "batch.example",
    "subsegments": [{"name": f"item-{number}"} for number in range(150)],
}

FAILED = {
    "name": "shop.example",
    "flags": ["fault"],
    "subsegments": [
        {"name": "refused", "flags": ["error"]},
        {"name": "throttled", "flags": ["error", "throttle"]},
        {"name": "broken", "exception": 'no "disk"\nleft \\ on café'},
    ],
}

TEXT = (
    'naïve café ☕ 日本語 עברית 😀 e\u0301 \u2028 \u0000 \x7f "quoted" back\\slash /\ttab\r\nline'
)

NON_ASCII = {
    "name": "café.日本",
    "annotations": {"text": TEXT},
    "metadata": {TEXT: [TEXT, {TEXT: TEXT}]},
    "subsegments": [{"name": "größe ☕", "annotations": {"text": "😀"}}],
}


#: The language of each SDK, as its segments name it.
LANGUAGES = {"python": "Python", "node": "Node.js", "java": "Java", "go": "Go", "go-2": "Go"}


@pytest.fixture(params=X_RAY)
def sdk(request):
    """The name of the SDK."""
    return request.param


@pytest.fixture
def read_back(sdk, emit, service, start_daemon):
    """Sends the described segments. Returns the parsed documents that the service then has."""

    def read_back(*described):
        daemon = start_daemon(AWS_ENDPOINT_URL_XRAY=service.url)
        sent = emit(sdk, daemon, *described)
        assert len(sent) >= len(described)
        assert sorted(service.documents()) == sorted(sent)
        documents = {}
        for document in map(json.loads, sent):
            documents.setdefault(document["id"], document)
        # The SDK for Go sends a segment twice if the goroutine that waits for the end of the
        # segment's context runs before the end of `Close`.
        assert sdk in ("go", "go-2") or len(documents) == len(sent)
        return list(documents.values())

    return read_back


def describe(entity):
    """Returns the description of a segment, without its exception."""
    described = {"name": entity["name"]}
    if "annotations" in entity:
        described["annotations"] = entity["annotations"]
    if "metadata" in entity:
        described["metadata"] = entity["metadata"]["default"]
    if flags := [flag for flag in ("error", "throttle", "fault") if entity.get(flag)]:
        described["flags"] = flags
    if subsegments := entity.get("subsegments"):
        described["subsegments"] = [describe(subsegment) for subsegment in subsegments]
    return described


def test_a_plain_segment_is_read_back_from_the_service(read_back, sdk):
    [document] = read_back(PLAIN)
    if sdk == "java":
        # The SDK for Java leaves out the metadata that is null.
        document["metadata"]["default"]["cart"]["note"] = None
    assert describe(document) == PLAIN
    assert document["end_time"] >= document["start_time"] and not document.get("in_progress")
    assert document["aws"]["xray"]["sdk"] == f"X-Ray for {LANGUAGES[sdk]}"


def test_nested_subsegments_are_read_back_as_they_were_nested(read_back):
    [document] = read_back(NESTED)
    assert describe(document) == NESTED


def test_streamed_subsegments_are_read_back_beside_their_segment(read_back):
    documents = read_back(STREAMED)
    streamed = [document for document in documents if document.get("type") == "subsegment"]
    [segment] = [document for document in documents if document not in streamed]
    assert len(streamed) > 1
    origins = {(document["trace_id"], document["parent_id"]) for document in streamed}
    assert origins == {(segment["trace_id"], segment["id"])}
    assert segment["name"] == STREAMED["name"]
    parts = streamed + segment.get("subsegments", [])
    names = sorted(part["name"] for part in parts)
    assert names == sorted(part["name"] for part in STREAMED["subsegments"])


def test_flags_and_exceptions_are_read_back(read_back):
    [document] = read_back(FAILED)
    broken = document["subsegments"][-1]
    [exception] = broken["cause"]["exceptions"]
    assert exception["message"] == FAILED["subsegments"][-1]["exception"]
    assert exception["stack"]
    # SDKs mark a subsegment with an exception as a fault.
    as_fault = {"name": "broken", "flags": ["fault"]}
    assert describe(document) == FAILED | {"subsegments": FAILED["subsegments"][:-1] + [as_fault]}


def test_text_beyond_ascii_is_read_back_unchanged(read_back):
    [document] = read_back(NON_ASCII)
    assert describe(document) == NON_ASCII


def test_every_document_of_an_application_is_read_back_from_the_service(read_back):
    described = [STREAMED, *[PLAIN, NESTED, FAILED, NON_ASCII] * 3]
    documents = read_back(*described)
    # The documents need several requests, because one request holds at most 50. Each segment has
    # its own trace.
    assert len(documents) > 50
    trace_ids = {document["trace_id"] for document in documents}
    assert len(trace_ids) == len(described)
