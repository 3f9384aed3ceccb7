"""The sandbox's page in a real browser: the list of traces, and the parts that all views share.

In: traces sent through the API and through UDP, and user input. Out: the content of the page.
"""

import json
import time

import page_traces
import pytest
from browser import ACCESS_KEY, SECRET_KEY
from page_traces import named
from selenium.webdriver.common.keys import Keys


def test_an_empty_sandbox_shows_how_to_point_each_sdk_at_it(page, sandbox):
    page.open()
    page.wait_for_text(".guide h1", "Waiting for the first trace")
    udp, tcp = ("{}:{}".format(*address) for address in (sandbox.udp, sandbox.tcp))
    page.wait_for_text(".guide", udp)
    variable = f'export AWS_XRAY_DAEMON_ADDRESS="tcp:{tcp} udp:{udp}"'
    for sdk in ["Python", "Node.js", "Java", "Go", ".NET", "Ruby"]:
        page.click(".guide-tab", sdk)
        assert variable in page.texts(".snippet pre"), sdk
    page.picture("empty")
    page.click(".guide-tab", "AWS CLI")
    text = "\n".join(page.texts(".snippet pre"))
    assert sandbox.url in text and ACCESS_KEY in text and SECRET_KEY in text
    page.click(".guide-tab", "Python")
    assert page.copied(lambda: page.click("[aria-label='Copy: Environment']")) == variable


def test_a_trace_that_comes_through_udp_is_on_the_page_by_itself(page, sandbox):
    page.open()
    page.wait_for_text(".connection-text", "Live")
    document = json.dumps(named("just now", time.time())).encode()
    sandbox.send([page_traces.HEADER + document])
    page.wait_for_text(".trace-row .name", "just now")
    sandbox.wait_until_sent(1)


def test_the_page_asks_twice_a_second_and_less_often_where_nobody_looks_or_answers(page):
    page.open()

    def delay(hidden, failures):
        return page.call(
            "shared/live.js", "pollDelay", {"hidden": hidden, "failureCount": failures}
        )

    assert [delay(False, failures) for failures in (0, 1, 2, 3, 1000)] == [
        500,
        1000,
        2000,
        4000,
        5000,
    ]
    assert [delay(True, failures) for failures in (0, 1000)] == [5000, 5000]


def test_new_traces_do_not_move_the_selected_row(page):
    now = time.time()
    page.put([named(f"old {index:03}", now - 500 + index) for index in range(100)])
    page.open()
    page.wait_for_text(".name", "old 099")
    page.press("j", "j", "j")
    selected = "return document.querySelector('.trace-row[aria-selected=true]')"
    before = page.js(f"{selected}.getBoundingClientRect().y")
    assert page.js(f"{selected}.querySelector('.name').textContent") == "old 097"
    page.put([named(f"new {index}", now + index) for index in range(5)])
    page.wait_for_text(".newer", "5 new traces")
    assert page.js(f"{selected}.getBoundingClientRect().y") == before
    assert page.js(f"{selected}.querySelector('.name').textContent") == "old 097"
    page.click(".newer")
    page.wait_for_text(".name", "new 4")


def test_a_paused_list_stands_still_and_says_what_has_come(page):
    now = time.time()
    page.put([named("first", now)])
    page.open()
    page.wait_for_text(".name", "first")
    page.press("p")
    page.put([named("second", now + 1)])
    page.wait_for_text(".status-text", "Paused, 1 more since")
    assert page.rows() == ["first"]
    page.press("p")
    page.wait_for_count(".virtual-row", 2)
    assert page.rows() == ["second", "first"]


def test_words_chips_and_durations_filter_and_are_in_the_address(page):
    now = time.time()
    http = page_traces.http
    page.put(
        [
            named("alpha", now, http=http("GET", "http://h/tea", 200), user="ana"),
            named(
                "beta",
                now + 1,
                http=http("PUT", "http://h/cup", 404),
                error=True,
                annotations={"size": "large"},
            ),
            named(
                "gamma",
                now + 2,
                end_time=now + 9,
                http=http("GET", "http://h/tea", 503),
                fault=True,
            ),
            named(
                "delta", now + 3, http=http("GET", "http://h/pot", 429), error=True, throttle=True
            ),
        ]
    )
    page.open()
    page.wait_for_count(".virtual-row", 4)
    assert page.rows() == ["delta", "gamma", "beta", "alpha"]
    for words, rows in [
        ("tea", ["gamma", "alpha"]),
        ("get TEA ana", ["alpha"]),
        ("size=large", ["beta"]),
        ('"get ana"', []),
        ("503", ["gamma"]),
    ]:
        page.fill("#filter", words)
        page.wait(lambda: page.rows() == rows, f"not {rows} for {words}")
        page.wait_for_text(".filter-mode", "text")
    page.click(".button", "Clear")
    for chip, rows in [
        ("Errors", ["delta", "beta"]),
        ("Faults", ["gamma"]),
        ("Throttles", ["delta"]),
        ("4xx", ["delta", "beta"]),
        ("2xx", ["alpha"]),
    ]:
        page.click(".chip", chip)
        page.wait(lambda: page.rows() == rows, f"not {rows} for {chip}")
        page.click(".chip", chip)
    page.fill(".min-input", "2.5 s")
    page.wait(lambda: page.rows() == ["gamma"], "not the long one")
    page.wait(lambda: page.fragment() == "#/traces?min=2.5+s", "not in the address")
    page.open("#/traces?q=h&status=4xx,5xx&flags=error&sort=name")
    page.wait(lambda: page.rows() == ["beta", "delta"], "the address does not count")
    assert page.js("return document.querySelector('#filter').value") == "h"


