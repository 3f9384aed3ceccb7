"""The sandbox's page in a real browser: zoom, colours, failures, exceptions and the file of a trace.

In: the traces of the demo, and a trace of 2,000 subsegments. Out: the waterfall after keys, the
wheel and drags; the list of exceptions; a downloaded file.
"""

import json
import time

import page_traces
import pytest
from page_traces import named
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from service import xray_client
from test_page import ACCESS_KEY, SECRET_KEY, check_smooth, press
from test_page_trace import bars

SELECTED = "return document.querySelector('.wf-row[aria-selected=true] .wf-name')?.textContent"
TICKS = "return [...document.querySelectorAll('.tick')].map((it) => it.textContent)"


def failing(now):
    """Returns the documents of an order that fails, as the demo has it: three exceptions, and two
    segments that name one of them.
    """
    ids = page_traces.Ids("failing")
    trace_id, call, lost = ids.trace(now), ids.segment(), ids.segment()
    common = {"trace_id": trace_id, "fault": True}
    exceptions = [
        {
            "id": f"{number:016x}",
            "type": kind,
            "message": f"message {number}",
            "stack": [{"path": f"pay/{kind}.py", "line": 7, "label": "work"}],
        }
        for number, kind in enumerate(["CardDeclined", "UpstreamTimeout", "ConnectionReset"], 1)
    ]
    exceptions[0]["cause"], exceptions[1]["cause"] = exceptions[1]["id"], exceptions[2]["id"]
    part = {"fault": True, "start_time": now + 0.1, "end_time": now + 0.8}
    calls = [
        {"id": ids.segment(), "name": "cart", "start_time": now, "end_time": now + 0.1},
        part | {"id": call, "name": "payments", "namespace": "remote"},
    ]
    shop = common | {"id": ids.segment(), "name": "shop", "start_time": now, "end_time": now + 1}
    pay = common | {"id": ids.segment(), "name": "payments", "parent_id": call}
    pay |= {"start_time": now + 0.2, "end_time": now + 0.7, "cause": {"exceptions": exceptions}}
    issuer = part | {"id": lost, "name": "issuer", "namespace": "remote"}
    issuer |= {"start_time": now + 0.3, "end_time": now + 0.6, "cause": exceptions[2]["id"]}
    return [
        shop | {"subsegments": calls, "cause": exceptions[0]["id"]},
        pay | {"subsegments": [issuer]},
    ]


def open_trace(page, documents, query=""):
    """Puts the documents and opens their trace."""
    page.put(documents)
    page.open(f"#/trace/{documents[0]['trace_id']}{query}")
    page.wait(lambda: page.js(SELECTED), "no row is selected")


def test_a_trace_opens_on_what_failed_and_goes_from_error_to_error(page):
    documents = failing(time.time())
    open_trace(page, documents)
    assert page.js(SELECTED) == "issuer"
    page.wait_for_text(".failures", "4 errors")
    seen = []
    for _ in range(4):
        page.press("e")
        seen.append(page.js(SELECTED))
    assert seen == ["shop", "payments", "payments", "issuer"]
    page.press("E")
    assert page.js(SELECTED) == "payments"
    page.click(".failures")
    assert page.js(SELECTED) == "issuer"
    # An address with a row opens on this row.
    root = documents[0]["id"]
    page.open(f"#/trace/{documents[0]['trace_id']}?at={root}")
    page.wait(lambda: page.js(SELECTED) == "shop", "not the row of the address")
    # A trace without a failure opens on its root.
    open_trace(page, [named("calm", time.time())])
    assert page.js(SELECTED) == "calm"
    assert page.texts(".failures") == []


