"""Fixtures of the container tests: images, a network, a service in a container, and daemons.

In: FOLDER for all data of podman; RUST_FOLDER, CARGO_HOME, TARGET_FOLDER and PROFILE for
the build. tests/container/run sets them. Out: fixtures.
"""

import json
import os
import sys
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import pytest
from podman import Podman, machine_mounts, python_mounts, volumes
from processes import PATIENCE_SECONDS
from skipping import pytest_terminal_summary  # noqa: F401

#: The strictest restrictions that a scheduler may put on a container.
HARDENED = [
    "--read-only",
    "--read-only-tmpfs=false",
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
    "--user=10001",
    "--memory=64m",
    "--memory-swap=64m",
]

#: The credentials that the sandbox accepts. They are public: src/daemon/sandbox.rs contains them.
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "xrayd-sandbox",
    "AWS_SECRET_ACCESS_KEY": "xrayd-sandbox-secret",
    "AWS_EC2_METADATA_DISABLED": "true",
}

#: The host names of the endpoint. The first is resolved by a name server, the second by a hosts
#: file.
NAMES = ["endpoint", "service"]

IMAGE = "xrayd"
MACHINE = "machine"


def pytest_configure():
    if "FOLDER" not in os.environ:
        raise pytest.UsageError("Run tests/container/run")


@pytest.fixture(scope="session")
def podman():
    """podman with its own store, which contains images made of this machine's programs."""
    podman = Podman(Path(os.environ["FOLDER"]))
    podman.build_base(MACHINE)
    podman.build_base("docker.io/library/rust:1.95.0-bookworm")
    podman.build_base("public.ecr.aws/amazonlinux/amazonlinux:2023-minimal")
    podman("network", "create", "bridge-of-tests")
    yield podman
    podman("rm", "--all", "--force", "--time", "0")
    podman("network", "rm", "bridge-of-tests")


@pytest.fixture(scope="session")
def image(podman):
    """Builds the image and returns its name."""
    podman.build(IMAGE)
    return IMAGE


def environment(variables):
    """Returns podman's flags that set environment variables."""
    return [f"--env={name}={value}" for name, value in variables.items()]


class Endpoint:
    """A sandbox in a container, which replaces the X-Ray service."""

    def __init__(self, container):
        self.container = container
        container.wait_for_line("Listening on TCP")
        [network] = container.inspect()["NetworkSettings"]["Networks"].values()
        self.address = network["IPAddress"]

    def traces(self):
        """Returns a summary of each trace."""
        return self._get("/traces")

    def documents(self, trace_id):
        """Returns the documents of a trace."""
        return self._get(f"/traces/{trace_id}")["documents"]

    def _get(self, path):
        url = f"http://{self.address}:2000{path}"
        request = urllib.request.Request(url, headers={"Host": NAMES[0]})
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
            return json.load(answer)


@pytest.fixture
def containers(podman, image):
    """Starts containers on the network of the tests. They end with the test."""
    with ExitStack() as running:

        def start(*arguments, name=None):
            network = ["--network=bridge-of-tests"]
            return running.enter_context(podman.run(*network, *arguments, name=name))

        yield start


@pytest.fixture
def endpoint(containers):
    """A sandbox as the X-Ray service, without traces, with the host name `endpoint`."""
    command = ["sandbox", *(f"--allow-host={name}" for name in NAMES)]
    return Endpoint(containers("--network-alias=endpoint", *HARDENED, IMAGE, *command))


@pytest.fixture
def start_daemon(containers):
    """Starts the daemon's image under the strictest restrictions. `flags` are for podman; `command`
    has the daemon's flags, as in ECS.
    """

    def start(*flags, command=("-n", "eu-west-1", "-o"), url="http://endpoint:2000", **variables):
        variables = CREDENTIALS | {"AWS_ENDPOINT_URL_XRAY": url} | variables
        daemon = containers(*HARDENED, *environment(variables), *flags, IMAGE, *command)
        daemon.wait_for_line("Listening on UDP")
        return daemon

    return start


@pytest.fixture
def emit(containers):
    """Makes the X-Ray SDK for Python send segments from its own container."""

    def emit(daemon_address, *described):
        program = Path(__file__).parents[1] / "python" / "emit.py"
        application = containers(
            "--rm",
            *volumes(machine_mounts() + python_mounts()),
            *environment({"AWS_XRAY_DAEMON_ADDRESS": daemon_address}),
            MACHINE,
            sys.executable,
            program,
            json.dumps(described),
        )
        assert (application.wait(), application.log()) == (0, "")

    return emit
