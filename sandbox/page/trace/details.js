/**
 * The details of a segment or subsegment: all its fields, in sections.
 *
 * In: a node of `tree.js`. Out: sections. An empty section is left out. The section "More" shows
 * the fields that no other section shows. URLs in documents are shown as text and not as links.
 */

import { copyButton, h } from "../shared/dom.js";
import { exceptionsSection } from "./exceptions.js";
import { duration, line, moment, plural } from "../shared/format.js";
import { jsonView, longText } from "./json.js";
import { isObject } from "./tree.js";

/** Fields that other sections show, so that the section "More" does not show them. */
const SHOWN = new Set([
  "id",
  "name",
  "trace_id",
  "parent_id",
  "type",
  "start_time",
  "end_time",
  "in_progress",
  "namespace",
  "origin",
  "http",
  "sql",
  "aws",
  "cause",
  "annotations",
  "metadata",
  "links",
  "subsegments",
  "error",
  "fault",
  "throttle",
  "user",
  "service",
  "precursor_ids",
]);

const STATE_WORDS = {
  ok: "ok",
  error: "error (4xx)",
  fault: "fault (5xx)",
  throttle: "throttle (429)",
  progress: "in progress",
};

/**
 * Creates a section with a heading.
 *
 * @param {string} title
 * @param {...(Node|null)} children
 * @returns {HTMLElement}
 */
export function section(title, ...children) {
  return h("section", { class: "detail" }, h("h3", { text: title }), children);
}

/** Creates a list of names and values. Missing values are left out. */
function facts(pairs) {
  const list = h("dl", { class: "facts" });
  for (const [name, value] of pairs) {
    if (value === undefined || value === null || value === "") continue;
    const content =
      value instanceof Node
        ? value
        : isObject(value) || Array.isArray(value)
          ? jsonView(value)
          : longText(String(value));
    list.append(h("dt", { text: line(name, 100), title: line(name, 500) }), h("dd", {}, content));
  }
  return list.childElementCount > 0 ? list : null;
}

/** Creates a section with the fields of an object. The fields in `first` come first. */
function objectSection(title, value, first = []) {
  if (value === undefined || value === null) return null;
  if (!isObject(value)) return section(title, jsonView(value));
  const names = [
    ...first.filter((name) => name in value),
    ...Object.keys(value).filter((name) => !first.includes(name)),
  ];
  const list = facts(names.slice(0, 100).map((name) => [name.replaceAll("_", " "), value[name]]));
  return list && section(title, list);
}

function overview(node, { select, start }) {
  const { data, parent } = node;
  const time = node.end === null ? null : node.end - node.start;
  const goUp =
    parent &&
    h("button", {
      type: "button",
      class: "link",
      text: line(parent.name, 100),
      on: { click: () => select(parent) },
    });
  const orphan = {
    missing: `${line(node.parentId, 64)}, which is not in this trace`,
    ring: `${line(node.parentId, 64)}, which is below this one`,
  }[node.orphan];
  return section(
    "Overview",
    facts([
      ["status", h("span", { class: `badge ${node.state}`, text: STATE_WORDS[node.state] })],
      ["duration", time === null ? "in progress" : duration(time)],
      ["start", node.start === null ? null : moment(node.start)],
      ["offset", node.start === null ? null : duration(node.start + node.shift - start)],
      [
        "clock",
        node.shift === 0
          ? null
          : `adjusted by ${duration(node.shift)}: without this it starts before its caller`,
      ],
      ["kind", node.isSegment ? "segment" : "subsegment"],
      [
        "id",
        node.id &&
          h(
            "span",
            { class: "mono with-copy" },
            line(node.id, 64),
            copyButton(node.id, "Copy the id"),
          ),
      ],
      ["parent", goUp || orphan],
      ["namespace", data.namespace],
      ["origin", data.origin],
      ["user", data.user],
      ["precursors", data.precursor_ids],
      [
        "children",
        node.children.length > 0
          ? plural(node.children.length, "child").replace("childs", "children")
          : null,
      ],
    ]),
  );
}

function httpSection(http) {
  if (!isObject(http)) return http === undefined ? null : section("HTTP", jsonView(http));
  const request = isObject(http.request) ? http.request : {};
  const response = isObject(http.response) ? http.response : {};
  const { method, url, status: _, ...rest } = { ...request, status: response.status };
  const { status, ...answer } = response;
  const other = Object.entries(http).filter(([name]) => name !== "request" && name !== "response");
  const list = facts([
    ["method", method],
    ["url", url],
    ["status", status],
    ...Object.entries(rest).map(([name, value]) => [name.replaceAll("_", " "), value]),
    ...Object.entries(answer).map(([name, value]) => [name.replaceAll("_", " "), value]),
    ...other,
  ]);
  return list && section("HTTP", list);
}

