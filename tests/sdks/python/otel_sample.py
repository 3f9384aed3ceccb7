"""An application with the remote sampler of AWS's distribution of OpenTelemetry, as a program.

In: the URL of the TCP port of a daemon whose service has the rules "always" and "never". Out: two
lines of JSON. Each has, for each of two services, the number of sampled requests among 100. The
first line follows the rules; the second follows the targets, which reverse the rules.
tests/python/sample.py does the same with the X-Ray SDK.
"""

import json
import sys
import time

from amazon.opentelemetry.distro.sampler.aws_xray_remote_sampler import AwsXRayRemoteSampler
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import SpanKind

#: A rule applies to the name of the service, which belongs to the sampler's resource.
SAMPLERS = {
    service: AwsXRayRemoteSampler(Resource({"service.name": service}), endpoint=sys.argv[1])
    for service in ("always", "never")
}
IDS = RandomIdGenerator()


def is_sampled(service):
    made = SAMPLERS[service].should_sample(
        Context(), IDS.generate_trace_id(), "GET", kind=SpanKind.SERVER, attributes={}
    )
    return made.decision == Decision.RECORD_AND_SAMPLE


def counts():
    return {service: sum(is_sampled(service) for _ in range(100)) for service in SAMPLERS}


for turned, other in [("always", "never"), ("never", "always")]:
    # Without rules, the sampler samples only the first request of a second and a part of the
    # others. All of 100 requests are sampled only by a rule or a target.
    while counts() != {turned: 100, other: 0}:
        time.sleep(0.1)
    print(json.dumps(counts()), flush=True)
