"""`xray verify` passes if all is well, and fails with the right advice if not.

In: moto as X-Ray and STS, a daemon, and one fault. Out: exactly the checks that the fault affects
fail, with useful advice. Every address is on 127.0.0.1.
"""

import datetime
import json
import os
import re
import signal
import socket
import ssl
import threading
from contextlib import contextmanager
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from processes import REGION, Child, Daemon
from recorder import Recorder

LINE = re.compile(r"^(ok|note|FAIL) +(\w+): (.+)$")


@pytest.fixture
def verify(tmp_path, moto_url):
    """Runs `xray verify` against a daemon. moto is the service unless a variable names another."""

    def verify(daemon, *arguments, **environment):
        addresses = ["-b", "{}:{}".format(*daemon.udp), "-t", "{}:{}".format(*daemon.tcp)]
        command = [os.environ["XRAY_BINARY"], "verify", *addresses, *arguments]
        environment = {
            "AWS_ENDPOINT_URL_STS": moto_url,
            "AWS_ENDPOINT_URL_XRAY": moto_url,
        } | environment
        with Child(command, tmp_path, **environment) as child:
            code = child.wait()
            # The last line is the result.
            lines = [LINE.match(line) for line in child.output[:-1]]
            assert "--json" in arguments or all(lines), child.log()
        found = [match.groups() for match in lines if match]
        return SimpleNamespace(
            code=code,
            log=child.log(),
            result=child.output[-1],
            text={check: text for _, check, text in found},
            names={
                word: [check for found_word, check, _ in found if found_word == word]
                for word in ("ok", "note", "FAIL")
            },
        )

    return verify


@pytest.fixture
def daemon(service, start_daemon):
    """A daemon that delivers to moto. Only `xray verify` sends segments to it."""
    daemon = start_daemon(AWS_ENDPOINT_URL_XRAY=service.url)
    yield daemon
    # Sets the number of sent segments that the end of the daemon expects: all that it received from
    # `xray verify`.
    name = "xray_segments_received_total "
    [line] = [line for line in daemon.get("/metrics").splitlines() if line.startswith(name)]
    daemon.sent_count = int(float(line.split()[1]))


def has_failed(verified, *names):
    """Fails unless `xray verify` has failed with exactly these checks."""
    assert verified.names["FAIL"] == list(names), verified.log
    assert verified.code == 1, verified.log


def closed_port():
    """Returns a bound socket that does not listen, and its address."""
    held = socket.socket()
    held.bind(("127.0.0.1", 0))
    return held, "{}:{}".format(*held.getsockname())


def refusal(status, code, message="so", **headers):
    """Returns a function that answers every request with this error of the service."""
    body = json.dumps({"message": message}).encode()
    return lambda _: (status, {"x-amzn-ErrorType": code} | headers, body)


def test_it_is_green_where_all_is_well_and_reads_its_segment_back(daemon, service, verify):
    verified = verify(daemon)
    assert verified.code == 0 and verified.names["FAIL"] == [], verified.log
    good = "configuration region endpoint credentials caller name connection request daemon ready"
    assert set(f"{good} segment read_back".split()) <= set(verified.names["ok"]), verified.log
    [document] = [json.loads(document) for document in service.documents()]
    assert document["name"] == "xray-verify"
    assert document["trace_id"] in verified.text["segment"]
    assert document["trace_id"] in verified.text["read_back"]
    assert verified.text["region"] == f"{REGION}, from AWS_REGION"
    assert "123456789012" in verified.text["caller"]
    assert verified.result.startswith("It works: the service has accepted"), verified.result


