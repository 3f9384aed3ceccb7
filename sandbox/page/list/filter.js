/**
 * What the list of traces shows.
 *
 * In: the text of the filter box, chips, and summaries of traces. Out: whether the text is an X-Ray
 * filter expression, which the sandbox evaluates, and a predicate for all the rest. Pure code.
 *
 * @typedef {object} Choice
 * @property {string} text What is in the box.
 * @property {Set<string>} flags Of `error`, `fault`, `throttle`, `progress`; any of them will do.
 * @property {Set<string>} statuses Of `2xx` to `5xx`; any of them will do.
 * @property {number} minSeconds The shortest duration, 0 for all.
 */

/** What begins an operand: a function, an annotation, a field of HTTP, or a keyword. */
const OPERAND = new RegExp(
  "^[\\s(!]*(?:(?:service|edge|id|group|resource|rootcause)\\s*\\(|annotation\\s*[.[]" +
    "|(?:http\\.|rootcause\\.|entity\\.|aws\\.|ec2\\.|resource\\.)\\w" +
    "|(?:responsetime|duration|user|name|root|first|partial|inferred|coverage|availability" +
    "|ok|error|fault|throttle|type|account\\.id)\\b)",
  "i",
);
const OPERATOR = /<|>|=|\b(?:contains|beginswith|endswith|and|or)\b/i;
const FUNCTION = /^[\s(!]*(?:service|edge|id|group)\s*\(.*\)/i;
const FLAGS_ALONE = /^[\s(!]*(?:ok|error|fault|throttle|partial)[\s)]*$/i;

/**
 * Whether a text is meant as an X-Ray filter expression; anything else is looked for as it is.
 *
 * @param {string} text
 * @returns {boolean}
 */
export function isExpression(text) {
  if (!OPERAND.test(text)) return false;
  return OPERATOR.test(text) || FUNCTION.test(text) || FLAGS_ALONE.test(text);
}

const UNITS = { us: 1e-6, µs: 1e-6, ms: 1e-3, s: 1, m: 60, "": 1e-3 };

/**
 * Reads `250`, `250ms`, `1.5 s` or `2m`; milliseconds where no unit stands.
 *
 * @param {string} text
 * @returns {number} Seconds; 0 for an empty text, NaN for what is no duration.
 */
export function parseDuration(text) {
  if (text.trim() === "") return 0;
  const parts = /^\s*(\d+(?:\.\d*)?|\.\d+)\s*(us|µs|ms|s|m|)\s*$/i.exec(text);
  return parts ? Number(parts[1]) * UNITS[parts[2].toLowerCase()] : NaN;
}

/**
 * The words to look for: separated by spaces, or in quotation marks.
 *
 * @param {string} text
 * @returns {string[]} In lower case.
 */
export function words(text) {
  const found = text.toLowerCase().matchAll(/"([^"]*)"?|(\S+)/g);
  return [...found].map(([, quoted, bare]) => quoted ?? bare).filter((word) => word !== "");
}

/** Searchable texts by summary; a changed trace comes as a new summary. */
const haystacks = new WeakMap();
const HAYSTACK_LENGTH_MAX = 4000;

/**
 * What a trace can be found by, in lower case: name, services, URL, method, status, users,
 * annotations and its id.
 *
 * @param {object} trace
 * @returns {string}
 */
export function haystack(trace) {
  let text = haystacks.get(trace);
  if (text === undefined) {
    const http = trace.http ?? {};
    const annotations = Object.entries(trace.annotations ?? {});
    text = [
      trace.name,
      ...(trace.services ?? []),
      http.method,
      http.url,
      http.status,
      http.client_ip,
      ...(trace.users ?? []),
      ...annotations.map(([key, values]) => `${key}=${[values].flat().join(" ")}`),
      trace.id,
    ]
      .join("\n")
      .slice(0, HAYSTACK_LENGTH_MAX)
      .toLowerCase();
    haystacks.set(trace, text);
  }
  return text;
}

/**
 * The status class of a trace: `2xx` to `5xx`, or nothing.
 *
 * @param {object} trace
 * @returns {string}
 */
export function statusClass(trace) {
  const status = Number(trace.http?.status);
  return status >= 100 && status < 600 ? `${Math.floor(status / 100)}xx` : "";
}

/**
 * The worst that a trace says of itself, which colours it.
 *
 * @param {object} trace
 * @returns {"fault"|"throttle"|"error"|"progress"|"ok"}
 */
export function stateOf(trace) {
  if (trace.fault) return "fault";
  if (trace.throttle) return "throttle";
  if (trace.error) return "error";
  return trace.in_progress ? "progress" : "ok";
}

/**
 * The predicate of a choice, apart from an expression, which is the sandbox's to evaluate.
 *
 * @param {Choice} choice
 * @returns {(trace: object) => boolean}
 */
export function predicate({ text, flags, statuses, minSeconds }) {
  const needles = isExpression(text) ? [] : words(text);
  return (trace) => {
    if (flags.size > 0) {
      const hit =
        (trace.fault && flags.has("fault")) ||
        (trace.error && flags.has("error")) ||
        (trace.throttle && flags.has("throttle")) ||
        (trace.in_progress && flags.has("progress"));
      if (!hit) return false;
    }
    if (statuses.size > 0 && !statuses.has(statusClass(trace))) return false;
    if (minSeconds > 0 && !(trace.duration_seconds >= minSeconds)) return false;
    return needles.length === 0 || needles.every((needle) => haystack(trace).includes(needle));
  };
}

const SORTS = {
  start: (trace) => trace.start_time,
  duration: (trace) => trace.duration_seconds ?? 0,
  name: (trace) => trace.name ?? "",
  status: (trace) => Number(trace.http?.status) || 0,
};

/**
 * Sorts traces in place; equal ones stay in an order that does not change.
 *
 * @param {object[]} traces
 * @param {string} order A column, with `-` before it for the largest first.
 * @returns {object[]}
 */
export function sort(traces, order) {
  const sign = order.startsWith("-") ? -1 : 1;
  const key = SORTS[order.replace("-", "")] ?? SORTS.start;
  return traces.sort((one, other) => {
    const a = key(one);
    const b = key(other);
    if (a < b) return -sign;
    if (a > b) return sign;
    return one.id < other.id ? -sign : one.id > other.id ? sign : 0;
  });
}
