"""Asks one daemon all cases of a share, in a network namespace of its own.

In: `peer` or `own`, the binary, the step between two cases, the number of the share, and the number
of shares. Out: a line for each case: its number and its answer. For ours, the answer has two parts: that of `xray config`, and
that of the start. `run` starts the workers.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import cases
import observe

who, binary = sys.argv[1:3]
step, share, share_count = map(int, sys.argv[3:6])
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
with tempfile.TemporaryDirectory() as name:
    base = Path(name)
    folder = base / "run"
    if who == "peer":
        daemon = observe.Peer(binary, folder, observe.Fakes(base))
        folder.mkdir()
        # The first answer shows the size of the buffers that is the default on this machine.
        daemon.answer(cases.Case("start", "", None, "found", ()))
        shutil.rmtree(folder)
        ask = daemon.answer
    else:
        daemon = observe.Own(binary, folder)
        ask = daemon.answers
    for number, case in list(enumerate(cases.cases()))[::step][share::share_count]:
        folder.mkdir()
        print(json.dumps([number, ask(case)]), flush=True)
        shutil.rmtree(folder)
