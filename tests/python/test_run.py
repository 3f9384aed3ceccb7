"""Tests tests/run with suites that fail, are empty, are skipped or do not end.

In: a copy of tests/run in a temporary folder, with planted suites. Out: its output and its exit
code.
"""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from processes import wait_for

RUN = Path(__file__).parents[1] / "run"

#: A stand-in for tests/suites: the variables and functions that tests/run needs in addition to the
#: planted suites.
FRAME = """
suites=({names}) full_suites=(long)
declare -A minutes_max=()
target=target
missing_packages() {{ echo "${{MISSING:-}}"; }}
install_packages() {{ echo "cannot install $*"; false; }}
suite_long() {{ echo "ok - long"; }}
"""

PASSED = "test a ... ok\\ntest result: ok. 3 passed; 0 failed; 1 ignored; 0 measured\\n"


@pytest.fixture
def start(tmp_path):
    """Starts tests/run with planted suites. Each suite prints a text and runs a command."""

    def start(*arguments, **suites):
        (tmp_path / "tests").mkdir()
        shutil.copy(RUN, tmp_path / "tests")
        text = FRAME.format(names=" ".join(suites))
        for name, (printed, command) in suites.items():
            text += f"suite_{name}() {{ printf '{printed}'; {command}; }}\n"
        (tmp_path / "tests" / "suites").write_text(text)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        environment = {"PATH": os.environ["PATH"], "CI": "true", "AWS_PROFILE": "mine"}
        environment |= {"MISSING": os.environ.get("MISSING", "")}
        command = [tmp_path / "tests" / "run", *arguments]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment, **pipes)

    return start


def ended(process):
    """Returns the output lines and the exit code."""
    output, _ = process.communicate(timeout=60)
    return output.splitlines(), process.returncode


def test_the_last_line_has_the_sums_over_all_kinds_of_runners(start):
    lines, code = ended(
        start(
            cargo=("running 4 tests\\n" + PASSED + "running 4 tests\\n" + PASSED, "true"),
            pytest=("....s\\n4 passed, 1 skipped, 2 warnings in 75.10s (0:01:15)\\n", "true"),
            checks=("ok - format\\nok - clippy\\n", "true"),
        )
    )
    assert code == 0 and lines[-1] == "12 passed, 0 failed, 3 skipped"
    assert [line.split()[0] for line in lines[:3]] == ["cargo", "pytest", "checks"]
    assert lines[1].split(None, 1)[1].startswith("4 passed, 0 failed, 1 skipped, ")
    assert len(lines) == 5


@pytest.mark.parametrize(
    ("printed", "command", "said"),
    [
        ("running 2 tests\\ntest result: FAILED. 1 passed; 1 failed; 0 ignored\\n", "exit 101", ""),
        ("1 failed, 1 passed, 1 error in 0.10s\\n", "exit 1", ""),
        ("ok - format\\nnot ok - clippy\\n", "true", ""),
        ("ok - format\\n", "exit 3", ""),
        ("ok - format\\n", "false | true", ""),
        ("running 0 tests\\ntest result: ok. 0 passed; 0 failed\\n", "true", "no test ran"),
        ("no tests ran in 0.01s\\n", "true", "no test ran"),
        ("", "true", "no test ran"),
        ("running 2 tests\\ntest a ... ok\\nok - format\\n", "true", "ended before its last test"),
    ],
)
def test_what_fails_or_is_empty_or_unfinished_fails_while_the_rest_runs(
    start, printed, command, said
):
    lines, code = ended(start(bad=(printed, command), good=("ok - good\\n", "true")))
    assert code == 1
    assert [line for line in lines if line.startswith("good ")], lines
    assert lines[-2].endswith("Failed: bad")
    passed, failed, skipped = (int(part.split()[0]) for part in lines[-1].split(", "))
    assert passed >= 1 and failed >= 1 and skipped == 0
    assert said in "\n".join(lines) and "The complete log of bad: target/test-logs/bad.log" in lines


def test_a_failure_shows_its_log_without_the_tests_that_passed(start):
    printed = (
        "   Compiling xrayd\\nrunning 2 tests\\ntest a ... ok\\ntest b ... FAILED\\nthe log of b\\n"
        "test result: FAILED. 1 passed; 1 failed; 0 ignored\\n"
    )
    lines, _ = ended(start(bad=(printed, "exit 101")))
    assert {"test b ... FAILED", "the log of b"} <= set(lines)
    assert not {"test a ... ok", "   Compiling xrayd"} & set(lines)


