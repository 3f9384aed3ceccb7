"""The sandbox's page in a real browser: the service map and the sampling rules.

In: traces of a shop, and rules typed into the form. Out: nodes and edges, and the decisions of a
real sampler.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import page_traces
import pytest
from processes import ENVIRONMENT
from selenium.webdriver.common.keys import Keys

HERE = Path(__file__).parent


def test_the_map_has_a_node_for_each_service_and_leads_to_its_traces(page, sandbox):
    page.put(page_traces.shop(time.time(), 30))
    page.open("#/map")
    names = {
        "shop.example",
        "inventory",
        "pricing",
        "payments",
        "users",
        "fraud-check",
        "currency-rates",
    }
    services = "[...document.querySelectorAll('.map-node:not(.client)')]"
    shown = lambda: set(page.js(f"return {services}.map((it) => it.dataset.name)"))
    page.wait(lambda: names <= shown(), "not all services")
    graph = json.loads(sandbox.get("/api/service-graph"))["Services"]
    assert page.js("return document.querySelectorAll('.map-node').length") == len(graph)
    edges = sum(len(service["Edges"]) for service in graph)
    assert page.js("return document.querySelectorAll('.map-edge').length") == edges
    page.picture("map")
    [shop] = [
        service
        for service in graph
        if service["Name"] == "shop.example" and service["Type"] != "client"
    ]
    total = shop["SummaryStatistics"]["TotalCount"]
    label = page.js(
        "return document.querySelector('[data-name=\"shop.example\"]:not(.client)')"
        ".getAttribute('aria-label')"
    )
    assert f"{total} requests" in label
    page.click('[data-name="payments"] .disc')
    page.wait_for_text(".filter-mode", "expression")
    assert page.js("return document.querySelector('#filter').value") == 'service("payments")'
    page.driver.back()
    page.wait(lambda: page.fragment() == "#/map", "back does not lead to the map")


def test_thirty_services_with_rings_lie_apart_and_layers_follow_calls(page):
    page.open()
    edges = [[0, 1]] + [[1 + index % 9, 10 + index] for index in range(20)]
    edges += [[index, index + 1] for index in range(1, 9)] + [[9, 1], [12, 2], [5, 5], [3, 29]]
    found = page.call("map/layout.js", "layout", 30, edges)
    nodes = found["nodes"]
    assert len(nodes) == 30 and len(found["edges"]) == len(edges)
    for one in range(30):
        for other in range(one):
            apart = [abs(nodes[one][axis] - nodes[other][axis]) for axis in "xy"]
            assert apart[0] >= 180 or apart[1] >= 120, (one, other)
    for (source, target), line in zip(edges, found["edges"], strict=True):
        assert line[0] == nodes[source] and line[-1] == nodes[target]
    forward = sum(nodes[source]["x"] < nodes[target]["x"] for source, target in edges)
    # All edges lead to the right except three: two edges that close a ring, and the edge from node
    # 5 to itself.
    assert forward == len(edges) - 3


LABELS = """
    const svg = document.querySelector("svg.map").getBoundingClientRect();
    return [...document.querySelectorAll(".map-node .node-name")].map((it) => {
        const box = it.getBoundingClientRect();
        const lines = it.querySelectorAll("tspan").length;
        return {name: it.textContent, high: box.height / lines,
            box: [box.left, box.top, box.right, box.bottom],
            seen: box.left >= svg.left && box.right <= svg.right
                && box.top >= svg.top && box.bottom <= svg.bottom};
    });
