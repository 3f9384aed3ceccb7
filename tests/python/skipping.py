"""How a test says that it is skipped: one line on standard error, or a failure.

In: what the test wants and this machine does not give. Out: `skipped: TEST: REASON` at the end of
the run. Where the variable XRAY_REQUIRE names what is wanted, as in
XRAY_REQUIRE=uring,root,mount, the test fails. tests/shared/skip.rs does the same.
"""

import os
import sys

import pytest

NEEDS = {"uring", "root", "mount"}


def skip(need, reason):
    """Skips the test for want of `need`."""
    required = {name.strip() for name in os.environ.get("XRAY_REQUIRE", "").split(",")} - {""}
    assert required <= NEEDS, f"XRAY_REQUIRE has what no test knows: {required - NEEDS}"
    assert need in NEEDS
    if need in required:
        pytest.fail(f"XRAY_REQUIRE wants {need}, and {reason}")
    pytest.skip(reason)


def pytest_terminal_summary(terminalreporter):
    """Says what was skipped; conftest.py takes it in."""
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        reason = str(reason).removeprefix("Skipped: ").replace("\n", " ")
        print(f"skipped: {report.nodeid}: {reason}", file=sys.stderr, flush=True)