def test_a_skipped_test_is_counted_and_its_reason_is_listed(start):
    by_cargo = "running 4 tests\\nskipped: disk: mounting is denied\\n" + PASSED
    # The last line of pytest already counts the skipped test, so tests/run must not count it again.
    by_pytest = "skipped: tests/python/test_a.py::test_a: no root\\n2 passed, 1 skipped in 0.10s\\n"
    lines, code = ended(start(cargo=(by_cargo, "true"), pytest=(by_pytest, "true")))
    assert code == 0 and lines[-1] == "4 passed, 0 failed, 3 skipped"
    assert "skipped in cargo: disk: mounting is denied" in lines
    assert "skipped in pytest: tests/python/test_a.py::test_a: no root" in lines


def test_a_suite_whose_only_test_is_skipped_passes_and_says_why(start):
    printed = "ok - miri\\nskipped: miri: there is no such component\\n"
    lines, code = ended(start(miri=(printed, "true")))
    assert code == 0 and lines[-1] == "0 passed, 0 failed, 1 skipped"
    assert "skipped in miri: miri: there is no such component" in lines


def test_suites_run_by_name_without_input_and_without_the_callers_account(start):
    command = "[[ -z ${AWS_PROFILE:-} ]] && ! read -r && [[ $CARGO_INCREMENTAL == 0 ]]"
    lines, code = ended(start("one", one=("ok - one\\n", command), two=("", "false")))
    assert code == 0 and lines[-1] == "1 passed, 0 failed, 0 skipped"
    shown = [line.split()[0] for line in lines]
    assert shown[0] == "one" and "two" not in shown


def test_a_suite_of_the_full_run_writes_its_row_and_keeps_the_others(start, tmp_path):
    result = tmp_path / "tests" / "full-result.md"
    process = start("--full", "one", "long", one=("ok - a\\nnot ok - b\\n", "true"))
    lines, code = ended(process)
    assert code == 1 and lines[-1] == "2 passed, 1 failed, 0 skipped"
    # The second run reads the file of the first run.
    kept = result.read_text().replace("| `long`", "| `gone` | then | that | nothing |\n| `long`")
    result.write_text(kept.replace("1 passed, 1 failed", "kept"))
    again = [tmp_path / "tests" / "run", "--full", "long"]
    subprocess.run(again, stdin=subprocess.DEVNULL, check=True, timeout=60)
    rows = [line for line in result.read_text().splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == ["one", "long"]
    assert "| kept, 0 skipped" in rows[0] and "| 1 passed, 0 failed, 0 skipped" in rows[1]


def test_a_row_names_the_commit_that_the_suite_began_with(start, tmp_path):
    git = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@localhost"]
    (tmp_path / "source").write_text("as tested")
    for command in (["init", "--quiet"], ["add", "source"], ["commit", "--quiet", "-m", "One"]):
        subprocess.run([*git, *command], check=True, timeout=60)
    describe = [*git, "describe", "--always"]
    began = subprocess.run(describe, check=True, timeout=60, capture_output=True, text=True).stdout
    # A suite may write its result into a file of the repository.
    ended(start("--full", "one", one=("ok - one\\n", "echo changed >source")))
    result = (tmp_path / "tests" / "full-result.md").read_text()
    assert f"| {began.strip()} | 1 passed, 0 failed, 0 skipped" in result


def test_packages_are_named_before_they_are_installed(start, monkeypatch):
    monkeypatch.setenv("MISSING", "a b")
    lines, code = ended(start(one=("ok - one\\n", "true")))
    assert (code, lines) == (1, ["Packages of Debian to install: a b", "cannot install a b"])


def test_an_unknown_suite_is_refused(start):
    lines, code = ended(start("none", one=("", "true")))
    assert code == 2 and "no suite none" in lines[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_what_the_suite_started_and_fails_the_run(start, tmp_path, number):
    ids = tmp_path / "ids"
    # The command starts two processes: `sleep`, which ends on SIGTERM, and a shell that ignores it.
    command = f"sleep 600 & trap '' TERM; echo $! $BASHPID >{ids}; while :; do sleep 600; done"
    process = start(one=("ok - one\\n", f"({command}) & wait"), two=("ok - two\\n", "true"))
    wait_for(lambda: ids.exists() and ids.read_text().strip(), lambda: "nothing was started")
    process.send_signal(number)
    lines, code = ended(process)
    assert code == 130 and lines[-1] == "1 passed, 1 failed, 0 skipped"
    for started in ids.read_text().split():
        wait_for(lambda: not Path(f"/proc/{started}").exists(), lambda: f"{started} still runs")
