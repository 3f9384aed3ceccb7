"""Checks deploy/kubernetes with the schemas of Kubernetes and with the rules of pod security.

In: the manifests, with and without their patches. Out: the errors of the schemas (those in the
package kubernetes-validate), and violations of pod security "restricted".
"""

import copy
import json
import re
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"

#: The first Kubernetes release with native sidecars, and the newest release that the package has
#: schemas for.
RELEASES = ["1.29", kubernetes_validate.latest_version()]

DOCKERFILE = (ROOT / "Dockerfile").read_text()
HEALTHCHECK = json.loads(re.findall(r"^HEALTHCHECK .* CMD (.*)$", DOCKERFILE, re.MULTILINE)[-1])

#: The daemon's default limit on its shutdown, in seconds.
SHUTDOWN_SECONDS = 8


def manifests(name):
    """Returns the Kubernetes objects in a file."""
    return list(yaml.safe_load_all((FOLDER / f"{name}.yaml").read_text()))


def of_kind(kind, name):
    [found] = [manifest for manifest in manifests(name) if manifest["kind"] == kind]
    return found


def daemonset():
    return of_kind("DaemonSet", "daemonset")


def patched(patch):
    """Returns the DaemonSet after a strategic merge patch from a file. Such a patch merges
    containers by name.
    """
    [patch] = manifests(patch)
    result = copy.deepcopy(daemonset())
    assert set(patch) == {"spec"} and set(patch["spec"]["template"]["spec"]) == {"containers"}
    [change] = patch["spec"]["template"]["spec"]["containers"]
    [container] = result["spec"]["template"]["spec"]["containers"]
    assert change["name"] == container["name"]
    container["securityContext"] |= change.pop("securityContext", {})
    container |= change
    return result


def daemons():
    """Yields each pod that contains a daemon: a name, the pod's specification and the daemon's
    container.
    """
    pod = daemonset()["spec"]["template"]["spec"]
    yield "daemonset", pod, pod["containers"][0]
    pod = of_kind("Deployment", "sidecar")["spec"]["template"]["spec"]
    yield "sidecar", pod, pod["initContainers"][0]
    for patch in ("io-uring.patch", "host-port.patch"):
        pod = patched(patch)["spec"]["template"]["spec"]
        yield patch, pod, pod["containers"][0]


DAEMONS = pytest.mark.parametrize(
    "pod, daemon", [pytest.param(pod, daemon, id=name) for name, pod, daemon in daemons()]
)


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("name", ["daemonset", "sidecar", "networkpolicy"])
def test_kubernetes_takes_the_manifests(name, release):
    for manifest in manifests(name):
        kubernetes_validate.validate(manifest, release, strict=True)


@pytest.mark.parametrize("patch", ["io-uring.patch", "host-port.patch"])
def test_kubernetes_takes_the_daemonset_with_a_patch(patch):
    kubernetes_validate.validate(patched(patch), RELEASES[-1], strict=True)


def test_the_schemas_see_a_key_that_is_not_there():
    manifest = daemonset()
    manifest["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, RELEASES[-1], strict=True)


@DAEMONS
def test_the_daemon_is_what_pod_security_restricted_asks_for(pod, daemon):
    security = pod["securityContext"] | daemon["securityContext"]
    assert security["runAsNonRoot"] and security["runAsUser"] == 10001
    assert not security["allowPrivilegeEscalation"] and security["readOnlyRootFilesystem"]
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["seccompProfile"]["type"] in ("RuntimeDefault", "Localhost")
    assert daemon["resources"]["limits"] == {"memory": "64Mi"}
    assert pod["terminationGracePeriodSeconds"] > SHUTDOWN_SECONDS
    assert not pod["automountServiceAccountToken"]


@DAEMONS
def test_every_probe_asks_for_liveness_alone(pod, daemon):
    probes = [daemon[name] for name in daemon if name.endswith("Probe")]
    assert len(probes) >= 2
    for probe in probes:
        if "exec" in probe:
            assert probe["exec"]["command"] == HEALTHCHECK
            assert probe["timeoutSeconds"] > 5, "the check itself takes up to 5 s"
        else:
            assert probe["httpGet"]["path"] == "/health"
            ports = {port["name"]: port for port in daemon["ports"]}
            assert ports[probe["httpGet"]["port"]]["protocol"] == "TCP"


def test_the_service_leads_to_the_daemon_of_the_same_node():
    service, labels = of_kind("Service", "daemonset"), daemonset()["spec"]["template"]["metadata"]
    assert service["spec"]["selector"].items() <= labels["labels"].items()
    assert service["spec"]["internalTrafficPolicy"] == "Local"
    ports = {(port["port"], port["protocol"]) for port in service["spec"]["ports"]}
    policy = of_kind("NetworkPolicy", "networkpolicy")["spec"]
    assert policy["podSelector"]["matchLabels"] == service["spec"]["selector"]
    [ingress] = policy["ingress"]
    assert ports == {(port["port"], port["protocol"]) for port in ingress["ports"]}
    assert ports == {(2000, "UDP"), (2000, "TCP")}


def test_the_sidecar_ends_after_the_application_and_is_reached_by_it_alone():
    [daemon] = of_kind("Deployment", "sidecar")["spec"]["template"]["spec"]["initContainers"]
    assert daemon["restartPolicy"] == "Always"
    assert daemon["args"] == ["-b", "127.0.0.1:2000", "-t", "127.0.0.1:2000"]
    assert "ports" not in daemon
