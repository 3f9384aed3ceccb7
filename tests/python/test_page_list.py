"""The list of traces in a real browser: search, links, bars, the selected row, and time ranges.

In: traces, and the input of a user. Out: the rows of the list. Screenshots of three widths and both
colour schemes are kept.
"""

import json
import time

import page_traces
from page_traces import named
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

SELECTED = "return document.querySelector('.trace-row[aria-selected=true]')"

#: Whether the selected row is wholly between the heading and the lower edge of the list.
IS_SEEN = """
    const row = document.querySelector('.trace-row[aria-selected=true]');
    if (!row || row.hidden) return false;
    const heading = document.querySelector('.trace-row.heading').getBoundingClientRect();
    const list = document.querySelector('.trace-list').getBoundingClientRect();
    const { top, bottom } = row.getBoundingClientRect();
    return top >= heading.bottom - 1 && bottom <= list.bottom + 1;
"""


def pictures(page, name):
    """Saves pictures of the page in three widths and both colour schemes."""
    for scheme in ("light", "dark"):
        page.prefer(scheme)
        for width, height in [(1400, 900), (800, 800), (400, 760)]:
            page.resize(width, height)
            page.driver.execute_async_script("requestAnimationFrame(() => arguments[0]())")
            page.picture(f"{name}-{width}-{scheme}")
            assert page.js("return document.documentElement.scrollWidth") <= width
    page.prefer("light")
    page.resize(1440, 900)


def part(name, start, **fields):
    """Returns a subsegment."""
    span = {"id": "70de5b6f19ff9a0b", "name": name, "start_time": start, "end_time": start + 0.05}
    return span | fields


def of_a_shop(now):
    """Returns three traces that differ in an exception, a query and the name of a subsegment."""
    declined = {"id": "e", "type": "CardDeclined", "message": "the issuer said no"}
    cause = {"working_directory": "/srv", "exceptions": [declined]}
    return [
        named(
            "checkout",
            now,
            annotations={"customer": "returning"},
            subsegments=[part("charge", now, fault=True, cause=cause)],
        ),
        named(
            "search",
            now + 1,
            subsegments=[part("db", now, sql={"sanitized_query": "SELECT price FROM cups"})],
        ),
        named(
            "cart",
            now + 2,
            annotations={"customer": "new"},
            subsegments=[part("recalculate-vat", now)],
        ),
    ]


def test_words_find_exceptions_sql_and_names_of_subsegments_and_show_where(page):
    page.put(of_a_shop(time.time()))
    page.open()
    page.wait_for_count(".virtual-row", 3)
    for words, rows, hit in [
        ("ISSUER", ["checkout"], "exception CardDeclined: the issuer said no"),
        ("carddeclined checkout", ["checkout"], "exception CardDeclined: the issuer said no"),
        ("from cups", ["search"], "sql SELECT price FROM cups"),
        ("recalculate", ["cart"], "name recalculate-vat"),
        ("customer=new", ["cart"], "annotation customer=new"),
        ("cart", ["cart"], None),
        ("cups issuer", [], None),
    ]:
        page.fill("#filter", words)
        page.wait(lambda: page.rows() == rows, f"not {rows} for {words}")
        page.wait_for_text(".filter-mode", "text")
        hits = [hit] if hit else []
        shown = lambda: [" ".join(text.split()) for text in page.texts(".hit")]
        page.wait(lambda: shown() == hits, f"not {hits} for {words}")
    page.fill("#filter", "issuer")
    page.wait_for_text(".hit mark", "issuer")
    pictures(page, "list-search")


