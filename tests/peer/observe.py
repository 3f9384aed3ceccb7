"""Runs a daemon with a case. The answer has the same form for the peer and for ours.

In: a binary and a case. Out: an answer:

    "usage"      the command line is wrong: exit code 2
    "refused"    the daemon ends by itself: exit code 1
    "crashes"    the daemon ends by itself with a panic
    "hangs"      the daemon neither ends nor opens its ports
    "shown"      a text is printed: exit code 0
    {...}        the daemon runs; the values that are not the defaults

Everything runs in a network namespace of its own that has the loopback addresses only (`run`).
"""

import contextlib
import http.server
import json
import re
import signal
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from pathlib import Path

#: Only a daemon that hangs is given so much time.
PATIENCE_SECONDS = 20

#: The ports of proxies whose address has none.
PROXY_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}

#: The places whose cases are all started, because they are about ports or the log file.
ABOUT_START = ("-b", "-t", "-f", "Socket", "Logging.LogPath", "line", "mixed", "mutated")

#: Of the other cases, one of so many is started.
SAMPLE_STEP = 8

FAKE_PORT, TLS_PORT = 9000, 9443
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/nonexistent",
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_REGION": "env-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_ENDPOINT_URL_STS": f"http://127.0.0.1:{FAKE_PORT}",
}
DEFAULTS = {
    "TotalBufferSizeMB": "0",
    "Concurrency": "8",
    "Region": "env-1",
    "Logging.LogLevel": "debug",
    "UDP": "127.0.0.1:2000",
    "TCP": "127.0.0.1:2000",
    "LocalMode": "false",
    "NoVerifySSL": "false",
}


class Fakes:
    """The servers that the daemons may call: STS, the instance metadata, and X-Ray with TLS."""

    def __init__(self, folder):
        fakes = self
        #: The roles that were assumed, and the number of calls over TLS.
        self.roles, self.tls_count = [], 0

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self, body, kind="application/json"):
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("x-amzn-RequestId", "1-2-3")
                self.send_header("X-aws-ec2-metadata-token-ttl-seconds", "600")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_PUT(self):
                self.answer(b"token", "text/plain")

            def do_GET(self):
                document = {"region": "metadata-1", "instanceId": "i-1"}
                plain = b"metadata-1" if "region" in self.path else b"x"
                body = json.dumps(document).encode() if "document" in self.path else plain
                self.answer(body, "text/plain")

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if isinstance(self.connection, ssl.SSLSocket):
                    fakes.tls_count += 1
                if b"AssumeRole" not in body:
                    self.answer(b"{}")
                    return
                fakes.roles += urllib.parse.parse_qs(body.decode())["RoleArn"]
                until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
                self.answer(
                    b"<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>AKIDROLE"
                    b"</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t"
                    b"</SessionToken><Expiration>" + until.encode() + b"</Expiration>"
                    b"</Credentials></AssumeRoleResult></AssumeRoleResponse>",
                    "text/xml",
                )

        for port in (FAKE_PORT, TLS_PORT):
            server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
            if port == TLS_PORT:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(certificate(folder))
                server.socket = context.wrap_socket(
                    server.socket, server_side=True, do_handshake_on_connect=False
                )
            # A daemon ends while its calls are under way, or does not trust the certificate.
            server.handle_error = lambda *_: None
            threading.Thread(target=server.serve_forever, daemon=True).start()


def certificate(folder):
    """Makes a certificate that nobody trusts, with its key. Returns the path of both."""
    path = Path(folder) / "tls.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1"
    subprocess.run([*command.split(), "-keyout", path, "-out", f"{path}.crt"], check=True,
                   capture_output=True)  # fmt: skip
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


