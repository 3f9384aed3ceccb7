// An application with the X-Ray SDK for Go that calls its sampler, as a program.
//
// In: AWS_XRAY_DAEMON_ADDRESS of a daemon whose service has the rules "always" and "never". Out:
// two lines of JSON. Each has, for each of two services, the number of sampled requests among 100.
// The first line follows the rules; the second follows the targets, which reverse the rules.
// tests/python/sample.py does the same. The folder v2 has the same program with version 2 of the
// SDK (see `install`).
package main

import (
	"encoding/json"
	"os"
	"time"

	"github.com/aws/aws-xray-sdk-go/strategy/sampling"
	"github.com/aws/aws-xray-sdk-go/xray"
	"github.com/aws/aws-xray-sdk-go/xraylog"
)

func main() {
	xray.SetLogger(xraylog.NewDefaultLogger(os.Stderr, xraylog.LogLevelWarn))
	strategy, err := sampling.NewCentralizedStrategy()
	if err != nil {
		panic(err)
	}

	// Returns whether the rule that has the service's name samples a request to the service.
	isSampled := func(service string) bool {
		request := sampling.Request{Host: "h", Method: "GET", URL: "/", ServiceName: service}
		decision := strategy.ShouldTrace(&request)
		return decision.Sample && decision.Rule != nil && *decision.Rule == service
	}
	for _, turned := range []string{"always", "never"} {
		for !isSampled(turned) {
			time.Sleep(100 * time.Millisecond)
		}
		counts := map[string]int{"always": 0, "never": 0}
		for service := range counts {
			for range 100 {
				if isSampled(service) {
					counts[service]++
				}
			}
		}
		json.NewEncoder(os.Stdout).Encode(counts)
	}
}
