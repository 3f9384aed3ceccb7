"""An application with the X-Ray SDK for Python, as a program.

In: a list of segments as JSON, each {"name", "annotations", "metadata", "flags", "exception",
"subsegments"} with all but the name optional, and AWS_XRAY_DAEMON_ADDRESS. Out: what the SDK
makes of them, each a trace of its own. tests/node/emit.js does the same.
"""

import json
import sys

from aws_xray_sdk.core import xray_recorder

# Without sampling each segment is sent, and nobody is asked for rules.
xray_recorder.configure(sampling=False, context_missing="RUNTIME_ERROR")


class Expected(Exception):
    """What a segment with an exception ends with."""


def emit(described, open_entity):
    try:
        with open_entity(described["name"]) as entity:
            for key, value in described.get("annotations", {}).items():
                entity.put_annotation(key, value)
            for key, value in described.get("metadata", {}).items():
                entity.put_metadata(key, value)
            for flag in described.get("flags", []):
                getattr(entity, f"add_{flag}_flag")()
            for subsegment in described.get("subsegments", []):
                emit(subsegment, xray_recorder.in_subsegment)
            if "exception" in described:
                raise Expected(described["exception"])
    except Expected:
        pass


for segment in json.loads(sys.argv[1]):
    emit(segment, xray_recorder.in_segment)
