"""The applications with real SDKs, as commands.

In: the name of an SDK. Out: the command that starts one of its applications. The names are the
parameters of tests. The suite `python` has the SDKs that install quickly. The suite `sdks` has the
others, which have the mark `sdks`; tests/sdks/install installs them.
"""

import shutil
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
INSTALLED = TESTS / ".cache" / "sdks"


def in_suite_sdks(*names):
    """Returns the SDKs as parameters of a test that only the suite `sdks` runs."""
    return [pytest.param(name, marks=pytest.mark.sdks) for name in names]


#: The X-Ray SDKs. "go" is version 1 of the SDK for Go, "go-2" is version 2.
X_RAY = ["python", "node", *in_suite_sdks("java", "go", "go-2")]

#: OpenTelemetry's remote samplers for X-Ray.
OTEL_SAMPLERS = in_suite_sdks("otel-java", "otel-node", "otel-python")

#: AWS's exporters that send OpenTelemetry's spans through UDP.
OTEL_EXPORTERS = in_suite_sdks("otel-node", "otel-python")

#: OpenTelemetry's own exporters, over HTTP and gRPC. Those for Python need no program.
OTLP_EXPORTERS = in_suite_sdks("otel-node", "otel-java", "otel-go")


def program(name, *arguments):
    """Returns a command that starts an installed program."""
    found = shutil.which(name)
    assert found, f"{name} is not installed"
    return [found, *arguments]


def application(sdk, name):
    """Returns the command that starts the application `name` ("emit", "sample" or "otlp_emit") of an
    SDK.
    """
    python, classes = INSTALLED / "venv/bin/python", INSTALLED / "java/classes"
    java = ("java", "-cp", f"{classes}:{INSTALLED}/java/jars/*")
    otel = name if name.startswith("otlp") else f"otel_{name}"
    commands = {
        "python": lambda: [sys.executable, TESTS / f"python/{name}.py"],
        "node": lambda: program("node", TESTS / f"node/{name}.js"),
        "java": lambda: program(*java, name.title()),
        "go": lambda: [INSTALLED / "go/v1" / name],
        "go-2": lambda: [INSTALLED / "go/v2" / name],
        "otel-python": lambda: [python, TESTS / f"sdks/python/otel_{name}.py"],
        "otel-node": lambda: program("node", TESTS / f"sdks/node/{otel}.js"),
        "otel-java": lambda: program(*java, otel.title().replace("_", "")),
        "otel-go": lambda: [INSTALLED / "go/otlp"],
    }
    return commands[sdk]()
