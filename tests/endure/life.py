"""One life of the daemon: its start, its stops, its end, and what it leaves.

In: the plan of the life. Out: an entry in the ledger: the account, or the last metrics if it was
killed, and the documents on the disk.
"""

import re
import signal
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime

import spool_files
from ledger import RECORDED_SECONDS
from processes import Daemon, wait_for

#: `Spool.MaxAgeHours`, the default.
AGE_SECONDS_MAX = 168 * 3600
#: xrayd does not believe a date before 2025.
DATE_MIN = 1_735_689_600

#: The share of memory in use from which on receivers may find none, and the time between two looks
#: from which on memory may have been full meanwhile.
FULL_MEMORY, BUSY_SECONDS = 0.6, 1.0

#: An answer is read at most so long after it was written, also on a busy machine. After a second
#: SIGTERM the daemon does not wait for answers, not even for those that have arrived unread.
UNREAD_SECONDS = 2

#: The time between two looks at the disk, and between two looks at the metrics.
LOOK_SECONDS, METRICS_SECONDS = 0.05, 0.2


def _account(log):
    """Returns the account line of a log as a dictionary."""
    line = next(line for line in reversed(log) if "Account: " in line).split("Account: ")[1]
    account = {}
    for name, count, reasons in re.findall(r"(\w+)=(\d+)(?: \(([^)]*)\))?", line):
        account[name] = int(count)
        for reason, part in re.findall(r"(\w+)=(\d+)", reasons):
            account[f"{name}_{reason}"] = int(part)
    return account


def _metrics(page):
    rows = re.findall(r"^(xray_(?:segments|memory)\S+) (\d+)$", page, re.MULTILINE)
    return {name: int(value) for name, value in rows}