def test_an_expression_is_evaluated_by_the_sandbox_and_a_bad_one_explained(page):
    now = time.time()
    page.put(
        [
            named("slow", now, end_time=now + 4),
            named("quick", now + 1),
            named("failed", now + 2, fault=True, annotations={"size": "large"}),
        ]
    )
    page.open()
    page.wait_for_count(".virtual-row", 3)
    for expression, rows in [
        ("fault", ["failed"]),
        ("duration > 2", ["slow"]),
        ('annotation.size = "large"', ["failed"]),
        ('service("quick") OR responsetime > 2', ["quick", "slow"]),
    ]:
        page.fill("#filter", expression)
        page.wait_for_text(".filter-mode", "expression")
        page.wait(lambda: page.rows() == rows, f"not {rows} for {expression}")
    # The filter also applies to traces that arrive later.
    page.put([named("slow as well", now + 3, end_time=now + 9), named("other", now + 4)])
    page.wait(lambda: page.rows() == ["slow as well", "quick", "slow"], "not only the new one")
    page.fill("#filter", "duration > > 2")
    page.wait_for_text(".filter-message", "At character 12: a number is missing.")
    assert page.rows() != []


def test_everything_works_from_the_keyboard_and_back_leads_back(page):
    now = time.time()
    page.put([named("one", now), named("two", now + 1)])
    page.open("#/traces?sort=name")
    page.wait_for_count(".virtual-row", 2)
    page.press("j", Keys.ARROW_DOWN, Keys.ENTER)
    page.wait_for_text(".trace-title h1", "two")
    page.press("[")
    page.wait_for_text(".trace-title h1", "one")
    page.driver.back()
    page.wait_for_text(".trace-title h1", "two")
    page.press("r")
    page.wait_for_text(".raw-text", '"name":"two"')
    page.press(Keys.ESCAPE)
    page.wait_for_count(".trace-row:not(.heading)", 2)
    assert page.fragment() == "#/traces?sort=name"
    for key, title in [
        ("2", "Service map"),
        ("3", "Sampling rules"),
        ("4", "Refused documents"),
        ("c", "Connect"),
        ("1", "Traces"),
    ]:
        page.press(key)
        page.wait(lambda: page.driver.title.startswith(title), f"{key} does not lead to {title}")
    page.press("?")
    page.wait_for_text("dialog", "List of traces".upper())
    page.picture("help")
    page.press(Keys.ESCAPE, "/", "one")
    page.wait(lambda: page.rows() == ["one"], "the filter has not the keyboard")


def test_evicted_traces_leave_the_list_the_oldest_first(page):
    traces = [
        {"id": f"1-{index}", "revision": index, "name": f"trace {index}", "start_time": 9 - index}
        for index in range(1, 5)
    ]
    store = {"trace_count": 2, "document_count": 2, "size_bytes": 1, "evicted_trace_count": 2}
    answer = {"revision": 4, "store": store, "gone": False, "traces": traces}
    page.open(answers={"/api/traces": answer})
    page.wait(lambda: page.rows() == ["trace 3", "trace 4"], "not the two changed last")
    page.wait_for_text(".status-text", "2 older traces evicted")


def test_a_filter_that_is_being_typed_does_not_follow_into_another_view(page):
    page.put([named("one", time.time()), named("two", time.time())])
    page.open()
    page.wait_for_count(".virtual-row", 2)
    page.press("/", "one", Keys.ENTER, Keys.ENTER)
    page.wait(lambda: page.fragment().startswith("#/trace/"), "no trace is open")
    # 400 ms is longer than the page waits for further typing before it applies the filter.
    page.driver.execute_async_script("setTimeout(arguments[0], 400)")
    assert page.fragment().startswith("#/trace/")
    page.press(Keys.ESCAPE)
    page.wait(lambda: page.fragment() == "#/traces?q=one", "the filter is lost")


def test_when_the_sandbox_is_gone_the_page_says_so_and_finds_another_one(page):
    page.put([named("known", time.time())])
    page.open()
    page.wait_for_count(".virtual-row", 1)
    refuse = "window.kept = fetch; window.fetch = () => Promise.reject(new TypeError('gone'))"
    page.js(refuse)
    page.wait_for_text(".connection-text", "No answer")
    assert page.rows() == ["known"]
    # From now on the page gets the answers of a new sandbox, which counts its revisions from the
    # beginning.
    page.js("""
        window.fetch = async (path) => new Response(JSON.stringify(path.includes("since=0")
            ? {revision: 1, store: {trace_count: 1, document_count: 1, size_bytes: 1}, gone: false,
               traces: [{id: "1-1-1", revision: 1, name: "another", start_time: 1}]}
            : {revision: 0, store: {trace_count: 0}, gone: true, traces: []}))
    """)
    page.wait(lambda: page.rows() == ["another"], "the page did not start over")