def test_the_last_line_is_the_first_thing_to_do(daemon, verify, tmp_path):
    verified = verify(daemon, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
    assert verified.result.startswith("Do this first (credentials): Give the task"), verified.log
    # Of several failures it is the first one on the way of a segment.
    held, address = closed_port()
    with held:
        url = f"http://{address}"
        keys = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
        verified = verify(daemon, AWS_ENDPOINT_URL_XRAY=url, **keys)
    assert verified.names["FAIL"] == ["credentials", "connection"], verified.log
    assert verified.result.startswith("Do this first (credentials): "), verified.log


@pytest.mark.parametrize(
    "text, line, reason",
    [
        ("[default]\naws_access_key_id = A\n", 2, "but no value of aws_secret_access_key"),
        ("[default]\naws_access_key_id = A\naws_secret_access_key\n", 3, "neither `=` nor `:`"),
        ("aws_access_key_id = A\naws_secret_access_key = B\n", 1, "before the first [section]"),
    ],
)
def test_a_bad_credentials_file_is_named_with_its_line(
    daemon, verify, tmp_path, text, line, reason
):
    path = tmp_path / "credentials"
    path.write_text(text)
    keys = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    verified = verify(daemon, AWS_SHARED_CREDENTIALS_FILE=str(path), **keys)
    has_failed(verified, "credentials")
    first = f"Do this first (credentials): Mend the shared AWS file: {path} line {line}: "
    assert verified.result.startswith(first) and reason in verified.result, verified.log


#: Stands in for systemctl: prints the properties in the file beside it.
SYSTEMCTL = """#!/bin/sh
[ "$1 $2 $3" = "show xray.service --property" ] || exit 1
cat "$(dirname "$0")/properties"
"""


@pytest.fixture
def verify_unit(tmp_path):
    """Runs `xray verify --unit` with these properties of the service."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "systemctl").write_text(SYSTEMCTL)
    (programs / "systemctl").chmod(0o755)

    def verify_unit(properties, *arguments):
        (programs / "properties").write_text(properties)
        # None of these variables is the service's.
        variables = {"PATH": f"{programs}:/usr/bin:/bin", "AWS_REGION": "not-of-the-service"}
        command = [os.environ["XRAY_BINARY"], "verify", "--unit", *arguments]
        with Child(command, tmp_path, **variables) as child:
            return SimpleNamespace(code=child.wait(), log=child.log())

    return verify_unit


def test_the_flags_and_variables_of_a_running_service_are_taken(
    start_daemon, service, verify_unit, moto_url
):
    urls = {"AWS_ENDPOINT_URL_XRAY": service.url, "AWS_ENDPOINT_URL_STS": moto_url}
    daemon = start_daemon(**urls)
    properties = f"LoadState=loaded\nMainPID={daemon.id()}\nUser=nobody\n"
    verified = verify_unit(properties)
    assert f"the running xray.service (process {daemon.id()})" in verified.log
    assert f"region: {REGION}, from -n, --region" in verified.log, verified.log
    assert f"ok    endpoint: {service.url}" in verified.log, verified.log
    assert "ok    caller: " in verified.log, verified.log
    # The daemon of the test was told to take any port.
    assert "FAIL  daemon: no answer on TCP 127.0.0.1:0" in verified.log, verified.log
    assert "not-of-the-service" not in verified.log


def test_the_unit_of_a_service_that_does_not_run_is_read(verify_unit, tmp_path):
    path = tmp_path / "variables"
    path.write_text("AWS_ENDPOINT_URL_XRAY=http://127.0.0.1:9\nAWS_REGION='eu-south-2'\n")
    properties = (
        "LoadState=loaded\nMainPID=0\nUser=\nEnvironment=AWS_EC2_METADATA_DISABLED=true "
        f"AWS_ENDPOINT_URL_STS=http://127.0.0.1:9\nEnvironmentFiles={path} (ignore_errors=yes)\n"
        "ExecStart={ path=/usr/bin/xray ; argv[]=/usr/bin/xray -t 127.0.0.1:9 -o ; pid=0 }\n"
    )
    verified = verify_unit(properties, "--json")
    assert "xray.service, which does not run" in verified.log
    report = json.loads(verified.log[verified.log.index("{\n") :])
    checks = {check["check"]: check for check in report["checks"]}
    assert checks["region"]["text"] == "eu-south-2, from AWS_REGION"
    assert "flags 2, by variables 2" in checks["configuration"]["text"], checks
    assert verified.code == 1 and report["result"].startswith("Do this first (credentials)")


def test_a_host_without_the_service_is_told_so(verify_unit):
    verified = verify_unit("LoadState=not-found\nMainPID=0\n")
    assert verified.code == 1 and "systemd has no xray.service" in verified.log
    verified = verify_unit("LoadState=loaded\nMainPID=0\n", "-n", "eu-west-1")
    assert verified.code == 2 and "--unit takes the flags of the service" in verified.log


def test_the_sandbox_is_verified_as_a_service_of_its_own(sandbox, verify):
    keys = {"AWS_ACCESS_KEY_ID": "xrayd-sandbox", "AWS_SECRET_ACCESS_KEY": "xrayd-sandbox-secret"}
    verified = verify(sandbox, AWS_ENDPOINT_URL_XRAY=sandbox.url, **keys)
    assert verified.code == 0, verified.log
    assert {"request", "segment", "read_back"} <= set(verified.names["ok"]), verified.log
    sandbox.sent_count = 1


def test_json_has_the_same(daemon, verify):
    verified = verify(daemon, "--json")
    report = json.loads(verified.log)
    assert verified.code == 0 and report["ok"] is True
    by_name = {check["check"]: check for check in report["checks"]}
    assert by_name["read_back"]["verdict"] == "ok"
    assert set(by_name["request"]) == {"check", "verdict", "text", "advice"}
    held, address = closed_port()
    with held:
        verified = verify(daemon, "--json", AWS_ENDPOINT_URL_XRAY=f"http://{address}")
    report = json.loads(verified.log)
    assert verified.code == 1 and report["ok"] is False
    [failed] = [check for check in report["checks"] if check["verdict"] == "fail"]
    assert failed["check"] == "connection" and "security groups" in failed["advice"]


def test_a_wrong_key_in_the_file_is_named(daemon, verify, tmp_path):
    path = tmp_path / "cfg.yaml"
    path.write_text("Version: 2\nConcurency: 8\n")
    verified = verify(daemon, "-c", str(path))
    has_failed(verified, "configuration")
    assert str(path) in verified.text["configuration"]
    assert "Concurency" in verified.text["configuration"]


def test_a_missing_region_is_said_with_all_that_was_tried(daemon, verify):
    verified = verify(daemon, AWS_REGION="")
    has_failed(verified, "region")
    assert "Give one with -n" in verified.text["region"]
    assert "AWS_REGION: not set" in verified.text["region"]
    assert "segment" in verified.names["ok"], "the daemon has a region"


def test_missing_credentials_are_said(daemon, verify):
    verified = verify(daemon, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
    has_failed(verified, "credentials")
    assert "a role or keys" in verified.text["credentials"]
    assert "connection" in verified.names["ok"], "the connection is checked all the same"


def test_credentials_that_nobody_knows_are_said(daemon, verify):
    unknown = refusal(403, "UnrecognizedClientException", "The security token is invalid")
    error = "<Error><Code>InvalidClientTokenId</Code><Message>invalid</Message></Error>"
    sts = lambda _: (
        403,
        {"Content-Type": "text/xml"},
        f"<ErrorResponse>{error}</ErrorResponse>".encode(),
    )
    with Recorder(unknown) as service, Recorder(sts) as sts:
        verified = verify(daemon, AWS_ENDPOINT_URL_XRAY=service.url, AWS_ENDPOINT_URL_STS=sts.url)
    has_failed(verified, "caller", "request")
    assert "InvalidClientTokenId" in verified.text["caller"]
    for check in ("caller", "request"):
        assert "Correct access key, secret and session token" in verified.text[check]


def test_a_missing_permission_is_named_with_its_policy(daemon, verify):
    message = "User: arn:aws:sts::1:x is not authorized to perform: xray:PutTraceSegments"
    with Recorder(refusal(403, "AccessDeniedException", message)) as service:
        verified = verify(daemon, AWS_ENDPOINT_URL_XRAY=service.url)
    has_failed(verified, "request")
    assert message in verified.text["request"]
    assert "AWSXRayDaemonWriteAccess" in verified.text["request"]


def test_a_clock_that_is_wrong_is_said_with_how_far(daemon, verify):
    service_time = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=2)
    date = format_datetime(service_time, usegmt=True)
    with Recorder(refusal(403, "InvalidSignatureException", Date=date)) as service:
        verified = verify(daemon, AWS_ENDPOINT_URL_XRAY=service.url)
    has_failed(verified, "request")
    assert re.search(r"the clock is 7[12]\d\d s ahead of the service's", verified.text["request"])
    assert "Set the clock" in verified.text["request"]


@pytest.mark.parametrize(
    "page",
    [b"<html>log in</html>", b'{"error":"log in"}', b"", b" " * 200_000],
    ids=["html", "json", "empty", "large"],
)
def test_another_server_in_the_place_of_the_service_is_said(daemon, verify, page):
    with Recorder(lambda _: page) as server:
        verified = verify(daemon, AWS_ENDPOINT_URL_XRAY=server.url)
    has_failed(verified, "request")
    assert "200 OK" in verified.text["request"]
    assert "a captive portal" in verified.text["request"]


def test_a_name_that_is_unknown_is_said(daemon, verify):
    # A label of 64 characters is too long for DNS, so no name server is asked.
    verified = verify(daemon, AWS_ENDPOINT_URL_XRAY=f"http://{'x' * 64}.invalid")
    has_failed(verified, "name")
    assert "has no address" in verified.text["name"]
    assert "typing errors in region and endpoint" in verified.text["name"]


def test_a_port_that_is_closed_is_said(daemon, verify):
    held, address = closed_port()
    with held:
        verified = verify(daemon, AWS_ENDPOINT_URL_XRAY=f"http://{address}")
    has_failed(verified, "connection")
    assert "refused" in verified.text["connection"]
    assert "security groups" in verified.text["connection"]


@contextmanager
def tls_server(folder):
    """Starts a server with a self-signed certificate, and yields its address."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "nobody")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, form, plain)
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    # Handshakes with this server are expected to fail. Their errors are not printed.
    server.handle_error = lambda *_: None
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with serving(server):
        yield f"localhost:{server.server_port}"


@contextmanager
def serving(server):
    """Runs a server on a thread within the `with` block."""
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_certificate_that_nobody_trusts_is_said(daemon, verify, tmp_path):
    with tls_server(tmp_path) as address:
        verified = verify(daemon, AWS_ENDPOINT_URL_XRAY=f"https://{address}")
    has_failed(verified, "tls")
    assert "is not trusted" in verified.text["tls"]
    assert "AWS_CA_BUNDLE" in verified.text["tls"]


class RefusingProxy(BaseHTTPRequestHandler):
    """An HTTP proxy that refuses every tunnel, because it requires a password."""

    def do_CONNECT(self):
        self.send_response(407)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def test_a_proxy_that_refuses_is_said(daemon, verify):
    server = ThreadingHTTPServer(("127.0.0.1", 0), RefusingProxy)
    with serving(server):
        proxy = f"127.0.0.1:{server.server_port}"
        # A reserved name (RFC 6761) that does not exist. The proxy must resolve it, not the daemon.
        endpoint = {"AWS_ENDPOINT_URL_XRAY": "https://xray.example"}
        verified = verify(daemon, "-p", proxy, **endpoint)
    has_failed(verified, "proxy")
    assert "407" in verified.text["proxy"] and "user and a password" in verified.text["proxy"]
    verified = verify(daemon, "-p", proxy, **endpoint)
    has_failed(verified, "proxy")
    assert "cannot be reached" in verified.text["proxy"] and "NO_PROXY" in verified.text["proxy"]


def test_where_no_daemon_runs_it_is_said_and_nothing_is_sent(service, verify):
    (held, address), (udp, _) = closed_port(), closed_port()
    with held, udp:
        absent = SimpleNamespace(udp=udp.getsockname(), tcp=held.getsockname())
        verified = verify(absent)
    has_failed(verified, "daemon")
    assert address in verified.text["daemon"] and "Start the daemon" in verified.text["daemon"]
    assert "segment" not in verified.text
    assert service.documents() == []


def test_what_is_no_xrayd_is_not_taken_for_one(daemon, verify):
    with Recorder() as other:
        stranger = SimpleNamespace(udp=daemon.udp, tcp=other.server_address)
        verified = verify(stranger)
    has_failed(verified, "daemon")
    assert "is not the X-Ray daemon" in verified.text["daemon"]
    assert "-t" in verified.text["daemon"]


def test_a_daemon_that_cannot_send_is_said_with_its_reason(tmp_path, verify):
    held, address = closed_port()
    binary = os.environ["XRAY_BINARY"]
    with held, Daemon(binary, tmp_path, AWS_ENDPOINT_URL_XRAY=f"http://{address}") as daemon:
        daemon.wait_until_ready()
        daemon.send([b'{"format":"json","version":1}\n{}'])
        daemon.wait_for_line("Sending segment batch failed with:")
        verified = verify(daemon)
    has_failed(verified, "ready", "segment")
    assert "uploads_failing" in verified.text["ready"]
    assert "other settings, credentials or another network" in verified.text["ready"]
    assert "it is kept" in verified.text["segment"]


def test_an_address_where_nobody_receives_is_said(daemon, verify):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        verified = verify(SimpleNamespace(udp=silent.getsockname(), tcp=daemon.tcp))
        has_failed(verified, "segment")
        assert (
            "does not arrive" in verified.text["segment"]
            and "-b and -t" in verified.text["segment"]
        )
        closed = SimpleNamespace(udp=silent.getsockname(), tcp=daemon.tcp)
    verified = verify(closed)
    has_failed(verified, "segment")
    assert "no program listens there" in verified.text["segment"]


def test_a_segment_that_the_service_turns_down_is_said(start_daemon, verify, tmp_path):
    def unprocessed(request):
        documents = json.loads(request.body).get("TraceSegmentDocuments", [])
        ids = [json.loads(document)["id"] for document in documents]
        named = [{"Id": id, "ErrorCode": "InvalidSegment", "Message": "no"} for id in ids]
        return json.dumps({"UnprocessedTraceSegments": named}).encode()

    binary = os.environ["XRAY_BINARY"]
    with (
        Recorder(unprocessed) as service,
        Daemon(binary, tmp_path, AWS_ENDPOINT_URL_XRAY=service.url) as daemon,
    ):
        daemon.wait_until_ready()
        verified = verify(daemon)
    has_failed(verified, "segment")
    assert "rejects it. The daemon's log" in verified.text["segment"]


def test_a_daemon_that_ends_meanwhile_is_said(tmp_path, verify):
    daemons = []

    def end(_):
        daemons[0].signal(signal.SIGKILL)
        return 500, {}, b""

    binary = os.environ["XRAY_BINARY"]
    with (
        Recorder(end) as service,
        Daemon(binary, tmp_path, AWS_ENDPOINT_URL_XRAY=service.url) as daemon,
    ):
        daemons.append(daemon)
        daemon.wait_until_ready()
        verified = verify(daemon)
    has_failed(verified, "segment")
    assert "the daemon ended" in verified.text["segment"]


def test_what_a_daemon_need_not_be_allowed_is_a_note(daemon, verify):
    def without_reading(request):
        accepted = b'{"UnprocessedTraceSegments":[]}'
        denied = refusal(403, "AccessDeniedException", "xray:BatchGetTraces")
        return denied(request) if request.path == "/Traces" else accepted

    held, sts = closed_port()
    with held, Recorder(without_reading) as service:
        environment = {
            "AWS_ENDPOINT_URL_XRAY": service.url,
            "AWS_ENDPOINT_URL_STS": f"http://{sts}",
        }
        verified = verify(daemon, **environment)
    assert verified.code == 0, verified.log
    assert {"caller", "read_back"} <= set(verified.names["note"]), verified.log
    assert "xray:BatchGetTraces is no part of its policy" in verified.text["read_back"]
    assert "for a role (-r) only" in verified.text["caller"]
