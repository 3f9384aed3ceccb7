/**
 * The guide that shows how to connect an application to the sandbox.
 *
 * In: the addresses and credentials from `/api/info`. Out: commands and code to copy, for each SDK.
 * The parts for OpenTelemetry are in `otlp.js`.
 */

import { info } from "../shared/api.js";
import { copyButton, h } from "../shared/dom.js";
import { line } from "../shared/format.js";
import { general, LANGUAGES } from "./otlp.js";

/** The default addresses and credentials. They are shown until the sandbox has answered. */
const USUAL = {
  udp_address: "127.0.0.1:2000",
  tcp_address: "127.0.0.1:2000",
  otlp_endpoint: "http://127.0.0.1:4318",
  otlp_grpc_address: "127.0.0.1:4317",
  region: "us-east-1",
  access_key_id: "xrayd-sandbox",
};

/** Returns the daemon's address in the form that SDKs read: one address for both ports, or two. */
export function daemonAddress({ udp_address: udp, tcp_address: tcp }) {
  return udp === tcp ? udp : `tcp:${tcp} udp:${udp}`;
}

const quoted = (address) => (address.includes(" ") ? `"${address}"` : address);

/** Returns the environment variable that every SDK reads. */
const environment = (about) => `export AWS_XRAY_DAEMON_ADDRESS=${quoted(daemonAddress(about))}`;

const credentials = (about) =>
  [
    `export AWS_ACCESS_KEY_ID=${about.access_key_id}`,
    `export AWS_SECRET_ACCESS_KEY=${about.secret_access_key ?? "…"}`,
    // The AWS CLI reads the second one, SDKs read the first one.
    `export AWS_REGION=${about.region} AWS_DEFAULT_REGION=${about.region}`,
  ].join("\n");

/**
 * The guides. The code samples every request if the SDK allows it. Otherwise a first request might
 * not be sampled, and the page would show nothing.
 */
const GUIDES = [
  {
    name: "Python",
    parts: (about) => [
      ["Install", "pip install aws-xray-sdk"],
      ["Environment", environment(about)],
      [
        "Code",
        `from aws_xray_sdk.core import patch_all, xray_recorder

xray_recorder.configure(service="my-service", sampling=False)  # trace every request
patch_all()  # requests, boto3, database drivers, ...

with xray_recorder.in_segment("my-service"):
    with xray_recorder.in_subsegment("work") as work:
        work.put_annotation("customer", "returning")`,
      ],
    ],
  },
  {
    name: "Node.js",
    parts: (about) => [
      ["Install", "npm install aws-xray-sdk-core"],
      ["Environment", environment(about)],
      [
        "Code",
        `const xray = require("aws-xray-sdk-core");

const segment = new xray.Segment("my-service");
xray.getNamespace().run(() => {
  xray.setSegment(segment);
  xray.captureFunc("work", (work) => work.addAnnotation("customer", "returning"));
  segment.close();
});`,
      ],
    ],
  },
  {
    name: "Java",
    parts: (about) => [
      [
        "Maven",
        `<dependency>
  <groupId>com.amazonaws</groupId>
  <artifactId>aws-xray-recorder-sdk-core</artifactId>
  <version>2.18.2</version>
</dependency>`,
      ],
      ["Environment", environment(about)],
      [
        "Code",
        `import com.amazonaws.xray.AWSXRay;

AWSXRay.beginSegment("my-service");
AWSXRay.createSubsegment("work", work -> {
    work.putAnnotation("customer", "returning");
});
AWSXRay.endSegment();`,
      ],
    ],
  },
  {
    name: "Go",
    parts: (about) => [
      ["Install", "go get github.com/aws/aws-xray-sdk-go/v2"],
      ["Environment", environment(about)],
      [
        "Code",
        `import "github.com/aws/aws-xray-sdk-go/v2/xray"

ctx, segment := xray.BeginSegment(context.Background(), "my-service")
xray.Capture(ctx, "work", func(ctx context.Context) error {
	return xray.AddAnnotation(ctx, "customer", "returning")
})
segment.Close(nil)`,
      ],
    ],
  },
  {
    name: ".NET",
    parts: (about) => [
      ["Install", "dotnet add package AWSXRayRecorder.Core"],
      ["Environment", environment(about)],
      [
        "Code",
        `using Amazon.XRay.Recorder.Core;

AWSXRayRecorder.Instance.BeginSegment("my-service");
AWSXRayRecorder.Instance.BeginSubsegment("work");
AWSXRayRecorder.Instance.AddAnnotation("customer", "returning");
AWSXRayRecorder.Instance.EndSubsegment();
AWSXRayRecorder.Instance.EndSegment();`,
      ],
    ],
  },
  {
    name: "Ruby",
    parts: (about) => [
      ["Install", "gem install aws-xray-sdk"],
      ["Environment", environment(about)],
      [
        "Code",
        `require 'aws-xray-sdk'

XRay.recorder.configure(name: 'my-service')
XRay.recorder.capture('my-service') do |segment|
  XRay.recorder.capture('work') { |work| work.annotations[:customer] = 'returning' }
end`,
      ],
    ],
  },
  {
    name: "OpenTelemetry",
    parts: (about) => general(about),
  },
  {
    name: "Containers",
    // Another container reaches the sandbox by a name, and the sandbox answers to no foreign names.
    parts: () => [
      [
        "Sandbox, if applications run in other containers. Their name for it is xray here",
        "xray sandbox -b 0.0.0.0:2000 -t 0.0.0.0:2000 --allow-host xray",
      ],
      ["Environment, X-Ray SDK", "export AWS_XRAY_DAEMON_ADDRESS=xray:2000"],
      ["Environment, OpenTelemetry", "export OTEL_EXPORTER_OTLP_ENDPOINT=http://xray:4318"],
    ],
  },
  {
    name: "AWS CLI",
    parts: (about, origin) => [
      ["Environment", credentials(about)],
      [
        "Put a segment",
        `T=$(date +%s) ID=1-$(printf %08x $(date +%s))-$(openssl rand -hex 12)
aws xray put-trace-segments --endpoint-url ${origin} --trace-segment-documents \\
  '{"trace_id": "'$ID'", "id": "'$(openssl rand -hex 8)'", "name": "cli",
    "start_time": '$T', "end_time": '$T'.25}'`,
      ],
      [
        "Read it back",
        `aws xray get-trace-summaries --endpoint-url ${origin} \\
  --start-time $(($(date +%s) - 3600)) --end-time $(date +%s)`,
      ],
    ],
  },
];

