"""podman with its own store, configuration and networks.

In: a folder for this data, and commands. Out: images, and containers as children of the test, whose
log lines a test can wait for. The process must have its own network namespace, which
tests/container/run provides.
"""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

from processes import Child

ROOT = Path(__file__).parents[2]

#: runc instead of crun, and no raised limits: both crun and raised limits fail if the tests run in
#: a container.
CONFIGURATION = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
[network]
network_backend = "netavark"
network_config_dir = "{folder}/networks"
"""

#: The base images of the Dockerfile are replaced by empty folders, onto which this machine's
#: programs are mounted. The compiler, a shell and Python then come from this machine. Cargo uses
#: dependencies that were built before only if their sources have the same path as then.
BASE = """
FROM scratch
COPY root /
ENV PATH=/opt/rust/bin:/usr/bin:/bin CARGO_HOME={cargo} CARGO_NET_OFFLINE=true
"""


class Podman:
    """Runs commands of podman with the store of one folder."""

    def __init__(self, folder):
        self._folder = folder
        for name in ("networks", "tmp"):
            (folder / name).mkdir(exist_ok=True)
        configuration = folder / "containers.conf"
        configuration.write_text(CONFIGURATION.format(folder=folder))
        self._environment = {
            "PATH": os.environ["PATH"],
            "CONTAINERS_CONF": str(configuration),
            "TMPDIR": str(folder / "tmp"),
        }
        self._command = ["podman", "--root", folder / "root", "--runroot", folder / "runroot"]
        self._command += ["--tmpdir", folder / "libpod"]

    def __call__(self, *arguments, okay=True):
        """Runs a command. Returns its output, or with `okay=None` whether it succeeded."""
        result = subprocess.run(
            [*self._command, *arguments],
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
        )
        if okay is None:
            return result.returncode == 0
        assert result.returncode == 0, f"{arguments}:\n{result.stdout}{result.stderr}"
        return result.stdout.strip()

    def child(self, *arguments):
        """Starts a command that runs beside the test."""
        return Child([*self._command, *arguments], ROOT, **self._environment)

    def build_base(self, name):
        """Builds an image of this machine's programs; run it with the mounts of `machine_mounts`."""
        folder = self._folder / "base"
        root = folder / "root"
        if not folder.exists():
            for path in ("build", "dev", "etc", "opt", "proc", "sys", "tmp", "usr"):
                (root / path).mkdir(parents=True, exist_ok=True)
            for link in ("bin", "lib", "lib64", "sbin"):
                (root / link).symlink_to(f"usr/{link}")
            (root / "etc" / "passwd").write_text("root:x:0:0::/root:/bin/sh\n")
            (root / "etc" / "group").write_text("root:x:0:\n")
            (folder / "Containerfile").write_text(BASE.format(cargo=os.environ["CARGO_HOME"]))
        self("build", "--quiet", "--pull=never", "--tag", name, folder)

    def build(self, tag, *arguments):
        """Builds an image of the project from the Dockerfile, without network access."""
        registry = os.environ["CARGO_HOME"] + "/registry"
        mounts = machine_mounts() + [
            (os.environ["RUST_FOLDER"], "/opt/rust", "ro"),
            # The folder is writable, because cargo unpacks the fetched crates into it.
            (registry, registry, "rw"),
            # Dependencies that were built before, such as those of the suite `panics`, are used.
            (os.environ["TARGET_FOLDER"], "/build/target", "rw"),
        ]
        options = ["--format", "docker", "--pull=never", "--network", "host", "--tag", tag]
        options += ["--build-arg", "PROFILE=" + os.environ["PROFILE"]]
        self("build", *options, *volumes(mounts), *arguments, ".")

    def inspect(self, kind, name):
        """Returns podman's data about an image or a container."""
        return json.loads(self(kind, "inspect", name))[0]

    def run(self, *arguments, name=None):
        """Starts a container as a child of the test."""
        return Container(self, name or f"test-{uuid.uuid4().hex[:12]}", arguments)


class Container(Child):
    """A running container. It is removed at the end of its `with` block."""

    def __init__(self, podman, name, arguments):
        self.name = name
        self._podman = podman
        command = ["run", "--pull=never", "--name", name, *arguments]
        super().__init__([*podman._command, *command], ROOT, **podman._environment)

    def __exit__(self, *exception):
        self._podman("rm", "--force", "--time", "0", "--ignore", self.name)
        super().__exit__(*exception)

    def stop(self, seconds):
        """Stops the container as ECS and Kubernetes do: SIGTERM, and SIGKILL after `seconds`."""
        self._podman("stop", "--time", str(seconds), self.name)
        return self.wait()

    def inspect(self):
        """Returns podman's data about the container."""
        return self._podman.inspect("container", self.name)

    def check_health(self):
        """Runs the image's health check once, as a timer would, and returns the resulting health."""
        self._podman("healthcheck", "run", self.name, okay=None)
        return self.health()

    def health(self):
        """Returns `starting`, `healthy` or `unhealthy`."""
        return self.inspect()["State"]["Health"]["Status"]


def volumes(mounts):
    """Returns the flags for mounts."""
    return [word for mount in mounts for word in ("--volume", ":".join(map(str, mount)))]


def machine_mounts():
    """Returns the mounts of this machine's programs and of the certificates that they trust."""
    folders = ["/usr", "/etc/ssl", "/etc/alternatives"]
    return [(folder, folder, "ro") for folder in folders]


def python_mounts():
    """Returns the mounts of the tests' Python with its packages, and of the tests."""
    folders = {Path(sys.prefix), Path(sys.base_prefix), ROOT / "tests"}
    folders = {folder for folder in folders if not folder.is_relative_to("/usr")}
    return [(folder, folder, "ro") for folder in sorted(folders)]
