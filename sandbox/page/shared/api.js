/**
 * The sandbox's read API, and the writes of the page.
 *
 * In: what the page asks for. Out: what the sandbox answers, or an {@link ApiError} with a sentence
 * for people. Nothing but the page's own origin is asked for anything.
 */

/** An answer that is no success, or none (status 0). */
export class ApiError extends Error {
  /**
   * @param {number} status
   * @param {string} message
   */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

const TIMEOUT_MS = 15_000;

async function call(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, {
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
      signal: AbortSignal.timeout(TIMEOUT_MS),
      ...options,
    });
  } catch (error) {
    const slow = error.name === "TimeoutError";
    throw new ApiError(0, slow ? "The sandbox does not answer" : "The sandbox cannot be reached");
  }
  const text = await answer.text().catch(() => "");
  let body = null;
  try {
    body = text === "" ? null : JSON.parse(text);
  } catch {
    if (answer.ok) throw new ApiError(answer.status, "The sandbox's answer is not JSON");
  }
  if (answer.ok) return body;
  const said =
    typeof body?.message === "string" ? body.message : `The sandbox says ${answer.status}`;
  throw new ApiError(answer.status, said);
}

/** @param {Record<string, string|number|undefined>} parameters */
function query(parameters) {
  const set = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== "");
  const text = new URLSearchParams(set).toString();
  return text === "" ? "" : `?${text}`;
}

/**
 * The traces changed after a revision, newest first.
 *
 * @param {number} since
 * @param {string} [filter] An X-Ray filter expression.
 */
export function traces(since, filter) {
  return call(`/api/traces${query({ since, filter })}`);
}

/**
 * The documents of a trace.
 *
 * @param {string} id
 * @returns {Promise<{id: string, documents: string[]}>}
 */
export function trace(id) {
  return call(`/api/traces/${encodeURIComponent(id)}`);
}

/**
 * The service graph of a time range, in seconds since 1970.
 *
 * @param {{start?: number, end?: number}} range
 * @returns {Promise<{Services: object[]}>}
 */
export function serviceGraph(range) {
  return call(`/api/service-graph${query(range)}`);
}

/** @returns {Promise<{rules: object[]}>} */
export function samplingRules() {
  return call("/api/sampling-rules");
}

/**
 * Puts these rules in the place of all.
 *
 * @param {object[]} rules
 */
export function putSamplingRules(rules) {
  const headers = { "content-type": "application/json" };
  return call("/api/sampling-rules", { method: "PUT", headers, body: JSON.stringify({ rules }) });
}

/** Addresses and credentials of the sandbox. */
export function info() {
  return call("/api/info");
}

/** Empties the store. */
export function forgetTraces() {
  return call("/api/traces", { method: "DELETE", headers: { "content-type": "application/json" } });
}
