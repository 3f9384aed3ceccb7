// An application with OpenTelemetry and AWS's UDP exporter, as a program.
//
// In: the address of a UDP port, and the number of traces. Out: spans in datagrams of the exporter.
// Each trace has a span "checkout" with two inner spans. One of them has an exception.
// ../python/otel_emit.py does the same.

'use strict';

const { AwsXrayUdpSpanExporter } = require('@aws/aws-distro-opentelemetry-exporter-xray-udp');
const { context, trace, SpanStatusCode } = require('@opentelemetry/api');
const { BasicTracerProvider, BatchSpanProcessor } = require('@opentelemetry/sdk-trace-base');

// Makes spans that a processor sends in several datagrams of one form.
async function emit(endpoint, form, traceCount) {
  const exporter = new AwsXrayUdpSpanExporter(endpoint, form);
  const processor = new BatchSpanProcessor(exporter, { maxExportBatchSize: 10 });
  const tracer = new BasicTracerProvider({ spanProcessors: [processor] }).getTracer('tests');
  for (let number = 0; number < traceCount; number += 1) {
    const outer = tracer.startSpan('checkout', { attributes: { customer: 'café ☕ 日本', number } });
    const inside = trace.setSpan(context.active(), outer);
    tracer.startSpan('SELECT stock', { attributes: { 'db.system': 'postgresql' } }, inside).end();
    const inner = tracer.startSpan('payment', {}, inside);
    inner.recordException(new Error('no "disk"\nleft'));
    inner.setStatus({ code: SpanStatusCode.ERROR });
    inner.end();
    outer.end();
  }
  await processor.forceFlush();
}

async function main([endpoint, traceCount]) {
  await emit(endpoint, 'T1S', Number(traceCount));
  await emit(endpoint, 'T1U', Number(traceCount));
}

main(process.argv.slice(2));