def luminance(page, selector, name):
    """Returns the luminance of an element's colour, from 0 to 1."""
    red, green, blue = page.js(
        """
        const canvas = document.createElement("canvas").getContext("2d");
        canvas.fillStyle = getComputedStyle(document.querySelector(arguments[0]))[arguments[1]];
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
    """,
        selector,
        name,
    )

    def linear(value):
        value /= 255
        return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4

    return 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue)


def contrast(one, other):
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


def test_light_and_dark_follow_the_system_and_then_the_button(page):
    page.put(page_traces.shop(time.time(), 30))
    page.prefer("dark")
    page.open()
    page.wait_for_text(".name", "shop.example")
    back = lambda: luminance(page, "body", "backgroundColor")
    assert back() < 0.05
    page.picture("list-dark")
    page.prefer("light")
    page.wait(lambda: back() > 0.8, "it does not follow the system")
    page.picture("list")
    page.press("t", "t")
    page.wait(lambda: back() < 0.05, "it is not dark")
    page.open()
    page.wait(lambda: back() < 0.05, "it has forgotten the choice")
    page.press("t")
    page.wait(lambda: back() > 0.8, "it does not follow the system again")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_what_they_are_on(page, scheme):
    page.put(page_traces.shop(time.time(), 30))
    page.prefer(scheme)
    page.open()
    page.wait_for_text(".name", "shop.example")
    surface = luminance(page, ".list-body", "backgroundColor")
    for selector in [
        ".name",
        ".url",
        ".method",
        ".duration",
        ".start",
        ".heading button",
        ".status[data-class='2xx']",
        ".flag.fault",
        ".flag.throttle",
        ".status-text",
    ]:
        assert contrast(luminance(page, selector, "color"), surface) >= 4.5, selector


def test_every_control_has_a_name_and_every_row_a_role(page):
    page.put(page_traces.shop(time.time(), 10))
    for fragment in ["", "#/map", "#/rules", "#/refused", "#/connect"]:
        page.open(fragment)
        page.wait_for_text(".connection-text", "10 traces")
        nameless = page.js("""
            return [...document.querySelectorAll("button, a, input, select, [tabindex='0']")]
                .filter((it) => it.checkVisibility() && !it.labels?.length
                    && !it.getAttribute("aria-label") && !it.textContent.trim())
                .map((it) => it.outerHTML);
        """)
        assert nameless == [], fragment
    page.open()
    page.wait_for_text(".name", "shop.example")
    page.press("j")
    active = page.js("""
        const grid = document.activeElement;
        return document.getElementById(grid.getAttribute("aria-activedescendant")).ariaSelected;
    """)
    assert active == "true"


def test_small_windows_are_used_to_the_edge_and_not_beyond(page):
    documents = page_traces.shop(time.time(), 10)
    page.put(documents)
    for width, height in [(900, 700), (480, 700)]:
        page.resize(width, height)
        for fragment in ["", f"#/trace/{documents[0]['trace_id']}", "#/map", "#/rules"]:
            page.open(fragment)
            page.wait_for_text("main", "shop.example" if fragment != "#/rules" else "Default")
            assert page.js("return document.documentElement.scrollWidth") <= width, fragment


def press(key):
    """Returns a script that presses a key."""
    return f"document.dispatchEvent(new KeyboardEvent('keydown', {{key: '{key}'}}))"


#: The largest number of elements that one action may create or change. It allows for the elements
#: on the screen, but not for all rows of a list. The time of an action depends on the machine, so
#: it is only printed.
CHANGE_COUNT_MAX = 2000


def check_smooth(page, acts):
    """Runs all actions. Fails if one of them changes more elements than fit on the screen."""
    figures = {name: page.measure(act) for name, act in acts.items()}
    shown = [f"{name} {ms:.0f} ms, {count} changes" for name, (ms, count) in figures.items()]
    print("; ".join(shown))
    assert all(count < CHANGE_COUNT_MAX for _, count in figures.values()), figures
    assert page.js("return document.querySelectorAll('.virtual-row').length") < 100


def test_five_thousand_traces_stay_smooth(page):
    page.put(page_traces.many(time.time(), 5000))
    page.open()
    page.wait_for_text(".status-text", "5,000 traces")
    acts = {
        "next row": press("j"),
        "page down": press("PageDown"),
        "last row": press("End"),
        "first row": press("Home"),
        "scroll": "document.querySelector('.trace-list').scrollTop = 80000",
        "sort": "document.querySelector('.heading button').click()",
        "chip": "document.querySelector('.chip.fault').click()",
        "chip off": "document.querySelector('.chip.fault').click()",
    }
    check_smooth(page, acts)
