"""Checks the dashboard and the alerts against the daemon's /metrics and the documentation.

In: deploy/grafana, deploy/prometheus and docs/operations.md; a daemon's metrics; the warnings and
errors that src/ logs; promtool's tests of the alerts. Out: a failure for each name that does not
exist, for each metric, alert, warning or error that is not explained, and for each alert that does
not fire when it should or fires when it should not.
"""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ALERTS = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text())
DASHBOARD = json.loads((ROOT / "deploy/grafana/xrayd.json").read_text())
ALERT_TESTS = ROOT / "tests/prometheus/alerts.test.yaml"
OPERATIONS = (ROOT / "docs/operations.md").read_text()

RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
PANELS = DASHBOARD["panels"]

#: The functions, operators, modifiers and metrics of PromQL that the dashboard and the alerts use.
WORDS = {"abs", "absent", "and", "by", "increase", "max", "min", "or", "rate", "sum", "without"}
WORDS |= {"histogram_quantile", "time", "up"}


def expressions():
    """Yields the name of each alert and panel with its PromQL expression."""
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["definition"]


@pytest.fixture
def metrics(start_daemon, tmp_path):
    """Returns the names of the metrics of a sandbox, and of a daemon that takes spans, each with its
    labels and their values.
    """
    configuration = tmp_path / "cfg.yaml"
    configuration.write_text('Version: 2\nOtlp: {HttpAddress: "127.0.0.1:0"}\n')
    daemons = start_daemon("sandbox"), start_daemon("-c", str(configuration))
    found = {}
    for line in "".join(daemon.get("/metrics") for daemon in daemons).splitlines():
        if not line.startswith("#"):
            name, labels = re.match(r"(\w+)(?:\{(.*)\})? ", line).groups()
            for label, value in re.findall(r'(\w+)="([^"]*)"', labels or ""):
                found.setdefault(name, {}).setdefault(label, set()).add(value)
            found.setdefault(name, {})
    return found


def test_every_metric_that_is_asked_for_is_one_of_the_daemons(metrics):
    for where, expression in expressions():
        asked = re.findall(r"\b((?:xray|process)_\w+)(?:\{([^}]*)\})?", expression)
        # Prometheus itself makes `up`.
        assert asked or expression.startswith("up{"), where
        for name, selectors in asked:
            assert name in metrics, f"{where}: {name}"
            for label, operator, pattern in re.findall(r'(\w+)(=~|!~|!=|=)"([^"]*)"', selectors):
                if label == "instance":
                    continue
                values = metrics[name].get(label, set())
                for value in pattern.split("|") if "~" in operator else [pattern]:
                    assert value in values, f"{where}: {name} with {label} {value}"


def test_every_label_that_is_grouped_by_is_one_of_the_metrics(metrics):
    for where, expression in expressions():
        names = re.findall(r"\b(?:xray|process)_\w+", expression)
        for labels in re.findall(r"(?:by|without) \(([^)]*)\)", expression):
            for label in labels.split(", "):
                known = any(label in metrics[name] for name in names)
                assert label == "instance" or known, f"{where}: {label}"


def test_expressions_are_whole():
    for where, expression in expressions():
        assert expression.count("(") == expression.count(")"), where
        bare = re.sub(r'\{[^}]*\}|\[[^\]]*\]|"[^"]*"|\([a-z, ]+\)', " ", expression)
        words = set(re.findall(r"[a-z]\w+", bare)) - {"label_values", "instance"}
        assert {word for word in words if not word.startswith(("xray_", "process_"))} <= WORDS, (
            where
        )


def test_every_metric_is_on_the_dashboard_and_explained(metrics):
    shown = " ".join(expression for _, expression in expressions())
    for name in metrics:
        # A histogram has three metrics. A panel shows one of them, so only their common name is
        # searched for.
        family = re.sub("_(bucket|count|sum)$", "", name)
        assert re.search(rf"\b{family}(_bucket|_sum)?\b", shown), f"{name} is on no panel"
        assert f"`{family}" in OPERATIONS, f"{name} is not in docs/operations.md"


def test_every_alert_says_what_happens_and_is_explained():
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)
    for rule in RULES:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}
        # A heading of Markdown has an anchor of its words in small letters.
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"
    headings = re.findall(r"^### (Xray\w+)$", OPERATIONS, re.MULTILINE)
    assert sorted(headings) == sorted(names)
    assert set(re.findall(r"`(Xray\w+)`", OPERATIONS)) <= set(names)


def test_every_alert_fires_when_it_should_and_only_then():
    tests = yaml.safe_load(ALERT_TESTS.read_text())["tests"]
    checks = [check for test in tests for check in test["alert_rule_test"]]
    for is_firing in (True, False):
        tested = {check["alertname"] for check in checks if ("exp_alerts" in check) == is_firing}
        assert tested == {rule["alert"] for rule in RULES}, f"is_firing: {is_firing}"
    install = subprocess.run([ROOT / "tests/prometheus/install"], capture_output=True, text=True)
    assert install.returncode == 0, install.stderr
    promtool = install.stdout.strip()
    for command in (
        ["check", "rules", ROOT / "deploy/prometheus/alerts.yaml"],
        ["test", "rules", ALERT_TESTS],
    ):
        done = subprocess.run([promtool, *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_panels_have_places_of_their_own_and_a_source():
    places = set()
    for panel in PANELS:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & places, panel["title"]
        places |= cells
        assert panel["datasource"]["uid"] == "${datasource}"
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)


def logged():
    """Yields the texts of all warnings and errors in the code of the daemon and the sandbox, except
    in tests.
    """
    for path in [
        *sorted((ROOT / "src").rglob("*.rs")),
        *sorted((ROOT / "sandbox/src").rglob("*.rs")),
    ]:
        if "tests" in path.relative_to(ROOT).parts or path.name == "tests.rs":
            continue
        # If a file only names its test module (`mod tests;`), code may follow that line.
        source = path.read_text().split("#[cfg(test)]\nmod tests {")[0]
        # A call can have fields before its text: `error!(seconds, "text")`, `warn!(n = x.y, "text")`
        # or `log_call!(warn, facts, "text")`.
        fields = r"(?:[\w.]+(?:\s*=\s*[%?]?[\w.:]+(?:\(\))?)?,\s*)*"
        name = r"\b(?:(?:warn|error)!\(|log_call!\(\s*(?:warn|error),)"
        call = rf'{name}\s*{fields}"((?:[^"\\]|\\.)*)"'
        for text in re.findall(call, source, re.DOTALL):
            yield re.sub(r"\\\n\s*", "", text)


def test_every_warning_and_error_is_explained():
    flat = re.sub(r"\s+", " ", OPERATIONS)
    texts = list(logged())
    assert len(texts) > 20
    for text in texts:
        # The longest part without a placeholder identifies the text.
        piece = max(re.split(r"\{[^}]*\}", text), key=len).strip(" .:;,(")
        # If the text is little more than a placeholder, the line shows an error, and the document
        # explains that error.
        if len(piece) > 3:
            assert piece[:40] in flat, f"docs/operations.md does not have: {text}"


def test_every_reason_for_not_being_ready_is_explained():
    source = (ROOT / "src/base/conditions.rs").read_text()
    codes = re.findall(r'=> "([a-z]+_[a-z]+)"', source.split("#[cfg(test)]\nmod tests {")[0])
    assert len(codes) >= 6
    for code in codes:
        assert f"`{code}`" in OPERATIONS, code
