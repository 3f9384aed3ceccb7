"""The sandbox's page in a real browser: the traces of `xray sandbox --demo`.

In: the demo. Out: its traces in the list, the failed order, the exceptions and the map; a picture of
each. README shows the picture of the failed order:

    tests/run browser && cp tests/.cache/screenshots/readme.png docs/images/sandbox.png
"""

import os

import pytest
from browser import Page
from processes import Daemon
from selenium.webdriver.common.action_chains import ActionChains
from test_page_map import overlap

#: Number of traces of the demo, as in sandbox/src/endpoint/demo/mod.rs.
TRACE_COUNT = 13


@pytest.fixture
def demo(driver, tmp_path):
    """The page of a sandbox with the demo."""
    with Daemon(os.environ["XRAY_BINARY"], tmp_path, "sandbox", "--demo") as sandbox:
        sandbox.wait_until_ready()
        page = Page(driver, sandbox)
        page.open()
        page.wait_for_count(".virtual-row", TRACE_COUNT)
        yield page
        page.close()


def test_the_demo_has_something_of_each_kind(demo):
    states = demo.js(
        "return [...document.querySelectorAll('.virtual-row')].map((it) => it.dataset.state)"
    )
    assert {"ok", "error", "throttle", "fault", "progress"} == set(states)
    for width, height in [(1400, 900), (800, 900), (400, 800)]:
        demo.resize(width, height)
        for scheme in ["light", "dark"]:
            demo.prefer(scheme)
            demo.picture(f"demo-list-{width}-{scheme}")


def test_the_failed_order_opens_on_its_first_exception(demo):
    demo.resize(1440, 780)
    demo.click(".trace-row .url", "/orders")
    demo.wait_for_text(".trace-title .status", "502")
    demo.wait_for_text(".wf-row[aria-selected=true] .wf-name", "issuer.example")
    demo.click(".wf-note", "CardDeclined")
    demo.wait_for_text(".exception", "the card issuer did not answer")
    # The pointer must not mark a row.
    ActionChains(demo.driver).move_to_element(
        demo.js("return document.querySelector('.brand')")
    ).perform()
    demo.picture("readme")
    for width, height in [(1400, 900), (800, 900), (400, 800)]:
        demo.resize(width, height)
        for scheme in ["light", "dark"]:
            demo.prefer(scheme)
            demo.picture(f"demo-order-{width}-{scheme}")
    demo.resize(1400, 900)
    demo.press("x")
    demo.wait_for_count(".exception-entry", 3)
    for width, height in [(1400, 900), (400, 800)]:
        demo.resize(width, height)
        demo.picture(f"demo-exceptions-{width}")


def test_the_map_of_the_demo_has_each_service_once(demo):
    demo.open("#/map")
    names = "return [...document.querySelectorAll('.map-node:not(.client)')]"
    shown = lambda: demo.js(f"{names}.map((it) => it.dataset.name)")
    demo.wait(lambda: "order-worker" in shown(), "no worker")
    services = {"shop.example", "inventory", "pricing", "payments", "search", "recommendations"}
    assert services <= set(shown())
    assert len(set(shown())) == len(shown())
    # Each arrow has its time, and no time covers another one.
    boxes = demo.js("""
        return [...document.querySelectorAll(".edge-label")].map((it) => {
            const box = it.getBoundingClientRect();
            return [box.left, box.top, box.right, box.bottom];
        });
    """)
    for index, one in enumerate(boxes):
        assert not any(overlap(one, other) for other in boxes[:index])
    for width, height in [(1400, 900), (800, 900), (400, 800)]:
        demo.resize(width, height)
        for scheme in ["light", "dark"]:
            demo.prefer(scheme)
            demo.picture(f"demo-map-{width}-{scheme}")
