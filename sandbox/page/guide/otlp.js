/**
 * The parts of the guide for applications with OpenTelemetry.
 *
 * In: the addresses of the sandbox. Out: labels and texts to copy, for each language. Each line
 * sends the spans to the sandbox itself, without a collector.
 */

/**
 * @typedef {{udp_address: string, otlp_endpoint: string, otlp_grpc_address: string|null}} Addresses
 * @typedef {[string, string]} Part A label and a text.
 */

/** The variables that every SDK of OpenTelemetry reads. */
const variables = ({ otlp_endpoint: endpoint }) =>
  [
    "export OTEL_SERVICE_NAME=my-service",
    `export OTEL_EXPORTER_OTLP_ENDPOINT=${endpoint} OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf`,
    "export OTEL_METRICS_EXPORTER=none OTEL_LOGS_EXPORTER=none",
  ].join("\n");

/**
 * Returns the parts for one language, with the same variables and another command or code.
 *
 * @param {string} install
 * @param {string} use
 * @returns {(about: Addresses) => Part[]}
 */
const language = (install, use) => (about) => [
  ["Or OpenTelemetry: install", install],
  ["Environment for OpenTelemetry", variables(about)],
  ["Use OpenTelemetry", use],
];

/** The parts for each language, by the name of its tab. */
export const LANGUAGES = {
  Python: language(
    `pip install opentelemetry-distro opentelemetry-exporter-otlp
opentelemetry-bootstrap -a install`,
    "opentelemetry-instrument python app.py",
  ),
  "Node.js": language(
    "npm install @opentelemetry/api @opentelemetry/auto-instrumentations-node",
    "node --require @opentelemetry/auto-instrumentations-node/register app.js",
  ),
  Java: language(
    `curl -LO https://github.com/open-telemetry/opentelemetry-java-instrumentation/releases/latest/download/opentelemetry-javaagent.jar`,
    "java -javaagent:opentelemetry-javaagent.jar -jar app.jar",
  ),
  Go: language(
    "go get go.opentelemetry.io/otel/sdk go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp",
    `exporter, err := otlptracehttp.New(ctx) // reads OTEL_EXPORTER_OTLP_ENDPOINT
provider := trace.NewTracerProvider(trace.WithBatcher(exporter))
defer provider.Shutdown(ctx)
otel.SetTracerProvider(provider)`,
  ),
  ".NET": language(
    `dotnet add package OpenTelemetry.Extensions.Hosting
dotnet add package OpenTelemetry.Instrumentation.AspNetCore
dotnet add package OpenTelemetry.Exporter.OpenTelemetryProtocol`,
    `builder.Services.AddOpenTelemetry().WithTracing(tracing => tracing
    .AddAspNetCoreInstrumentation()
    .AddOtlpExporter());  // reads OTEL_EXPORTER_OTLP_ENDPOINT`,
  ),
  Ruby: language(
    "gem install opentelemetry-sdk opentelemetry-exporter-otlp opentelemetry-instrumentation-all",
    `require 'opentelemetry/sdk'
require 'opentelemetry/exporter/otlp'
require 'opentelemetry/instrumentation/all'

OpenTelemetry::SDK.configure { |config| config.use_all }`,
  ),
};

/**
 * Returns the parts that are the same for all languages.
 *
 * @param {Addresses} about
 * @returns {Part[]}
 */
export function general(about) {
  const { otlp_endpoint: endpoint, otlp_grpc_address: grpc } = about;
  /** @type {Part[]} */
  const overGrpc = grpc
    ? [
        [
          "Environment, OTLP over gRPC",
          `export OTEL_EXPORTER_OTLP_ENDPOINT=http://${grpc} OTEL_EXPORTER_OTLP_PROTOCOL=grpc`,
        ],
      ]
    : [];
  return [
    ["Environment, OTLP over HTTP", variables(about)],
    ...overGrpc,
    [
      "One trace with applications of an X-Ray SDK",
      "export OTEL_PROPAGATORS=xray,tracecontext,baggage",
    ],
    // They cannot read the form with two parts.
    [
      "AWS's distributions as in Lambda, over UDP",
      `export AWS_XRAY_DAEMON_ADDRESS=${about.udp_address}`,
    ],
    [
      "A collector that you have already",
      `exporters:
  otlphttp/xrayd: {endpoint: "${endpoint}", tls: {insecure: true}}
service:
  pipelines:
    traces: {receivers: [otlp], exporters: [otlphttp/xrayd]}`,
    ],
  ];
}