def test_expressions_work_as_in_the_api_and_what_is_missing_is_said(page):
    page.put(of_a_shop(time.time()))
    page.open()
    page.wait_for_count(".virtual-row", 3)
    for expression, rows in [
        ("annotation.customer", ["cart", "checkout"]),
        ('annotation.customer = "new"', ["cart"]),
        ("!annotation.customer", ["search"]),
        ("service(id(name: 'cart'))", ["cart"]),
    ]:
        page.fill("#filter", expression)
        page.wait(lambda: page.rows() == rows, f"not {rows} for {expression}")
        page.wait_for_text(".filter-mode", "expression")
        assert page.texts(".filter-message") == []
    type_at_once(page, "annotation.customer = 'new'")
    page.wait(lambda: page.rows() == ["cart"], "not the one")
    for expression, message in [
        ("rootcause.fault.service = 'a'", "does not have rootcause.fault.service"),
        ("group.name = 'a'", "does not have group.name"),
        ("customer = 'new'", "write annotation.customer"),
    ]:
        type_at_once(page, expression)
        page.wait_for_text(".filter-message", message)
        assert page.rows() == ["cart"], "the list has changed"


def type_at_once(page, text):
    """Puts a text into the search box without the texts on the way."""
    page.js(
        """
        const input = document.querySelector('#filter');
        input.value = arguments[0];
        input.dispatchEvent(new Event('input', { bubbles: true }));
        """,
        text,
    )


def test_a_half_typed_expression_keeps_the_list(page):
    page.put(of_a_shop(time.time()))
    page.open()
    page.wait_for_count(".virtual-row", 3)
    page.js("""
        performance.setResourceTimingBufferSize(5000);
        window.least = 9;
        const count = () => document.querySelectorAll('.virtual-row:not([hidden])').length;
        new MutationObserver(() => (window.least = Math.min(window.least, count())))
            .observe(document, { subtree: true, childList: true, attributes: true });
    """)
    # Each text on the way is words, a broken expression, or one that no trace matches.
    expression = 'responsetime > 0.01 AND annotation.customer = "new"'
    for end in [*range(1, 20), *range(20, len(expression), 3)]:
        type_at_once(page, expression[:end])
        # The mode is shown when the sandbox has answered for this text.
        page.wait(
            lambda text=expression[:end]: page.js(
                "return performance.getEntriesByType('resource').some((it) =>"
                " it.name.includes('/api/search?q=' + new URLSearchParams({q: arguments[0]})"
                ".toString().slice(2) + '&'))",
                text.strip(),
            ),
            f"no search for {expression[:end]}",
        )
    assert page.js("return window.least") >= 1
    type_at_once(page, expression)
    page.wait(lambda: page.rows() == ["cart"], "the whole expression does not filter")
    type_at_once(page, expression + " AND")
    page.wait_for_text(".filter-message", "The list has not changed")
    assert page.rows() == ["cart"]
    # New traces are judged by the expression that the list is of.
    now = time.time() + 5
    page.put([named("late", now, annotations={"customer": "new"}), named("other", now)])
    page.wait(lambda: page.rows() == ["late", "cart"], "not the new one")
    pictures(page, "list-half-typed")


def test_rows_are_links_that_open_in_another_tab(page):
    documents = [named("one", time.time()), named("two", time.time() + 1)]
    page.put(documents)
    page.open()
    page.wait_for_count(".virtual-row", 2)
    links = page.js(
        "return [...document.querySelectorAll('.virtual-row')].map((it) =>"
        " [it.tagName, it.querySelector('.name').textContent, it.getAttribute('href')]).sort()"
    )
    assert links == [["A", it["name"], f"#/trace/{it['trace_id']}"] for it in documents]
    before = page.fragment()
    row = page.js("return document.querySelector('.virtual-row')")
    own = page.driver.current_window_handle
    chain = ActionChains(page.driver).key_down(Keys.CONTROL)
    chain.click(row).key_up(Keys.CONTROL).perform()
    page.wait(lambda: len(page.driver.window_handles) == 2, "no tab")
    assert page.fragment() == before
    [other] = set(page.driver.window_handles) - {own}
    page.driver.switch_to.window(other)
    page.wait(lambda: page.fragment().startswith("#/trace/1-"), "not the trace")
    page.driver.close()
    page.driver.switch_to.window(own)
    page.press("j", Keys.ENTER)
    page.wait(lambda: page.fragment().startswith("#/trace/1-"), "Enter does not open the trace")


