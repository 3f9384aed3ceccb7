/**
 * Filters and sorts the list of traces.
 *
 * In: the selected chips, the shortest duration, and summaries of traces. Out: a function that
 * checks a trace against these conditions; sorted traces. The sandbox evaluates the text of the
 * filter box. No I/O, no clock.
 *
 * @typedef {object} Choice
 * @property {Set<string>} flags Some of `error`, `fault`, `throttle`, `progress`. A trace must have
 *   at least one of them. An empty set allows all traces.
 * @property {Set<string>} statuses Some of `2xx` to `5xx`. A trace must have one of them. An empty
 *   set allows all traces.
 * @property {number} minSeconds Shortest duration. 0 allows all traces.
 */

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
 * Returns a function that checks whether a trace fits a choice.
 *
 * @param {Choice} choice
 * @returns {(trace: any) => boolean}
 */
export function predicate({ flags, statuses, minSeconds }) {
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
    return !(minSeconds > 0) || trace.duration_seconds >= minSeconds;
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
