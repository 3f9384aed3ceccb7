"""Checks deploy/ecs with botocore's model of ECS and with the daemon's command line.

In: the task definitions, the service and the policies. Out: the errors of the model, and the
daemon's settings for each command.
"""

import json
import os
import re
import subprocess
from pathlib import Path

import botocore.session
import pytest
from botocore.validate import ParamValidator
from processes import ENVIRONMENT

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "ecs"
TASKS = sorted(FOLDER.rglob("*.task.json"))
POLICIES = sorted(FOLDER.rglob("iam/*.json"))
SESSION = botocore.session.get_session()

#: The entry point and the health check of the image.
DOCKERFILE = (ROOT / "Dockerfile").read_text()
ENTRYPOINT = json.loads(re.findall(r"^ENTRYPOINT (.*)$", DOCKERFILE, re.MULTILINE)[-1])
HEALTHCHECK = json.loads(re.findall(r"^HEALTHCHECK .* CMD (.*)$", DOCKERFILE, re.MULTILINE)[-1])

#: The daemon's default limit on its shutdown, in seconds.
SHUTDOWN_SECONDS = 8

#: The memory sizes in MB that Fargate offers for each number of CPU units. The tests only need 256
#: units, the smallest number.
FARGATE = {"256": {"512", "1024", "2048"}}


def check(operation, call):
    """Fails if the parameters of a call have unknown or missing members, wrong types or unknown
    enum values.
    """
    shape = SESSION.get_service_model("ecs").operation_model(operation).input_shape
    report = ParamValidator().validate(call, shape)
    assert not report.has_errors(), report.generate_report()
    check_words(call, shape)


def check_words(value, shape):
    if shape.type_name == "structure":
        for name, member in value.items():
            check_words(member, shape.members[name])
    elif shape.type_name == "list":
        for member in value:
            check_words(member, shape.member)
    elif shape.type_name == "string" and shape.enum:
        assert value in shape.enum, f"{shape.name}: {value}"


def containers(path):
    """Returns the task definition in a file, its container of the daemon and its container of the
    application. An absent container is `None`.
    """
    task = json.loads(path.read_text())
    named = {container["name"]: container for container in task["containerDefinitions"]}
    return task, named.get("xray-daemon"), named.get("shop")


def names(paths):
    return [path.name.split(".")[0] for path in paths]


@pytest.mark.parametrize("path", TASKS, ids=names(TASKS))
def test_ecs_takes_the_task(path):
    task, daemon, application = containers(path)
    assert daemon or application
    check("RegisterTaskDefinition", task)
    if "FARGATE" in task["requiresCompatibilities"]:
        assert task["networkMode"] == "awsvpc" and task["memory"] in FARGATE[task["cpu"]]
        for container in task["containerDefinitions"]:
            assert "dockerSecurityOptions" not in container and "links" not in container
    if application and "links" in application:
        assert task["networkMode"] == "bridge"


def test_ecs_takes_the_service_with_one_daemon_on_each_host():
    service = json.loads((FOLDER / "daemon.service.json").read_text())
    check("CreateService", service)
    assert service["schedulingStrategy"] == "DAEMON"
    task, daemon, _ = containers(FOLDER / "daemon.task.json")
    assert task["family"] == service["taskDefinition"]
    ports = {(port["hostPort"], port["protocol"]) for port in daemon["portMappings"]}
    assert ports == {(2000, "udp"), (2000, "tcp")}


WITH_DAEMON = [path for path in TASKS if containers(path)[1]]


@pytest.mark.parametrize("path", WITH_DAEMON, ids=names(WITH_DAEMON))
def test_the_daemon_is_held_tight_asked_for_its_health_and_given_time(path):
    _, daemon, application = containers(path)
    assert daemon["readonlyRootFilesystem"] and daemon["user"] == "10001"
    assert daemon["linuxParameters"]["capabilities"] == {"drop": ["ALL"]}
    assert daemon["healthCheck"]["command"] == ["CMD", *HEALTHCHECK]
    assert daemon["healthCheck"]["timeout"] > 5, "the check itself takes up to 5 s"
    assert daemon["stopTimeout"] > SHUTDOWN_SECONDS
    assert daemon["memory"] >= 64
    if application:
        # The daemon starts before the application and ends after it. A failed daemon does not end
        # the task.
        wanted = {"containerName": "xray-daemon", "condition": "START"}
        assert application["dependsOn"] == [wanted] and "dependsOn" not in daemon
        assert not daemon["essential"] and daemon["restartPolicy"]["enabled"]