function block([label, text]) {
  return h(
    "div",
    { class: "snippet" },
    h("div", { class: "snippet-label", text: label }),
    h(
      "div",
      { class: "code-box" },
      h("pre", { class: "code", tabIndex: 0, text }),
      copyButton(text, `Copy: ${label}`),
    ),
  );
}

/**
 * Creates the guide, with a tab for each SDK.
 *
 * @param {{isWaiting: boolean}} how Whether the guide says that the page waits for the first trace.
 * @returns {HTMLElement}
 */
export function connectGuide({ isWaiting }) {
  let about = USUAL;
  let chosen = GUIDES[0];
  const body = h("div", {
    class: "snippets",
    role: "tabpanel",
    id: `guide-${isWaiting}`,
    tabIndex: -1,
  });
  const tabs = GUIDES.map((guide) =>
    h("button", {
      type: "button",
      role: "tab",
      class: "guide-tab",
      text: guide.name,
      "aria-controls": body.id,
      on: { click: () => draw(guide) },
    }),
  );
  function draw(guide) {
    chosen = guide;
    tabs.forEach((tab, at) => {
      tab.setAttribute("aria-selected", String(GUIDES[at] === guide));
      tab.tabIndex = GUIDES[at] === guide ? 0 : -1;
    });
    const ofOtlp = LANGUAGES[guide.name]?.(about) ?? [];
    body.replaceChildren(...[...guide.parts(about, location.origin), ...ofOtlp].map(block));
  }
  const turn = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = (GUIDES.indexOf(chosen) + step + GUIDES.length) % GUIDES.length;
    draw(GUIDES[next]);
    tabs[next].focus();
    event.stopPropagation();
  };
  const addresses = h("p", { class: "muted" });
  const element = h(
    "div",
    { class: "guide" },
    isWaiting
      ? h(
          "div",
          { class: "waiting" },
          h("span", { class: "pulse" }),
          h("h1", { text: "Waiting for the first trace" }),
        )
      : h("h1", { text: "Connect an application" }),
    addresses,
    h(
      "div",
      { class: "guide-tabs", role: "tablist", "aria-label": "SDK", on: { keydown: turn } },
      tabs,
    ),
    body,
  );
  const describe = () => {
    const word = (text) => h("b", { class: "nowrap", text: line(text, 60) });
    addresses.replaceChildren(
      "The sandbox receives segments at UDP ",
      word(about.udp_address),
      " and spans of OpenTelemetry at ",
      word(about.otlp_endpoint),
      ". Sampling rules and the API are at TCP ",
      word(about.tcp_address),
      ". The region is ",
      word(about.region),
      ". Traces appear here within two seconds.",
    );
    draw(chosen);
  };
  describe();
  info()
    .then((answer) => {
      about = { ...USUAL, ...answer };
      describe();
    })
    .catch(() => {});
  return element;
}

/** The guide as a separate view. */
export class ConnectView {
  title = "Connect";
  element = h(
    "section",
    { class: "view connect", "aria-label": "Connect" },
    h("div", { class: "page" }, connectGuide({ isWaiting: false })),
  );

  show() {}

  focus() {
    this.element.parentElement?.focus({ preventScroll: true });
  }

  key() {
    return false;
  }
}
