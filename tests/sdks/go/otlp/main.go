// An application with OpenTelemetry and its OTLP exporters, as a program.
//
// In: "http" or "grpc", "gzip" or "none", the host and port of an OTLP port, and the number of
// traces. Out: spans in requests of the exporter. Each trace has a span "checkout" with two inner
// spans. One of them has an exception. ../../node/otlp_emit.js does the same.
package main

import (
	"context"
	"errors"
	"os"
	"strconv"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
	api "go.opentelemetry.io/otel/trace"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func exporter(protocol, compression, address string) (*otlptrace.Exporter, error) {
	ctx, isGzip := context.Background(), compression == "gzip"
	if protocol == "grpc" {
		options := []otlptracegrpc.Option{otlptracegrpc.WithEndpoint(address), otlptracegrpc.WithInsecure()}
		if isGzip {
			options = append(options, otlptracegrpc.WithCompressor("gzip"))
		}
		return otlptracegrpc.New(ctx, options...)
	}
	options := []otlptracehttp.Option{otlptracehttp.WithEndpoint(address), otlptracehttp.WithInsecure()}
	if isGzip {
		options = append(options, otlptracehttp.WithCompression(otlptracehttp.GzipCompression))
	}
	return otlptracehttp.New(ctx, options...)
}

func main() {
	// An exporter that gives up tells this handler, and the program goes on.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(check))
	traceCount, err := strconv.Atoi(os.Args[4])
	check(err)
	ctx := context.Background()
	exporter, err := exporter(os.Args[1], os.Args[2], os.Args[3])
	check(err)
	provider := trace.NewTracerProvider(
		trace.WithBatcher(exporter, trace.WithMaxExportBatchSize(30)),
		trace.WithResource(resource.NewSchemaless(attribute.String("service.name", "shop.example"))),
	)
	tracer := provider.Tracer("tests")
	for number := range traceCount {
		attributes := api.WithAttributes(
			attribute.String("customer", "café ☕ 日本"), attribute.Int("number", number),
			attribute.Float64("price", 0.1), attribute.Bool("paid", true),
			attribute.StringSlice("items", []string{"a", "b"}),
		)
		inside, outer := tracer.Start(ctx, "checkout", attributes, api.WithSpanKind(api.SpanKindServer))
		_, query := tracer.Start(inside, "SELECT stock", api.WithSpanKind(api.SpanKindClient))
		query.End()
		link := api.WithLinks(api.Link{SpanContext: query.SpanContext()})
		_, inner := tracer.Start(inside, "payment", link)
		inner.RecordError(errors.New("no \"disk\"\nleft"))
		inner.SetStatus(codes.Error, "declined")
		inner.End()
		outer.End()
		// The queue of the processor has room for fewer spans than a large number of traces has.
		if number%100 == 99 {
			check(provider.ForceFlush(ctx))
		}
	}
	check(provider.Shutdown(ctx))
}
