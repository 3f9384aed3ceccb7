"""An application with OpenTelemetry and the UDP exporters of AWS's distribution, as a program.

In: the address of a UDP port, and the number of traces. Out: spans and metrics in datagrams of the
exporters. Each trace has a span "checkout" with two inner spans. One of them has an exception.
../node/otel_emit.js does the same without metrics.
"""

import sys

from amazon.opentelemetry.distro.otlp_udp_exporter import (
    OTLPUdpMetricExporter,
    OTLPUdpSpanExporter,
)
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

ENDPOINT, TRACE_COUNT = sys.argv[1], int(sys.argv[2])
RESOURCE = Resource({"service.name": "shop.example"})


def emit(exporter):
    """Makes spans that a processor sends in several datagrams."""
    provider = TracerProvider(resource=RESOURCE)
    provider.add_span_processor(BatchSpanProcessor(exporter, max_export_batch_size=10))
    tracer = provider.get_tracer("tests")
    for number in range(TRACE_COUNT):
        attributes = {"customer": "café ☕ 日本", "number": number}
        with tracer.start_as_current_span("checkout", attributes=attributes):
            with tracer.start_as_current_span("SELECT stock", attributes={"db.system": "mysql"}):
                pass
            try:
                with tracer.start_as_current_span("payment"):
                    raise ValueError('no "disk"\nleft')
            except ValueError:
                pass
    provider.shutdown()


emit(OTLPUdpSpanExporter(ENDPOINT, sampled=True))
emit(OTLPUdpSpanExporter(ENDPOINT, sampled=False))
reader = PeriodicExportingMetricReader(OTLPUdpMetricExporter(ENDPOINT))
meters = MeterProvider([reader], resource=RESOURCE)
meters.get_meter("tests").create_counter("sold").add(TRACE_COUNT)
meters.shutdown()
