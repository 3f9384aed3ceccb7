"""The ledger: every document, what the service did with it, and where it is.

In: the documents that were sent, the requests and answers of the service, the account of each life
of the daemon, and what is on the disk after it. Out: the first promise of the daemon that was
broken. The ledger knows nothing of the daemon but its account, and its metrics where it was killed.
Bound: a few bytes for each document and request.

At the end of each life, each document that it received or found on the disk was delivered, is on
the disk, or is one of those that the account counts. A document that is none of these must have
been in the memory of a process that was killed.
"""

import json
import threading
import time
from array import array
from collections import Counter

from documents import POISON, document, drawn_kind, number_of

#: An answer with at most this delay arrives in time: the daemon waits for 15 s, and the plan stops
#: it for at most 5 s.
IN_TIME_SECONDS = 6

#: A delivery is on the disk at most so long after its answer, also on a busy machine.
RECORDED_SECONDS = 3

#: Segments that may be counted nowhere while /metrics counts.
METRICS_SLACK = 300

#: Another server has to answer this often before a document may be dropped.
FOREIGN_COUNT_MIN = 3

MEGABYTE = 1024 * 1024


class Request:
    """A request, and the time of its answer."""

    __slots__ = ("answered_at", "arrived_at", "life", "mode", "numbers", "taken_count")

    def __init__(self, life, arrived_at):
        self.life, self.arrived_at = life, arrived_at
        self.numbers, self.taken_count, self.answered_at, self.mode = (), 0, None, None


class Life:
    """A life of the daemon, as the ledger sees it."""

    def __init__(self, number, settings, first, before, torn_count):
        self.number, self.settings = number, settings
        #: The documents that it received: from `first` up to `end`.
        self.first = self.end = first
        #: How often each document is on the disk before and after it.
        self.before, self.after = before, None
        #: The records on the disk after it.
        self.records = []
        #: Whether it has ended in order.
        self.is_clean = False
        #: From this time on it may not have noticed an answer, or not noted a delivery.
        self.unsure_from = float("inf")
        #: Whether the disk was full, and the largest size of the spool in bytes.
        self.had_full_disk, self.spool_bytes = False, 0
        #: Whether memory was nearly full, or the machine so busy that this is not known.
        self.had_full_memory = False
        #: The metrics, and the number of segments that it has received by then.
        self.metrics = {}
        #: How often another server has answered for a document.
        self.foreign = Counter()
        #: Documents in answers that it has noticed for certain, or that it may have noticed:
        #: accepted, and unprocessed.
        self.accepted, self.unprocessed = Counter(), Counter()
        self.refused_alone_count = 0
        #: Segments in torn records on the disk before it.
        self.torn_count = torn_count
        #: Whether the date was so wrong at its start that its records may expire later.
        self.has_old_date = False

    def copy_count(self):
        """Returns how many second records of documents are on the disk before it. A daemon that is
        killed may leave them: it writes a part of a batch from the spool, or a batch after a failed
        fsync, as a record of its own, and notes that in the first record afterwards.
        """
        return sum(count - 1 for count in self.before.values() if count > 1)


