"""Checks deploy/seccomp: the profile that allows io_uring, the engine's profile that it is made of,
and the program that makes it.
"""

import hashlib
import json
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "seccomp"
CALLS = ["io_uring_enter", "io_uring_register", "io_uring_setup"]
PROFILE = json.loads((FOLDER / "xray.json").read_text())
DEFAULT = json.loads((FOLDER / "default.json").read_text())


def allow_io_uring(profile):
    """Runs deploy/seccomp/allow-io-uring on a profile and returns the new profile."""
    command = [FOLDER / "allow-io-uring"]
    text = json.dumps(profile)
    return json.loads(
        subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
    )


def rules(profile):
    """Returns each rule once for each of its system calls."""
    return sorted(
        json.dumps(rule | {"names": [name]}, sort_keys=True)
        for rule in profile["syscalls"]
        for name in rule["names"]
    )


def test_the_profile_is_the_engines_default_with_three_more_calls_and_nothing_else():
    allowed = {"names": CALLS, "action": "SCMP_ACT_ALLOW"}
    more = rules({"syscalls": [allowed]})
    assert rules(PROFILE) == sorted(rules(DEFAULT) + more)
    apart = lambda profile: {key: profile[key] for key in profile if key != "syscalls"}
    assert apart(PROFILE) == apart(DEFAULT)
    assert allow_io_uring(DEFAULT) == PROFILE


def test_the_engines_default_is_the_file_that_the_readme_names():
    readme = (FOLDER / "README.md").read_text()
    [digest] = re.findall(r"\b[0-9a-f]{64}\b", readme)
    assert hashlib.sha256((FOLDER / "default.json").read_bytes()).hexdigest() == digest
    assert "moby/profiles" in readme
    # The profile is of today: the engine has denied these since 2023 and 2026.
    assert not {name for rule in DEFAULT["syscalls"] for name in rule["names"]} & set(CALLS)
    sockets = [rule for rule in DEFAULT["syscalls"] if "socket" in rule["names"]]
    assert sockets and all(rule.get("args") for rule in sockets)


def test_the_profile_denies_by_default_and_allows_the_three_calls_once():
    assert PROFILE["defaultAction"] == "SCMP_ACT_ERRNO"
    *others, rule = PROFILE["syscalls"]
    assert rule == {"names": CALLS, "action": "SCMP_ACT_ALLOW"}
    assert not {name for other in others for name in other["names"]} & set(CALLS)
    # System calls that could break out of the container are still allowed only with a capability,
    # as in the default profile.
    for call in ("mount", "unshare", "bpf", "ptrace", "keyctl", "add_key"):
        free = [rule for rule in others if call in rule["names"] and not rule.get("includes")]
        assert not free, call


def test_the_program_adds_the_calls_to_a_profile_that_denies_them():
    denying = PROFILE | {"syscalls": PROFILE["syscalls"][:-1]}
    denying["syscalls"].append({"names": ["io_uring_setup"], "action": "SCMP_ACT_ERRNO"})
    assert allow_io_uring(denying) == PROFILE
    assert allow_io_uring(PROFILE) == PROFILE


def test_no_file_makes_the_profile_the_default_of_a_whole_host():
    names = subprocess.run(
        ["git", "ls-files", "deploy", "docs"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    # The key of Docker's daemon.json, and the flag of its daemon.
    keys = re.compile(r"\"seccomp-profile\"|--seccomp-profile")
    found = [
        name
        for name in names
        if keys.search((ROOT / name).read_text(encoding="utf-8", errors="ignore"))
    ]
    assert found == []