"""


def overlap(one, other):
    """Returns whether two boxes (left, top, right, bottom) share more than a pixel."""
    return (
        min(one[2], other[2]) - max(one[0], other[0]) > 1
        and min(one[3], other[3]) - max(one[1], other[1]) > 1
    )


@pytest.mark.parametrize("count, group_count", [(3, 1), (12, 2), (60, 1), (60, 5)])
def test_the_labels_of_services_are_readable(page, count, group_count):
    answers = {"/api/service-graph": page_traces.service_graph(count, group_count)}
    for width, height in [(1400, 900), (800, 900), (400, 800)]:
        page.resize(width, height)
        page.open("#/map", answers=answers)
        page.wait(lambda: len(page.js(LABELS)) == count, "not all services")
        for scheme in ["light", "dark"]:
            page.prefer(scheme)
            page.picture(f"map-{count}-in-{group_count}-{width}-{scheme}")
        labels = page.js(LABELS)
        # A line of 11 pixels has a box of 12 to 14.
        assert min(label["high"] for label in labels) >= 12, width
        for index, one in enumerate(labels):
            for other in labels[:index]:
                assert not overlap(one["box"], other["box"]), (one["name"], other["name"])
        if width == 1400:
            assert all(label["seen"] for label in labels)
    page.wait_for_text(".map-key", "mean response time, number of requests")


def test_groups_of_services_fill_the_space(page):
    page.open()
    answer = page_traces.service_graph(40, 10)["Services"]
    edges = [
        [service["ReferenceId"], edge["ReferenceId"]]
        for service in answer
        for edge in service["Edges"]
    ]
    for aspect in (1.75, 0.5):
        found = page.call("map/layout.js", "layout", 40, edges, aspect)
        nodes = found["nodes"]
        for one in range(40):
            for other in range(one):
                apart = [abs(nodes[one][axis] - nodes[other][axis]) for axis in "xy"]
                assert apart[0] >= 180 or apart[1] >= 120, (one, other)
        # A node with its label takes 190 times 124 pixels. More than a third of the space is used,
        # and the space has the shape of the view.
        used = 40 * 190 * 124 / (found["width"] * found["height"])
        assert used > 0.36, (aspect, used)
        shape = found["width"] / found["height"]
        assert aspect / 1.7 < shape < aspect * 1.7


def test_five_hundred_services_are_laid_out(page):
    """Also measures the layout, on a machine that does nothing else:

    XRAY_BINARY=target/debug/xray python -m pytest -s -k five_hundred tests/python/test_page_map.py
    """
    page.open()
    answer = page_traces.service_graph(500, 3)["Services"]
    edges = [
        [service["ReferenceId"], edge["ReferenceId"]]
        for service in answer
        for edge in service["Edges"]
    ]
    script = """
        const [edges, done] = arguments;
        import("/page/map/layout.js").then(({layout}) => {
            const times = [...Array(9)].map(() => {
                const start = performance.now();
                layout(500, edges);
                return performance.now() - start;
            });
            done(times.sort((one, other) => one - other));
        });
    """
    times = page.driver.execute_async_script(script, edges)
    # The time depends on the machine, so it is only printed.
    print(f"500 services: least {times[0]:.1f} ms, median {times[4]:.1f} ms")
    nodes = page.call("map/layout.js", "layout", 500, edges)["nodes"]
    places = {(round(node["x"]), round(node["y"])) for node in nodes}
    assert len(places) == 500
    answers = {"/api/service-graph": {"Services": answer}}
    page.open("#/map", answers=answers)
    count = "return document.querySelectorAll('.map-node').length"
    page.wait(lambda: page.js(count) == 500, "not all services")
    page.press("0")
    page.picture("map-500")


def fill_rule(page, **values):
    """Types these values into the form of a sampling rule."""
    for key, value in values.items():
        page.fill(f"#rule-{key}", value)


def test_rules_changed_on_the_page_change_what_the_python_sampler_decides(page, sandbox, tmp_path):
    page.open("#/rules")
    for name, rate in [("always", "100"), ("never", "0")]:
        page.click(".button", "Add rule")
        page.wait_for_text("dialog h2", "New rule")
        fill_rule(
            page, RuleName=name, ServiceName=name, FixedRate=rate, ReservoirSize="0", Priority="10"
        )
        page.press(Keys.ENTER)
        page.wait_for_text(".rule-edit", name)
    page.picture("rules")
    address = "tcp:{}:{} udp:{}:{}".format(*sandbox.tcp, *sandbox.udp)
    sampler = subprocess.Popen(
        [sys.executable, HERE / "sample.py"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT | {"AWS_XRAY_DAEMON_ADDRESS": address},
    )
    try:
        assert json.loads(sampler.stdout.readline()) == {"always": 100, "never": 0}
        for name, rate in [("always", "0"), ("never", "100")]:
            page.click(f"[aria-label='Edit {name}']")
            page.wait_for_text("dialog h2", f"Edit {name}")
            fill_rule(page, FixedRate=rate)
            page.click(".button", "Save")
            page.wait_for_text(f"[data-rule='{name}']", f"{rate}%")
        assert json.loads(sampler.stdout.readline()) == {"always": 0, "never": 100}
    finally:
        sampler.kill()
        sampler.wait()
        sampler.stdout.close()


def test_a_rule_that_cannot_be_is_explained_and_not_saved(page, sandbox):
    page.open("#/rules")
    page.click("[aria-label='Edit Default']")
    page.wait_for_text("dialog h2", "Edit Default")
    disabled = page.js("return [...document.querySelectorAll('dialog input:disabled')].length")
    assert disabled == 8
    fill_rule(page, FixedRate="7.5", ReservoirSize="3")
    page.press(Keys.ENTER)
    page.wait_for_text("[data-rule='Default']", "7.5%")
    page.click(".button", "Add rule")
    for values, problem in [
        ({"RuleName": "Default"}, "Another rule has this name"),
        ({"RuleName": "a b"}, "Use only letters"),
        ({"RuleName": "a.b"}, "Use only letters"),
        ({"RuleName": "mine", "Priority": "0"}, "From 1 to 9999"),
        ({"Priority": "5", "FixedRate": "101"}, "From 0% to 100%"),
        ({"FixedRate": "1%", "ReservoirSize": "1.5"}, "Enter a whole number"),
        ({"ReservoirSize": "1", "Host": " "}, None),
        ({"Host": "x" * 65}, "At most 64 characters"),
    ]:
        fill_rule(page, **values)
        if problem:
            page.press(Keys.ENTER)
            page.wait_for_text(".field-note.is-problem", problem)
    fill_rule(page, Host="*.example")
    page.press(Keys.ENTER)
    page.wait_for_text("[data-rule='mine']", "*.example")
    rules = json.loads(sandbox.get("/api/sampling-rules"))["rules"]
    assert {rule["RuleName"]: rule["FixedRate"] for rule in rules} == {
        "Default": 0.075,
        "mine": 0.01,
    }
    page.js("window.confirm = () => true")
    page.click("[aria-label='Delete mine']")
    page.wait_for_count(".rule-edit", 1)