def test_the_check_runs_beside_a_healthy_daemon_and_its_end_is_the_tasks():
    task, daemon, _ = containers(FOLDER / "verify.task.json")
    [check] = [it for it in task["containerDefinitions"] if it is not daemon]
    assert check["command"] == [*daemon["command"], "verify"]
    assert check["dependsOn"] == [{"containerName": "xray-daemon", "condition": "HEALTHY"}]
    assert check["essential"] and check["image"] == daemon["image"]


@pytest.mark.parametrize("path", WITH_DAEMON, ids=names(WITH_DAEMON))
def test_the_daemon_understands_its_command(path, tmp_path):
    task, daemon, _ = containers(path)
    command = [os.environ["XRAY_BINARY"], *ENTRYPOINT[1:], *daemon.get("command", [])]
    if path.name.startswith("baked"):
        command = [os.environ["XRAY_BINARY"], "-c", FOLDER / "cross-account" / "cfg.yaml"]
    result = subprocess.run(
        [*command, "config"], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert (result.returncode, result.stderr) == (0, "")
    lines = [line.split() for line in result.stdout.splitlines()]
    settings = {line[0]: line[1] for line in lines}
    # With `awsvpc` the containers of a task share a network namespace. There the daemon only
    # listens on loopback.
    host = "127.0.0.1" if task["networkMode"] == "awsvpc" else "0.0.0.0"
    assert settings["Socket.UDPAddress"] == settings["Socket.TCPAddress"] == f"{host}:2000"
    trust = json.loads((FOLDER / "iam/cross-account.policy.json").read_text())
    role = trust["Statement"][0]["Resource"]
    assert settings["RoleARN"] == (role if "cross-account" in str(path) else "(none)")


@pytest.mark.parametrize("path", POLICIES, ids=[path.name for path in POLICIES])
def test_the_policies_name_actions_that_there_are(path):
    policy = json.loads(path.read_text())
    assert policy["Version"] == "2012-10-17"
    for statement in policy["Statement"]:
        assert set(statement) <= {"Action", "Condition", "Effect", "Principal", "Resource"}
        assert ("Principal" in statement) == path.name.endswith(".trust.json")
        assert ("Resource" in statement) == path.name.endswith(".policy.json")
        actions = statement["Action"]
        for action in actions if isinstance(actions, list) else [actions]:
            service, operation = action.split(":")
            assert operation in SESSION.get_service_model(service).operation_names, action


def test_the_policy_allows_all_that_the_daemon_calls():
    policy = json.loads((FOLDER / "iam/xray-write.policy.json").read_text())
    model = SESSION.get_service_model("xray")
    actions = [action.split(":")[1] for action in policy["Statement"][0]["Action"]]
    paths = {model.operation_model(action).http["requestUri"] for action in actions}
    source = (ROOT / "src/admin/proxy/paths.rs").read_text()
    called = set(re.findall(r'"(/[A-Z]\w+)"', source.split("#[cfg(test)]\nmod tests {")[0]))
    assert called and called <= paths


def test_the_user_data_sets_the_queue_and_leaves_the_engine_alone(tmp_path):
    script = subprocess.run(
        [FOLDER / "user-data", "shop"], capture_output=True, text=True, check=True
    ).stdout
    # Runs the script below another root folder, and without the command that would change this
    # machine.
    script = script.replace("/etc/", f"{tmp_path}/etc/")
    for folder in ("docker", "ecs", "sysctl.d"):
        (tmp_path / "etc" / folder).mkdir(parents=True)
    quiet = "sysctl() { :; };\n"
    subprocess.run(["bash"], input=quiet + script, text=True, check=True)
    assert list((tmp_path / "etc/docker").iterdir()) == []
    setting = (tmp_path / "etc/sysctl.d/10-xray.conf").read_text()
    assert setting == (ROOT / "deploy/systemd/10-xray.conf").read_text()
    assert (tmp_path / "etc/ecs/ecs.config").read_text() == "ECS_CLUSTER=shop\n"
