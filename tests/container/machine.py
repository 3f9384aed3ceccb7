"""A machine with systemd, in a container, on which packages are installed.

In: a podman that has the image. Out: commands run on the machine, and the state of its service.
"""

import os

from processes import Child, wait_for

IMAGE = "machine-with-systemd"

#: The variables of a program of this host.
PROGRAMS = {"PATH": os.environ["PATH"]}

#: The rights that systemd needs in a container to restrict services. Kernel settings stay
#: read-only.
FLAGS = ["--systemd=always", "--cap-add=all", "--security-opt=seccomp=unconfined"]

#: Paths that a running machine changes without the packages, and paths in which dpkg and rpm keep
#: their data.
CHANGING = "/dev /packages /proc /root /run /sys /tmp /var/backups /var/cache /var/lib/dpkg"
CHANGING += (
    " /var/lib/rpm /var/lib/systemd /var/log/apt /var/log/dpkg.log /var/log/journal /var/tmp"
)


class Machine:
    """A machine that has booted."""

    def __init__(self, podman, folder):
        self._podman = podman
        volumes = [f"--volume={folder}:/packages:ro"]
        command = [*FLAGS, *volumes, "--network=none", "--detach", IMAGE, "/lib/systemd/systemd"]
        self._name = podman("run", "--pull=never", *command).splitlines()[-1]
        is_up = ["exec", self._name, "systemctl", "is-system-running", "--wait"]
        wait_for(lambda: podman(*is_up, okay=None), lambda: podman("logs", self._name))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._podman("rm", "--force", "--time", "0", self._name)

    def run(self, *command, okay=True):
        """Runs a command on the machine. Returns its output, or with `okay=None` whether it
        succeeded.
        """
        return self._podman("exec", self._name, *command, okay=okay)

    def beside(self, folder, *command):
        """Starts a program of this host in the network namespace of the machine."""
        process = self._podman.inspect("container", self._name)["State"]["Pid"]
        return Child(["nsenter", f"--net=/proc/{process}/ns/net", *command], folder, **PROGRAMS)

    def write(self, path, text):
        """Writes a file."""
        self.run("sh", "-c", 'mkdir -p "$(dirname "$1")"; printf %s "$2" >"$1"', "sh", path, text)

    def read(self, path):
        """Returns the text of a file."""
        return self.run("cat", path)

    def service(self, *names):
        """Returns properties of the daemon's service."""
        lines = self.run("systemctl", "show", "xray", "--property", ",".join(names)).splitlines()
        values = dict(line.split("=", 1) for line in lines)
        return [values[name] for name in names]

    def log(self):
        """Returns the logs of systemd and the daemon, for a failing test."""
        command = "systemctl status xray; journalctl --unit xray; cat /var/log/xray/xray.log"
        return self.run("sh", "-c", command + "; true")

    def wait_for_service(self):
        """Waits until the service runs, and returns the id of its process."""
        wait_for(lambda: self.service("ActiveState") == ["active"], self.log)
        [process] = self.service("MainPID")
        return process

    def files(self):
        """Returns every path that neither the machine nor the package managers change by
        themselves.
        """
        prune = [word for path in CHANGING.split() for word in ("-path", path, "-o")]
        found = self.run("find", "/", "(", *prune[:-1], ")", "-prune", "-o", "-print")
        accounts = ("passwd", "group", "shadow", "gshadow", "subuid", "subgid")
        backups = {f"/etc/{name}{suffix}" for name in accounts for suffix in ("", "-")}
        return set(found.splitlines()) - backups


def original(folder):
    """Creates what dpkg and rpm need to build stand-ins for the packages of the AWS daemon. They
    have the same name, paths and service.
    """
    root = folder / "original"
    (root / "DEBIAN").mkdir(parents=True)
    files = {
        "usr/bin/xray": "#!/bin/sh\nexec sleep infinity\n",
        "etc/amazon/xray/cfg.yaml": "Version: 2\nTotalBufferSizeMB: 0\n",
        "lib/systemd/system/xray.service": (
            "[Service]\nExecStart=/usr/bin/xray -f /var/log/xray/xray.log\n"
            "User=xray\nRestart=always\n[Install]\nWantedBy=network.target\n"
        ),
    }
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    (root / "usr/bin/xray").chmod(0o755)
    scripts = {
        "postinst": "useradd --system xray; systemctl enable xray; systemctl start xray",
        "prerm": "systemctl stop xray; systemctl disable xray",
    }
    control = "Package: xray\nVersion: 3.6.6\nArchitecture: amd64\nMaintainer: a\nDescription: a\n"
    (root / "DEBIAN/control").write_text(control)
    (root / "DEBIAN/conffiles").write_text("/etc/amazon/xray/cfg.yaml\n")
    for name, text in scripts.items():
        (root / "DEBIAN" / name).write_text(f"#!/bin/sh\n{text}\n")
        (root / "DEBIAN" / name).chmod(0o755)
    spec = f"""
Name: xray
Version: 3.6.6
Release: 1
Summary: a
License: a
%description
%prep
%build
%install
cp -a {root}/usr {root}/etc {root}/lib %{{buildroot}}
%post
{scripts["postinst"]}
%preun
if [ $1 -eq 0 ]; then {scripts["prerm"]}; fi
%files
/usr/bin/xray
/lib/systemd/system/xray.service
%config(noreplace) /etc/amazon/xray/cfg.yaml
"""
    (folder / "xray.spec").write_text(spec)
    return root, folder / "xray.spec"
