"""The daemon and other programs as child processes.

In: a command, a folder to run it in, and its variables. Out: its output line by line, and its exit
code. A child does not see the home folder, the proxies or the AWS variables of the user who runs
the tests. A child is killed at the end of its `with` block if it is still running.
"""

import re
import socket
import subprocess
import threading
import time
import urllib.request

#: The longest time that a test waits for an event. Only a failing test waits this long.
PATIENCE_SECONDS = 20

#: The bytes that the kernel may charge to a socket's queue between two checks, and the queued bytes
#: up to which sending continues. Together they are less than the smallest queue of a daemon, 128
#: KiB.
WINDOW_BYTES = 48 * 1024
QUEUED_BYTES_MAX = 16 * 1024

REGION = "eu-west-1"
ACCESS_KEY = "AKIDEXAMPLE"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"

#: The environment of a child process. A test can add variables; no others are inherited.
ENVIRONMENT = {
    "HOME": "/nonexistent",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_REGION": REGION,
}

ACCOUNT = re.compile(
    r"Account: received=(\d+) replayed=0 sent=(\d+) rejected=0 dropped=0 spooled=0 held=0 "
    r"kernel_drops=0$"
)


def check_balance(line):
    """Fails if the account in a log line misses a segment or counts one twice."""
    counts = {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", line)}
    incoming = counts["received"] + counts["replayed"]
    left = sum(counts[name] for name in ("sent", "rejected", "dropped", "spooled", "held"))
    assert incoming == left, line


def wait_for(find, complaint):
    """Returns the first true result of `find`. Fails with `complaint()` on a timeout."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := find()):
        assert time.monotonic() < deadline, complaint()
        time.sleep(0.02)
    return found


def queued_bytes(port):
    """Returns the number of bytes in the queue of the UDP socket with this port. If several sockets
    share the port, returns the largest number.
    """
    with open("/proc/net/udp", encoding="ascii") as table:
        rows = [line.split() for line in table][1:]
    own = [row[4].split(":")[1] for row in rows if row[1].endswith(f":{port:04X}")]
    return max((int(text, 16) for text in own), default=0)


class Child:
    """A running program."""

    def __init__(self, command, folder, **environment):
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=ENVIRONMENT | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        #: The lines of the program's standard output; and the lines of standard output and standard
        #: error together.
        self.output, self.lines = [], []
        self._readers = [
            threading.Thread(target=self._read, args=arguments, daemon=True)
            for arguments in [
                (self._process.stdout, [self.output, self.lines]),
                (self._process.stderr, [self.lines]),
            ]
        ]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _read(stream, lists):
        for line in stream:
            for lines in lists:
                lines.append(line.rstrip("\n"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        for reader in self._readers:
            reader.join()
        self._process.stdout.close()
        self._process.stderr.close()

    def id(self):
        """Returns the id of the process."""
        return self._process.pid

    def log(self):
        """Returns all lines of both outputs so far."""
        return "\n".join(self.lines)

    def wait_for_line(self, text):
        """Waits for a line that contains `text`, and returns the line. Fails if the program ends
        first.
        """

        def find():
            # The end is checked first. If the program has ended, `lines` then has everything that
            # it printed.
            ended = not any(reader.is_alive() for reader in self._readers)
            found = next((line for line in self.lines if text in line), None)
            assert found or not ended, f"the program ended without {text!r}:\n{self.log()}"
            return found

        return wait_for(find, lambda: f"no line with {text!r} in:\n{self.log()}")

    def listening(self, protocol):
        """Returns the (host, port) on which the program says that it listens."""
        text = f"Listening on {protocol} "
        address = self.wait_for_line(text).split(text)[1].split()[0]
        host, port = address.rsplit(":", 1)
        return host, int(port)

    def terminate(self):
        """Sends SIGTERM."""
        self._process.terminate()

    def signal(self, number):
        """Sends a signal."""
        self._process.send_signal(number)

    def is_running(self):
        """Returns whether the program has not ended."""
        return self._process.poll() is None

    def wait(self):
        """Waits until the program has ended, and returns its exit code."""
        code = self._process.wait(PATIENCE_SECONDS)
        for reader in self._readers:
            reader.join()
        for line in self.lines:
            if "Account: " in line or "Account of spans: " in line:
                check_balance(line)
        return code


class Daemon(Child):
    """A running `xray`, on free ports."""

    def __init__(self, binary, folder, *arguments, **environment):
        ports = ["-b", "127.0.0.1:0", "-t", "127.0.0.1:0"]
        self.has_otlp = "sandbox" in arguments and not any(
            it.startswith("--otlp") for it in arguments
        )
        if self.has_otlp:
            ports += ["--otlp-http=127.0.0.1:0", "--otlp-grpc=127.0.0.1:0"]
        command = [binary, *arguments, *ports, "-n", REGION]
        super().__init__(command, folder, **environment)
        self.sent_count = 0
        self.is_over = False

    def wait_until_ready(self):
        """Waits until both ports are open."""
        #: The addresses of the UDP port and of the TCP port.
        self.udp, self.tcp = self.listening("UDP"), self.listening("TCP")
        self.url = "http://{}:{}".format(*self.tcp)
        if self.has_otlp:
            #: The addresses of the ports for OpenTelemetry, over HTTP and over gRPC.
            self.otlp_http, self.otlp_grpc = self.otlp_port("HTTP"), self.otlp_port("gRPC")

    def otlp_port(self, protocol):
        """Returns the address of the port for OpenTelemetry's spans over `protocol`."""
        text = f"OpenTelemetry's spans are taken over {protocol} at "
        host, port = self.wait_for_line(text).split(text)[1].rsplit(":", 1)
        return host, int(port)

    def send(self, datagrams):
        """Sends datagrams to the daemon, no faster than it reads them from its socket."""
        unseen_bytes = 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for datagram in datagrams:
                # The kernel rounds the length up to a power of two and adds its own structures.
                unseen_bytes += 2 * len(datagram) + 1024
                if unseen_bytes > WINDOW_BYTES:
                    is_empty = lambda: queued_bytes(self.udp[1]) <= QUEUED_BYTES_MAX
                    wait_for(is_empty, lambda: f"the daemon does not read datagrams:\n{self.log()}")
                    unseen_bytes = 0
                sender.sendto(datagram, self.udp)

    def get(self, path, **headers):
        """Returns the text of a page on the daemon's TCP port."""
        request = urllib.request.Request(self.url + path, headers=headers)
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
            return answer.read().decode()

    def wait_until_sent(self, count):
        """Waits until `count` segments have been sent in total. `end_in_order` expects the same
        count.
        """
        self.sent_count = count
        line = f"xray_segments_sent_total {count}\n"
        wait_for(lambda: line in self.get("/metrics"), lambda: f"not {line}{self.log()}")

    def end(self):
        """Stops the daemon with SIGTERM. It may have lost segments."""
        self.is_over = True
        self.terminate()
        assert self.wait() == 0, self.log()

    def end_in_order(self):
        """Stops the daemon with SIGTERM, unless the test has already stopped it. Fails if a segment
        was lost.
        """
        if self.is_over:
            return
        self.end()
        account = [ACCOUNT.search(line) for line in self.lines if "Account:" in line]
        assert len(account) == 1 and account[0], self.log()
        assert account[0].groups() == (str(self.sent_count),) * 2, self.log()
