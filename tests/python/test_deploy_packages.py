"""Runs the scripts of the packages in a temporary root.

In: deploy/packages/debian/postrm, with the variable `DPKG_ROOT` of dpkg and stand-ins for the
programs that change the system. Out: the files that are left, what the script prints, and the calls
of the stand-ins. tests/container tests the whole packages.
"""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
POSTRM = ROOT / "deploy/packages/debian/postrm"
STAND_INS = ("deb-systemd-helper", "deluser", "systemctl")


@pytest.fixture
def purge(tmp_path):
    """Returns a function that purges the package. It returns what the script prints on standard
    error, and the calls of the stand-ins.
    """
    calls = tmp_path / "calls"
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in STAND_INS:
        (programs / name).write_text(f'#!/bin/sh\necho "{name} $*" >>"{calls}"\n')
        (programs / name).chmod(0o755)

    def purge(root):
        environment = {"PATH": f"{programs}:/usr/bin:/bin", "DPKG_ROOT": str(root)}
        command = ["/bin/sh", POSTRM, "purge"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, ""), done
        return done.stderr, calls.read_text()

    return purge


@pytest.fixture
def root(tmp_path):
    """A root with the log and the home of the daemon, whose spool has nothing to send."""
    root = tmp_path / "root"
    spool = root / "var/lib/xray/spool"
    spool.mkdir(parents=True)
    (spool / "lock").touch()
    (spool / "0000000007.spool").touch()
    (spool / "0000000007.done").write_text("progress without records")
    logs = root / "var/log/xray"
    logs.mkdir(parents=True)
    (logs / "xray.log").write_text("a line\n")
    (root / "var/log/other.log").touch()
    return root


def left(root):
    files = [Path(folder, name) for folder, _, names in os.walk(root) for name in names]
    return sorted(str(path.relative_to(root)) for path in files)


def test_a_purge_removes_log_home_and_user(purge, root):
    errors, calls = purge(root)
    assert errors == ""
    assert left(root) == ["var/log/other.log"]
    assert not (root / "var/lib/xray").exists() and not (root / "var/log/xray").exists()
    assert "deluser --quiet --system xray\n" in calls


def test_a_purge_without_a_home_is_fine(purge, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    errors, calls = purge(root)
    assert errors == "" and "deluser" in calls


def test_a_purge_keeps_segments_that_were_not_sent_and_says_so(purge, root):
    spool = root / "var/lib/xray/spool"
    (spool / "0000000008.spool").write_bytes(b"records")
    kept = [path for path in left(root) if path.startswith("var/lib/xray/")]
    errors, calls = purge(root)
    assert left(root) == [*kept, "var/log/other.log"]
    assert (spool / "0000000008.spool").read_bytes() == b"records"
    assert f"{root}/var/lib/xray and the user xray are kept" in errors
    assert f"rm -r {root}/var/lib/xray" in errors
    # The files belong to the user. Without the user, a new one could get its number.
    assert "deluser" not in calls


def test_a_purge_follows_no_link(purge, root):
    elsewhere = root / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "0000000009.spool").write_bytes(b"records")
    (root / "var/lib/xray/spool/link.spool").symlink_to(elsewhere / "0000000009.spool")
    (root / "var/lib/xray/folder").symlink_to(elsewhere)
    errors, _ = purge(root)
    assert errors == ""
    assert left(root) == ["elsewhere/0000000009.spool", "var/log/other.log"]
