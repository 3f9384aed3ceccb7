"""Fixtures of the tests: the daemon, real SDKs as its clients, and moto's X-Ray as the service.

In: the daemon's binary, named by XRAY_BINARY. Out: fixtures. Everything listens on free ports of
127.0.0.1 and ends with its test. At that time each daemon's account must balance.
"""

import json
import os
import sys
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from browser import Page, start_browser
from processes import ACCESS_KEY, REGION, SECRET_KEY, Child, Daemon
from recorder import signed_headers
from sdks import application
from service import Service
from skipping import pytest_terminal_summary  # noqa: F401
from tap import Tap

HERE = Path(__file__).parent


def pytest_configure():
    binary = Path(os.environ.get("XRAY_BINARY", "")).absolute()
    if not binary.is_file():
        raise pytest.UsageError("Set XRAY_BINARY to the daemon's binary; tests/run does it")
    os.environ["XRAY_BINARY"] = str(binary)
    # boto3 runs in this process. Like the child processes, it gets no AWS variables and no proxies.
    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            del os.environ[name]
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = "/nonexistent"


@pytest.fixture
def start_daemon(tmp_path):
    """Returns a function that starts a daemon with the given flags and variables."""
    daemons = []
    with ExitStack() as children:

        def start(*arguments, **environment):
            binary = os.environ["XRAY_BINARY"]
            daemon = children.enter_context(Daemon(binary, tmp_path, *arguments, **environment))
            daemon.wait_until_ready()
            daemons.append(daemon)
            return daemon

        yield start
        for daemon in daemons:
            daemon.end_in_order()


@pytest.fixture
def sandbox(start_daemon):
    """A running sandbox without traces."""
    return start_daemon("sandbox")


@pytest.fixture(scope="session")
def driver():
    """A headless browser."""
    driver = start_browser()
    yield driver
    driver.quit()


@pytest.fixture
def page(driver, sandbox):
    """The sandbox's page, which is not loaded yet."""
    page = Page(driver, sandbox)
    yield page
    page.close()


@pytest.fixture(scope="session")
def moto_url(tmp_path_factory):
    """The URL of moto, which runs in its own process."""
    folder = tmp_path_factory.mktemp("moto")
    with Child([sys.executable, HERE / "moto_service.py"], folder) as moto:
        yield "http://{}:{}".format(*moto.listening("TCP"))


@pytest.fixture
def service(moto_url):
    """moto as the X-Ray service, without traces."""
    service = Service(moto_url)
    service.forget()
    return service


@pytest.fixture
def emit(tmp_path):
    """Returns a function that makes an SDK send the described segments to a daemon and returns the
    sent documents.
    """

    def emit(sdk, daemon, *described):
        with Tap(daemon.udp) as tap:
            address = "tcp:{}:{} udp:{}:{}".format(*daemon.tcp, *tap.udp)
            command = [*application(sdk, "emit"), json.dumps(described)]
            with Child(command, tmp_path, AWS_XRAY_DAEMON_ADDRESS=address) as running:
                # If the SDK cannot send, it logs an error and continues.
                assert (running.wait(), running.log()) == (0, "")
            documents = tap.finish()
        daemon.wait_until_sent(len(documents))
        return documents

    return emit


@pytest.fixture
def sign(monkeypatch):
    """Returns a function that lets botocore sign a received request again and returns the
    Authorization header.
    """

    def sign(request, token=None, secret_key=SECRET_KEY, body=None):
        moment = datetime.strptime(request.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ")
        monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: moment)
        headers = {name: request.headers[name] for name in signed_headers(request)}
        url = f"http://{request.headers['Host']}{request.path}"
        again = AWSRequest(request.method, url, headers, body or request.body)
        credentials = Credentials(ACCESS_KEY, secret_key, token)
        botocore.auth.SigV4Auth(credentials, "xray", REGION).add_auth(again)
        return again.headers["Authorization"]

    return sign