function sqlSection(sql) {
  if (!isObject(sql)) return sql === undefined ? null : section("SQL", jsonView(sql));
  const { sanitized_query: query, ...rest } = sql;
  const text = typeof query === "string" ? query : query && JSON.stringify(query);
  return section(
    "SQL",
    text
      ? h(
          "div",
          { class: "code-box" },
          h("pre", { class: "code wrap" }, longText(text)),
          copyButton(text),
        )
      : null,
    facts(Object.entries(rest).map(([name, value]) => [name.replaceAll("_", " "), value])),
  );
}

/** Returns the filter expression that finds other traces with the same annotation. */
function annotationFilter(key, value) {
  const name = /^[A-Za-z_][\w]*$/.test(key)
    ? `annotation.${key}`
    : `annotation[${JSON.stringify(key)}]`;
  return `${name} = ${typeof value === "string" ? JSON.stringify(value) : value}`;
}

function annotationsSection(annotations, filter) {
  if (!isObject(annotations))
    return annotations === undefined ? null : section("Annotations", jsonView(annotations));
  const pairs = Object.entries(annotations)
    .slice(0, 100)
    .map(([key, value]) => {
      if (value === null || typeof value === "object") return [key, value];
      const find = h("button", {
        type: "button",
        class: "link find",
        text: "find",
        title: "Show the traces with this annotation",
        on: { click: () => filter(annotationFilter(key, value)) },
      });
      return [key, h("span", { class: "annotation" }, longText(String(value)), find)];
    });
  const list = facts(pairs);
  return list && section("Annotations", list);
}

function metadataSection(metadata) {
  if (metadata === undefined || metadata === null) return null;
  return section("Metadata", jsonView(metadata));
}

/**
 * Creates the section of a span of OpenTelemetry: the parts for which X-Ray has no field. Each event
 * has its offset in the span.
 */
function spanSection(span, node) {
  const { events, ...rest } = span;
  const own = Object.entries(rest).map(([name, value]) => [name.replaceAll("_", " "), value]);
  const list = h("ul", { class: "events" });
  for (const event of Array.isArray(events) ? events.slice(0, 100) : []) {
    if (!isObject(event)) continue;
    const hasTime = Number.isFinite(event.time) && node.start !== null;
    const offset = hasTime ? ` ${duration(event.time - node.start)}` : "";
    list.append(
      h(
        "li",
        {},
        h("b", { text: line(event.name, 200) }),
        h("span", { class: "faint", text: offset }),
        isObject(event.attributes) ? facts(Object.entries(event.attributes).slice(0, 100)) : null,
      ),
    );
  }
  const hasEvents = list.childElementCount > 0;
  return section("OpenTelemetry", facts(own), hasEvents ? list : null);
}

/** Creates the section of linked traces. The sandbox may not have these traces. */
function linksSection(links, openTrace) {
  if (!Array.isArray(links) || links.length === 0)
    return links ? section("Links", jsonView(links)) : null;
  const list = h("ul", { class: "links" });
  for (const item of links.slice(0, 100)) {
    const id = isObject(item) && typeof item.trace_id === "string" ? item.trace_id : "";
    const { trace_id: _, ...rest } = isObject(item) ? item : { value: item };
    list.append(
      h(
        "li",
        {},
        id
          ? h("button", {
              type: "button",
              class: "link mono",
              text: line(id, 64),
              on: { click: () => openTrace(id) },
            })
          : null,
        Object.keys(rest).length > 0 ? jsonView(rest) : null,
      ),
    );
  }
  return section("Links", list);
}

/**
 * Creates the details of a node.
 *
 * @param {import("./tree.js").Node} node
 * @param {object} page
 * @param {boolean} page.isSpan Whether the node was made of a span of OpenTelemetry.
 * @param {Map<string, any>} page.exceptions Exceptions of the whole trace, by id.
 * @param {number} page.start Start of the trace, in seconds since 1970.
 * @param {(node: import("./tree.js").Node) => void} page.select
 * @param {(expression: string) => void} page.filter
 * @param {(id: string) => void} page.openTrace
 * @returns {HTMLElement}
 */
export function details(node, page) {
  const { data } = node;
  const { otel, ...others } = isObject(data.metadata) ? data.metadata : {};
  const isSpan = page.isSpan && isObject(otel);
  const metadata = isSpan ? (Object.keys(others).length > 0 ? others : null) : data.metadata;
  const more = Object.fromEntries(Object.entries(data).filter(([name]) => !SHOWN.has(name)));
  const sections = [
    overview(node, page),
    exceptionsSection(node, page),
    httpSection(data.http),
    sqlSection(data.sql),
    objectSection("AWS", data.aws, [
      "operation",
      "region",
      "account_id",
      "request_id",
      "table_name",
      "bucket_name",
      "queue_url",
      "retries",
    ]),
    annotationsSection(data.annotations, page.filter),
    isSpan ? spanSection(otel, node) : null,
    metadataSection(metadata),
    linksSection(data.links, page.openTrace),
    objectSection("Service", data.service),
    Object.keys(more).length > 0 ? section("More", jsonView(more)) : null,
  ];
  const title = h("h2", { class: "details-title", text: line(node.name, 300) });
  return h(
    "div",
    { class: "details-body" },
    title,
    sections.filter((one) => one !== null),
  );
}
