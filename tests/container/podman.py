"""podman with a store, a configuration and networks of its own.

In: a folder for all of that, and commands. Out: images, and containers as children of the test,
whose lines can be waited for. The process must have a network namespace to itself, as
tests/container/run gives it one.
"""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

from processes import Child

ROOT = Path(__file__).parents[2]

#: runc rather than crun, and no raised limits: both fail where the tests run in a container
#: themselves.
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

#: What the images that the Dockerfile starts from are here: folders for this machine's own
#: programs, which are mounted. The compiler, a shell and Python are then those of the tests.
BASE = """
FROM scratch
COPY root /
ENV PATH=/opt/rust/bin:/usr/bin:/bin CARGO_HOME=/cargo CARGO_NET_OFFLINE=true
"""


class Podman:
    """Commands, in the store of one folder."""

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
        """Runs a command; returns what it printed, or with `okay=None` whether it succeeded."""
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
        """A command that goes on beside the test."""
        return Child([*self._command, *arguments], ROOT, **self._environment)

    def build_base(self, name):
        """Makes an image of this machine's programs; `machine_mounts` has to go with it."""
        folder = self._folder / "base"
        root = folder / "root"
        if not folder.exists():
            for path in ("build", "cargo", "dev", "etc", "opt", "proc", "sys", "tmp", "usr"):
                (root / path).mkdir(parents=True, exist_ok=True)
            for link in ("bin", "lib", "lib64", "sbin"):
                (root / link).symlink_to(f"usr/{link}")
            (root / "etc" / "passwd").write_text("root:x:0:0::/root:/bin/sh\n")
            (root / "etc" / "group").write_text("root:x:0:\n")
            (folder / "Containerfile").write_text(BASE)
        self("build", "--quiet", "--pull=never", "--tag", name, folder)

    def build(self, tag, *arguments):
        """Builds an image of the project as the Dockerfile says, without network."""
        mounts = machine_mounts() + [
            (os.environ["RUST_FOLDER"], "/opt/rust", "ro"),
            # Unpacking what was fetched writes here, as any build does.
            (os.environ["CARGO_HOME"] + "/registry", "/cargo/registry", "rw"),
        ]
        options = ["--format", "docker", "--pull=never", "--network", "host", "--tag", tag]
        options += ["--build-arg", "PROFILE=" + os.environ["PROFILE"]]
        self("build", *options, *volumes(mounts), *arguments, ".")

    def inspect(self, kind, name):
        """What podman knows of an image or a container."""
        return json.loads(self(kind, "inspect", name))[0]

    def run(self, *arguments, name=None):
        """Starts a container as a child of the test."""
        return Container(self, name or f"test-{uuid.uuid4().hex[:12]}", arguments)


class Container(Child):
    """A running container; it is removed when its `with` block ends."""

    def __init__(self, podman, name, arguments):
        self.name = name
        self._podman = podman
        command = ["run", "--pull=never", "--name", name, *arguments]
        super().__init__([*podman._command, *command], ROOT, **podman._environment)

    def __exit__(self, *exception):
        self._podman("rm", "--force", "--time", "0", "--ignore", self.name)
        super().__exit__(*exception)

    def stop(self, seconds):
        """Ends it as ECS and Kubernetes do: SIGTERM, and SIGKILL after `seconds`."""
        self._podman("stop", "--time", str(seconds), self.name)
        return self.wait()

    def inspect(self):
        """What podman knows of it."""
        return self._podman.inspect("container", self.name)

    def check_health(self):
        """Runs the image's health check, as a timer would; returns what is known after it."""
        self._podman("healthcheck", "run", self.name, okay=None)
        return self.health()

    def health(self):
        """`starting`, `healthy` or `unhealthy`."""
        return self.inspect()["State"]["Health"]["Status"]


def volumes(mounts):
    """Flags for mounts."""
    return [word for mount in mounts for word in ("--volume", ":".join(map(str, mount)))]


def machine_mounts():
    """This machine's programs, with the certificates that they trust."""
    folders = ["/usr", "/etc/ssl", "/etc/alternatives"]
    return [(folder, folder, "ro") for folder in folders]


def python_mounts():
    """The tests' Python with its packages, and the tests."""
    folders = {Path(sys.prefix), Path(sys.base_prefix), ROOT / "tests"}
    folders = {folder for folder in folders if not folder.is_relative_to("/usr")}
    return [(folder, folder, "ro") for folder in sorted(folders)]
