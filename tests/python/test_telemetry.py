"""Compares telemetry with botocore's model of the service.

In: the requests of a daemon that received segments and was stopped. Out: one PutTelemetryRecords
call; the model knows each member, and types and lengths are correct.
"""

import json
import time

import botocore.session
from botocore.validate import ParamValidator
from recorder import Recorder
from shapes import check_members

HEADER = b'{"format":"json","version":1}\n'
OPERATION = (
    botocore.session.get_session().get_service_model("xray").operation_model("PutTelemetryRecords")
)


def test_the_records_are_what_botocores_model_describes(start_daemon):
    with Recorder() as recorder:
        daemon = start_daemon(
            "-a",
            "arn:aws:ecs:eu-west-1:123456789012:task/x",
            AWS_ENDPOINT_URL_XRAY=recorder.url,
            AWS_INSTANCE_ID="i-0123456789abcdef0",
        )
        daemon.send([HEADER + b'{"n":%d}' % number for number in range(3)])
        daemon.wait_until_sent(3)
        daemon.terminate()
        assert daemon.wait() == 0, daemon.log()
        [request] = [it for it in recorder.requests if it.path != "/TraceSegments"]
    http = OPERATION.http
    assert (request.method, request.path) == (http["method"], http["requestUri"])
    assert request.headers.get_all("Content-Type") == ["application/json"]
    call = json.loads(request.body)
    report = ParamValidator().validate(call, OPERATION.input_shape)
    assert not report.has_errors(), report.generate_report()
    check_members(call, OPERATION.input_shape)
    assert set(call) == set(OPERATION.input_shape.members), "the call has all members of the model"
    [record] = call["TelemetryRecords"]
    assert abs(record["Timestamp"] - time.time()) < 60
    assert (record["SegmentsReceivedCount"], record["SegmentsSentCount"]) == (3, 3)
    shape = OPERATION.input_shape.members["TelemetryRecords"].member
    assert set(record) == set(shape.members)
    errors = record["BackendConnectionErrors"]
    assert set(errors) == set(shape.members["BackendConnectionErrors"].members)
    assert not any(errors.values())
