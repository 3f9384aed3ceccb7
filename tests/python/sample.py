"""An application with the X-Ray SDK for Python that calls its sampler, as a program.

In: AWS_XRAY_DAEMON_ADDRESS of a daemon whose service has the rules "always" and "never". Out: two
lines of JSON. Each has, for each of two services, the number of sampled requests among 100. The
first line follows the rules; the second follows the targets, which reverse the rules.
tests/node/sample.js does the same.
"""

import json
import time

from aws_xray_sdk.core import xray_recorder

xray_recorder.configure(sampling=True)


def decide(service):
    """Returns the name of the rule that samples a request to `service`, or False if the request is
    not sampled.
    """
    request = {"host": "h", "method": "GET", "path": "/", "service": service}
    return xray_recorder.sampler.should_trace(request)


for turned in ("always", "never"):
    while decide(turned) != turned:
        time.sleep(0.1)
    counts = {name: sum(decide(name) == name for _ in range(100)) for name in ("always", "never")}
    print(json.dumps(counts), flush=True)
