"""The sandbox's page in a real browser: one trace, and malicious documents.

In: traces recorded from real SDKs, generated traces, and hostile traces. Out: bars, details and
texts on the page.
"""

import json
import time

import page_traces
import pytest
from page_traces import compact, named, parts, recorded
from selenium.webdriver.common.keys import Keys
from test_page import check_smooth, press


def bars(page):
    """Returns the start and the end of each bar as shares of the axis, by the id of the segment."""
    return page.js("""
        const bars = {};
        for (const row of document.querySelectorAll(".wf-row[data-node-id]")) {
            if (row.hidden) continue;
            const track = row.querySelector(".track").getBoundingClientRect();
            const bar = row.querySelector(".wf-bar").getBoundingClientRect();
            bars[row.dataset.nodeId] = [(bar.left - track.left) / track.width,
                                        (bar.right - track.left) / track.width, track.width];
        }
        return bars;
    """)


def test_bars_are_where_the_segments_of_a_recorded_trace_were_in_time(page):
    text = recorded("python-02.bin")
    document = json.loads(text)
    page.put([text])
    page.open(f"#/trace/{document['trace_id']}")
    all_parts = parts(document)
    page.wait_for_count(".wf-row[data-node-id]", len(all_parts))
    start = min(part["start_time"] for part in all_parts)
    length = max(part["end_time"] for part in all_parts) - start
    found = bars(page)
    for part in all_parts:
        left, right, width = found[part["id"]]
        # The tolerance is 1.5 pixels. The shortest bars are two pixels wide.
        assert abs(left - (part["start_time"] - start) / length) <= 1.5 / width, part["name"]
        expected = max((part["end_time"] - part["start_time"]) / length, 2 / width)
        assert abs(right - left - expected) <= 1.5 / width, part["name"]
    ticks = page.js("""
        const axis = document.querySelector(".ticks").getBoundingClientRect();
        return [...document.querySelectorAll(".tick")].map((it) =>
            [it.textContent, (it.getBoundingClientRect().left - axis.left) / axis.width]);
    """)
    assert len(ticks) >= 3
    for text, at in ticks[1:]:
        value, unit = text.split()
        seconds = float(value) * {"µs": 1e-6, "ms": 1e-3, "s": 1}[unit]
        assert abs(at - seconds / length) < 0.01, text


def test_the_states_and_kinds_of_a_request_are_seen(page):
    ids = page_traces.Ids("states")
    documents = page_traces.Request(ids, time.time(), method="POST", failing="payments").documents
    page.put(documents)
    page.open(f"#/trace/{documents[0]['trace_id']}")
    page.wait_for_text(".wf-name", "ledger@payments-db")
    page.picture("trace")
    states = page.js("""
        return Object.fromEntries([...document.querySelectorAll(".wf-row.is-segment")]
            .filter((it) => !it.hidden)
            .map((it) => [it.querySelector(".wf-name").textContent, it.dataset.state]));
    """)
    assert (states["shop.example"], states["payments"], states["users"]) == ("fault", "fault", "ok")
    assert {"remote", "aws", "sql"} <= set(page.texts(".ns"))
    page.click(".wf-note", "UpstreamTimeout")
    page.wait_for_text(".exception", "the card issuer did not answer within 250 ms")
    page.wait_for_text(".stack", "payments/charge.py:88")
    page.click(".wf-name", "ledger@payments-db")
    page.wait_for_text(".details", "SELECT id, count FROM items WHERE item = ? FOR UPDATE")
    page.press(Keys.HOME)
    page.wait_for_text(".details", "customer")
    page.wait_for_text(".json", "tea-12")
    # The left arrow collapses the rows, and the right arrow expands them again.
    rows = len(page.texts(".wf-row[data-node-id]"))
    page.press(Keys.ARROW_LEFT)
    page.wait_for_count(".wf-row[data-node-id]", 1)
    page.press(Keys.ARROW_RIGHT)
    page.wait_for_count(".wf-row[data-node-id]", rows)


def test_an_open_trace_grows_as_documents_come(page):
    now = time.time()
    root = named("growing", now)
    root["in_progress"] = True
    del root["end_time"]
    page.put([root])
    page.open(f"#/trace/{root['trace_id']}")
    page.wait_for_text(".wf-label", "in progress")
    child = {
        "trace_id": root["trace_id"],
        "id": "00000000000000aa",
        "parent_id": root["id"],
        "type": "subsegment",
        "name": "late part",
        "start_time": now,
        "end_time": now + 1,
    }
    page.put([child])
    page.wait_for_count(".wf-row[data-node-id]", 2)
    page.put([root | {"in_progress": False, "end_time": now + 2}])
    page.wait_for_text(".wf-label", "2 s")
    assert page.rows() == ["growing", "late part"]


