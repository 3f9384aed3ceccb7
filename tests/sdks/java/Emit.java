// An application with the X-Ray SDK for Java, as a program.
//
// In: a list of segments as JSON, each {"name", "annotations", "metadata", "flags", "exception",
// "subsegments"}, where only the name is required; and AWS_XRAY_DAEMON_ADDRESS. Out: the segments
// of the SDK, each with its own trace. tests/python/emit.py does the same.

import com.amazonaws.xray.AWSXRayRecorder;
import com.amazonaws.xray.AWSXRayRecorderBuilder;
import com.amazonaws.xray.entities.Entity;
import com.amazonaws.xray.entities.Subsegment;
import com.amazonaws.xray.strategy.sampling.AllSamplingStrategy;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.util.logging.Level;
import java.util.logging.Logger;

final class Emit {
    static {
        // The SDK logs the daemon's address.
        Logger.getLogger("").setLevel(Level.WARNING);
    }

    private static final ObjectMapper JSON = new ObjectMapper();

    // Every segment is sent, and the SDK does not fetch rules.
    private static final AWSXRayRecorder RECORDER =
            AWSXRayRecorderBuilder.standard()
                    .withSamplingStrategy(new AllSamplingStrategy())
                    .build();

    public static void main(String[] arguments) throws Exception {
        for (JsonNode described : JSON.readTree(arguments[0])) {
            fill(RECORDER.beginSegment(described.get("name").asText()), described);
            RECORDER.endSegment();
        }
    }

    private static void fill(Entity entity, JsonNode described) throws Exception {
        for (var annotation : described.path("annotations").properties()) {
            String key = annotation.getKey();
            JsonNode value = annotation.getValue();
            if (value.isBoolean()) {
                entity.putAnnotation(key, value.asBoolean());
            } else if (value.isNumber()) {
                entity.putAnnotation(key, value.numberValue());
            } else {
                entity.putAnnotation(key, value.asText());
            }
        }
        for (var metadata : described.path("metadata").properties()) {
            entity.putMetadata(
                    metadata.getKey(), JSON.treeToValue(metadata.getValue(), Object.class));
        }
        for (JsonNode flag : described.path("flags")) {
            switch (flag.asText()) {
                case "error" -> entity.setError(true);
                case "throttle" -> entity.setThrottle(true);
                case "fault" -> entity.setFault(true);
                default -> throw new IllegalArgumentException(flag.asText());
            }
        }
        for (JsonNode part : described.path("subsegments")) {
            Subsegment subsegment = RECORDER.beginSubsegment(part.get("name").asText());
            fill(subsegment, part);
            RECORDER.endSubsegment();
        }
        if (described.has("exception")) {
            entity.addException(new RuntimeException(described.get("exception").asText()));
        }
    }
}
