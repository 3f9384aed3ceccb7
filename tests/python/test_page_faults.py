"""The sandbox's page in a real browser: what was in the way of its readers.

In: the views at three widths, in light and dark. Out: no focus mark that is cut off, no button over
code, no style of one view in another one, and paths, times and lines that are seen. Each view leaves
its pictures.
"""

import json
import re
import time
from pathlib import Path

import page_traces
import pytest
from browser import ACCESS_KEY
from page_traces import http, named
from selenium.webdriver.common.keys import Keys
from test_page_map import overlap

PAGE = Path(__file__).parent.parent.parent / "sandbox" / "page"

#: Focuses each control, and returns those whose focus mark is cut off by an element around them.
CUT_OFF = """
const controls = "button, a[href], input, select, summary, [tabindex='0']";
const cut = [];
for (const it of document.querySelectorAll(controls)) {
    if (!it.checkVisibility() || it.disabled || it instanceof SVGElement) continue;
    it.focus({focusVisible: true});
    const style = getComputedStyle(it);
    if (document.activeElement !== it || style.outlineStyle === "none") continue;
    const reach = parseFloat(style.outlineWidth) + parseFloat(style.outlineOffset);
    const box = it.getBoundingClientRect();
    const mark = [box.left - reach, box.top - reach, box.right + reach, box.bottom + reach];
    const holders = [];
    for (let at = it.parentElement; at; at = at.parentElement) holders.push(at);
    for (const holder of holders) {
        const {overflowX, overflowY, contain} = getComputedStyle(holder);
        const clips = overflowX !== "visible" || overflowY !== "visible"
            || /paint|strict|content/.test(contain);
        if (!clips && holder !== document.documentElement) continue;
        const own = holder === document.documentElement
            ? {left: 0, top: 0, right: innerWidth, bottom: innerHeight}
            : holder.getBoundingClientRect();
        // A holder that scrolls may have scrolled the control under its edge; its own edges count
        // only where the control itself is inside.
        const sides = [
            [box.left >= own.left && mark[0] < own.left - 0.5, "left"],
            [box.top >= own.top && mark[1] < own.top - 0.5, "top"],
            [box.right <= own.right && mark[2] > own.right + 0.5, "right"],
            [box.bottom <= own.bottom && mark[3] > own.bottom + 0.5, "bottom"],
        ].filter(([isCut]) => isCut).map(([, side]) => side);
        if (sides.length > 0) {
            const name = it.getAttribute("aria-label") || it.textContent.trim().slice(0, 30);
            cut.push(`${it.className || it.tagName} "${name}" in ${holder.className}: ${sides}`);
            break;
        }
    }
}
return cut;
"""

WIDTHS = [(1400, 900), (800, 900), (400, 800)]


@pytest.fixture
def views(page):
    """The fragments of all views by their names, with traces in the sandbox."""
    now = time.time()
    documents = page_traces.Request(
        page_traces.Ids("views"), now - 1, path="/orders/2026/11/30/returns", failing="payments"
    ).documents
    page.put(page_traces.shop(now, 12))
    page.put(documents)
    trace = f"#/trace/{documents[0]['trace_id']}"
    return {
        "list": "",
        "trace": trace,
        "exceptions": f"{trace}?view=exceptions",
        "documents": f"{trace}?view=raw",
        "map": "#/map",
        "rules": "#/rules",
        "connect": "#/connect",
    }


@pytest.mark.parametrize("width, height", WIDTHS)
def test_focus_marks_are_seen_whole_in_each_view(page, views, width, height):
    page.resize(width, height)
    cut = []
    for name, fragment in views.items():
        page.open(fragment)
        ready = {"rules": "Default", "connect": "Connect an application"}
        page.wait_for_text("main", ready.get(name, "shop.example"))
        for scheme in ["dark", "light"]:
            page.prefer(scheme)
            page.picture(f"view-{name}-{width}-{scheme}")
        cut += [f"{name}: {it}" for it in page.js(CUT_OFF)]
        assert page.js("return document.documentElement.scrollWidth") <= width, name
    assert cut == []


def test_no_view_has_the_style_of_another_one(page):
    """A class with a style of its own in the files of two views is a class of two things."""
    found = {}
    for path in sorted(set(PAGE.rglob("*.css")) - set(PAGE.glob("shared/*.css"))):
        text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)
        selectors = re.findall(r"([^{}]+)\{", text)
        alone = {
            name
            for selector in selectors
            for part in selector.split(",")
            for name in re.findall(r"^\s*\.([\w-]+)\s*$", part)
        }
        for name in alone:
            found.setdefault(name, []).append(path.name)
    assert {name: files for name, files in found.items() if len(files) > 1} == {}
    # The selected row of the list has one colour.
    page.put([named("one", time.time()), named("two", time.time())])
    page.open()
    page.wait_for_count(".virtual-row", 2)
    page.press("j")
    colours = page.js("""
        const row = document.querySelector(".trace-row[aria-selected=true]");
        return [...row.children].map((it) => getComputedStyle(it).backgroundColor);
    """)
    assert set(colours) == {"rgba(0, 0, 0, 0)"}


