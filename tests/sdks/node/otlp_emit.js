// An application with OpenTelemetry and its OTLP exporters, as a program.
//
// In: "http", "json" or "grpc", "gzip" or "none", the host and port of an OTLP port, and the number
// of traces. Out: spans in requests of the exporter. Each trace has a span "checkout" with two
// inner spans. One of them has an exception. ../go/otlp and ../java/OtlpEmit.java do the same.

'use strict';

const { context, diag, DiagLogLevel, SpanKind, SpanStatusCode, trace } = require('@opentelemetry/api');
const { BatchSpanProcessor, TracerProvider } = require('@opentelemetry/sdk-trace');
const { resourceFromAttributes } = require('@opentelemetry/resources');

const PACKAGES = {
  grpc: '@opentelemetry/exporter-trace-otlp-grpc',
  http: '@opentelemetry/exporter-trace-otlp-proto',
  json: '@opentelemetry/exporter-trace-otlp-http',
};

// An exporter that gives up logs an error, and the program goes on.
diag.setLogger({ error: fail, warn: fail, info() {}, debug() {}, verbose() {} }, DiagLogLevel.WARN);

function fail(...what) {
  console.error(...what);
  process.exitCode = 1;
}

async function main([protocol, compression, address, traceCount]) {
  const { OTLPTraceExporter } = require(PACKAGES[protocol]);
  const url = protocol === 'grpc' ? `http://${address}` : `http://${address}/v1/traces`;
  const exporter = new OTLPTraceExporter({ url, compression });
  const processor = new BatchSpanProcessor({ exporter, maxExportBatchSize: 30 });
  const provider = new TracerProvider({
    resource: resourceFromAttributes({ 'service.name': 'shop.example' }),
    spanProcessors: [processor],
  });
  const tracer = provider.getTracer('tests');
  for (let number = 0; number < Number(traceCount); number += 1) {
    const attributes = { customer: 'café ☕ 日本', number, price: 0.1, paid: true, items: ['a', 'b'] };
    const outer = tracer.startSpan('checkout', { kind: SpanKind.SERVER, attributes });
    const inside = trace.setSpan(context.active(), outer);
    const query = tracer.startSpan('SELECT stock', { kind: SpanKind.CLIENT }, inside);
    query.end();
    const links = [{ context: query.spanContext() }];
    const inner = tracer.startSpan('payment', { links }, inside);
    inner.recordException(new Error('no "disk"\nleft'));
    inner.setStatus({ code: SpanStatusCode.ERROR, message: 'declined' });
    inner.end();
    outer.end();
    // The queue of the processor has room for fewer spans than a large number of traces has.
    if (number % 100 === 99) await processor.forceFlush();
  }
  await provider.shutdown();
}

main(process.argv.slice(2));
