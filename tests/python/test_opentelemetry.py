"""OpenTelemetry's spans and metrics pass through the daemon in datagrams of AWS's UDP exporters.

In: spans of an application, in the form of OpenTelemetry for Lambda (a prefix and base64). Out: the
documents that a test service receives. The service must have exactly the documents that left the
exporter, byte for byte, each once.
"""

import base64
import json

import pytest
from processes import Child
from recorder import Recorder
from sdks import OTEL_EXPORTERS, application
from tap import Tap

TRACE_COUNT = 40

#: The prefix of the sampled spans, the unsampled spans and the metrics; and a text of each.
FORMS = {"T1S": "SELECT stock", "T1U": "SELECT stock", "M1": "sold"}


def documents(requests):
    """Returns the documents in all uploads, in the order of the alphabet."""
    bodies = [json.loads(request.body) for request in requests if request.path == "/TraceSegments"]
    return sorted(text for body in bodies for text in body["TraceSegmentDocuments"])


#: Configurations with the ports for spans. Documents of datagrams do not depend on them.
PORTS = {
    "without-ports": "",
    "to-endpoint": 'Otlp: {HttpAddress: "127.0.0.1:0", GrpcAddress: "127.0.0.1:0"}',
    "to-segments": 'Otlp: {HttpAddress: "127.0.0.1:0", To: segments}',
}


@pytest.mark.parametrize("ports", PORTS)
@pytest.mark.parametrize("sdk", OTEL_EXPORTERS)
def test_what_an_exporter_sends_arrives_byte_for_byte(start_daemon, tmp_path, sdk, ports):
    configuration = tmp_path / "cfg.yaml"
    configuration.write_text(f"Version: 2\n{PORTS[ports]}\n")
    with Recorder() as service:
        daemon = start_daemon("-c", str(configuration), AWS_ENDPOINT_URL_XRAY=service.url)
        with Tap(daemon.udp) as tap:
            command = [*application(sdk, "emit"), "{}:{}".format(*tap.udp), str(TRACE_COUNT)]
            with Child(command, tmp_path) as running:
                assert (running.wait(), running.log()) == (0, "")
            sent = tap.finish()
        daemon.wait_until_sent(len(sent))
        assert documents(service.requests) == sorted(sent)
        # Each of the two forms of spans needs several datagrams.
        assert len(sent) >= 2 * 3 * TRACE_COUNT / 10
        forms = set()
        for text in sent:
            [form] = [form for form in FORMS if text.startswith(form)]
            forms.add(form)
            message = base64.b64decode(text.removeprefix(form), validate=True)
            assert FORMS[form].encode() in message
        assert forms == ({"T1S", "T1U", "M1"} if sdk == "otel-python" else {"T1S", "T1U"})
