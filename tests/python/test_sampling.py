"""Real samplers fetch rules and targets through the daemon and follow them.

In: the sampling calls of an SDK, signed by the daemon, as a test service receives them. The rules
sample every request to one service and no request to another service. About 10 s later the first
targets reverse this.
"""

import json
import shutil
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from processes import PATIENCE_SECONDS, Child
from recorder import Recorder

HERE = Path(__file__).parent
RATES = {"always": 1.0, "never": 0.0}

#: The time of the last change of the rules. It is in the past, because a time after the SDK's last
#: fetch would make the SDK fetch the rules again.
MODIFIED_AT = 1_530_000_000.0


def rule(name, rate):
    """Returns a sampling rule without a reservoir. It applies to the service that has the rule's
    name.
    """
    any_of = dict.fromkeys(["ResourceARN", "ServiceType", "Host", "HTTPMethod", "URLPath"], "*")
    rule = any_of | {
        "RuleName": name,
        "RuleARN": f"arn:aws:xray:eu-west-1:000000000000:sampling-rule/{name}",
        "ServiceName": name,
        "Priority": 10,
        "FixedRate": rate,
        "ReservoirSize": 0,
        "Version": 1,
        "Attributes": {},
    }
    return {"SamplingRule": rule, "CreatedAt": 0.0, "ModifiedAt": MODIFIED_AT}


def target(statistics):
    """Returns a sampling target with the opposite rate of the rule that the statistics name."""
    name = statistics["RuleName"]
    return {
        "RuleName": name,
        "FixedRate": 1.0 - RATES[name],
        "ReservoirQuota": 0,
        "ReservoirQuotaTTL": time.time() + 60,
        "Interval": 10,
    }


def answer(request):
    """Returns the service's answer to a sampling call."""
    if request.path == "/GetSamplingRules":
        records = [rule(name, rate) for name, rate in RATES.items()]
        return json.dumps({"SamplingRuleRecords": records, "NextToken": None}).encode()
    assert request.path == "/SamplingTargets", request
    documents = json.loads(request.body)["SamplingStatisticsDocuments"]
    targets = [target(statistics) for statistics in documents]
    return json.dumps(
        {
            "SamplingTargetDocuments": targets,
            "LastRuleModification": MODIFIED_AT,
            "UnprocessedStatistics": [],
        }
    ).encode()


def program(sdk):
    """Returns the command that starts the sampling application in the language `sdk`."""
    if sdk == "python":
        return [sys.executable, HERE / "sample.py"]
    node = shutil.which("node")
    assert node, "Node.js is not installed"
    return [node, HERE.parent / "node" / "sample.js"]


@pytest.mark.parametrize("sdk", ["python", "node"])
def test_a_sampler_follows_the_rules_and_targets_that_it_gets_through_the_daemon(
    start_daemon, sign, tmp_path, sdk
):
    with Recorder(answer) as service:
        daemon = start_daemon(AWS_ENDPOINT_URL_XRAY=service.url)
        address = "tcp:{}:{} udp:{}:{}".format(*daemon.tcp, *daemon.udp)
        with Child(program(sdk), tmp_path, AWS_XRAY_DAEMON_ADDRESS=address) as application:
            assert application.wait() == 0, application.log()
            by_rules, by_targets = map(json.loads, application.output)
        assert by_rules == {"always": 100, "never": 0}
        assert by_targets == {"always": 0, "never": 100}
        requests = list(service.requests)
        for request in requests:
            assert request.headers.get_all("Authorization") == [sign(request)]
        assert {request.path for request in requests} == {"/GetSamplingRules", "/SamplingTargets"}
        statistics = json.loads(requests[-1].body)["SamplingStatisticsDocuments"]
        for one in statistics:
            assert one["SampledCount"] == one["RequestCount"] * RATES[one["RuleName"]], one
        count = f'xray_proxy_requests_total{{outcome="answered"}} {len(requests)}\n'
        assert count in daemon.get("/metrics")


def test_a_sampler_follows_rules_that_are_edited_in_the_sandbox(sandbox, tmp_path):
    """The sampler follows the original rules until its next fetch of targets, and then the edited
    rules.
    """

    def edit(rates):
        default = json.loads(sandbox.get("/api/sampling-rules"))["rules"][-1]
        rules = [rule(name, rate)["SamplingRule"] for name, rate in rates.items()]
        body = json.dumps({"rules": [*rules, default]}).encode()
        request = urllib.request.Request(
            f"{sandbox.url}/api/sampling-rules",
            body,
            {"Content-Type": "application/json", "Origin": sandbox.url},
            method="PUT",
        )
        urllib.request.urlopen(request, timeout=PATIENCE_SECONDS).close()

    edit(RATES)
    address = "tcp:{}:{} udp:{}:{}".format(*sandbox.tcp, *sandbox.udp)
    with Child(program("python"), tmp_path, AWS_XRAY_DAEMON_ADDRESS=address) as application:
        application.wait_for_line("{")
        edit({name: 1.0 - rate for name, rate in RATES.items()})
        assert application.wait() == 0, application.log()
        by_rules, by_edited_rules = map(json.loads, application.output)
    assert by_rules == {"always": 100, "never": 0}
    assert by_edited_rules == {"always": 0, "never": 100}