class RunningLife:
    """A life of the daemon that has begun."""

    def __init__(self, run, plan):
        self._run, self._plan = run, plan
        self.row = run.ledger.begin(plan.settings)
        self._is_over = threading.Event()
        #: Since when the process is stopped, and for how long it was stopped before.
        self._stopped_at, self._stopped_seconds = None, 0.0
        settings = plan.settings
        config = run.folder / "cfg.yaml"
        config.write_text(
            f"Version: 2\nShutdownSeconds: {settings.shutdown_seconds}\n"
            f"Concurrency: {settings.concurrency}\n"
            f"Spool: {{Path: {run.disk.spool}, MaxSizeMB: {settings.spool_mb}}}\n"
        )
        arguments = ["-c", config, "-m", str(settings.memory_mb), "--receiver", settings.receiver]
        self._offset_seconds = run.date.offset_seconds
        date = time.time() + self._offset_seconds
        self.row.has_old_date = DATE_MIN < date < time.time() - AGE_SECONDS_MAX + 3600
        copies = f"{self.row.copy_count()} documents are on the disk twice"
        run.history.note(f"life {self.row.number} begins: {settings}, {copies}", "a life begins")
        self.process = Daemon(
            run.binary,
            run.folder,
            *arguments,
            AWS_ENDPOINT_URL_XRAY=run.service.url(self.row.number),
            **run.date.variables,
        )

    def __enter__(self):
        self.process.__enter__()
        self._run.log = self.process.lines
        return self

    def __exit__(self, *error):
        self._is_over.set()
        self._run.load.end()
        self.process.__exit__(*error)

    def begin(self):
        """Waits until the daemon listens, and sends it the load."""
        self.process.wait_until_ready()
        self._check_date()
        for look in (self._look_at_disk, self._look_at_metrics):
            threading.Thread(target=look, daemon=True).start()
        self._run.load.begin(self.process.udp, self._plan.settings.rate_max())

    def _check_date(self):
        """The daemon must see the wrong date: the run would prove nothing otherwise."""
        stamp = next(line for line in self.process.lines if "Initializing" in line).split()[0]
        seen = datetime.strptime(stamp, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
        offsets = {self._offset_seconds, self._run.date.offset_seconds}
        if all(abs(seen - time.time() - offset) > 120 for offset in offsets):
            self._run.ledger.fail(f"life {self.row.number} sees the date {stamp}")

    def _look_at_disk(self):
        while not self._is_over.wait(LOOK_SECONDS):
            self._note_disk()

    def _note_disk(self):
        self.row.had_full_disk |= self._run.disk.is_full()
        size_bytes = spool_files.size_of(self._run.disk.spool)
        self.row.spool_bytes = max(self.row.spool_bytes, size_bytes)

    def _look_at_metrics(self):
        last_at, last_stopped = time.monotonic(), self._stopped_seconds
        while not self._is_over.wait(METRICS_SECONDS):
            try:
                metrics = _metrics(self.process.get("/metrics"))
            except OSError:
                continue
            used = metrics["xray_memory_used_bytes"] / metrics["xray_memory_limit_bytes"]
            now, stopped = time.monotonic(), self._stopped_seconds
            gap = now - last_at - (stopped - last_stopped)
            self.row.had_full_memory |= used > FULL_MEMORY or gap > BUSY_SECONDS
            last_at, last_stopped = now, stopped
            # If the sender does not answer, the page does not say what is held.
            if "xray_segments_held" in metrics:
                self.row.metrics = metrics

    def live(self):
        """Lives as planned, and ends."""
        for after_seconds, stop_seconds in self._plan.stops:
            self._pass(after_seconds)
            self._stop()
            self._pass(stop_seconds)
            self._go_on()
        self._pass(self._plan.seconds)
        self.end()

    def _pass(self, seconds):
        """Lets time pass. The daemon must run on."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._run.ledger.failure:
            assert self.process.is_running(), f"the daemon has ended:\n{self.process.log()}"
            time.sleep(min(left, 0.1))

    def _stop(self):
        self._run.history.note("SIGSTOP")
        self._stopped_at = time.monotonic()
        self.process.signal(signal.SIGSTOP)

    def _go_on(self):
        self._run.history.note("SIGCONT")
        self._stopped_seconds += time.monotonic() - self._stopped_at
        self.process.signal(signal.SIGCONT)
        self._stopped_at = None

    def end(self):
        """Ends the daemon as planned, and settles with the ledger."""
        plan, note = self._plan, self._run.history.note
        note(plan.end)
        if plan.end == "killed while stopped":
            self._stop()
            self._pass(plan.patience)
        if plan.end.startswith("killed") and plan.end != "killed during the shutdown":
            self._kill()
        else:
            self._terminate()
        self._is_over.set()
        self._note_disk()
        self._run.service.settle()
        account = _account(self.process.lines) if self.process.code == 0 else None
        if account is None and self.process.code != -signal.SIGKILL:
            self._run.ledger.fail(f"the daemon ends with the code {self.process.code}")
        self._run.ledger.end(self.row, account, spool_files.documents_in(self._run.disk.spool))
        lines = ", ".join(f"{name}={count}" for name, count in (account or {}).items() if count)
        note(f"life {self.row.number} is over: {lines or 'no account'}", "a life is over")

    def _kill(self):
        at = self._stopped_at or time.monotonic()
        self.row.unsure_from = min(self.row.unsure_from, at - RECORDED_SECONDS)
        self._run.load.end(lambda: self.process.signal(signal.SIGKILL))
        self.process.code = self.process.wait()

    def _terminate(self):
        plan, process = self._plan, self.process
        began = time.monotonic()
        # Calls may be given up in the second half of the shutdown.
        self.row.unsure_from = began + plan.settings.shutdown_seconds / 2
        self._run.load.end(process.terminate)
        if plan.end in ("ended at once", "killed during the shutdown"):
            while time.monotonic() < began + plan.patience and process.is_running():
                time.sleep(0.01)
            if process.is_running():
                now = time.monotonic()
                is_kill = plan.end != "ended at once"
                unsure_from = now - (RECORDED_SECONDS if is_kill else UNREAD_SECONDS)
                self.row.unsure_from = min(self.row.unsure_from, unsure_from)
                self._run.history.note("SIGKILL" if is_kill else "a second SIGTERM")
                process.signal(signal.SIGKILL if is_kill else signal.SIGTERM)
        process.code = process.wait()

    def wait_until_empty(self):
        """Waits until everything has arrived and the spool is empty."""
        ledger, metrics = self._run.ledger, lambda: self.row.metrics
        earlier = ledger.open_documents()

        def has_arrived():
            earlier[:] = filter(ledger.is_open, earlier)
            own = filter(ledger.is_open, range(self.row.first, self.row.end - 50))
            left = {*earlier, *own}
            dropped = sum(it for name, it in metrics().items() if "_dropped_" in name)
            return ledger.failure or (len(left - ledger.refused) <= dropped and not self._on_disk())

        complaint = f"life {self.row.number} does not empty the spool"
        wait_for(has_arrived, lambda: f"{complaint}: {len(self._on_disk())} are on the disk")
        # Other documents arrive, so poison that was refused alone is rejected now.
        self._pass(6 if ledger.refused else 1)
        self._run.load.end()
        wait_for(
            lambda: ledger.failure or metrics()["xray_segments_held"] == 0,
            lambda: f"{complaint}: {metrics()['xray_segments_held']} are in memory",
        )

    def _on_disk(self):
        """Returns the documents on the disk, while the daemon works on it."""
        while True:
            with suppress(FileNotFoundError):
                return spool_files.documents_in(self._run.disk.spool)[0]
