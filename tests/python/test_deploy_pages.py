"""Runs the blocks of docs/ecs.md and docs/kubernetes.md with the AWS CLI, and checks the template of
CloudFormation.

In: the pages' own blocks, in the root of the repository; moto as AWS; a stand-in for docker. Out:
the resources that moto has afterwards. moto starts no container, so the task that verifies never
stops, and has no log: `aws ecs wait` and `aws logs tail` are not run, and only their words are
checked.
"""

import json
import re
import shlex
import subprocess
from pathlib import Path

import boto3
import botocore.session
import pytest
import yaml
from processes import PATIENCE_SECONDS, Child

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FOLDER = ROOT / "deploy/ecs"
TEMPLATE = FOLDER / "sidecar.template.yaml"
ECS = (ROOT / "docs/ecs.md").read_text()
KUBERNETES = (ROOT / "docs/kubernetes.md").read_text()
REGION = "eu-west-1"
SESSION = botocore.session.get_session()

#: Calls that moto does not have, or that wait for containers that moto does not start.
NOT_RUN = ("aws ecs wait tasks-stopped", "aws logs tail")

#: Stands in for docker: notes its arguments, and takes the password.
DOCKER = """#!/bin/sh
echo "$*" >>"$(dirname "$0")/docker.log"
[ "$1" != login ] || cat >/dev/null
"""


def commands(*titles, page=ECS, indent=4):
    """Returns the commands of these sections. A block is indented by so many spaces."""
    lines = []
    for title in titles:
        pattern = rf"^#+ {re.escape(title)}[^\n]*\n(.*?)(?=^## |\Z)"
        [section] = re.findall(pattern, page, re.MULTILINE | re.DOTALL)
        section = re.sub(r"^```.*?^```$", "", section, flags=re.MULTILINE | re.DOTALL)
        block = " " * indent
        lines += [line[indent:] for line in section.splitlines() if line.startswith(block)]
    script = "\n".join(lines).replace("\\\n", " ")
    return [line for line in script.splitlines() if not line.startswith(NOT_RUN)]


