// An application with OpenTelemetry and its OTLP exporters, as a program.
//
// In: "http" or "grpc", "gzip" or "none", the host and port of an OTLP port, and the number of
// traces. Out: spans in requests of the exporter. Each trace has a span "checkout" with two inner
// spans. One of them has an exception. ../node/otlp_emit.js does the same.

import io.opentelemetry.api.common.AttributeKey;
import io.opentelemetry.api.common.Attributes;
import io.opentelemetry.api.trace.Span;
import io.opentelemetry.api.trace.SpanKind;
import io.opentelemetry.api.trace.StatusCode;
import io.opentelemetry.api.trace.Tracer;
import io.opentelemetry.context.Context;
import io.opentelemetry.exporter.otlp.http.trace.OtlpHttpSpanExporter;
import io.opentelemetry.exporter.otlp.trace.OtlpGrpcSpanExporter;
import io.opentelemetry.sdk.resources.Resource;
import io.opentelemetry.sdk.trace.SdkTracerProvider;
import io.opentelemetry.sdk.trace.export.BatchSpanProcessor;
import io.opentelemetry.sdk.trace.export.SpanExporter;
import java.util.concurrent.TimeUnit;

final class OtlpEmit {
    private static final Attributes ATTRIBUTES =
            Attributes.builder()
                    .put("customer", "café ☕ 日本")
                    .put("price", 0.1)
                    .put("paid", true)
                    .put("items", "a", "b")
                    .build();

    public static void main(String[] arguments) {
        SpanExporter exporter = exporter(arguments[0], arguments[1], arguments[2]);
        SdkTracerProvider provider =
                SdkTracerProvider.builder()
                        .addSpanProcessor(
                                BatchSpanProcessor.builder(exporter)
                                        .setMaxExportBatchSize(30)
                                        .build())
                        .setResource(
                                Resource.create(
                                        Attributes.of(
                                                AttributeKey.stringKey("service.name"),
                                                "shop.example")))
                        .build();
        Tracer tracer = provider.get("tests");
        int traceCount = Integer.parseInt(arguments[3]);
        for (int number = 0; number < traceCount; number++) {
            emit(tracer, number);
            // The queue of the processor has room for fewer spans than a large number of traces
            // has.
            if (number % 100 == 99) {
                provider.forceFlush().join(1, TimeUnit.MINUTES);
            }
        }
        // An exporter that gives up logs a warning.
        provider.shutdown().join(1, TimeUnit.MINUTES);
    }

    private static void emit(Tracer tracer, int number) {
        Span outer =
                tracer.spanBuilder("checkout")
                        .setSpanKind(SpanKind.SERVER)
                        .setAllAttributes(ATTRIBUTES)
                        .setAttribute("number", number)
                        .startSpan();
        Context inside = Context.root().with(outer);
        Span query =
                tracer.spanBuilder("SELECT stock")
                        .setParent(inside)
                        .setSpanKind(SpanKind.CLIENT)
                        .startSpan();
        query.end();
        Span inner =
                tracer.spanBuilder("payment")
                        .setParent(inside)
                        .addLink(query.getSpanContext())
                        .startSpan();
        inner.recordException(new IllegalStateException("no \"disk\"\nleft"));
        inner.setStatus(StatusCode.ERROR, "declined");
        inner.end();
        outer.end();
    }

    private static SpanExporter exporter(String protocol, String compression, String address) {
        String url = "http://" + address;
        if (protocol.equals("grpc")) {
            return OtlpGrpcSpanExporter.builder()
                    .setEndpoint(url)
                    .setCompression(compression)
                    .build();
        }
        return OtlpHttpSpanExporter.builder()
                .setEndpoint(url + "/v1/traces")
                .setCompression(compression)
                .build();
    }
}
