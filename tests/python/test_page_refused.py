"""Refused documents, and requests that were not sampled, on the page in a real browser.

In: documents that break a rule, and reports of samplers. Out: the views "Refused" and "Sampling rules", and the notes at the list and at a trace.
"""

import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import page_traces
from browser import ACCESS_KEY, SECRET_KEY
from page_traces import compact, named
from processes import ENVIRONMENT
from selenium.webdriver.common.keys import Keys
from service import xray_client
from test_page_list import part, pictures
from test_page_map import fill_rule

HERE = Path(__file__).parent


def send(sandbox, *documents):
    """Sends documents with PutTraceSegments. A string is sent unchanged."""
    texts = [it if isinstance(it, str) else compact(it) for it in documents]
    client = xray_client(sandbox.url, ACCESS_KEY, SECRET_KEY)
    return client.put_trace_segments(TraceSegmentDocuments=texts)["UnprocessedTraceSegments"]


def report(sandbox, requests, sampled):
    """Reports requests as a sampler does."""
    statistics = {"RuleName": "Default", "ClientID": "0123456789abcdef01234567"}
    statistics |= {"Timestamp": time.time(), "RequestCount": requests, "SampledCount": sampled}
    body = json.dumps({"SamplingStatisticsDocuments": [statistics]}).encode()
    urllib.request.urlopen(urllib.request.Request(f"{sandbox.url}/SamplingTargets", data=body))


def kinds(page):
    """Returns the codes and the numbers of documents in the view, from top to bottom."""
    return page.js(
        "return [...document.querySelectorAll('.refused-kind')].map((it) =>"
        " [it.dataset.code, it.querySelector('header > b').textContent])"
    )


def test_refused_documents_are_counted_explained_and_named_at_their_trace(page, sandbox):
    page.open()
    page.wait_for_text(".connection-text", "Live")
    assert page.texts(".tab-count") == []
    now = time.time()
    good = named("checkout", now)
    bad = named("stock", now, subsegments=[part("mysql at RouteBinding:?", now)])
    bad["trace_id"] = good["trace_id"]
    open_end = named("cart", now)
    del open_end["end_time"]
    send(sandbox, good, bad, named("Query()", now), open_end, "no json", "[]")
    page.wait_for_text(".tab-count", "5")
    page.press("4")
    page.wait(lambda: len(kinds(page)) == 5, "not five kinds")
    assert sorted(kinds(page)) == [
        ["InvalidName", "1 document"],
        ["InvalidName", "1 document"],
        ["MissingEndTime", "1 document"],
        ["MissingId", "1 document"],
        ["ParseError", "1 document"],
    ]
    text = "\n".join(page.texts(".refused-kind"))
    for expected in [
        "subsegments[].name",
        "mysql at RouteBinding:?",
        'contains "?". A name may have letters, numbers, spaces and _.:/%&#=+\\-@',
        'Change the name, for example to "mysql at RouteBinding:"',
        'Change the name, for example to "Query"',
        "Close the segment or subsegment before it is sent",
        "the document is an empty list",
    ]:
        assert expected in text, expected
    # The start of the document, with the place of the fault marked.
    page.click(".refused-kind[data-code='InvalidName'] summary", "RouteBinding")
    page.wait_for_text(".refused-sample pre", '"name":"stock"')
    assert page.texts(".refused-sample mark") == ["mysql at RouteBinding:?"]
    pictures(page, "refused")
    # The same fault again is the same kind, and what was open stays open.
    again = json.loads(compact(bad)) | {"id": "0123456789abcdef"}
    send(sandbox, *[again] * 7)
    page.wait(lambda: ["InvalidName", "8 documents"] in kinds(page), "not one kind")
    assert len(kinds(page)) == 5
    page.click(".refused-sample[open] a", good["trace_id"])
    page.wait_for_text(".trace-notes", "8 documents were refused: InvalidName (subsegments[].name)")
    page.wait_for_text(".trace-title h1", "checkout")
    pictures(page, "trace-notes")
    page.click(".trace-notes a", "InvalidName")
    focused = "return document.activeElement.dataset.code"
    page.wait(lambda: page.js(focused) == "InvalidName", "the kind has not the focus")
    # Of this trace, nothing was taken.
    page.open(f"#/trace/{open_end['trace_id']}")
    page.wait_for_text(".empty-note", "All documents of this trace were refused")
    page.wait_for_text(".trace-notes", "MissingEndTime (end_time)")
    page.open("#/refused")
    page.click(".button", "Clear")
    page.wait_for_text(".empty-note", "Nothing was refused")
    page.wait(lambda: page.texts(".tab-count") == [], "the count stays")