@pytest.fixture
def aws(tmp_path):
    """A new moto, and a function that runs commands against it in one shell."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "docker").write_text(DOCKER)
    (programs / "docker").chmod(0o755)
    install = subprocess.run([ROOT / "tests/aws/install"], capture_output=True, text=True)
    assert install.returncode == 0, install.stderr
    folder = Path(install.stdout.strip())
    moto = [folder / "python", HERE / "moto_service.py"]
    with Child(moto, tmp_path, MOTO_IAM_LOAD_MANAGED_POLICIES="true") as moto:
        url = "http://{}:{}".format(*moto.listening("TCP"))
        environment = {
            "PATH": f"{programs}:{folder}:/usr/bin:/bin",
            "HOME": str(tmp_path),
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

        client = lambda name: boto3.client(
            name,
            endpoint_url=url,
            region_name=REGION,
            aws_access_key_id="a",
            aws_secret_access_key="b",
        )
        subnet = client("ec2").describe_subnets()["Subnets"][0]["SubnetId"]
        group = client("ec2").describe_security_groups()["SecurityGroups"][0]["GroupId"]

        def run(lines, **variables):
            # The page has made-up names, which moto does not know.
            script = "set -euo pipefail\n" + "\n".join(lines)
            script = re.sub("subnet-0[0-9a-f]+", subnet, re.sub("sg-0[0-9a-f]+", group, script))
            options = {"capture_output": True, "text": True, "cwd": ROOT}
            # Each command starts the AWS CLI, which takes seconds on a busy machine.
            options |= {"env": environment | variables, "timeout": 5 * PATIENCE_SECONDS}
            done = subprocess.run(["bash", "-c", script], **options)
            assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
            return done.stdout

        run.client = client
        run.docker = programs / "docker.log"
        yield run


@pytest.mark.pages
def test_the_blocks_of_the_page_lead_to_a_running_service_and_its_check(aws):
    titles = [
        "On Amazon ECS",
        "1. The image",
        "2. Repository",
        "3. A task",
        "4. Verify",
        "6. Traces",
    ]
    aws(commands(*titles))
    registry = f"123456789012.dkr.ecr.{REGION}.amazonaws.com"
    docker = aws.docker.read_text().splitlines()
    assert docker[0] == "build -t xrayd:0.1.0 ." and docker[-1] == f"push {registry}/xrayd:0.1.0"
    assert f"login --username AWS --password-stdin {registry}" in docker
    [repository] = aws.client("ecr").describe_repositories()["repositories"]
    assert repository["repositoryUri"].endswith("/xrayd")
    iam, ecs = aws.client("iam"), aws.client("ecs")
    attached = iam.list_attached_role_policies(RoleName="ecs-execution")["AttachedPolicies"]
    assert [it["PolicyName"] for it in attached] == ["AmazonECSTaskExecutionRolePolicy"]
    [group] = aws.client("logs").describe_log_groups()["logGroups"]
    assert (group["logGroupName"], group["retentionInDays"]) == ("/ecs/shop", 30)
    services = ecs.list_services(cluster="shop")["serviceArns"]
    assert {arn.rsplit("/")[-1] for arn in services} == {"shop", "xray-daemon"}
    [task] = ecs.list_tasks(cluster="shop", family="xray-verify")["taskArns"]
    # Each role that a task names is there.
    families = ["shop-sidecar", "xray-verify", "xray-daemon"]
    for family in families:
        task = ecs.describe_task_definition(taskDefinition=family)["taskDefinition"]
        for role in (task["taskRoleArn"], task["executionRoleArn"]):
            iam.get_role(RoleName=role.rsplit("/")[-1])
        for container in task["containerDefinitions"]:
            options = container["logConfiguration"]["options"]
            assert options["awslogs-group"] == group["logGroupName"]
    # Section 6 makes the role of the other account in the same one.
    trust = iam.get_role(RoleName="xray-from-shop")["Role"]["AssumeRolePolicyDocument"]
    principal = trust["Statement"][0]["Principal"]["AWS"]
    assert principal == "arn:aws:iam::123456789012:role/shop-task"
    assert iam.list_role_policies(RoleName="shop-task")["PolicyNames"] == ["xray", "xray-from-shop"]


def test_account_and_region_are_put_into_every_file():
    [start] = [line for line in commands("On Amazon ECS") if line.startswith("ours() ")]
    files = [*FOLDER.glob("*.json"), *FOLDER.glob("iam/*.json")]
    lines = ["ACCOUNT=000011112222 AWS_REGION=ap-south-1", start]
    script = "\n".join([*lines, *(f"ours {path}" for path in files)])
    text = subprocess.run(["bash", "-ec", script], capture_output=True, text=True).stdout
    assert "000011112222" in text and "ap-south-1" in text
    assert "123456789012" not in text and "eu-west-1" not in text


@pytest.mark.pages
def test_the_template_makes_the_same_and_starts_the_service_second(aws):
    deploys = commands("5. Or one")
    assert len(deploys) == 2
    start = commands("On Amazon ECS")
    aws(start + deploys[:1])
    ecs = aws.client("ecs")
    describe = lambda: ecs.describe_services(cluster="shop", services=["shop"])["services"][0]
    assert describe()["desiredCount"] == 0
    aws(start + deploys[1:])
    assert describe()["desiredCount"] == 1
    # The task that verifies is run by its family, as after section 4.
    families = ecs.list_task_definition_families()["families"]
    assert {"shop-sidecar", "xray-verify"} <= set(families)


@pytest.mark.pages
def test_the_blocks_of_the_page_about_kubernetes_make_image_and_role(aws):
    aws(
        [
            "aws eks create-cluster --name shop --role-arn arn:aws:iam::123456789012:role/eks "
            "--resources-vpc-config subnetIds=subnet-0a,subnet-0b --region eu-west-1"
        ]
    )
    start = commands("Image", page=KUBERNETES)
    role = commands("Credentials on EKS", page=KUBERNETES, indent=6)
    # The two ways make the same role. The second one needs calls that moto lacks.
    second = next(index for index, line in enumerate(role) if "create-addon" in line)
    aws(start + role[:second])
    trust = aws.client("iam").get_role(RoleName="xray-daemon")["Role"]["AssumeRolePolicyDocument"]
    [statement] = trust["Statement"]
    assert "OIDC_ISSUER" not in json.dumps(statement)
    provider = statement["Principal"]["Federated"].split("oidc-provider/")[1]
    subject = statement["Condition"]["StringEquals"][f"{provider}:sub"]
    [account] = [it for it in manifests() if it["kind"] == "ServiceAccount"]
    names = account["metadata"]
    assert subject == f"system:serviceaccount:{names['namespace']}:{names['name']}"
    aws.client("iam").delete_role_policy(RoleName="xray-daemon", PolicyName="xray")
    aws.client("iam").delete_role(RoleName="xray-daemon")
    lacks = ("aws eks create-addon", "aws eks create-pod-identity-association")
    aws(start[:3] + [line for line in role[second:] if not line.startswith(lacks)])
    trust = aws.client("iam").get_role(RoleName="xray-daemon")["Role"]["AssumeRolePolicyDocument"]
    assert trust["Statement"][0]["Principal"] == {"Service": "pods.eks.amazonaws.com"}
    for line in [line for line in role if line.startswith(lacks)]:
        understood(line)
    text = aws([*start[:4], *start[-3:], "ours deploy/kubernetes/daemonset.yaml"])
    assert f"image: 123456789012.dkr.ecr.{REGION}.amazonaws.com/xrayd:0.1.0" in text


def manifests():
    """Returns the Kubernetes objects of the DaemonSet's file."""
    return list(yaml.safe_load_all((ROOT / "deploy/kubernetes/daemonset.yaml").read_text()))


