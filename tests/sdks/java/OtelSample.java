// An application with OpenTelemetry's remote sampler for X-Ray, as a program.
//
// In: the URL of the TCP port of a daemon whose service has the rules "always" and "never". Out:
// two lines of JSON. Each has, for each of two services, the number of sampled requests among 100.
// The first line follows the rules; the second follows the targets, which reverse the rules.
// tests/python/sample.py does the same with the X-Ray SDK.

import io.opentelemetry.api.common.AttributeKey;
import io.opentelemetry.api.common.Attributes;
import io.opentelemetry.api.trace.SpanKind;
import io.opentelemetry.context.Context;
import io.opentelemetry.contrib.awsxray.AwsXrayRemoteSampler;
import io.opentelemetry.sdk.resources.Resource;
import io.opentelemetry.sdk.trace.IdGenerator;
import io.opentelemetry.sdk.trace.samplers.SamplingDecision;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;

final class OtelSample {
    private static final IdGenerator IDS = IdGenerator.random();

    public static void main(String[] arguments) throws Exception {
        // A rule applies to the name of the service, which belongs to the sampler's resource.
        Map<String, AwsXrayRemoteSampler> samplers =
                Map.of(
                        "always", sampler(arguments[0], "always"),
                        "never", sampler(arguments[0], "never"));
        for (String turned : new String[] {"always", "never"}) {
            String other = turned.equals("always") ? "never" : "always";
            // Without rules, the sampler samples only the first request of a second and a part of
            // the others. All of 100 requests are sampled only by a rule or a target.
            while (count(samplers.get(turned)) != 100 || count(samplers.get(other)) != 0) {
                Thread.sleep(100);
            }
            System.out.printf(
                    "{\"always\": %d, \"never\": %d}%n",
                    count(samplers.get("always")), count(samplers.get("never")));
        }
        for (AwsXrayRemoteSampler sampler : samplers.values()) {
            sampler.close();
        }
    }

    private static AwsXrayRemoteSampler sampler(String url, String service) {
        AttributeKey<String> name = AttributeKey.stringKey("service.name");
        Resource resource = Resource.create(Attributes.of(name, service));
        return AwsXrayRemoteSampler.newBuilder(resource).setEndpoint(url).build();
    }

    private static long count(AwsXrayRemoteSampler sampler) {
        return IntStream.range(0, 100).filter(number -> isSampled(sampler)).count();
    }

    private static boolean isSampled(AwsXrayRemoteSampler sampler) {
        return sampler.shouldSample(
                                Context.root(),
                                IDS.generateTraceId(),
                                "GET",
                                SpanKind.SERVER,
                                Attributes.empty(),
                                List.of())
                        .getDecision()
                == SamplingDecision.RECORD_AND_SAMPLE;
    }
}