def test_a_segment_that_starts_before_its_caller_is_moved_into_it_on_wish(page):
    now = time.time()
    caller = named("caller", now, end_time=now + 1)
    call = {
        "id": "00000000000000c1",
        "name": "call",
        "namespace": "remote",
        "start_time": now + 0.2,
        "end_time": now + 0.8,
    }
    called = {
        "trace_id": caller["trace_id"],
        "id": "00000000000000c2",
        "parent_id": call["id"],
        "name": "called",
        "start_time": now - 5,
        "end_time": now - 4.6,
    }
    page.put([caller | {"subsegments": [call]}, called])
    page.open(f"#/trace/{caller['trace_id']}")
    page.wait_for_count(".wf-row[data-node-id]", 3)
    left, right, width = bars(page)[called["id"]]
    assert abs(left - 0.3) < 2 / width and abs(right - 0.7) < 2 / width
    page.wait_for_text(".wf-label", "clock +5.3 s")
    page.click(".check", "Adjust clocks (1)")
    page.wait(lambda: bars(page)[called["id"]][0] == 0, "the clock is not as it was")


def test_the_document_is_shown_and_copied_byte_for_byte(page):
    text = recorded("python-01.bin")
    assert "\\u2615" in text and "\\ud83d" in text
    page.put([text])
    page.open(f"#/trace/{json.loads(text)['trace_id']}?view=raw")
    shown = lambda: page.js("return document.querySelector('.raw-text').textContent")
    page.wait(lambda: shown() == text, "it is not shown as it is")
    assert page.copied(lambda: page.click(".button", "Copy document")) == text
    page.click(".check", "Line breaks")
    page.wait(lambda: shown().startswith('{\n  "id"'), "there are no line breaks")
    assert page.copied(lambda: page.click(".button", "Copy document")) == text


def test_a_missing_trace_is_explained(page):
    page.open("#/trace/1-00000000-000000000000000000000000")
    page.wait_for_text(".trace-view .empty-note", "The sandbox does not have this trace")
    page.press(Keys.ESCAPE)
    page.wait_for_text(".guide h1", "Waiting")


def summary(document):
    """Returns a hostile entry for a document in the list of traces."""
    return {
        "id": "1-hostile",
        "revision": 1,
        "start_time": document["start_time"],
        "name": document["name"],
        "services": [page_traces.MARKUP],
        "users": [page_traces.MARKUP],
        "http": {
            "method": page_traces.MARKUP,
            "url": page_traces.SCRIPT_URL,
            "status": page_traces.MARKUP,
        },
        "duration_seconds": -1e300,
        "annotations": {"__proto__": [1], page_traces.MARKUP: page_traces.MARKUP},
    }


def hostile_forest(document):
    """Returns rows whose texts are hostile, of a document that breaks the rules and of texts that
    are no documents.
    """
    markup = page_traces.MARKUP
    row = {"document": 0, "id": markup, "name": markup, "state": "fault", "note": markup}
    row |= {"start": 1e308, "end": -1e300, "has_cause": True, "namespace": markup}
    lost = {"document": 1, "path": [0, 7], "state": "ok", "parent": 0, "depth": 1}
    lost |= {"name": "\u202eexe.cod\u0007\u2066\u200b end"}
    alone = {"document": 9, "name": "alone", "state": "progress", "parent_id": markup}
    alone |= {"orphan": "missing", "has_cause": True}
    rows = [row, lost, alone | {"start": 1, "end": 2, "service": 0}]
    counts = {"segment_count": 1, "omitted_count": 5, "skewed_count": 0}
    return {"rows": rows, "services": [markup], "failed": 0} | counts


def check_unharmed(page):
    """Fails if script or markup of a document has had an effect on the page."""
    assert page.js("return window.hacked") is None
    assert page.js("return ({}).polluted") is None
    markup = "main img, main script, main a:not([href^='#/'])"
    assert page.js("return document.querySelectorAll(arguments[0]).length", markup) == 0


