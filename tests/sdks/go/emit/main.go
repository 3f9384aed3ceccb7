// An application with the X-Ray SDK for Go, as a program.
//
// In: a list of segments as JSON, each {"name", "annotations", "metadata", "flags", "exception",
// "subsegments"}, where only the name is required; and AWS_XRAY_DAEMON_ADDRESS. Out: the segments
// of the SDK, each with its own trace. tests/python/emit.py does the same. The folder v2 has the
// same program with version 2 of the SDK (see `install`).
package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"

	"github.com/aws/aws-xray-sdk-go/strategy/sampling"
	"github.com/aws/aws-xray-sdk-go/xray"
	"github.com/aws/aws-xray-sdk-go/xraylog"
)

type described struct {
	Name        string
	Annotations map[string]any
	Metadata    map[string]any
	Flags       []string
	Exception   *string
	Subsegments []described
}

// A JSON object has no order, so the fields may be added in any order.
func fill(ctx context.Context, segment *xray.Segment, entity described) {
	for key, value := range entity.Annotations {
		check(segment.AddAnnotation(key, value))
	}
	for key, value := range entity.Metadata {
		check(segment.AddMetadata(key, value))
	}
	for _, flag := range entity.Flags {
		switch flag {
		case "error":
			segment.Error = true
		case "throttle":
			segment.Throttle = true
		case "fault":
			segment.Fault = true
		}
	}
	for _, part := range entity.Subsegments {
		inner, subsegment := xray.BeginSubsegment(ctx, part.Name)
		fill(inner, subsegment, part)
	}
	var exception error
	if entity.Exception != nil {
		exception = errors.New(*entity.Exception)
	}
	segment.Close(exception)
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	xray.SetLogger(xraylog.NewDefaultLogger(os.Stderr, xraylog.LogLevelWarn))
	// Every segment is sent, and the SDK does not fetch rules.
	rules := `{"version": 2, "default": {"fixed_target": 0, "rate": 1}, "rules": []}`
	strategy, err := sampling.NewLocalizedStrategyFromJSONBytes([]byte(rules))
	check(err)
	check(xray.Configure(xray.Config{SamplingStrategy: strategy}))
	var segments []described
	check(json.Unmarshal([]byte(os.Args[1]), &segments))
	for _, entity := range segments {
		ctx, segment := xray.BeginSegment(context.Background(), entity.Name)
		fill(ctx, segment, entity)
	}
}