def test_one_slow_trace_does_not_flatten_the_bars_of_the_others(page):
    now = time.time()
    lengths = {f"usual {n}": 0.05 + 0.01 * n for n in range(10)} | {"slow": 60}
    page.put([named(name, now, end_time=now + length) for name, length in lengths.items()])
    page.open()
    page.wait_for_count(".virtual-row", 11)
    widths = page.js("""
        return Object.fromEntries([...document.querySelectorAll('.virtual-row')].map((row) => {
            const fill = row.querySelector('.meter-fill');
            const part = fill.getBoundingClientRect().width / fill.parentElement.clientWidth;
            return [row.querySelector('.name').textContent,
                    [part, fill.classList.contains('is-beyond')]];
        }));
    """)
    assert widths["slow"] == [1, True]
    for name, length in list(lengths.items())[:-1]:
        part, is_beyond = widths[name]
        # The scale is linear and ends soon after the longest of the usual traces.
        assert abs(part - length / (1.25 * 0.14)) < 0.03 and not is_beyond, (name, part)


def test_the_scale_ends_at_the_longest_trace_that_is_not_alone(page):
    page.open()
    for durations, expected in [
        ([], 0),
        ([None, 0], 0),
        ([2], 2),
        ([1, 2], 2),
        ([1, 2, 3, 4], 4),
        ([0.05, 0.06, 5], 0.075),
        ([1] * 50 + [10] * 50, 10),
    ]:
        found = page.call("list/scale.js", "fullBar", durations)
        assert abs(found - expected) < 1e-9, (durations, found)


def test_the_selected_row_stays_on_the_screen(page):
    now = time.time()
    page.put([named(f"trace {n:03}", now - n, end_time=now - n + n % 7 + 1) for n in range(200)])
    page.open()
    page.wait_for_text(".name", "trace 000")
    for keys in ["j" * 30, Keys.PAGE_DOWN, Keys.END, "kkk", Keys.PAGE_UP]:
        page.press(*keys)
        page.wait(lambda: page.js(IS_SEEN), f"not seen after {keys!r}")
    name = page.js(f"{SELECTED}.querySelector('.name').textContent")

    def is_seen_still():
        same = page.js(f"{SELECTED}?.querySelector('.name').textContent") == name
        return same and page.js(IS_SEEN)

    page.click(".heading button", "Duration")
    page.wait(is_seen_still, "sorting moves it off the screen")
    page.click(".heading button", "Start")
    page.click(".heading button", "Start")
    page.wait(is_seen_still, "the other order moves it off the screen")
    page.resize(1000, 400)
    page.wait(is_seen_still, "a small window hides it")
    page.resize(1440, 900)
    page.js("document.querySelector('.trace-list').focus()")
    page.press(Keys.ENTER)
    page.wait(lambda: page.fragment().startswith("#/trace/"), "no trace is open")
    page.press("]", Keys.ESCAPE)
    page.wait(lambda: page.js(IS_SEEN), "it is off the screen after a trace")


