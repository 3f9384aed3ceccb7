"""Installs the packages for Debian and RPM on a machine with systemd.

In: packages of the binary under test in two revisions, and stand-ins for the packages of the AWS
daemon. Out: a running service, a preserved configuration, and no files after a purge.
"""

import gzip
import os
import re
import subprocess
import sys
from pathlib import Path

import machine
import pytest
from machine import Machine
from podman import ROOT
from processes import ENVIRONMENT, wait_for

CFG = "/etc/amazon/xray/cfg.yaml"
EDIT = "Version: 2\n# by the operator\nTotalBufferSizeMB: 9\n"

#: The commands of dpkg, and the ending of its packages.
DEB = {
    "install": ["dpkg", "--install"],
    "upgrade": ["dpkg", "--install"],
    "remove": ["dpkg", "--remove"],
    "suffix": "deb",
}
# The commands of rpm. They do not check dependencies, because the machine's programs are packages
# of Debian.
RPM = {
    "install": ["rpm", "--install", "--nodeps"],
    "upgrade": ["rpm", "--upgrade", "--nodeps"],
    "remove": ["rpm", "--erase"],
    "suffix": "rpm",
}
BOTH = pytest.mark.parametrize("manager", [DEB, RPM], ids=["deb", "rpm"])


@pytest.fixture(scope="module")
def folder(podman, tmp_path_factory):
    """The folder with all packages for Debian and RPM: revisions 1 and 2 of xrayd, and the
    stand-ins for the AWS daemon.
    """
    folder = tmp_path_factory.mktemp("packages")
    environment = os.environ | {"QUICK": "1"}
    for revision in ("1", "2"):
        command = [ROOT / "deploy/packages/build", os.environ["XRAY_BINARY"], folder, revision]
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    root, spec = machine.original(folder)
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", root, folder], **quiet)
    definitions = {"_topdir": folder / "rpm", "_rpmdir": folder, "_rpmfilename": "xray-3.6.6.rpm"}
    flags = [f"--define={name} {value}" for name, value in definitions.items()]
    subprocess.run(["rpmbuild", "-bb", *flags, spec], **quiet)
    podman("import", Path(os.environ["FOLDER"]) / "machine.tar", machine.IMAGE)
    return folder


