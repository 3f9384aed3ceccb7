/**
 * Calls the HTTP API of the sandbox.
 *
 * In: the parameters of a call. Out: the answer of the sandbox, or an {@link ApiError} with a
 * message for the user. All requests go to the page's own origin.
 */

/** A failed call. The status is 0 if there was no answer. */
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

/**
 * Sends a request and parses the JSON of the answer.
 *
 * @param {string} path
 * @param {RequestInit} [options]
 * @returns {Promise<any>} Null for an empty answer.
 */
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
    const slow = error instanceof DOMException && error.name === "TimeoutError";
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
  const fallback = `The sandbox answered with status ${answer.status}`;
  throw new ApiError(answer.status, typeof body?.message === "string" ? body.message : fallback);
}

/**
 * Formats query parameters. Empty parameters are left out.
 *
 * @param {Record<string, string|number|undefined>} parameters
 * @returns {string}
 */
function query(parameters) {
  const set = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== undefined && value !== "") set.append(name, String(value));
  }
  const text = set.toString();
  return text === "" ? "" : `?${text}`;
}

/**
 * Returns the message of a caught error.
 *
 * @param {unknown} error
 * @returns {string}
 */
export function messageOf(error) {
  return error instanceof Error ? error.message : String(error);
}

/**
 * Returns the status of a failed call.
 *
 * @param {unknown} error
 * @returns {number} 0 if there was no answer.
 */
export function statusOf(error) {
  return error instanceof ApiError ? error.status : 0;
}

/**
 * Fetches the traces that changed after a revision, the last changed trace first.
 *
 * @param {number} since
 */
export function traces(since) {
  return call(`/api/traces${query({ since })}`);
}

/**
 * Asks which of the traces that changed after a revision match a text: words, or an X-Ray filter
 * expression. The sandbox decides what the text is.
 *
 * @param {string} q
 * @param {number} since
 * @returns {Promise<import("./live.js").Found>}
 */
export function search(q, since) {
  return call(`/api/search${query({ q, since })}`);
}

/** Fetches what the sandbox refused. */
export function refused() {
  return call("/api/refused");
}

/** Makes the sandbox forget what it refused. */
export function forgetRefused() {
  return call("/api/refused", { method: "DELETE" });
}

/**
 * Fetches the documents and the rows of a trace.
 *
 * @param {string} id
 * @returns {Promise<{id: string, documents: string[]|null, otlp: (string|null)[], forest: any,
 *   refused: any[], evicted_document_count: number, replaced_document_count: number}>} Without
 *   documents if all of them were refused.
 */
export function trace(id) {
  return call(`/api/traces/${encodeURIComponent(id)}`);
}

/**
 * Fetches traces by the call of the service.
 *
 * @param {string[]} ids
 * @returns {Promise<{Traces: any[]}>}
 */
export function batchGetTraces(ids) {
  const headers = { "content-type": "application/json" };
  return call("/Traces", { method: "POST", headers, body: JSON.stringify({ TraceIds: ids }) });
}

/**
 * Fetches the service graph of a time range, in seconds since 1970.
 *
 * @param {{start?: number, end?: number}} range
 * @returns {Promise<{Services: object[]}>}
 */
export function serviceGraph(range) {
  return call(`/api/service-graph${query(range)}`);
}

/**
 * Fetches the sampling rules.
 *
 * @returns {Promise<{rules: object[], reported: Record<string, {request_count: number,
 *   sampled_count: number}>}>}
 */
export function samplingRules() {
  return call("/api/sampling-rules");
}

/**
 * Replaces all sampling rules.
 *
 * @param {object[]} rules
 */
export function putSamplingRules(rules) {
  const headers = { "content-type": "application/json" };
  return call("/api/sampling-rules", { method: "PUT", headers, body: JSON.stringify({ rules }) });
}

/** Fetches the addresses and the credentials of the sandbox. */
export function info() {
  return call("/api/info");
}

/** Deletes all traces of the sandbox. */
export function forgetTraces() {
  return call("/api/traces", { method: "DELETE", headers: { "content-type": "application/json" } });
}
