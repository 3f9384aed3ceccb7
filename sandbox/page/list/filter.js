/**
 * Filters and sorts the list of traces.
 *
 * In: the text of the filter box, the selected chips, and summaries of traces. Out: whether the
 * text is an X-Ray filter expression, which the sandbox evaluates; a function that checks a trace
 * against all other conditions; sorted traces. No I/O, no clock.
 *
 * @typedef {object} Choice
 * @property {string} text Text of the filter box.
 * @property {Set<string>} flags Some of `error`, `fault`, `throttle`, `progress`. A trace must have
 *   at least one of them. An empty set allows all traces.
 * @property {Set<string>} statuses Some of `2xx` to `5xx`. A trace must have one of them. An empty
 *   set allows all traces.
 * @property {number} minSeconds Shortest duration. 0 allows all traces.
 */

/** Matches the start of an expression: a function, an annotation, a field of HTTP, or a keyword. */
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
 * Returns whether a text is an X-Ray filter expression. Any other text is searched for word by
 * word.
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
 * Parses a duration, such as `250`, `250ms`, `1.5 s` or `2m`. The default unit is milliseconds.
 *
 * @param {string} text
 * @returns {number} Seconds; 0 for an empty text, NaN for a text that is not a duration.
 */
export function parseDuration(text) {
  if (text.trim() === "") return 0;
  const parts = /^\s*(\d+(?:\.\d*)?|\.\d+)\s*(us|µs|ms|s|m|)\s*$/i.exec(text);
  return parts ? Number(parts[1]) * UNITS[parts[2].toLowerCase()] : NaN;
}

/**
 * Splits a text into search words, at spaces. A phrase in quotation marks counts as one word.
 *
 * @param {string} text
 * @returns {string[]} In lower case.
 */
export function words(text) {
  const found = text.toLowerCase().matchAll(/"([^"]*)"?|(\S+)/g);
  return [...found].map(([, quoted, bare]) => quoted ?? bare).filter((word) => word !== "");
}

/**
 * Searchable texts by summary. A changed trace gets a new summary object, so an entry never
 * changes.
 */
const haystacks = new WeakMap();
/** Longest searchable text, in characters. */
const HAYSTACK_LENGTH_MAX = 4000;

/**
 * Returns the searchable text of a trace in lower case: name, services, HTTP method, URL, status
 * and client address, users, annotations and id.
 *
 * @param {any} trace
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
 * Returns the class of the HTTP status of a trace: `1xx` to `5xx`, or an empty text.
 *
 * @param {any} trace
 * @returns {string}
 */
export function statusClass(trace) {
  const status = Number(trace.http?.status);
  return status >= 100 && status < 600 ? `${Math.floor(status / 100)}xx` : "";
}

/**
 * Returns the most serious state of a trace, which decides its colour.
 *
 * @param {any} trace
 * @returns {"fault"|"throttle"|"error"|"progress"|"ok"}
 */
export function stateOf(trace) {
  if (trace.fault) return "fault";
  if (trace.throttle) return "throttle";
  if (trace.error) return "error";
  return trace.in_progress ? "progress" : "ok";
}

/**
 * Returns a function that checks whether a trace fits a choice. The function ignores a filter
 * expression, because the sandbox evaluates it.
 *
 * @param {Choice} choice
 * @returns {(trace: any) => boolean}
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
 * Sorts traces in place. Equal traces are sorted by id, so that their order is stable.
 *
 * @param {any[]} traces
 * @param {string} order Name of a column. A `-` before it means descending order.
 * @returns {any[]}
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