def test_a_binary_of_an_architecture_without_packages_is_refused(tmp_path):
    binary = tmp_path / "xray"
    # An ELF file for no machine (EM_NONE): only its first bytes.
    binary.write_bytes(b"\x7fELF" + bytes(60))
    command = [ROOT / "deploy/packages/build", binary, tmp_path / "packages"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1 and "neither x86-64 nor arm64" in result.stderr, result.stderr
    assert not (tmp_path / "packages").exists()


def test_the_deb_depends_on_the_systems_own_libraries_alone(folder):
    [path] = folder.glob("xrayd_*-1_*.deb")
    command = ["dpkg-deb", "--field", path, "Depends"]
    depends = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert re.fullmatch(r"libc6 \(>= 2\.\d+\), libgcc-s1, adduser", depends), depends


@BOTH
def test_the_package_has_the_manual_pages(manager, folder, tmp_path):
    path = folder / Path(package(manager, folder, 1)).name
    pages = {"xray.1": "/usr/share/man/man1", "cfg.yaml.5": "/usr/share/man/man5"}
    if manager is RPM:
        command = ["rpm", "--query", "--list", "--package", path]
        names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        assert {f"{place}/{name}.gz" for name, place in pages.items()} <= set(names)
        return
    subprocess.run(["dpkg-deb", "--extract", path, tmp_path], check=True)
    for name, place in pages.items():
        page = (tmp_path / f"{place[1:]}/{name}.gz").read_bytes()
        assert gzip.decompress(page) == (ROOT / "docs/man" / name).read_bytes()


@pytest.fixture
def host(podman, folder):
    """A machine without xrayd and with the variables that the daemon needs to start."""
    with Machine(podman, folder) as host:
        host.write("/etc/default/xray", "".join(f"{k}={v}\n" for k, v in ENVIRONMENT.items()))
        yield host


def package(manager, folder, revision):
    """Returns the path of xrayd's package of this revision on the machine."""
    [found] = folder.glob(f"xrayd[-_]*-{revision}[._]*{manager['suffix']}")
    return f"/packages/{found.name}"


def original(manager, folder):
    """Returns the path of the stand-in for the AWS daemon's package on the machine."""
    [found] = folder.glob(f"xray[-_]3*{manager['suffix']}")
    return f"/packages/{found.name}"


@BOTH
def test_an_installed_daemon_runs_as_its_user_and_at_the_next_boot(manager, folder, host):
    host.run(*manager["install"], package(manager, folder, 1))
    process = host.wait_for_service()
    assert host.run("systemctl", "is-enabled", "xray") == "enabled"
    assert host.run("stat", "--format=%U %G", f"/proc/{process}") == "xray xray"
    assert host.run("stat", "--format=%U", "/var/log/xray/xray.log") == "xray"
    log = host.read("/var/log/xray/xray.log")
    assert "Listening on UDP 127.0.0.1:2000" in log and "Initializing AWS X-Ray daemon" in log
    assert host.service("NRestarts") == ["0"]


@BOTH
def test_the_service_ends_in_order_and_reopens_its_log(manager, folder, host):
    host.run(*manager["install"], package(manager, folder, 1))
    host.wait_for_service()
    host.run("mv", "/var/log/xray/xray.log", "/var/log/xray/old.log")
    host.run("systemctl", "reload", "xray")
    host.run("systemctl", "stop", "xray")
    assert "Got SIGHUP" in host.read("/var/log/xray/xray.log")
    assert "Account: received=0" in host.read("/var/log/xray/xray.log")
    assert host.service("Result", "ExecMainStatus") == ["success", "0"]


def test_a_daemon_that_stands_still_is_started_anew(folder, host):
    quick = "[Service]\nWatchdogSec=2\nTimeoutAbortSec=2\n"
    host.write("/etc/systemd/system/xray.service.d/quick.conf", quick)
    host.run(*DEB["install"], package(DEB, folder, 1))
    process = host.wait_for_service()
    host.run("sh", "-c", f"kill -STOP {process}")
    wait_for(lambda: host.service("NRestarts") == ["1"], host.log)
    assert host.wait_for_service() != process


def test_the_service_waits_for_the_network_of_its_host(folder, host, tmp_path):
    host.write("/etc/default/xray", "AWS_ENDPOINT_URL_XRAY=http://127.0.0.1:9\n")
    # The daemon gives a metadata service a second. On a busy machine both need a place before others.
    host.write("/etc/systemd/system/xray.service.d/first.conf", "[Service]\nNice=-19\n")
    host.run(*DEB["install"], package(DEB, folder, 1))
    process = host.wait_for_service()
    read = lambda: host.read("/var/log/xray/xray.log")
    wait_for(lambda: "because the network is not there yet" in read(), host.log)
    assert host.service("ActiveState", "NRestarts") == ["active", "0"]
    metadata = ["nice", "--adjustment=-19", sys.executable, ROOT / "tests/python/metadata.py"]
    metadata.append("eu-south-1")
    address = ["ip", "address", "add", "169.254.169.254", "dev", "lo"]
    with host.beside(tmp_path, *metadata) as server:
        server.wait_for_line("serving")
        with host.beside(tmp_path, *address) as network:
            assert network.wait() == 0, network.log()
        wait_for(lambda: "in region eu-south-1" in read(), host.log)
    assert "The network is there, after" in read()
    assert host.service("ActiveState", "NRestarts") == ["active", "0"]
    assert host.wait_for_service() == process


def test_verify_takes_flags_variables_and_user_of_the_service(folder, host):
    host.write("/etc/default/xray", "AWS_REGION=eu-central-2\nAWS_EC2_METADATA_DISABLED=true\n")
    host.run(*DEB["install"], package(DEB, folder, 1))
    process = host.wait_for_service()
    verify = lambda: host.run("sh", "-c", "xray verify --unit 2>&1; true")
    for source in (f"the running xray.service (process {process}):", "which does not run:"):
        said = verify()
        assert source in said, said
        assert "region: eu-central-2, from AWS_REGION" in said, said
        # The flag is -f. The file belongs to the user of the service, and root is not this user.
        assert "settings by flags 1, by variables 1" in said, said
        assert "/var/lib/xray/.aws/credentials" in said, said
        assert "Do this first (credentials): " in said, said
        host.run("systemctl", "stop", "xray")


def test_the_service_is_started_until_another_program_gives_the_port_back(folder, host, tmp_path):
    # Without pauses the starts come faster than systemd's default allows.
    quick = "[Service]\nRestartSec=100ms\n"
    host.write("/etc/systemd/system/xray.service.d/quick.conf", quick)
    take = "import socket, time; it = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)"
    take += "; it.bind(('127.0.0.1', 2000)); print('taken', flush=True); time.sleep(3600)"
    with host.beside(tmp_path, sys.executable, "-c", take) as other:
        other.wait_for_line("taken")
        host.run(*DEB["install"], package(DEB, folder, 1))
        restarts = lambda: int(host.service("NRestarts")[0])
        wait_for(lambda: restarts() >= 8, host.log)
        assert host.service("Result") != ["start-limit-hit"], host.log()
    host.wait_for_service()
    log = host.read("/var/log/xray/xray.log")
    assert "UDP 127.0.0.1:2000 is in use" in log and "Listening on UDP" in log


@BOTH
def test_an_upgrade_keeps_an_edited_configuration_and_starts_the_new_daemon(manager, folder, host):
    host.run(*manager["install"], package(manager, folder, 1))
    before = host.wait_for_service()
    host.write(CFG, EDIT)
    host.run(*manager["upgrade"], package(manager, folder, 2))
    after = host.wait_for_service()
    assert host.read(CFG) == EDIT.strip()
    assert before != after
    assert "buffers 9 MB" in host.read("/var/log/xray/xray.log")


@BOTH
def test_an_upgrade_leaves_a_service_disabled_that_the_operator_has_disabled(manager, folder, host):
    host.run(*manager["install"], package(manager, folder, 1))
    host.run("systemctl", "disable", "--now", "xray")
    host.run(*manager["upgrade"], package(manager, folder, 2))
    assert host.run("systemctl", "show", "xray", "--property=UnitFileState").endswith("=disabled")


@BOTH
def test_it_takes_the_place_of_the_original_and_keeps_its_configuration(manager, folder, host):
    host.run(*manager["install"], original(manager, folder))
    assert host.service("ActiveState") == ["active"]
    host.write(CFG, EDIT)
    # Without this option dpkg asks which configuration file to keep.
    keep = ["--force-confold"] if manager is DEB else []
    host.run(*manager["upgrade"], *keep, package(manager, folder, 1))
    process = host.wait_for_service()
    assert host.run("systemctl", "is-enabled", "xray") == "enabled"
    assert host.run("readlink", f"/proc/{process}/exe") == "/usr/bin/xray"
    assert host.read(CFG) == EDIT.strip()
    if manager is DEB:
        # dpkg has kept only the configuration of the AWS daemon. Its purge must not delete the
        # file, which xrayd now owns.
        status = host.run("dpkg-query", "--show", "--showformat=${db:Status-Status}", "xray")
        assert status == "config-files"
        host.run("dpkg", "--purge", "xray")
        assert host.read(CFG) == EDIT.strip()
    else:
        assert host.run("rpm", "--query", "--all", "--queryformat=%{NAME} ") == "xrayd"


def test_a_purge_leaves_nothing(folder, host):
    before = host.files()
    host.run("dpkg", "--install", package(DEB, folder, 1))
    host.wait_for_service()
    assert len(host.files() - before) > 5
    host.write(CFG, EDIT)
    host.run("dpkg", "--remove", "xrayd")
    assert host.read(CFG) == EDIT.strip()
    assert host.service("ActiveState") == ["inactive"]
    host.run("dpkg", "--purge", "xrayd")
    assert host.files() ^ before == set()
    for accounts in ("passwd", "group"):
        assert not host.run("getent", accounts, "xray", okay=None)


def test_a_purge_keeps_segments_that_were_not_sent_and_says_so(folder, host):
    host.write(CFG, "Version: 2\nShutdownSeconds: 2\nSpool: {Path: /var/lib/xray/spool}\n")
    host.run("dpkg", "--install", "--force-confold", package(DEB, folder, 1))
    host.wait_for_service()
    # The machine has no network, so the segment is spooled when the service is stopped.
    host.write("/tmp/datagram", '{"format":"json","version":1}\n{"id":"70de5b6f19ff9a0a"}')
    # bash writes a datagram for each line, and cat writes one.
    host.run("bash", "-c", "cat /tmp/datagram >/dev/udp/127.0.0.1/2000")
    said = host.run("sh", "-c", "dpkg --purge xrayd 2>&1")
    assert "/var/lib/xray and the user xray are kept" in said
    kept = host.run("find", "/var/lib/xray/spool", "-name", "*.spool", "-size", "+0")
    assert len(kept.splitlines()) == 1
    assert host.run("stat", "--format=%U %a", kept) == "xray 600"
    assert not host.run("test", "-e", "/var/log/xray", okay=None)


@BOTH
def test_the_log_can_be_read_by_others_but_not_at_debug_level(manager, folder, host):
    host.run(*manager["install"], package(manager, folder, 1))
    host.wait_for_service()
    log = "/var/log/xray/xray.log"
    assert host.run("stat", "--format=%a", log) == "644"
    host.write(CFG, "Version: 2\nLogging: {LogLevel: debug}\n")
    host.run("systemctl", "restart", "xray")
    process = host.wait_for_service()
    assert host.run("stat", "--format=%a", log) == "640"
    limits = host.run("grep", "core", f"/proc/{process}/limits").split()
    assert limits[4:6] == ["0", "0"]


def test_an_erased_rpm_leaves_an_edited_configuration_and_what_the_daemon_wrote(folder, host):
    before = host.files()
    host.run(*RPM["install"], package(RPM, folder, 1))
    host.wait_for_service()
    host.write(CFG, EDIT)
    host.run(*RPM["remove"], "xrayd")
    assert host.service("ActiveState") == ["inactive"]
    # rpm-based systems already have the first two paths.
    shared = {"/usr/share/licenses", "/var/lib/rpm-state", "/etc/amazon", "/etc/amazon/xray"}
    written = {CFG + ".rpmsave", "/var/lib/xray", "/var/log/xray", "/var/log/xray/xray.log"}
    assert host.files() - before == shared | written
    assert host.read(CFG + ".rpmsave") == EDIT.strip()


def test_the_rpm_depends_on_the_systems_own_libraries_alone(folder):
    [path] = folder.glob("xrayd-*-1.*.rpm")
    command = ["rpm", "--query", "--package", "--requires", path]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    names = {line.split("(")[0].split(" ")[0] for line in lines if line}
    libraries = {"ld-linux-x86-64.so.2", "libc.so.6", "libgcc_s.so.1", "libm.so.6"}
    assert names - libraries == {"/bin/sh", "config", "rpmlib", "rtld", "shadow-utils"}


def test_systemd_finds_nothing_wrong_with_the_unit_and_little_exposed(folder, host):
    host.run("dpkg", "--install", package(DEB, folder, 1))
    # The machine has no program that shows manual pages.
    verify = ["systemd-analyze", "verify", "--man=no"]
    assert host.run(*verify, "/lib/systemd/system/xray.service") == ""
    # systemd rates the exposure of a service from 0 to 100. The remaining exposure comes from
    # network access, which the daemon needs.
    check = ["systemd-analyze", "security", "--offline=true", "--no-pager"]
    host.run(*check, "--threshold=15", "xray.service")
