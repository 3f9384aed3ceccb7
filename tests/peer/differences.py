"""The answers that were recorded, and the differences between both daemons that are expected.

In: the recorded answers, and the table "Differences of single values" in docs/compatibility.md.
Out: the differences that are not in the table, and the rows of the table without a difference.
"""

import json
import re
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path

import cases
import headers

HERE = Path(__file__).parent
CONFIG = HERE / "recorded" / "config.jsonl"
HEADERS = HERE / "recorded" / "headers.jsonl"
DOCUMENT = HERE.parents[1] / "docs" / "compatibility.md"
HEADING = "## Differences of single values\n"


def read(path):
    """Returns the lines of a recorded file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path, lines):
    """Writes the lines of a recorded file."""
    dump = lambda line: json.dumps(line, separators=(",", ":"))
    path.write_text("".join(dump(line) + "\n" for line in lines))


def inputs(case):
    """Returns the case as it is recorded, without answers."""
    return [case.place, case.value_class, case.way, list(case.flags), case.file]


def table():
    """Returns the rows of the table: places, classes, kind of the peer's answer, kind of ours."""
    text = DOCUMENT.read_text()
    section = text[text.index(HEADING) + len(HEADING) :].split("\n## ")[0]
    found = []
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 5 and cells[0].startswith("`"):
            places, classes, peer, own, _ = cells
            names = [name.strip() for name in classes.split(",")]
            found.append((re.findall("`([^`]+)`", places), names, peer, own))
    return found


def kind(answer):
    """Returns the word of the table for an answer."""
    return "taken" if isinstance(answer, dict) else answer


def kinds(answers):
    """Returns the words of the table for the answers of both daemons."""
    peer, own = kind(answers[0]), kind(answers[1])
    return (peer, "another value") if peer == own else (peer, own)


def is_difference(answers):
    """Whether a case has an answer of ours that differs from the peer's."""
    return len(answers) > 1 and answers[1] is not None


def complaints():
    """Returns what is wrong: differences that are not in the table, and rows without one."""
    rows = table()
    used, found = set(), []
    for place, value_class, _, flags, text, answers in read(CONFIG):
        if not is_difference(answers):
            continue
        matching = [
            number
            for number, (places, classes, peer, own) in enumerate(rows)
            if any(fnmatchcase(place, pattern) for pattern in places)
            and ("any" in classes or value_class in classes)
            and (peer, own) == kinds(answers)
        ]
        used.update(matching)
        if not matching:
            what = f"{place}, {value_class}: {flags} {text!r}: {answers[0]} != {answers[1]}"
            found.append(f"not in the table: {what}")
    found += [f"not in the table: header line {line}" for line in read(HEADERS) if len(line[2]) > 1]
    found += [f"no difference any more: {row}" for number, row in enumerate(rows)
              if number not in used]  # fmt: skip
    recorded = [line[:5] for line in read(CONFIG)]
    if recorded != [inputs(case) for case in cases.cases()]:
        found.append("tests/peer/recorded/config.jsonl has other cases than the generator")
    lines = [[name, header.decode("latin-1")] for name, header in headers.headers()]
    if [line[:2] for line in read(HEADERS)] != lines:
        found.append("tests/peer/recorded/headers.jsonl has other cases than the generator")
    return found


def counts():
    """Returns the numbers of cases by kind of difference, as a text."""
    config = read(CONFIG)
    lines = [" -> ".join(kinds(line[5])) if is_difference(line[5]) else "equal" for line in config]
    found = [f"configuration: {len(config)} cases"]
    found += [f"  {name}: {count}" for name, count in Counter(lines).most_common()]
    header_lines = read(HEADERS)
    differing = sum(len(line[2]) > 1 for line in header_lines)
    accepted = sum(line[2][0] for line in header_lines)
    found.append(f"header lines: {len(header_lines)} cases, {accepted} accepted by the peer")
    found.append(f"  equal: {len(header_lines) - differing}")
    return "\n".join(found)
