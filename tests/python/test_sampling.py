"""Real samplers fetch rules and targets through the daemon and follow them.

In: the sampling calls of an SDK, signed by the daemon, as a test service receives them. The rules
sample every request to one service and no request to another service. About 10 s later the first
targets reverse this.
"""

import json
import time
import urllib.request

import pytest
from processes import PATIENCE_SECONDS, Child
from recorder import Recorder
from sdks import OTEL_SAMPLERS, X_RAY, application

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


def reported_statistics(request):
    """Returns the statistics in a request for targets. OpenTelemetry's sampler for Java leaves out
    a list without statistics.
    """
    return json.loads(request.body).get("SamplingStatisticsDocuments", [])


def answer(request):
    """Returns the service's answer to a sampling call."""
    if request.path == "/GetSamplingRules":
        records = [rule(name, rate) for name, rate in RATES.items()]
        return json.dumps({"SamplingRuleRecords": records, "NextToken": None}).encode()
    assert request.path == "/SamplingTargets", request
    targets = [target(statistics) for statistics in reported_statistics(request)]
    return json.dumps(
        {
            "SamplingTargetDocuments": targets,
            "LastRuleModification": MODIFIED_AT,
            "UnprocessedStatistics": [],
        }
    ).encode()


def sample(sdk, daemon, folder):
    """Returns the sampling application of an SDK, which is to be started with a `with` block.
    OpenTelemetry's samplers take the daemon's URL as an argument.
    """
    address = "tcp:{}:{} udp:{}:{}".format(*daemon.tcp, *daemon.udp)
    command = [*application(sdk, "sample"), daemon.url]
    return Child(command, folder, AWS_XRAY_DAEMON_ADDRESS=address)


@pytest.mark.parametrize("sdk", X_RAY + OTEL_SAMPLERS)
def test_a_sampler_follows_the_rules_and_targets_that_it_gets_through_the_daemon(
    start_daemon, sign, tmp_path, sdk
):
    with Recorder(answer) as service:
        daemon = start_daemon(AWS_ENDPOINT_URL_XRAY=service.url)
        with sample(sdk, daemon, tmp_path) as running:
            assert running.wait() == 0, running.log()
            by_rules, by_targets = map(json.loads, running.output)
        assert by_rules == {"always": 100, "never": 0}
        assert by_targets == {"always": 0, "never": 100}
        requests = list(service.requests)
        for request in requests:
            assert request.headers.get_all("Authorization") == [sign(request)]
        assert {request.path for request in requests} == {"/GetSamplingRules", "/SamplingTargets"}
        reported = 0
        for one in first_statistics(requests):
            # AWS's distribution of OpenTelemetry for Python has another name for the count.
            sampled_count = one["SampleCount" if sdk == "otel-python" else "SampledCount"]
            assert sampled_count == one["RequestCount"] * RATES[one["RuleName"]], one
            reported += one["RequestCount"]
        assert reported >= 200
        count = f'xray_proxy_requests_total{{outcome="answered"}} {len(requests)}\n'
        assert count in daemon.get("/metrics")


def first_statistics(requests):
    """Returns the statistics that each sampler has reported first. Later statistics also count
    requests that have followed the targets.
    """
    first = {}
    for request in requests:
        if request.path == "/SamplingTargets" and (statistics := reported_statistics(request)):
            first.setdefault(statistics[0]["ClientID"], statistics)
    return [one for statistics in first.values() for one in statistics]


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
    with sample("python", sandbox, tmp_path) as running:
        running.wait_for_line("{")
        edit({name: 1.0 - rate for name, rate in RATES.items()})
        assert running.wait() == 0, running.log()
        by_rules, by_edited_rules = map(json.loads, running.output)
    assert by_rules == {"always": 100, "never": 0}
    assert by_edited_rules == {"always": 0, "never": 100}
