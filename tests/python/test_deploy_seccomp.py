"""Checks deploy/seccomp: the profile that allows io_uring, and the program that creates it."""

import json
import subprocess
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "deploy" / "seccomp"
CALLS = ["io_uring_enter", "io_uring_register", "io_uring_setup"]
PROFILE = json.loads((FOLDER / "xray.json").read_text())


def allow_io_uring(profile):
    """Runs deploy/seccomp/allow-io-uring on a profile and returns the new profile."""
    command = [FOLDER / "allow-io-uring"]
    text = json.dumps(profile)
    return json.loads(
        subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
    )


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