def understood(line):
    """Fails unless a command of the AWS CLI has only options that the operation has."""
    _, service, operation, *options = shlex.split(line)
    shape = SESSION.get_service_model(service)
    name = "".join(word.capitalize() for word in operation.split("-"))
    members = shape.operation_model(name).input_shape.members
    given = {option[2:] for option in options if option.startswith("--")}
    known = {re.sub(r"(?<!^)([A-Z])", r"-\1", member).lower() for member in members}
    assert given and given <= known, (given, known)


class Loader(yaml.SafeLoader):
    """Reads the short forms of CloudFormation's functions."""


def function(loader, suffix, node):
    value = node.value if isinstance(node, yaml.ScalarNode) else None
    return f"!{suffix} {value}"


Loader.add_multi_constructor("!", function)


def pascal(value):
    """Returns a task definition of the API with the names of CloudFormation."""
    if isinstance(value, dict):
        keep = lambda name: name if name.startswith("awslogs") else name[0].upper() + name[1:]
        return {keep(name): pascal(member) for name, member in value.items()}
    return [pascal(member) for member in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    "name, resource", [("sidecar.task.json", "Task"), ("verify.task.json", "VerifyTask")]
)
def test_the_tasks_of_the_template_are_those_of_the_files(name, resource):
    template = yaml.load(TEMPLATE.read_text(), Loader)
    found = template["Resources"][resource]["Properties"]
    wanted = pascal(json.loads((FOLDER / name).read_text()))
    daemon = "!Sub ${Repository.RepositoryUri}:${DaemonVersion}"
    wanted |= {
        "TaskRoleArn": "!GetAtt TaskRole.Arn",
        "ExecutionRoleArn": "!GetAtt ExecutionRole.Arn",
    }
    for container in wanted["ContainerDefinitions"]:
        is_shop = container["Name"] == "shop"
        container["Image"] = "!Ref ApplicationImage" if is_shop else daemon
        options = container["LogConfiguration"]["Options"]
        options |= {"awslogs-group": "!Ref LogGroup", "awslogs-region": "!Ref AWS::Region"}
    assert found == wanted


def test_the_role_of_the_template_has_the_policy_of_the_file():
    template = yaml.load(TEMPLATE.read_text(), Loader)
    [policy] = template["Resources"]["TaskRole"]["Properties"]["Policies"]
    assert policy["PolicyDocument"] == json.loads(
        (FOLDER / "iam/xray-write.policy.json").read_text()
    )


def test_cfn_lint_finds_nothing_and_would_find_a_mistake(tmp_path):
    install = subprocess.run([ROOT / "tests/aws/install"], capture_output=True, text=True)
    assert install.returncode == 0, install.stderr
    lint = [Path(install.stdout.strip()) / "cfn-lint", "--regions", REGION, "--"]
    options = {"capture_output": True, "text": True, "env": {"HOME": str(tmp_path)}}
    done = subprocess.run([*lint, TEMPLATE], **options)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(TEMPLATE.read_text().replace("NetworkMode: awsvpc", "NetworkMode: awsvcp"))
    done = subprocess.run([*lint, wrong], **options)
    assert done.returncode != 0 and "awsvcp" in done.stdout, done