def test_markup_in_refused_documents_stays_text(page, sandbox):
    send(sandbox, *page_traces.hostile(time.time())["refused"], page_traces.MARKUP)
    page.open("#/refused")
    page.wait_for_text(".tab-count", "6")
    page.wait(lambda: page.texts(".refused-kind") != [], "no kinds")
    page.js("document.querySelectorAll('details').forEach((it) => (it.open = true))")
    page.wait_for_text(".refused-sample pre", page_traces.MARKUP)
    assert page.js("return window.hacked") is None
    assert page.js("return document.querySelectorAll('.refused img, .refused script').length") == 0
    for width in (1400, 400):
        page.resize(width, 800)
        assert page.js("return document.documentElement.scrollWidth") <= width


def test_a_trace_says_that_documents_were_replaced(page, sandbox):
    now = time.time()
    late = named("job", now, end_time=now + 2)
    page.put([late, late | {"end_time": now + 1}])
    page.open(f"#/trace/{late['trace_id']}")
    page.wait_for_text(".trace-notes", "1 document has the id of another one")
    page.wait_for_text(".trace-facts", "2 s")


def test_requests_that_were_not_sampled_are_counted_and_lead_to_the_rules(page, sandbox):
    page.open()
    page.wait_for_text(".guide h1", "Waiting for the first trace")
    report(sandbox, 30, 7)
    page.wait_for_text(".missing", "23 requests arrived at SDKs and were not sampled")
    pictures(page, "nothing-sampled")
    page.put([named("one", time.time())])
    page.wait_for_text(".list-foot .unsampled", "23 requests were not sampled")
    page.click(".list-foot .unsampled")
    page.wait_for_text("[data-rule='Default'] .reported", "7 of 30 sampled")
    page.wait_for_text("[data-rule='Default'] .reported", "23 not")
    page.wait_for_text(".page-head", "SDKs follow a change within about 10 seconds")
    pictures(page, "rules")
    report(sandbox, 1, 1)
    report(sandbox, 1, 0)
    page.wait_for_text("[data-rule='Default'] .reported", "8 of 32 sampled")


def test_a_rate_says_what_it_means_and_one_is_not_taken_for_one_percent(page, sandbox):
    page.open("#/rules")
    page.click("[aria-label='Edit Default']")
    page.wait_for_text("dialog h2", "Edit Default")
    note = "#rule-FixedRate-note"
    page.wait_for_text(note, "Every request")
    for text, meaning in [
        ("5", "About 1 request in 20 of the others"),
        ("0.5%", "About 1 request in 200 of the others"),
        ("0", "None of the other requests"),
        ("1", "Write 1% for 1 request in 100, or 100% for every request"),
        ("0.05", "Write 0.05% for 1 request in 2000, or 5% for 1 request in 20"),
        ("a", "Enter a percentage"),
        ("101%", "From 0% to 100%"),
    ]:
        fill_rule(page, FixedRate=text)
        page.wait_for_text(note, meaning)
    fill_rule(page, FixedRate="1")
    page.press(Keys.ENTER)
    page.wait_for_text(f"{note}.is-problem", "Write 1%")
    pictures(page, "rate")
    fill_rule(page, FixedRate="1%")
    page.press(Keys.ENTER)
    page.wait_for_text(".toast", "Saved. SDKs follow within about 10 seconds")
    page.wait_for_text("[data-rule='Default']", "1%")
    rules = json.loads(sandbox.get("/api/sampling-rules"))["rules"]
    assert rules[0]["FixedRate"] == 0.01


#: Thirty requests of the SDK for Python, once its sampler follows the rules of the sandbox.
THIRTY = """
import time
from aws_xray_sdk.core import xray_recorder
xray_recorder.configure(service="shop", sampling=True)
def sampled():
    request = {"host": "h", "method": "GET", "path": "/", "service": "shop"}
    return xray_recorder.sampler.should_trace(request)
while sampled() != "Default":
    time.sleep(0.05)
for number in range(30):
    with xray_recorder.in_segment("shop", sampling=sampled()) as segment:
        segment.put_annotation("number", number)
        if number % 10 == 9:
            segment.add_fault_flag()
"""


def test_thirty_requests_of_an_sdk_are_thirty_traces(page, sandbox, tmp_path):
    address = "tcp:{}:{} udp:{}:{}".format(*sandbox.tcp, *sandbox.udp)
    subprocess.run(
        [sys.executable, "-c", THIRTY],
        cwd=tmp_path,
        env=ENVIRONMENT | {"AWS_XRAY_DAEMON_ADDRESS": address},
        check=True,
    )
    page.open()
    page.wait_for_text(".status-text", "30 traces")
    page.click(".chip", "Faults")
    page.wait_for_text(".status-text", "3 of 30 traces")
    sandbox.wait_until_sent(30)
