"""Tests the ledger of tests/endure with losses that are planted, and runs it for some seconds.

In: lives of a daemon that does not exist, as the ledger sees them. Out: the ledger's complaint.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ENDURE = Path(__file__).parents[1] / "endure"
sys.path.append(str(ENDURE))

from ledger import Ledger  # noqa: E402
from plan import Settings  # noqa: E402

SETTINGS = Settings(16, 16, 8, 8, "auto")


class History:
    """A history that nobody reads."""

    def note(self, *_):
        pass

    def seconds(self, *_):
        return 0.0


class Story:
    """The deeds of a daemon and a service, as the ledger sees them."""

    def __init__(self):
        self.ledger = Ledger(History())

    def begin(self, count=0):
        """Begins a life that receives so many documents."""
        self.life = self.ledger.begin(SETTINGS)
        for _ in range(count):
            self.ledger.next_document(True)

    def deliver(self, *numbers, is_answered=True):
        """Delivers documents in one request."""
        request = self.ledger.arrived(self.life.number, 0.0)
        request.numbers = numbers
        request.arrived_at = float("inf")  # every answer is in time
        self.ledger.takes(request, numbers)
        if is_answered:
            self.ledger.answered(request, numbers, [])

    def end(self, on_disk=(), **account):
        """Ends the life. Without an account it was killed."""
        self.ledger.end(self.life, account or None, ([[number] for number in on_disk], 0))
        return self.ledger.failure or ""


def test_documents_that_are_delivered_counted_or_on_the_disk_are_no_complaint():
    story = Story()
    story.begin(5)
    story.deliver(0, 1)
    assert story.end([2, 3, 4], received=5, sent=2, spooled=3) == ""
    story.begin()
    story.deliver(2)
    story.deliver(3, is_answered=False)
    account = {"replayed": 3, "sent": 1, "spooled": 2}
    assert story.end([3, 4], **account) == ""
    story.begin()
    story.deliver(3, 4)
    assert story.end(replayed=2, sent=2) == ""
    assert story.ledger.open_documents() == []


def test_a_document_that_vanishes_is_a_complaint():
    story = Story()
    story.begin(3)
    story.deliver(0, 1)
    assert "3 came, and 2 left" in story.end(received=3, sent=2)


def test_a_document_that_is_counted_as_sent_and_was_not_is_a_complaint():
    story = Story()
    story.begin(3)
    story.deliver(0, 1)
    assert "sent must be 2 to 2" in story.end(received=3, sent=3)


def test_a_document_that_was_on_the_disk_before_a_kill_and_is_not_after_it_is_a_complaint():
    story = Story()
    story.begin(2)
    story.end([0, 1], received=2, spooled=2)
    story.begin()
    assert "1 were on the disk before and are not" in story.end([0])


def test_what_memory_held_may_be_missing_after_a_kill_and_no_more():
    for held, complaint in [(2_000, ""), (100, "2000 are missing, and memory had")]:
        story = Story()
        story.begin(2_000)
        story.life.metrics = {
            "xray_segments_received_total": 2_000,
            "xray_segments_held": held,
            "xray_segments_sent_total": 2_000 - held,
        }
        failure = story.end()
        assert complaint in failure and bool(complaint) == bool(failure)


def test_a_settled_document_that_is_still_on_the_disk_is_a_complaint():
    story = Story()
    story.begin(1)
    story.deliver(0)
    assert "1 settled documents are on the disk" in story.end([0])


def test_a_batch_that_is_delivered_in_part_may_come_again_after_a_kill_and_not_after_an_end():
    for account, complaint in [({}, ""), ({"received": 2, "sent": 1, "spooled": 1}, "1 settled")]:
        story = Story()
        story.begin(2)
        story.deliver(0)
        story.ledger.end(story.life, account or None, ([[0, 1]], 0))
        assert complaint in (story.ledger.failure or "")
        assert bool(complaint) == bool(story.ledger.failure)


def test_a_document_that_comes_again_after_its_answer_is_a_complaint():
    story = Story()
    story.begin(1)
    story.deliver(0)
    story.deliver(0)
    assert "delivers a document again that was settled" in story.ledger.failure


@pytest.mark.parametrize(
    "reason",
    ["memory", "shutdown", "spool_full", "spool_age", "spool_damage", "panic", "not_x_ray"],
)
def test_a_reason_that_nothing_has_given_is_a_complaint(reason):
    story = Story()
    story.begin(1)
    account = {"received": 1, "dropped": 1, f"dropped_{reason}": 1}
    assert f"1 are counted as dropped_{reason}, true of 0" in story.end(**account)


def test_a_daemon_that_is_killed_and_started_again_for_some_seconds_keeps_its_promises():
    command = [ENDURE / "run", "--seed", "6", "--minutes", "0.05"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\nok - every document is where it should be\n" in done.stdout
