"""Checks the packages and the image for arm64 on a machine of another architecture.

In: ARM64_BINARY, a binary for arm64, for the packages; the Dockerfile, for the image. Out: their
architecture, and a daemon that runs from each in QEMU's emulator of single programs. The kernel
needs no setting for it: each command names the emulator.
"""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from conftest import CREDENTIALS, HARDENED, IMAGE, NAMES, Endpoint, environment
from podman import ROOT
from processes import Daemon, wait_for
from test_run import account, published, segments, send

#: The emulator is a static program. So it also runs in an image without any library.
EMULATOR = "/usr/bin/qemu-aarch64-static"
#: The libraries for arm64, from Debian's packages for cross-compiling.
LIBRARIES = "/usr/aarch64-linux-gnu"

#: The emulator needs memory of its own.
MEMORY = ["--memory=512m", "--memory-swap=512m"]


def output(*command):
    """Runs a command and returns its output."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder with the packages for arm64."""
    folder = tmp_path_factory.mktemp("packages")
    build = [ROOT / "deploy/packages/build", os.environ["ARM64_BINARY"], folder]
    subprocess.run(build, env=os.environ | {"QUICK": "1"}, check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture(scope="module")
def deb(folder):
    """The package for Debian."""
    [path] = folder.glob("xrayd_*_arm64.deb")
    return path


@pytest.fixture(scope="module")
def rpm(folder):
    """The package for RPM."""
    [path] = folder.glob("xrayd-*.aarch64.rpm")
    return path


@pytest.fixture(params=["deb", "rpm"])
def unpacked(request, tmp_path):
    """A folder with the files of each package. Nothing of it is installed on this machine."""
    package = request.getfixturevalue(request.param)
    if request.param == "deb":
        output("dpkg-deb", "--extract", package, tmp_path)
    else:
        unchecked = ["--nodeps", "--noscripts", "--ignorearch"]
        output("rpm", "--root", tmp_path, "--install", *unchecked, package)
    return tmp_path


def test_the_deb_is_for_arm64_and_needs_the_systems_own_libraries_alone(deb):
    assert output("dpkg-deb", "--field", deb, "Architecture") == "arm64"
    depends = output("dpkg-deb", "--field", deb, "Depends")
    assert re.fullmatch(r"libc6 \(>= 2\.\d+\), libgcc-s1, adduser", depends), depends


def test_the_rpm_is_for_aarch64_and_needs_the_systems_own_libraries_alone(rpm):
    query = ["rpm", "--query", "--package", rpm]
    assert output(*query, "--queryformat=%{ARCH} %{OS}") == "aarch64 linux"
    names = {re.split(r"[( ]", line)[0] for line in output(*query, "--requires").splitlines()}
    libraries = {"ld-linux-aarch64.so.1", "libc.so.6", "libgcc_s.so.1", "libm.so.6"}
    assert names - libraries == {"/bin/sh", "config", "rpmlib", "rtld", "shadow-utils"}


def test_the_program_of_a_package_is_stripped_and_takes_the_configuration_beside_it(unpacked):
    program = unpacked / "usr/bin/xray"
    described = output("readelf", "--file-header", "--section-headers", "--wide", program)
    assert re.search(r"Machine: +AArch64", described) and ".symtab" not in described
    emulated = [EMULATOR, "-L", LIBRARIES, program]
    cfg = unpacked / "etc/amazon/xray/cfg.yaml"
    settings = output(*emulated, "-n", "eu-central-1", "-c", cfg, "config").splitlines()
    assert [line.split()[:3] for line in settings if line.startswith("Region")] == [
        ["Region", "eu-central-1", "flag"]
    ]


def test_the_seccomp_profile_allows_each_system_call_that_the_daemon_makes_on_arm64(tmp_path):
    """arm64 has no `epoll_wait`, `open` and `poll`: the daemon makes other calls there."""
    emulated = ["-L", LIBRARIES, "-d", "strace", "-D", tmp_path / "calls"]
    command = [*emulated, os.environ["ARM64_BINARY"], "-o", "--spool-path", tmp_path / "spool"]
    with Daemon(EMULATOR, tmp_path, *command, "sandbox") as sandbox:
        url = "http://{}:{}".format(*sandbox.listening("TCP"))
        command[5] = tmp_path / "more calls"
        service = CREDENTIALS | {"AWS_ENDPOINT_URL_XRAY": url}
        with Daemon(EMULATOR, tmp_path, *command, **service) as daemon:
            daemon.wait_until_ready()
            daemon.send(segments(3))
            daemon.wait_until_sent(3)
            daemon.end_in_order()
    logs = [(tmp_path / name).read_text() for name in ("calls", "more calls")]
    made = {name for log in logs for name in re.findall(r"^\d+ (\w+)\(", log, re.MULTILINE)}
    assert made > {"epoll_pwait", "flock", "openat", "recvmmsg"}, made
    profile = json.loads((ROOT / "deploy/seccomp/xray.json").read_text())
    free = [rule for rule in profile["syscalls"] if not rule.get("includes", {}).get("caps")]
    assert made - {name for rule in free for name in rule["names"]} == set()


@pytest.fixture(scope="session")
def image(podman):
    """Builds the image for arm64, by the command of docs/ecs.md, in place of that for this
    machine."""
    # An old podman does not know the platform of its own machine.
    own = "--build-arg=BUILDPLATFORM=linux/amd64"
    podman.build(IMAGE, "--platform", "linux/arm64", own)
    return IMAGE


@pytest.fixture
def emulate(podman, containers):
    """Starts containers of the image in the emulator, under the strictest restrictions."""

    def start(*flags, command, **variables):
        entry_point = podman.inspect("image", IMAGE)["Config"]["Entrypoint"]
        words = ",".join(f'"{word}"' for word in ["/qemu", *entry_point])
        emulator = [f"--volume={EMULATOR}:/qemu:ro", f"--entrypoint=[{words}]"]
        flags = [*HARDENED, *MEMORY, *emulator, *environment(variables), *flags]
        return containers("--platform=linux/arm64", *flags, IMAGE, *command)

    return start


def test_the_image_is_for_arm64_and_its_binary_is_static(podman, image):
    described = podman.inspect("image", image)
    assert (described["Os"], described["Architecture"]) == ("linux", "arm64")
    tree = Path(podman("image", "mount", image))
    headers = output("readelf", "--file-header", "--segments", "--wide", tree / "xray")
    podman("image", "unmount", image)
    assert re.search(r"Machine: +AArch64", headers)
    assert "LOAD" in headers and "INTERP" not in headers


def test_segments_through_the_image_arrive_and_the_account_balances(podman, emulate):
    hosts = [f"--allow-host={name}" for name in NAMES]
    endpoint = Endpoint(emulate("--network-alias=endpoint", command=["sandbox", *hosts]))
    daemon = emulate(
        "--publish=127.0.0.1::2000/udp",
        command=["-n", "eu-west-1", "-o"],
        AWS_ENDPOINT_URL_XRAY="http://endpoint:2000",
        **CREDENTIALS,
    )
    # The emulator has no io_uring. The daemon says so and receives otherwise.
    assert "receive backend recvmmsg" in daemon.wait_for_line("Listening on UDP")
    assert "io_uring" in daemon.wait_for_line("recvmmsg instead")
    daemon.wait_for_line("Listening on TCP")
    podman("exec", daemon.name, "/qemu", "/xray", "healthcheck")
    send(published(daemon), segments(60))
    wait_for(lambda: len(endpoint.traces()) == 60, daemon.log)
    assert daemon.stop(30) == 0
    counts = account(daemon)
    assert (counts["received"], counts["sent"], counts["dropped"]) == (60, 60, 0), daemon.log()
