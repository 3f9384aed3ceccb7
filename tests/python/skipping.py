"""Reports that a test is skipped: one line on standard error, or a failure.

In: a need of the test that this machine does not meet. Out: `skipped: TEST: REASON` at the end of
the run. If the variable XRAY_REQUIRE names the need, as in XRAY_REQUIRE=uring,root,mount, the test
fails instead. tests/shared/skip.rs does the same.
"""

import os
import sys

import pytest

NEEDS = {"uring", "root", "mount"}


def skip(need, reason):
    """Skips the calling test because this machine does not meet `need`."""
    required = {name.strip() for name in os.environ.get("XRAY_REQUIRE", "").split(",")} - {""}
    assert required <= NEEDS, f"XRAY_REQUIRE names unknown needs: {required - NEEDS}"
    assert need in NEEDS
    if need in required:
        pytest.fail(f"XRAY_REQUIRE names {need}, but {reason}")
    pytest.skip(reason)


def pytest_terminal_summary(terminalreporter):
    """Prints the skipped tests. pytest calls this hook because conftest.py imports it."""
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        reason = str(reason).removeprefix("Skipped: ").replace("\n", " ")
        print(f"skipped: {report.nodeid}: {reason}", file=sys.stderr, flush=True)