def prepare(case, folder):
    """Writes the file of a case. Returns the arguments and the environment of the case."""
    arguments, environment = list(case.flags), dict(ENVIRONMENT)
    if case.file is not None:
        name = "given.yaml" if case.way == "given" else "cfg.yaml"
        (folder / name).write_bytes(case.file.encode())
    if case.file is not None and case.way == "given":
        arguments = ["-c", "given.yaml", *arguments]
    if "-l" not in case.place and "LogLevel" not in case.place:
        arguments = ["-l", "debug", *arguments]
    if case.place.startswith(("LocalMode", "-o")):
        (folder / "aws").write_text("[default]\nregion = profile-1\n")
        del environment["AWS_REGION"], environment["AWS_EC2_METADATA_DISABLED"]
        environment["AWS_CONFIG_FILE"] = str(folder / "aws")
        endpoint = f"http://127.0.0.1:{FAKE_PORT}"
        environment["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = endpoint
    return arguments, environment


def listening(protocol):
    """Returns the addresses on which something listens, except for the fakes."""
    found = set()
    for suffix in ("", "6"):
        with open(f"/proc/net/{protocol}{suffix}", encoding="ascii") as table:
            rows = [line.split() for line in table][1:]
        for row in rows:
            host, port = row[1].split(":")
            if protocol == "tcp" and row[3] != "0A":
                continue
            words = [host[start : start + 8] for start in range(0, len(host), 8)]
            raw = b"".join(bytes.fromhex(word)[::-1] for word in words)
            if len(raw) == 4:
                text = ".".join(map(str, raw))
            else:
                text = {b"\0" * 16: "[::]", b"\0" * 15 + b"\1": "[::1]"}.get(raw, raw.hex())
            number = int(port, 16)
            if number not in (FAKE_PORT, TLS_PORT):
                # The kernel chose a port that no case names.
                found.add(f"{text}:{number if number < 10000 else 'any'}")
    return ",".join(sorted(found))


def run(binary, arguments, environment, folder, is_up, ending=signal.SIGQUIT):
    """Runs a daemon until it ends or is up. Returns its exit code, or None, and its output. A
    daemon that is up, by `is_up(output)`, is ended by the signal `ending`. On SIGQUIT the peer
    prints its threads.
    """
    with open(folder / "output", "wb") as output:
        process = subprocess.Popen([binary, *arguments], cwd=folder, env=environment,
                                   stdin=subprocess.DEVNULL, stdout=output, stderr=output)  # fmt: skip

    def text():
        logs = [path for path in sorted(folder.rglob("*")) if is_log(path)]
        return "".join(path.read_bytes().decode("utf-8", "replace") for path in logs)

    deadline = time.monotonic() + PATIENCE_SECONDS
    try:
        while time.monotonic() < deadline:
            if (code := process.poll()) is not None:
                return code, text()
            if is_up(text()):
                process.send_signal(ending)
                process.wait(PATIENCE_SECONDS)
                return None, text()
            time.sleep(0.005)
        return "hangs", text()
    except subprocess.TimeoutExpired:
        return "hangs", text()
    finally:
        process.kill()
        process.wait()


def is_log(path):
    """Whether a daemon has written this file: its output, or a log file that it has made."""
    return path.is_file() and path.name not in ("given.yaml", "cfg.yaml", "aws")


def exit_answer(code):
    """Returns the answer for an exit code."""
    return {0: "shown", 1: "refused", 2: "usage"}.get(code, code)


def call_through(port_text):
    """Calls the service through the TCP port of a daemon."""
    host, port = port_text.rsplit(":", 1)
    request = urllib.request.Request(f"http://{host}:{port}/GetSamplingRules", b"{}")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with contextlib.suppress(urllib.error.URLError, OSError):
        opener.open(request, timeout=5).read()


class Peer:
    """The original daemon."""

    def __init__(self, binary, folder, fakes):
        self.binary, self.folder, self.fakes = binary, folder, fakes
        self.megabytes = None

    def answer(self, case):
        """Returns the answer of the peer."""
        arguments, environment = prepare(case, self.folder)
        seen = {}
        asks_level = "-l" in case.place or "LogLevel" in case.place
        asks_call = any(name in case.place for name in ("RoleARN", "-r ", "NoVerifySSL"))
        asks_call |= case.place == "-r"
        self.fakes.roles.clear()
        self.fakes.tls_count = 0

        def is_up(output):
            tcp = listening("tcp")
            failed = "proxy http server failed to listen" in output
            if not (tcp or failed):
                return False
            seen["TCP"], seen["UDP"] = tcp, listening("udp")
            if asks_level and "datagram" not in seen:
                seen["datagram"] = True
                send_bad_datagram(seen["UDP"])
                seen["at"] = time.monotonic()
            if asks_level and "Missing header" not in output:
                return time.monotonic() > seen["at"] + 0.3
            if asks_call and tcp:
                call_through(tcp.split(",")[0])
            return True

        code, output = run(self.binary, arguments, environment, self.folder, is_up)
        if code == 2 and "\ngoroutine " in output:
            return "crashes"
        if code is not None:
            return exit_answer(code)
        return self.values(case, output, seen)

    def values(self, case, output, seen):
        find = lambda pattern: (re.findall(pattern, output, re.S) or [""])[0]
        end = r"\n(?:20\d\d-\d\d-\d\dT|\Z)"
        if "-l" in case.place or "LogLevel" in case.place:
            level = "error"
            for name, mark in [("warn", "[Warn]"), ("info", "[Info]"), ("debug", "[Debug]")]:
                level = name if mark in output else level
            return {} if level == "debug" else {"Logging.LogLevel": level}
        region = find(rf"Using region: (.*?){end}")
        if not region:
            # The daemon runs without a log.
            return {"log": "lost"}
        endpoint = find(rf"X-Ray Endpoint : (.*?){end}")
        values = {
            "TotalBufferSizeMB": find(r"buffer memory limit of (\d+) MB"),
            "Concurrency": str(output.count("processor.(*segmentsBatch).poll(")),
            "Region": region,
            "Endpoint": "" if endpoint.startswith(f"https://xray.{region}.") else endpoint,
            "ResourceARN": find(rf"resource running the daemon: (.*?){end}"),
            "ProxyAddress": plain_proxy(find(rf"Using proxy address: (.*?){end}")),
            "UDP": seen["UDP"],
            "TCP": seen["TCP"],
        }
        if self.megabytes is None:
            self.megabytes = values["TotalBufferSizeMB"]
        if values["TotalBufferSizeMB"] == self.megabytes:
            values["TotalBufferSizeMB"] = "0"
        if case.place.startswith(("LocalMode", "-o")):
            values["LocalMode"] = str(region == "profile-1").lower()
            values["Region"] = "env-1"
        if "RoleARN" in case.place or case.place.startswith("-r"):
            values["RoleARN"] = self.fakes.roles[0] if self.fakes.roles else ""
        if "NoVerifySSL" in case.place:
            values["NoVerifySSL"] = str(self.fakes.tls_count > 0).lower()
            values.pop("Endpoint")
        values = {name: value.strip() for name, value in values.items()}
        return {name: value for name, value in values.items() if value != DEFAULTS.get(name, "")}


def plain_proxy(text):
    """Returns the address of a proxy in the form of `xray config`, without user and password."""
    try:
        parts = urllib.parse.urlsplit(text)
        port = parts.port or PROXY_PORTS[parts.scheme]
    except (ValueError, KeyError):
        return text
    host = parts.netloc.rpartition("@")[2]
    host = host[: host.rfind("]") + 1] if "[" in host else host.partition(":")[0]
    return f"{parts.scheme}://{host}:{port}" if host else text


def send_bad_datagram(addresses):
    """Sends a datagram without a header to the first address."""
    address = addresses.split(",")[0]
    host, port = address.rsplit(":", 1)
    host = {"[::]": "127.0.0.1", "[::1]": "::1"}.get(host, host)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", (host, int(port)))


#: The keys of `xray config` that are compared.
OWN_KEYS = [
    "TotalBufferSizeMB", "Concurrency", "Region", "Endpoint", "ResourceARN", "ProxyAddress",
    "LocalMode", "RoleARN", "NoVerifySSL", "Logging.LogLevel", "Logging.LogPath",
]  # fmt: skip
OWN_ABSENT = {
    "(none)",
    "(the region's own)",
    "(looked for at the start)",
    "0 (see xray limits)",
    "0 (adaptive)",
}


class Own:
    """The daemon of this repository."""

    def __init__(self, binary, folder):
        self.binary, self.folder = binary, folder

    def answer(self, case):
        """Returns the answer of `xray config`, without the addresses of the ports."""
        arguments, environment = prepare(case, self.folder)
        if not case.place.startswith(("LocalMode", "-o")):
            environment["AWS_REGION"] = "env-1"
        result = subprocess.run([self.binary, "config", *arguments], cwd=self.folder,
                                env=environment, capture_output=True)  # fmt: skip
        output = result.stdout.decode()
        if result.returncode or "AWS X-Ray daemon version" in output or "Usage" in output:
            return exit_answer(result.returncode)
        source = r" *(?:default|flag -[^\n]*|variable [A-Z_]+|(?:given|cfg)\.yaml)\n"
        values = {
            key: re.search(rf"^{re.escape(key)} +(.*?){source}", output, re.S | re.M)[1].strip()
            for key in OWN_KEYS
        }
        return self.comparable(case, values)

    @staticmethod
    def comparable(case, values):
        values = {key: "" if value in OWN_ABSENT else value for key, value in values.items()}
        if values["TotalBufferSizeMB"] == "":
            values["TotalBufferSizeMB"] = "0"
        if case.place.startswith(("LocalMode", "-o")):
            values["Region"] = values["Region"] or "env-1"
        values.pop("Logging.LogPath")
        # The cases that are about these settings show their effect, the others do not.
        if "NoVerifySSL" in case.place:
            values.pop("Endpoint")
        else:
            values.pop("NoVerifySSL")
        if not case.place.startswith(("LocalMode", "-o")):
            values.pop("LocalMode")
        if "RoleARN" not in case.place and not case.place.startswith("-r"):
            values.pop("RoleARN")
        level = {"prod": "info", "dev": "debug"}.get(
            values["Logging.LogLevel"], values["Logging.LogLevel"]
        )
        if "-l" in case.place or "LogLevel" in case.place:
            return {} if level == "debug" else {"Logging.LogLevel": level}
        values.pop("Logging.LogLevel")
        return {name: value for name, value in values.items() if value != DEFAULTS.get(name, "")}

    def answers(self, case):
        """Returns the answers of `xray config` and of the start. A configuration that is refused is
        not started: the start reads it by the same function. Nor are all cases started that are
        about values, because that takes long: their start is None.
        """
        shown = self.answer(case)
        if not isinstance(shown, dict):
            return shown, shown
        is_about_start = case.place.startswith(ABOUT_START)
        is_sample = zlib.crc32(repr(case).encode()) % SAMPLE_STEP == 0
        return shown, self.start(case) if is_about_start or is_sample else None

    def start(self, case):
        """Starts the daemon. Returns "refused" and so on, or the addresses of its ports."""
        arguments, environment = prepare(case, self.folder)
        seen = {}

        def is_up(output):
            seen["TCP"], seen["UDP"] = listening("tcp"), listening("udp")
            return seen["TCP"] or "trying again every" in output

        code, _ = run(self.binary, arguments, environment, self.folder, is_up, signal.SIGKILL)
        if code is not None:
            return exit_answer(code)
        return {name: value for name, value in seen.items() if value != DEFAULTS[name]}