def test_all_exceptions_are_listed_with_stacks_and_lead_to_their_rows(page):
    open_trace(page, failing(time.time()))
    page.click(".segment", "Exceptions")
    page.wait_for_count(".exception-entry", 3)
    text = "\n".join(page.texts(".exception-entry"))
    for number, kind in enumerate(["CardDeclined", "UpstreamTimeout", "ConnectionReset"], 1):
        assert kind in text and f"message {number}" in text and f"pay/{kind}.py:7" in text
    [first, second, third] = page.texts(".exception-where")
    assert "Recorded by payments" in first and "Passed on by shop" in first
    assert "Passed on" not in second and "Passed on by issuer" in third
    notes = page.texts(".exception-notes")
    assert notes == ["cause of the exception above"] * 2
    copied = page.copied(lambda: page.click(".exception-entry .copy"))
    assert copied == "CardDeclined: message 1\n    at work (pay/CardDeclined.py:7)"
    assert "view=exceptions" in page.fragment()
    page.click(".exception-entry .link", "issuer")
    page.wait(lambda: page.js(SELECTED) == "issuer", "the row is not selected")
    page.wait_for_text(".details-title", "issuer")
    page.press("x")
    page.wait_for_count(".exception-entry", 3)
    page.press("x")
    page.wait(lambda: page.texts(".waterfall") != [], "no timeline")


def axis(page):
    """Returns the box of the time axis: left, top, width."""
    return page.js("""
        const box = document.querySelector(".ticks").getBoundingClientRect();
        return [box.left, box.top, box.width];
    """)


def drag(page, x, y, by):
    """Presses the pointer at a position of the page, moves it to the right, and releases it."""
    actions = ActionChains(page.driver)
    actions.w3c_actions.pointer_action.move_to_location(round(x), round(y))
    actions.w3c_actions.pointer_action.pointer_down()
    actions.w3c_actions.pointer_action.move_to_location(round(x + by / 2), round(y))
    actions.w3c_actions.pointer_action.move_to_location(round(x + by), round(y))
    actions.w3c_actions.pointer_action.pointer_up()
    actions.perform()


def near(page, span, expected):
    """Whether a bar has this start and end, as shares of the axis, within two pixels."""
    left, right, width = span
    return abs(left - expected[0]) <= 2.5 / width and abs(right - expected[1]) <= 2.5 / width


def test_the_time_axis_is_zoomed_and_moved_by_keys_wheel_and_drags(page):
    now = time.time()
    documents = failing(now)
    open_trace(page, documents)
    shop, issuer = documents[0]["id"], documents[1]["subsegments"][0]["id"]
    assert near(page, bars(page)[issuer], (0.3, 0.6))
    # `z` makes the selected bar, from 0.3 to 0.6 s, as wide as the axis with room for a tenth.
    page.press("z")
    left, right, width = bars(page)[issuer]
    assert near(page, (left, right, width), (1 / 12, 11 / 12))
    assert page.js("return document.querySelector('.overview').classList.contains('is-zoomed')")
    first, last = (float(text.split()[0]) for text in (page.js(TICKS)[0], page.js(TICKS)[-1]))
    assert 270 <= first < last <= 630
    # Shift with an arrow moves the axis by a quarter. The bar is cut off at the edge.
    page.driver.execute_script(press("ArrowRight").replace("{key:", "{shiftKey: true, key:"))
    assert near(page, bars(page)[issuer], (-0.02, 11 / 12 - 0.25))
    # A drag moves it back, and is no click on another row.
    x, y, width = axis(page)
    drag(page, x + width * 0.3, y + 42, width * 0.25)
    assert near(page, bars(page)[issuer], (1 / 12, 11 / 12))
    assert page.js(SELECTED) == "issuer"
    page.press("0")
    assert near(page, bars(page)[shop], (0, 1))
    # A drag in the heading looks at a part: here at the second half.
    drag(page, x + width * 0.5, y + 14, width * 0.5)
    shares = bars(page)[shop]
    assert abs(shares[1] - 1) < 0.02
    seen = page.js("return parseFloat(document.querySelector('.overview-window').style.left)")
    assert abs(seen - 50) < 1
    # The wheel with Ctrl zooms out around the pointer.
    page.js(
        """
        const it = document.querySelector(".waterfall");
        const box = document.querySelector(".ticks").getBoundingClientRect();
        for (let step = 0; step < 40; step += 1) {
            it.dispatchEvent(new WheelEvent("wheel", {ctrlKey: true, deltaY: 100,
                clientX: box.right - 1, clientY: box.top + 60, cancelable: true}));
        }
        """
    )
    assert near(page, bars(page)[shop], (0, 1))
    page.press("+")
    assert page.js("return document.querySelector('.overview').classList.contains('is-zoomed')")
    page.click("[aria-label^='Show all of the time']")
    assert near(page, bars(page)[shop], (0, 1))


