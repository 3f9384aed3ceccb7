"""The X-Ray service, which fails as the plan says.

In: requests on a port of 127.0.0.1, and the current mode. Out: answers, and entries in the ledger.
Each life of the daemon has its own path, so a request belongs to one life for certain. Thread: one,
with an asyncio loop.
"""

import asyncio
import json
import socket
import struct
import threading
import time
from datetime import UTC, datetime
from email.utils import formatdate
from random import Random

from documents import POISON, UNPROCESSED, segment_id

#: The largest difference between the date of a signature and the true date.
SKEW_SECONDS_MAX = 300

#: Seconds of the rate that the throttle's bucket holds.
BUCKET_SECONDS = 0.3

TAKEN = {"UnprocessedTraceSegments": []}


class Broken(Exception):
    """The connection is to be closed without a complete answer."""


def _error(code, text):
    return json.dumps({"__type": code, "message": text}).encode()


class Service:
    """The service, until the end of the process."""

    def __init__(self, seed, ledger, history):
        self._random = Random(f"{seed} service")
        self._ledger, self._history = ledger, history
        self._mode, self._share, self._values = "works", 1.0, {}
        self._bucket = (0.0, 0.0)
        self._writers, self._server = set(), None
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._port = self._free_port()
        self.set_mode("works", 1.0, {})

    def _free_port(self):
        """Returns a port that the kernel does not choose for outgoing connections, so that it stays
        free while the service does not listen.
        """
        while True:
            port = self._random.randrange(20_000, 30_000)
            with socket.socket() as trial:
                try:
                    trial.bind(("127.0.0.1", port))
                    return port
                except OSError:
                    pass

    def url(self, life):
        """Returns the endpoint for a life of the daemon."""
        return f"http://127.0.0.1:{self._port}/{life}"

    def _run(self, task):
        return asyncio.run_coroutine_threadsafe(task, self._loop).result(60)

    def settle(self):
        """Returns when the ledger has every answer that was written before the call."""
        self._run(asyncio.sleep(0))

    def set_mode(self, mode, share, values):
        """Changes how the service behaves. `share` is the share of the affected requests."""
        self._run(self._set_mode(mode, share, values))

    async def _set_mode(self, mode, share, values):
        self._mode, self._share, self._values = mode, share, values
        self._bucket = (0.0, time.monotonic())
        if mode == "refuses connections":
            if self._server:
                self._server.close()
                self._server = None
            for writer in list(self._writers):
                self._cut(writer, values["resets"])
        while mode != "refuses connections" and not self._server:
            try:
                self._server = await asyncio.start_server(
                    self._serve, "127.0.0.1", self._port, limit=2**22
                )
            except OSError:
                await asyncio.sleep(0.01)

    def _cut(self, writer, resets):
        """Closes a connection, with a reset or without."""
        # A reset just behind an answer could destroy the answer on its way.
        if resets and time.monotonic() - writer.answered_at > 1:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort() if writer.answered_at < 0 else writer.close()

    async def _serve(self, reader, writer):
        writer.answered_at = -1.0
        self._writers.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                arrived_at = time.monotonic()
                writer.answered_at = -1.0
                lines = head.decode().split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
                body = await reader.readexactly(int(headers["content-length"]))
                _, life, path = lines[0].split(" ")[1].split("/", 2)
                if path == "TelemetryRecords":
                    self._write(writer, 200, b"{}")
                    continue
                assert path == "TraceSegments", path
                request = self._ledger.arrived(int(life), arrived_at)
                await self._answer(request, headers, body, reader, writer)
        except (Broken, OSError, asyncio.IncompleteReadError):
            pass
        except Exception as error:  # a fault of the test, or a request that is not HTTP
            self._ledger.fail(f"the service has failed: {error!r}")
        finally:
            self._writers.discard(writer)
            writer.close()

    def _write(self, writer, status, body, headers=(("x-amzn-RequestId", "1"),)):
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
        lines += [f"Date: {formatdate(usegmt=True)}", "Content-Type: application/json"]
        lines += [f"{name}: {value}" for name, value in headers]
        if writer.transport.is_closing():
            raise Broken
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        writer.answered_at = time.monotonic()

    async def _answer(self, request, headers, body, reader, writer):
        """Decides what happens to a request, and answers it."""
        numbers = self._ledger.read(request, body)
        mode = self._mode if self._random.random() < self._share else "works"
        request.mode = mode
        values = self._values
        refusal = self._refusal(mode, values, numbers, headers, len(body))
        if refusal:
            status, text, *more = refusal
            if mode == "is another server":
                self._ledger.is_foreign(request, numbers)
                self._write(writer, status, text, ())
            else:
                self._write(writer, status, text, [("x-amzn-RequestId", "1"), *more])
            return
        if mode == "hangs":
            await reader.read(1)
            raise Broken
        if mode == "cuts before it takes a request":
            self._cut(writer, values["resets"])
            raise Broken
        await self._take(request, mode, values, numbers, writer)

    def _refusal(self, mode, values, numbers, headers, body_bytes):
        """Returns status and body, and further headers, if the service does not take a request."""
        failure = self._failure(mode, values, len(numbers), body_bytes)
        if failure:
            return failure
        signed_at = datetime.strptime(headers["x-amz-date"].upper(), "%Y%m%dT%H%M%SZ")
        distance = datetime.now(UTC) - signed_at.replace(tzinfo=UTC)
        if abs(distance.total_seconds()) > SKEW_SECONDS_MAX:
            self._ledger.skewed_count += 1
            return 403, _error("InvalidSignatureException", "Signature expired")
        if any(self._ledger.kinds[number] == POISON for number in numbers):
            if len(numbers) == 1:
                self._ledger.refused_alone(numbers[0])
            return 400, _error("InvalidRequestException", "poison")
        return None

    def _failure(self, mode, values, count, body_bytes):
        """Returns the same for the mode alone."""
        retry_after = self._random.choice([(), (("Retry-After", "1"),)])
        if mode == "throttles" and not self._lets_through(count, values):
            return 429, _error("ThrottledException", "Rate exceeded")
        # A large document alone is taken: the daemon would have to reject it.
        if mode == "finds requests too large" and count > 1:
            if body_bytes > values["body_bytes_max"]:
                return 413, b""
            return None
        return {
            "answers 500": (500, _error("InternalFailure", "failed"), *retry_after),
            "denies": (403, _error("UnrecognizedClientException", "denied")),
            "is another server": (200, b"<html><body>Please log in</body></html>"),
        }.get(mode)

    def _lets_through(self, count, values):
        """Returns whether the throttle lets so many documents through."""
        rate, now = values["documents_per_second"], time.monotonic()
        level, at = self._bucket
        level = min(level + (now - at) * rate, max(rate * BUCKET_SECONDS, 50))
        is_within = level >= count
        self._bucket = (level - count if is_within else level, now)
        return is_within

    async def _take(self, request, mode, values, numbers, writer):
        """Takes the documents of a request, and answers it as the mode says."""
        named, later = [], []
        for number in numbers:
            if self._ledger.kinds[number] == UNPROCESSED:
                named.append(number)
            elif mode == "throttles documents" and self._random.random() < 0.2:
                later.append(number)
        left_out = {*named, *later}
        accepted = [number for number in numbers if number not in left_out]
        self._ledger.takes(request, accepted)
        if mode == "answers late":
            await asyncio.sleep(values["answer_seconds"])
        unprocessed = [(it, "InvalidSegment") for it in named]
        unprocessed += [(it, "ThrottledException") for it in later]
        answer = {
            "UnprocessedTraceSegments": [
                {"Id": segment_id(number), "ErrorCode": code, "Message": "no"}
                for number, code in unprocessed
            ]
        }
        body = json.dumps(answer).encode()
        match mode:
            case "cuts after it has taken a request":
                self._cut(writer, values["resets"])
                raise Broken
            case "sends half an answer":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n{")
                await writer.drain()
                raise Broken
            case "answers what cannot be read" if not unprocessed:
                body = b"\x1f\x8b broken"
        self._write(writer, 200, body)
        self._ledger.answered(request, accepted, named)