class Ledger:
    """The ledger."""

    def __init__(self, history):
        self._history = history
        self.lives, self.requests, self.failure = [], [], None
        #: For each document: its kind, how often the service has taken it, and the number of the
        #: request whose answer said that it is settled, or -1.
        self.kinds, self.taken, self.told = array("B"), array("B"), array("l")
        #: The documents that are lost and counted, or that were in the memory of a killed process.
        self.lost = set()
        self.refused = set()
        #: Settled documents of records that were delivered in part when the daemon was killed.
        self.in_part = set()
        self.reasons = Counter()
        self.twice_count = self.skewed_count = self.killed_count = self.killed_most = 0
        self._on_disk = Counter(), 0
        self._lock = threading.RLock()

    def fail(self, text, numbers=()):
        """Notes a broken promise, and the documents concerned. The first one counts."""
        with self._lock:
            if not self.failure:
                rows = [self.story(number) for number in sorted(numbers)[:20]]
                more = [f"... and {len(numbers) - 20} more"] if len(numbers) > 20 else []
                self.failure = "\n".join([text, *rows, *more])
                self._history.note(f"FAILURE: {text}")

    def story(self, number):
        """Returns what is known of a document."""
        life = next((it for it in self.lives if it.first <= number < it.end), self.lives[-1])
        parts = [f"document {number}: received by life {life.number}"]
        requests = [request for request in self.requests if number in request.numbers]
        for request in requests[-6:]:
            at = self._history.seconds(request.arrived_at)
            answer = "not answered"
            if request.answered_at:
                answer = f"answered after {request.answered_at - request.arrived_at:.1f} s"
            taken = f"{request.taken_count} of {len(request.numbers)} taken"
            parts.append(f"life {request.life} at {at:.1f} s: {request.mode}, {taken}, {answer}")
        found = [it.number for it in self.lives if it.before[number]]
        parts.append(f"on the disk before lives {found}" if found else "never on the disk")
        return "; ".join(parts)

    # --- The load ---

    def next_document(self, is_good):
        """Returns the text of the next document that is sent."""
        with self._lock:
            number = len(self.kinds)
            kind = 0 if is_good else drawn_kind(number)
            self.kinds.append(kind)
            self.taken.append(0)
            self.told.append(-1)
            self.lives[-1].end = number + 1
            return document(number, kind)

    # --- The service ---

    def arrived(self, life, at):
        """Notes a request of a life."""
        with self._lock:
            request = Request(life, at)
            self.requests.append(request)
            return request

    def read(self, request, body):
        """Returns the numbers of the documents in a body. Each must be what was sent."""
        numbers = []
        for text in json.loads(body)["TraceSegmentDocuments"]:
            number = number_of(text)
            is_known = number is not None and number < len(self.kinds)
            if not is_known or text != document(number, self.kinds[number]):
                self.fail(f"life {request.life} has sent what it was not given: {text[:200]}")
                continue
            numbers.append(number)
        if not 0 < len(numbers) <= 50:
            self.fail(f"a request has {len(numbers)} documents")
        request.numbers = tuple(numbers)
        return numbers

    def is_foreign(self, request, numbers):
        """Notes that another server answers a request."""
        with self._lock:
            self.lives[request.life].foreign.update(numbers)

    def refused_alone(self, number):
        """Notes that a document is refused in a request without others."""
        with self._lock:
            self.refused.add(number)

    def takes(self, request, numbers):
        """Notes that the service takes documents. It must not have them, unless it could not tell
        so.
        """
        with self._lock:
            request.taken_count = len(numbers)
            for number in numbers:
                if self.taken[number]:
                    self.twice_count += 1
                if self.told[number] >= 0 and not self._may_come_again(number, request.life):
                    text = f"life {request.life} delivers a document again that was settled"
                    self.fail(text, [number])
                self.taken[number] = min(self.taken[number] + 1, 255)

    def _may_come_again(self, number, life):
        """Returns whether the life that was told that a document is settled may not know it, or may
        not have noted it on the disk, or whether the document now comes from an earlier life.
        """
        told = self.requests[self.told[number]]
        # A part of a batch from the spool may have a record of its own. If the daemon is killed before
        # it has noted that in the first record, both are sent.
        is_there_twice = self.lives[life].before[number] > 1
        is_known = told.life <= life and not self.is_unsure(told)
        return not is_known or number in self.in_part or is_there_twice

    def is_unsure(self, request):
        """Returns whether a life may not know an answer, or may not have noted it."""
        life = self.lives[request.life]
        return (
            request.answered_at is None
            or request.answered_at - request.arrived_at > IN_TIME_SECONDS
            or request.answered_at >= life.unsure_from
            or life.had_full_disk
        )

    def answered(self, request, accepted, unprocessed):
        """Notes that an answer was written."""
        with self._lock:
            request.answered_at = time.monotonic()
            index = len(self.requests) - 1
            while self.requests[index] is not request:
                index -= 1
            for number in [*accepted, *unprocessed]:
                self.told[number] = index
            life = self.lives[request.life]
            life.accepted.update(accepted)
            life.unprocessed.update(unprocessed)

    # --- The daemon ---

    def begin(self, settings):
        """Begins a life of the daemon."""
        with self._lock:
            before, torn_count = self._on_disk
            life = Life(len(self.lives), settings, len(self.kinds), before, torn_count)
            self.lives.append(life)
            return life

    def is_open(self, number):
        """Returns whether the fate of a document is unknown."""
        is_told = self.told[number] >= 0
        return not self.taken[number] and not is_told and number not in self.lost

    def end(self, life, account, found):
        """Ends a life of the daemon. `account` is its last line as a dictionary, or None if it was
        killed. `found` is what is on the disk.
        """
        with self._lock:
            life.records, torn_count = found
            life.after = Counter(number for record in life.records for number in record)
            self._on_disk = life.after, torn_count
            life.is_clean = account is not None
            check = _Check(self, life, account or _counts(life.metrics))
            check.run()
            if life.is_clean and not life.had_full_disk and torn_count > life.torn_count:
                check.fail(f"{torn_count} segments are in torn records")

    def open_documents(self):
        """Returns the documents whose fate is unknown."""
        return [number for number in range(len(self.kinds)) if self.is_open(number)]