@pytest.mark.parametrize(
    "window, act, expected",
    [
        ({"from": 0, "to": 10}, ("zoomed", 2, 4, 10), (2, 7)),
        ({"from": 2, "to": 7}, ("zoomed", 0.5, 4, 10), (0, 10)),
        ({"from": 0, "to": 10}, ("zoomed", 1e12, 10, 10), (10 - 10 / 50_000, 10)),
        ({"from": 2, "to": 7}, ("moved", 100, 10), (5, 10)),
        ({"from": 2, "to": 7}, ("moved", -1, 10), (1, 6)),
        ({"from": 0, "to": 0}, ("zoomed", 2, 0, 0), (0, 0)),
    ],
)
def test_the_window_never_leaves_the_axis(page, window, act, expected):
    page.open()
    name, *arguments = act
    found = page.call("trace/window.js", name, window, *arguments)
    assert (found["from"], found["to"]) == pytest.approx(expected)


def test_bars_have_the_colour_of_their_service_and_the_sign_of_their_state(page):
    documents = failing(time.time())
    documents.append(
        named("other", time.time(), trace_id=documents[0]["trace_id"], error=True, throttle=True)
    )
    open_trace(page, documents)
    rows = page.js("""
        return [...document.querySelectorAll(".wf-row[data-node-id]")].filter((it) => !it.hidden)
            .map((it) => [it.querySelector(".wf-name").textContent, it.dataset.service,
                getComputedStyle(it.querySelector(".wf-bar")).backgroundColor,
                it.querySelector(".wf-mark").textContent]);
    """)
    services = {}
    for name, service, colour, mark in rows:
        services.setdefault(service, set()).add(colour)
        assert mark == {"cart": "", "other": "‖"}.get(name, "\u00d7"), name
    assert sorted(services) == ["0", "1", "2"]
    of_segments = {row[0]: row[2] for row in rows if row[0] in ("shop", "other")}
    assert len(set(of_segments.values())) == 2
    assert page.texts(".services-legend li") == ["shop", "payments", "other"]


def test_a_trace_is_downloaded_as_batch_get_traces_prints_it(page, sandbox, tmp_path):
    documents = failing(time.time())
    page.driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)}
    )
    open_trace(page, documents)
    page.click("[aria-label^='Download the trace']")
    trace_id = documents[0]["trace_id"]
    file = tmp_path / f"trace-{trace_id}.json"
    page.wait(file.exists, "there is no file")
    client = xray_client(sandbox.url, ACCESS_KEY, SECRET_KEY)
    answer = client.batch_get_traces(TraceIds=[trace_id])
    assert json.loads(file.read_text())["Traces"] == answer["Traces"]
    texts = [json.loads(segment["Document"]) for segment in answer["Traces"][0]["Segments"]]
    assert texts == documents


def test_two_thousand_subsegments_stay_smooth_and_are_zoomed(page):
    documents = page_traces.wide(time.time(), 2000)
    page.put(documents)
    page.open(f"#/trace/{documents[0]['trace_id']}")
    page.wait_for_text(".wf-name", "wide")
    assert int(page.js("return document.querySelector('.waterfall').ariaRowCount")) > 2000
    acts = {
        "next row": press("j"),
        "last row": press("End"),
        "zoom to the row": press("z"),
        "zoom out": press("-"),
        "all of the time": press("0"),
        "scroll": "document.querySelector('.waterfall').scrollTop = 20000",
        "first row": press("Home"),
        "collapse": press("ArrowLeft"),
        "expand": press("ArrowRight"),
    }
    check_smooth(page, acts)
    page.press(Keys.END, "z")
    # The bar of an item of 0.8 ms is as wide as the axis, of two seconds before.
    shares = page.js("""
        const row = document.querySelector(".wf-row[aria-selected=true]");
        const track = row.querySelector(".track").getBoundingClientRect();
        return row.querySelector(".wf-bar").getBoundingClientRect().width / track.width;
    """)
    assert 0.8 < shares < 0.87
