"""What the tests share: images, a network, an endpoint in a container and daemons beside it.

In: FOLDER for all that podman makes; RUST_FOLDER, CARGO_HOME and PROFILE for the build.
tests/container/run sets them. Out: fixtures.
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

#: The least that a scheduler may ask of a container.
HARDENED = [
    "--read-only",
    "--read-only-tmpfs=false",
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
    "--user=10001",
    "--memory=64m",
    "--memory-swap=64m",
]

#: What the sandbox accepts, known to everybody: src/daemon/sandbox.rs.
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "xrayd-sandbox",
    "AWS_SECRET_ACCESS_KEY": "xrayd-sandbox-secret",
    "AWS_EC2_METADATA_DISABLED": "true",
}

#: What the endpoint is called: by the server of names, and by a file of them.
NAMES = ["endpoint", "service"]

IMAGE = "xrayd"
MACHINE = "machine"


def pytest_configure():
    if "FOLDER" not in os.environ:
        raise pytest.UsageError("Run tests/container/run")


@pytest.fixture(scope="session")
def podman():
    """podman with a store of its own, and images of this machine's programs in it."""
    podman = Podman(Path(os.environ["FOLDER"]))
    podman.build_base(MACHINE)
    podman.build_base("docker.io/library/rust:1-bookworm")
    podman.build_base("public.ecr.aws/amazonlinux/amazonlinux:2023-minimal")
    podman("network", "create", "bridge-of-tests")
    yield podman
    podman("rm", "--all", "--force", "--time", "0")
    podman("network", "rm", "bridge-of-tests")


@pytest.fixture(scope="session")
def image(podman):
    """The image."""
    podman.build(IMAGE)
    return IMAGE


def environment(variables):
    """Flags for variables."""
    return [f"--env={name}={value}" for name, value in variables.items()]


class Endpoint:
    """The daemon's sandbox in a container, as the service."""

    def __init__(self, container):
        self.container = container
        container.wait_for_line("Listening on TCP")
        [network] = container.inspect()["NetworkSettings"]["Networks"].values()
        self.address = network["IPAddress"]

    def traces(self):
        """A summary of each trace that it has."""
        return self._get("/traces")

    def documents(self, trace_id):
        """The documents of a trace."""
        return self._get(f"/traces/{trace_id}")["documents"]

    def _get(self, path):
        url = f"http://{self.address}:2000{path}"
        request = urllib.request.Request(url, headers={"Host": NAMES[0]})
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
            return json.load(answer)


@pytest.fixture
def containers(podman, image):
    """Starts containers on the network of the tests; they end with the test."""
    with ExitStack() as running:

        def start(*arguments, name=None):
            network = ["--network=bridge-of-tests"]
            return running.enter_context(podman.run(*network, *arguments, name=name))

        yield start


@pytest.fixture
def endpoint(containers):
    """A service without a trace, by the name of `endpoint`."""
    command = ["sandbox", *(f"--allow-host={name}" for name in NAMES)]
    return Endpoint(containers("--network-alias=endpoint", *HARDENED, IMAGE, *command))


@pytest.fixture
def start_daemon(containers):
    """Starts the image as tightly as can be, with flags for podman and words for ECS' command."""

    def start(*flags, command=("-n", "eu-west-1", "-o"), url="http://endpoint:2000", **variables):
        variables = CREDENTIALS | {"AWS_ENDPOINT_URL_XRAY": url} | variables
        daemon = containers(*HARDENED, *environment(variables), *flags, IMAGE, *command)
        daemon.wait_for_line("Listening on UDP")
        return daemon

    return start


@pytest.fixture
def emit(containers):
    """Has the X-Ray SDK for Python send segments from a container of its own."""

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