@pytest.mark.parametrize("kind", ["markup", "huge", "ring", "alone", "nested"])
def test_a_hostile_trace_is_shown_as_text(page, kind):
    documents = page_traces.hostile(time.time())[kind]
    page.put(documents)
    page.open()
    page.wait_for_count(".virtual-row", 1)
    page.picture(f"hostile-{kind}-list")
    page.press("j", Keys.ENTER)
    count = sum(len(parts(document)) for document in documents)
    row_count = "return document.querySelector('.waterfall').ariaRowCount"
    page.wait(lambda: page.js(row_count) == str(count + 1), f"not {count} rows")
    for _ in range(min(count, 5)):
        check_unharmed(page)
        page.press("j")
    page.picture(f"hostile-{kind}")
    text = page.js("return document.querySelector('main').innerText")
    if kind == "markup":
        assert page.rows() == ["hostile", "part"]
    if kind == "ring":
        assert sorted(page.rows()) == ["below", "ring-a", "ring-b", "ring-c"]
        assert "parents in a ring" in text
    if kind == "alone":
        assert "parent missing" in text
    if kind == "huge":
        # The page renders only a part of a large value until the user asks for more.
        page.click(".json-box summary", "list")
        page.wait_for_text(".more", "4,900 more")
        assert page.js("return document.querySelectorAll('.json-line').length") < 150
        page.wait_for_text(".more", "show all 20,002 characters")
    page.press("2")
    page.wait(lambda: page.js("return document.querySelector('.map-node, .map-body h2')"), "no map")
    check_unharmed(page)


@pytest.mark.parametrize("index", range(5))
def test_a_document_that_breaks_the_rules_breaks_nothing(page, index):
    document = page_traces.hostile(1.7e9)["refused"][index]
    store = {"trace_count": 1, "document_count": 1, "size_bytes": 1}
    page.open(
        "",
        answers={
            "/api/traces": {
                "revision": 1,
                "store": store,
                "gone": False,
                "traces": [summary(document)],
            },
            "/api/traces/1-hostile": {
                "id": "1-hostile",
                "documents": [json.dumps(document), "not JSON", "[]"],
                "otlp": [None, None, None],
                "forest": hostile_forest(document),
            },
            "/api/service-graph": {
                "Services": [
                    {
                        "ReferenceId": 1,
                        "Name": page_traces.MARKUP,
                        "Type": page_traces.MARKUP,
                        "Edges": [{"ReferenceId": 1}, {"ReferenceId": 7}, {}],
                    },
                    {},
                ]
            },
            "/api/sampling-rules": {
                "rules": [
                    {
                        "RuleName": page_traces.MARKUP,
                        "Priority": {},
                        "FixedRate": page_traces.MARKUP,
                    }
                ]
            },
        },
    )
    page.wait_for_count(".virtual-row", 1)
    page.press("j", Keys.ENTER)
    page.wait(lambda: page.texts(".wf-row[data-node-id]"), "nothing of the trace is shown")
    for _ in range(3):
        check_unharmed(page)
        page.press("j")
    page.press("e", "+", "z", "0")
    check_unharmed(page)
    assert "\\u202eexe.cod\\u0007\\u2066\\u200b end" in page.rows()
    page.press("x")
    check_unharmed(page)
    page.press("r")
    page.wait_for_text(".raw-text", '"trace_id"')
    for key, selector in [("2", ".map-node"), ("3", ".rules-table tbody tr")]:
        page.press(key)
        page.wait(lambda: page.js("return document.querySelector(arguments[0])", selector), key)
        check_unharmed(page)


def test_ten_thousand_subsegments_stay_smooth(page):
    # The documents have more subsegments than the sandbox keeps for one trace.
    documents = page_traces.wide(time.time())
    trace_id = documents[0]["trace_id"]
    texts = [compact(document) for document in documents]
    answer = {"id": trace_id, "documents": texts, "otlp": [None] * len(texts)}
    answer["forest"] = page_traces.forest(documents)
    page.open(f"#/trace/{trace_id}", answers={f"/api/traces/{trace_id}": answer})
    page.wait_for_text(".wf-name", "wide")
    assert page.js("return document.querySelector('.waterfall').ariaRowCount") == "10002"
    acts = {
        "next row": press("j"),
        "last row": press("End"),
        "first row": press("Home"),
        "collapse": press("ArrowLeft"),
        "expand": press("ArrowRight"),
        "zoom": press("+"),
        "zoom to the row": press("z"),
        "all of the time": press("0"),
    }
    check_smooth(page, acts)
