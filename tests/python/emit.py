"""An application with the X-Ray SDK for Python, as a program.

In: a list of segments as JSON, each {"name", "annotations", "metadata", "flags", "exception",
"subsegments"}, where only the name is required; and AWS_XRAY_DAEMON_ADDRESS. Out: the segments of
the SDK, each with its own trace. tests/node/emit.js does the same.
"""

import json
import sys

from aws_xray_sdk.core import xray_recorder

# Without sampling every segment is sent, and the SDK does not fetch rules.
xray_recorder.configure(sampling=False, context_missing="RUNTIME_ERROR")


class Expected(Exception):
    """Raised in each segment whose description contains an exception."""


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
