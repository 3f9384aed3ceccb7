"""Runs `perf/beside` to compare a build with itself. Checks that the program works, not its
numbers.
"""

import os
import re
import subprocess
from pathlib import Path

BINARY = Path(os.environ["XRAY_BINARY"])
BESIDE = Path(__file__).parent.parent.parent / "perf" / "beside"


def beside(*words):
    command = [BESIDE, "--kit", BINARY.with_name("xrayd-perf"), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_daemons_loaded_at_the_same_time_each_have_a_row():
    daemons = [f"one={BINARY}", f"other={BINARY} --receiver recvmmsg"]
    done = beside("--rate", "200", "--starts", "2", "--seconds", "1", *daemons)
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^\| (\w+) \| ([\d.]+) \| ([\d.]+) \|", done.stdout, re.MULTILINE)
    assert [name for name, *_ in rows] == ["one", "other"]
    assert all(float(us) > 0 and float(ratio) > 0 for _, us, ratio in rows)
    assert rows[0][2] == "1.000"
    assert done.stdout.endswith("2 starts; 0 segments lost.\n")


def test_a_daemon_that_does_not_start_ends_the_run_with_its_words():
    done = beside("--starts", "1", f"one={BINARY} --no-such-flag")
    assert done.returncode == 1
    assert "one does not start" in done.stderr
    assert "-no-such-flag" in done.stderr