def _counts(metrics):
    """Returns the counts of a page of metrics under the names of the account's line."""
    counts = {}
    for name, value in metrics.items():
        short = name.removeprefix("xray_segments_").replace("_total", "")
        counts[short.replace('{reason="', "_").removesuffix('"}')] = value
    return counts


class _Check:
    """The checks at the end of a life."""

    def __init__(self, ledger, life, account):
        self.ledger, self.life, self.account = ledger, life, account
        self.dropped_count = self._sum("dropped_")
        self.refused_count = self.get("rejected_refused")

    def get(self, name):
        return self.account.get(name, 0)

    def _sum(self, start):
        return sum(count for name, count in self.account.items() if name.startswith(start))

    def fail(self, text, numbers=()):
        line = " ".join(f"{name}={count}" for name, count in sorted(self.account.items()) if count)
        self.ledger.fail(f"life {self.life.number}: {text}; its account: {line}", numbers)

    def run(self):
        missing = self._missing()
        self._settled_on_disk()
        if self.life.is_clean:
            self._balance()
            self._ended(missing)
        else:
            self._killed(missing)
        self._reasons(missing)
        self.ledger.lost.update(missing)

    def _missing(self):
        """Returns the documents that were neither delivered nor are on the disk."""
        life, ledger = self.life, self.ledger
        came = set(range(life.first, life.end)).union(life.before)
        return {it for it in came if ledger.is_open(it) and not life.after[it]}

    def _settled_on_disk(self):
        """A settled document must not be on the disk, except with an unsettled one of its batch."""
        for record in self.life.records:
            again = [number for number in record if self._is_settled(number)]
            if len(again) < len(record) and not self.life.is_clean:
                self.ledger.in_part.update(again)
            elif again:
                self.fail(f"{len(again)} settled documents are on the disk", again)

    def _is_settled(self, number):
        told = self.ledger.told[number]
        if told < 0 or number in self.ledger.in_part:
            return False
        return not self.ledger.is_unsure(self.ledger.requests[told])

    def _balance(self):
        """The account of a life that has ended in order."""
        life, get = self.life, self.get
        came = get("received") + get("replayed")
        left = get("sent") + self._sum("rejected_") + self.dropped_count + get("spooled")
        if came != left + get("held") or get("held"):
            self.fail(f"{came} came, and {left} left")
        sent_count = life.end - life.first
        if get("received") + get("kernel_drops") != sent_count:
            self.fail(f"{sent_count} datagrams were sent to it")
        before, after = life.before.total(), life.after.total()
        surplus = after + get("replayed") - before - get("spooled")
        # A damaged record is counted as replayed and dropped, and is not among `before`. On a full
        # disk it cannot be noted that a document is settled, so it stays there. An unsettled part of
        # its batch may have a record of its own too, and is then there twice.
        most = get("dropped_spool_damage")
        if life.had_full_disk:
            done = sum(it for number, it in life.after.items() if self._is_done(number))
            twice = sum(it - 1 for number, it in life.after.items() if not self._is_done(number))
            most += done + twice
        if not 0 <= surplus <= most:
            text = f"{before} segments were on the disk, and {after} are: {surplus} too many"
            self.fail(f"{text}, {most} at most", [*life.after])
        for name, counts in [("sent", life.accepted), ("rejected_unprocessed", life.unprocessed)]:
            # A document counts twice if it was accepted twice.
            most = counts.total()
            least = most - self._unsure_count(name)
            if not least <= get(name) <= most:
                self.fail(f"{name} must be {least} to {most}")

    def _is_done(self, number):
        """Returns whether the daemon may know that a document is settled."""
        ledger = self.ledger
        return ledger.taken[number] or ledger.told[number] >= 0 or number in ledger.refused

    def _unsure_count(self, name):
        """Returns how many documents are in answers that the life may not have noticed."""
        counts = Counter()
        for request in self._unsure_answers():
            counts["sent"] += request.taken_count
            counts["rejected_unprocessed"] += len(request.numbers) - request.taken_count
        return counts[name]

    def _unsure_answers(self):
        """Returns the requests whose answers the life may not have noticed."""
        for request in reversed(self.ledger.requests):
            if request.life < self.life.number:
                break
            if request.life != self.life.number or request.answered_at is None:
                continue
            is_late = request.answered_at - request.arrived_at > IN_TIME_SECONDS
            if is_late or request.answered_at >= self.life.unsure_from:
                yield request

    def _ended(self, missing):
        """Each missing document is counted, and each counted one is missing."""
        # The kernel's drops are part of neither sum, and there are none as a rule.
        counted = self.dropped_count + self.refused_count
        if len(missing) > counted + self.get("kernel_drops"):
            self.fail(f"{len(missing)} documents are missing, {counted} are counted", missing)
        # Documents may be counted as lost although the service has them: if an answer was lost or came
        # too late, and if a life was killed before it could note a delivery on the disk.
        ledger, life = self.ledger, self.life
        came = set(range(life.first, life.end)).union(life.before)
        unsure = {it for it in came if ledger.taken[it] and not life.after[it]}
        unnoticed = {number for it in self._unsure_answers() for number in it.numbers}
        unsure = {
            it for it in unsure if not life.accepted[it] or life.before[it] or it in unnoticed
        }
        unsure |= self._refused_on_disk()
        # Each record of a document counts when it is evicted.
        most = len(missing) + len(unsure) + life.copy_count() + self.get("dropped_spool_damage")
        if counted > most:
            text = f"{counted} are counted as lost, only {len(missing)} are missing"
            doubtful = f"{len(unsure)} may be delivered, {life.copy_count()} were on the disk twice"
            self.fail(f"{text}, {doubtful}", missing)

    def _refused_on_disk(self):
        """Returns the documents that were refused and are on the disk all the same: a full disk has no
        room for the note that they are settled.
        """
        on_disk = set(self.life.after) if self.life.had_full_disk else set()
        return on_disk & self.ledger.refused

    def _killed(self, missing):
        """The missing documents were in memory, or were dropped before."""
        life, get = self.life, self.get
        from_disk = {it for it in missing if life.before[it]}
        in_memory = missing - from_disk
        since = life.end - life.first - get("received")
        most = get("held") + since + self.dropped_count + self.refused_count + METRICS_SLACK
        if len(in_memory) > most:
            self.fail(f"{len(in_memory)} are missing, and memory had {most} at most", in_memory)
        poison = {it for it in from_disk if it in self.ledger.refused}
        is_dropping = self._is_spool_full() or self._may_expire() or life.foreign or life.torn_count
        if from_disk - poison and not is_dropping and not life.had_full_disk:
            self.fail(f"{len(from_disk)} were on the disk before and are not", from_disk)
        self.ledger.killed_count += len(in_memory)
        self.ledger.killed_most = max(self.ledger.killed_most, len(in_memory))

    def _is_spool_full(self):
        return self.life.spool_bytes >= 0.75 * self.life.settings.spool_mb * MEGABYTE

    def _may_memory_be_full(self):
        life = self.life
        return life.had_full_disk or life.had_full_memory or life.settings.is_tight()

    def _may_expire(self):
        earlier = self.ledger.lives[: self.life.number]
        return any(it.has_old_date for it in earlier)

    def _reasons(self, missing):
        """Each reason of a loss is true."""
        life, ledger = self.life, self.ledger
        for name, count in self.account.items():
            if count and name.startswith(("dropped_", "rejected_")):
                ledger.reasons[name] += count
        foreign = [it for it, count in life.foreign.items() if count >= FOREIGN_COUNT_MIN]
        poison = missing.union(self._refused_on_disk()) & ledger.refused
        was_killed = any(not it.is_clean for it in ledger.lives[: life.number])
        most = float("inf")
        allowed = {
            "dropped_memory": most if self._may_memory_be_full() else 0,
            "dropped_shutdown": most if life.had_full_disk else 0,
            "dropped_spool_full": most if self._is_spool_full() else 0,
            "dropped_spool_age": most if self._may_expire() else 0,
            "dropped_spool_damage": most if was_killed or life.had_full_disk else 0,
            "dropped_not_x_ray": len(foreign),
            "rejected_unprocessed": most,
            "rejected_refused": len(poison) if life.is_clean else most,
        }
        for name, count in self.account.items():
            if name.startswith(("dropped_", "rejected_")) and count > allowed.get(name, 0):
                text = f"{count} are counted as {name}, true of {allowed.get(name, 0)} at most"
                self.fail(text, missing)
        if any(ledger.kinds[it] != POISON for it in ledger.refused):
            self.fail("good documents are refused")
