"""Checks deploy/compose.yaml: the daemon understands its command, and the program in it sends traces.

In: the file. Out: a trace in a sandbox on free ports.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import yaml
from processes import ENVIRONMENT, Child, wait_for

ROOT = Path(__file__).parents[2]
SERVICES = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
ENTRYPOINT = json.loads(re.findall(r"^ENTRYPOINT (.*)$", DOCKERFILE, re.MULTILINE)[-1])


def test_the_daemon_understands_its_command_and_takes_the_name_of_its_service(tmp_path):
    command = SERVICES["xray"]["command"]
    assert command[0] == "sandbox" and command[command.index("--allow-host") + 1] == "xray"
    # The help reads the command line up to its end, and starts nothing.
    line = [os.environ["XRAY_BINARY"], *ENTRYPOINT[1:], *command, "-h"]
    done = subprocess.run(line, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("xray sandbox: "), done
    assert SERVICES["shop"]["environment"] == {"AWS_XRAY_DAEMON_ADDRESS": "xray:2000"}
    # The page has no password, so only this host may reach it.
    assert SERVICES["xray"]["ports"] == ["127.0.0.1:2000:2000/tcp"]


def test_the_program_of_the_file_sends_traces(sandbox, tmp_path):
    [*_, script] = SERVICES["shop"]["command"]
    [program] = re.findall(r"<<'END'\n(.*?)\nEND\n", script, re.DOTALL)
    address = "tcp:{}:{} udp:{}:{}".format(*sandbox.tcp, *sandbox.udp)
    shop = [sys.executable, "-c", program]
    with Child(shop, tmp_path, AWS_XRAY_DAEMON_ADDRESS=address) as shop:
        find = lambda: '"shop"' in sandbox.get("/traces")
        wait_for(find, lambda: shop.log() + sandbox.log())
    sandbox.end()
