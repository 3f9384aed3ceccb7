"""Checks that deploy/cfg.yaml, which the image and the packages install, has the true defaults.

In: the file unchanged, and without comment signs. Out: the settings that `xray config` prints.
"""

import json
import os
import re
import subprocess
import textwrap
from pathlib import Path

from processes import ENVIRONMENT

ROOT = Path(__file__).parents[2]
CFG = ROOT / "deploy" / "cfg.yaml"

#: Keys that the file does not show, because no value expresses their default.
WITHOUT_VALUE = {"Receive.Pin", "ProxyServer.AllowedPaths"}


def settings(folder, *flags):
    """Returns the value and the source of each setting, by key."""
    command = [os.environ["XRAY_BINARY"], *flags, "config"]
    result = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    lines = [line.split(maxsplit=2) for line in result.stdout.splitlines()[1:]]
    return {key: (value, source) for key, value, source in lines}


def test_the_file_changes_nothing_as_it_is(tmp_path):
    assert settings(tmp_path, "-c", CFG) == settings(tmp_path)


def test_what_is_commented_out_is_the_default_of_each_key(tmp_path):
    path = tmp_path / "whole.yaml"
    # Removes the # before keys. In the file a key follows the # directly; an explanation has a
    # space after the #.
    path.write_text(re.sub(r"^#(\w+:|  \w+:)", r"\1", CFG.read_text(), flags=re.MULTILINE))
    found, expected = settings(tmp_path, "-c", path), settings(tmp_path)
    for key, (value, source) in expected.items():
        assert found[key][0] == value, key
        named = re.search(rf"^#? *{key.split('.')[-1]}:", CFG.read_text(), re.MULTILINE)
        assert bool(named) == (key not in WITHOUT_VALUE), key
        # A key with an empty text counts as not set, so its source stays "default".
        if source == "default" and value not in ("(none)", "(off)"):
            assert found[key][1] == str(path), key


def test_the_page_about_opentelemetry_opens_both_ports_and_allows_what_the_log_asks_for(tmp_path):
    page = (ROOT / "docs/opentelemetry.md").read_text()
    [block] = re.findall(r"^    Otlp:\n(?:      .*\n)+", page, re.MULTILINE)
    path = tmp_path / "cfg.yaml"
    path.write_text("Version: 2\n" + textwrap.dedent(block))
    found = settings(tmp_path, "-c", path)
    assert found["Otlp.HttpAddress"] == ("127.0.0.1:4318", str(path))
    assert found["Otlp.GrpcAddress"] == ("127.0.0.1:4317", str(path))
    [statement] = re.findall(r'^    (\{"Effect".*\})$', page, re.MULTILINE)
    allowed = set(json.loads(statement)["Action"])
    policy = json.loads((ROOT / "deploy/ecs/iam/xray-write.policy.json").read_text())
    listed = set(re.findall(r"^\| .* \|(?: `xray:.*)", page, re.MULTILINE))
    table = {action for line in listed for action in re.findall(r"`(xray:\w+)`", line)}
    assert table == allowed | set(policy["Statement"][0]["Action"])
    # The error of the daemon names the action that the role lacks.
    advice = (ROOT / "src/pipeline/upload/conclude.rs").read_text()
    asked = set(re.findall(r"allow (xray:\w+)", advice))
    assert asked and asked <= table
