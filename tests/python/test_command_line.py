"""The help, the manual pages, and words on the command line that mean something else.

In: the daemon's binary and docs/man. Out: texts, exit codes, and a daemon that runs.
"""

import http.client
import os
import pty
import subprocess
from pathlib import Path

import pytest
from processes import ENVIRONMENT, PATIENCE_SECONDS

MAN = Path(__file__).parents[2] / "docs/man"
SUBCOMMANDS = ["sandbox", "tail", "config", "limits", "healthcheck", "verify", "help"]


def xray(folder, *arguments):
    """Runs xray to its end."""
    command = [os.environ["XRAY_BINARY"], *arguments]
    options = {"cwd": folder, "env": ENVIRONMENT, "capture_output": True, "text": True}
    return subprocess.run(command, timeout=PATIENCE_SECONDS, **options)


@pytest.mark.parametrize("page", ["xray.1", "cfg.yaml.5"])
def test_the_manual_pages_have_no_mistake_in_their_language(page):
    # The flags with which lintian checks the pages of a package.
    command = ["groff", "-man", "-Tutf8", "-ww", "-rLL=100n", MAN / page]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert len(done.stdout.splitlines()) > 100


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_each_subcommand_has_a_page(tmp_path, name):
    page = xray(tmp_path, "help", name)
    assert page.returncode == 0 and page.stdout.startswith(f"xray {name}: "), page
    if name != "help":
        assert xray(tmp_path, name, "-h").stdout == page.stdout
        assert xray(tmp_path, "-n", "eu-west-1", name, "--help").stdout == page.stdout
    # Each is named in the text for the whole program.
    whole = xray(tmp_path, "-h")
    assert whole.returncode == 0 and f"\n  {name} " in whole.stdout
    assert xray(tmp_path, "help").stdout == whole.stdout


def test_help_about_nothing_known_is_a_mistake(tmp_path):
    done = xray(tmp_path, "help", "spool")
    assert done.returncode == 2 and 'no help about "spool"' in done.stderr


def test_a_mistyped_subcommand_ends_with_the_right_word_on_a_terminal(tmp_path):
    own, its = pty.openpty()
    command = [os.environ["XRAY_BINARY"], "verfy"]
    options = {"cwd": tmp_path, "env": ENVIRONMENT, "stdout": its, "stderr": subprocess.PIPE}
    try:
        done = subprocess.run(command, text=True, timeout=PATIENCE_SECONDS, **options)
    finally:
        os.close(own)
        os.close(its)
    assert done.returncode == 2
    assert "Did you mean `xray verify`?" in done.stderr, done.stderr


def test_a_mistyped_subcommand_is_ignored_with_a_warning_elsewhere(start_daemon, service):
    daemon = start_daemon("-o=false", AWS_ENDPOINT_URL_XRAY=service.url)
    assert "Did you mean" not in daemon.log()
    daemon.end()
    # A flag behind the word is ignored too, as by the original.
    command = [os.environ["XRAY_BINARY"], "-b", "256.0.0.1:1", "verfy", "-x"]
    options = {"cwd": "/", "env": ENVIRONMENT, "capture_output": True, "text": True}
    done = subprocess.run(command, timeout=PATIENCE_SECONDS, **options)
    assert done.returncode == 1
    [line] = [line for line in done.stdout.splitlines() if "ignored on the command line" in line]
    assert "[Warn]" in line and line.endswith(
        'verfy -x. "verfy" is no subcommand. Did you mean `xray verify`?'
    )


def test_the_start_of_the_tcp_port_says_what_is_there(start_daemon, service):
    daemon = start_daemon(AWS_ENDPOINT_URL_XRAY=service.url)

    def ask(method, path="/"):
        connection = http.client.HTTPConnection(*daemon.tcp, timeout=PATIENCE_SECONDS)
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    status, text = ask("GET")
    assert status == 200
    for path in ("/health", "/ready", "/metrics", "/tail"):
        assert f"\nGET {path} " in text, text
    assert ask("HEAD") == (200, "")
    # All other calls are judged as before.
    assert ask("POST")[0] == 403 and ask("GET", "//")[0] == 403


def test_an_operator_who_allows_all_paths_gets_the_service_at_the_start(
    start_daemon, service, tmp_path
):
    config = tmp_path / "cfg.yaml"
    config.write_text('Version: 2\nProxyServer: {AllowedPaths: ["*"]}\n')
    daemon = start_daemon("-c", str(config), AWS_ENDPOINT_URL_XRAY=service.url)
    connection = http.client.HTTPConnection(*daemon.tcp, timeout=PATIENCE_SECONDS)
    connection.request("GET", "/")
    assert b"xrayd" not in connection.getresponse().read()