def test_no_button_lies_over_code(page):
    for width, height in WIDTHS:
        page.resize(width, height)
        page.open("#/connect")
        page.wait_for_text(".connect h1", "Connect an application")
        over = page.js("""
            return [...document.querySelectorAll(".code-box")].filter((it) => {
                const [code, button] = [...it.children].map((one) => one.getBoundingClientRect());
                return code.right > button.left + 0.5 || code.width < 200;
            }).length;
        """)
        assert over == 0, width


def test_rules_are_edited_in_a_small_window_too(page):
    page.resize(400, 800)
    page.open("#/rules")
    page.wait_for_text(".rule-edit", "Default")
    for label in ("Edit Default", "Delete Default"):
        box = page.js(
            "return document.querySelector(arguments[0]).getBoundingClientRect().toJSON()",
            f"[aria-label='{label}']",
        )
        assert 0 <= box["left"] < box["right"] <= 400, label
    cells = page.js("""
        return [...document.querySelectorAll(".rules-table tbody td")].map((it) => {
            const box = it.getBoundingClientRect();
            return [box.left, box.top, box.right, box.bottom];
        });
    """)
    for index, one in enumerate(cells):
        assert 0 <= one[0] < one[2] <= 400
        assert not any(overlap(one, other) for other in cells[:index])
    page.click("[aria-label='Edit Default']")
    page.wait_for_text("dialog h2", "Edit Default")


def test_the_path_of_a_url_is_not_cut_off_first(page):
    now = time.time()
    url = "https://a-rather-long-host-name.of-the-shop.example/orders/17?sort=up#top"
    page.put([named("shop", now, http=http("GET", url, 200))])
    for width, height in WIDTHS:
        page.resize(width, height)
        page.open()
        page.wait_for_text(".trace-row .name", "shop")
        cut = page.js("""
            const cell = document.querySelector(".trace-row .url");
            const holder = cell.closest(".cell");
            return [cell.textContent, cell.scrollWidth <= cell.clientWidth || width(cell) <= 0,
                holder.scrollWidth <= holder.clientWidth];
            function width(it) { return it.offsetWidth - it.getClientRects()[0].width; }
        """)
        assert cut[0] == "/orders/17?sort=up#top"
        if width > 400:
            assert cut[2], width
    paths = ["https://h", "http://h?x=1", "/plain", "a:b", "HTTPS://H/Up"]
    found = [page.call("shared/format.js", "pathFirst", url) for url in paths]
    assert found == ["/", "?x=1", "/plain", "a:b", "/Up"]
    page.press("j", Keys.ENTER)
    page.wait_for_text(".trace-title .url", "/orders/17")


def test_a_trace_in_progress_has_no_time_of_zero(page):
    document = named("open", time.time(), in_progress=True)
    del document["end_time"]
    page.put([document])
    for fragment in ["", f"#/trace/{document['trace_id']}", "#/map"]:
        page.open(fragment)
        page.wait(
            lambda: "open" in page.js("return document.querySelector('main').textContent"), ""
        )
        texts = page.js("""
            return [...document.querySelectorAll("main .cell, .trace-facts, .wf-label, .node-time")]
                .map((it) => it.textContent).join("\\n");
        """)
        assert "0 ms" not in texts, fragment
    page.open(f"#/trace/{document['trace_id']}")
    page.wait_for_text(".trace-facts", "in progress")


def test_a_subsegment_of_the_python_sdk_has_no_badge_for_work_of_its_own(page):
    now = time.time()
    part = {"id": "00000000000000aa", "name": "work", "namespace": "local"}
    part |= {"start_time": now, "end_time": now + 0.1}
    document = named("shop", now, subsegments=[part])
    page.put([document])
    page.open(f"#/trace/{document['trace_id']}")
    page.wait_for_text(".wf-name", "work")
    assert page.texts(".ns") == []


def test_the_guide_has_lines_for_containers_and_the_region_for_the_cli(page):
    page.open("#/connect")
    page.click(".guide-tab", "Containers")
    text = "\n".join(page.texts(".snippet pre"))
    assert "xray sandbox -b 0.0.0.0:2000 -t 0.0.0.0:2000 --allow-host xray" in text
    assert "AWS_XRAY_DAEMON_ADDRESS=xray:2000" in text
    page.click(".guide-tab", "AWS CLI")
    text = "\n".join(page.texts(".snippet pre"))
    assert ACCESS_KEY in text
    assert re.search(r"AWS_REGION=([a-z0-9-]+) AWS_DEFAULT_REGION=\1\b", text)


def test_scripts_get_numbers_without_noise(page, sandbox):
    start = 1_700_000_000.1
    page.open()
    page.put([named("shop", start, end_time=start + 0.482)])
    [trace] = json.loads(sandbox.get("/traces"))
    assert trace["duration_seconds"] == 0.482
    graph = json.loads(sandbox.get("/api/service-graph"))
    assert graph["EndTime"] == pytest.approx(start + 0.482)
