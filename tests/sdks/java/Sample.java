// An application with the X-Ray SDK for Java that calls its sampler, as a program.
//
// In: AWS_XRAY_DAEMON_ADDRESS of a daemon whose service has the rules "always" and "never". Out:
// two lines of JSON. Each has, for each of two services, the number of sampled requests among 100.
// The first line follows the rules; the second follows the targets, which reverse the rules.
// tests/python/sample.py does the same.

import com.amazonaws.xray.strategy.sampling.CentralizedSamplingStrategy;
import com.amazonaws.xray.strategy.sampling.SamplingRequest;
import com.amazonaws.xray.strategy.sampling.SamplingResponse;
import java.util.stream.IntStream;

final class Sample {
    private static final CentralizedSamplingStrategy SAMPLER = new CentralizedSamplingStrategy();

    public static void main(String[] arguments) throws Exception {
        for (String turned : new String[] {"always", "never"}) {
            while (!isSampled(turned)) {
                Thread.sleep(100);
            }
            System.out.printf("{\"always\": %d, \"never\": %d}%n", count("always"), count("never"));
        }
        SAMPLER.shutdown();
    }

    private static long count(String service) {
        return IntStream.range(0, 100).filter(number -> isSampled(service)).count();
    }

    // Returns whether the rule that has the service's name samples a request to the service.
    private static boolean isSampled(String service) {
        SamplingResponse response =
                SAMPLER.shouldTrace(new SamplingRequest(service, "h", "/", "GET", ""));
        return response.isSampled() && response.getRuleName().filter(service::equals).isPresent();
    }
}
