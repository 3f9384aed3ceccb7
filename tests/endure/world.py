"""The world around the daemon: the disk of its spool, the date of its host, and the load.

In: the changes of the plan. Out: a folder on a disk of its own, which a ballast file fills; the
variables that give a child process a wrong date; datagrams.
"""

import os
import socket
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

from documents import HEADER
from processes import QUEUED_BYTES_MAX, WINDOW_BYTES, queued_bytes

HERE = Path(__file__).parent

#: A disk with less free bytes may have refused a write.
FULL_BYTES = 3 * 1024 * 1024 // 2


class Disk:
    """The disk of the spool: a small tmpfs, or a plain folder where nothing can be mounted."""

    def __init__(self, folder, size_mb):
        self._folder = folder / "disk"
        self._folder.mkdir()
        self.spool = self._folder / "spool"
        self._ballast = self._folder / "ballast"
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m,mode=700", "none", self._folder]
        done = subprocess.run(command, capture_output=True, text=True)
        #: Why the disk cannot be filled; None if it can.
        self.complaint = done.stderr.strip() or None

    def _free_bytes(self):
        found = os.statvfs(self._folder)
        return found.f_bavail * found.f_frsize

    def is_full(self):
        """Returns whether a write may fail."""
        return self.complaint is None and self._free_bytes() < FULL_BYTES

    def fill(self, left_bytes):
        """Fills the disk up to this many bytes, or frees it (None)."""
        if self.complaint:
            return
        if left_bytes is None:
            self._ballast.unlink(missing_ok=True)
            return
        with self._ballast.open("ab") as ballast:
            while (more := self._free_bytes() - left_bytes) > 0:
                # The daemon may be quicker.
                with suppress(OSError):
                    os.posix_fallocate(ballast.fileno(), ballast.tell(), more)
                    ballast.seek(0, os.SEEK_END)


class WrongDate:
    """The date of the host, as child processes with `variables` see it."""

    def __init__(self, folder):
        library, self._file = folder / "clock.so", folder / "clock"
        command = ["cc", "-O1", "-shared", "-fPIC", "-o", library, HERE / "clock.c"]
        subprocess.run(command, check=True)
        self.offset_seconds = 0
        self._file.write_bytes(bytes(8))
        self.variables = {"LD_PRELOAD": str(library), "ENDURE_CLOCK": str(self._file)}

    def step(self, offset_seconds):
        """Sets the date to the true date plus this."""
        self.offset_seconds = offset_seconds
        with self._file.open("r+b") as file:
            file.write(offset_seconds.to_bytes(8, "little", signed=True))


class Load:
    """Sends numbered documents to the current life of the daemon, no faster than it reads them."""

    def __init__(self, ledger):
        self._ledger = ledger
        #: Documents a second, and whether only good ones are sent.
        self.rate, self.is_good = 100, False
        self._rate_max = 1
        self._target, self._unseen_bytes = None, 0
        self._lock = threading.Lock()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        threading.Thread(target=self._run, daemon=True).start()

    def begin(self, target, rate_max):
        """Begins to send to this address, at most so many documents a second."""
        with self._lock:
            self._target, self._unseen_bytes, self._rate_max = target, 0, rate_max

    def end(self, signal=lambda: None):
        """Stops, and calls `signal` behind the last datagram."""
        with self._lock:
            self._target = None
            signal()

    def _run(self):
        due = time.monotonic()
        while True:
            time.sleep(0.004)
            now = time.monotonic()
            # Documents that could not be sent in time are not sent later.
            due = max(due, now - 0.1)
            while due < now:
                with self._lock:
                    if not self._has_room():
                        break
                    self._send()
                due += 1 / min(self.rate, self._rate_max)

    def _has_room(self):
        if self._target and self._unseen_bytes > WINDOW_BYTES:
            if queued_bytes(self._target[1]) > QUEUED_BYTES_MAX:
                return False
            self._unseen_bytes = 0
        return True

    def _send(self):
        if not self._target:
            return
        datagram = HEADER + self._ledger.next_document(self.is_good).encode()
        # The kernel rounds the length up to a power of two and adds its own structures.
        self._unseen_bytes += 2 * len(datagram) + 1024
        self._socket.sendto(datagram, self._target)