def test_a_time_range_is_chosen_from_a_list_by_dragging_and_in_the_address(page):
    now = time.time()
    ages = {"now": 2, "minutes": 200, "hour": 2_000, "old": 50_000}
    page.put([named(name, now - age) for name, age in ages.items()])
    page.open()
    page.wait_for_count(".virtual-row", 4)
    select = "const it = document.querySelector('.time-choice select');"
    choose = f"{select} it.value = arguments[0]; it.dispatchEvent(new Event('change'))"
    for value, rows in [
        ("1m", ["now"]),
        ("5m", ["now", "minutes"]),
        ("1h", ["now", "minutes", "hour"]),
        ("24h", ["now", "minutes", "hour", "old"]),
    ]:
        page.js(choose, value)
        page.wait(lambda: page.rows() == rows, f"not {rows} for {value}")
        assert page.fragment() == f"#/traces?t={value}"
    page.click("[aria-label='Show all times']")
    page.wait_for_count(".virtual-row", 4)
    # The bars are of all times, so the old trace is at the left edge, and the others at the right.
    plot = page.js("return document.querySelector('.time-plot')")
    width = plot.size["width"]
    chain = ActionChains(page.driver).move_to_element_with_offset(plot, -width // 2 + 1, 0)
    chain.click_and_hold().move_by_offset(width // 2, 0).release().perform()
    page.wait(lambda: page.rows() == ["old"], "dragging does not choose")
    start, _, end = page.fragment().removeprefix("#/traces?t=").partition("-")
    assert float(start) <= now - 50_000 < float(end) < now - 2_000
    page.wait(lambda: page.js(f"{select} return it.value") == "custom", "not shown as chosen")
    pictures(page, "list-time")
    page.open(f"#/traces?t={now - 2_500:.3f}-{now - 100:.3f}")
    page.wait(lambda: page.rows() == ["minutes", "hour"], "the address does not count")
    page.click(".button", "Clear")
    page.wait_for_count(".virtual-row", 4)


def test_a_range_in_the_address_is_understood_or_ignored(page):
    page.open()
    for text, expected in [
        ("", None),
        ("5m", {"from": 9_700, "to": None}),
        ("2d", {"from": 10_000 - 172_800, "to": None}),
        ("100-200.5", {"from": 100, "to": 200.5}),
        ("200-100", {"from": 100, "to": 200}),
        ("5y", None),
        ("-5m", None),
        ("100-", None),
        ("1e9-2e9", None),
    ]:
        # JSON has no infinity, so the open end is None.
        assert page.call("list/timerange.js", "parseRange", text, 10_000) == expected, text


def test_every_trace_of_a_time_is_in_one_bar(page):
    page.open()
    traces = [{"start_time": 100 + n, "fault": n % 4 == 0} for n in range(11)]
    traces += [{"start_time": 99}, {"start_time": 111}, {"start_time": None}]
    bins = page.call("list/timerange.js", "binsOf", traces, {"from": 100, "to": 110}, 5)
    assert [bin["count"] for bin in bins] == [2, 2, 2, 2, 3]
    assert sum(bin["badCount"] for bin in bins) == 3
    alone = page.call("list/timerange.js", "binsOf", traces[:1], {"from": 100, "to": 100}, 5)
    assert [bin["count"] for bin in alone] == [1, 0, 0, 0, 0]


def test_five_thousand_traces_are_searched_with_few_changes_of_the_page(page):
    page.put(page_traces.many(time.time(), 5000))
    page.open()
    page.wait_for_text(".status-text", "5,000 traces")
    figures = {}
    for text, count in [
        ("items/4999", 1),
        ("http.status = 200 AND duration > 1", None),
        ("", 5000),
    ]:
        ms, changes = page.driver.execute_async_script(
            """
            const [text, done] = arguments;
            const input = document.querySelector('#filter');
            const status = document.querySelector('.status-text');
            const before = status.textContent;
            let changes = 0;
            const start = performance.now();
            const observer = new MutationObserver((records) => {
                changes += records.length;
                if (status.textContent === before) return;
                observer.disconnect();
                requestAnimationFrame(() => setTimeout(() => done([performance.now() - start,
                                                                   changes])));
            });
            observer.observe(document, { subtree: true, childList: true, attributes: true });
            input.value = text;
            input.dispatchEvent(new Event('input', { bubbles: true }));
            """,
            text,
        )
        figures[text] = f"{ms:.0f} ms with the pause for typing, {changes} changes"
        assert changes < 2000, figures
        if count is not None:
            word = "5,000 traces" if count == 5000 else f"{count} of 5,000 traces"
            page.wait_for_text(".status-text", word)
    print(json.dumps(figures))
