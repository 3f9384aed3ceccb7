"""The recorded comparison with the original daemon, and the table of its differences."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "peer"))

import differences


def test_the_table_of_differences_has_each_recorded_difference_and_no_other():
    assert differences.complaints() == []
