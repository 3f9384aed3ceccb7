"""Checks that deploy/cfg.yaml, which the image and the packages install, has the true defaults.

In: the file unchanged, and without comment signs. Out: the settings that `xray config` prints.
"""

import os
import re
import subprocess
from pathlib import Path

from processes import ENVIRONMENT

CFG = Path(__file__).parents[2] / "deploy" / "cfg.yaml"

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
