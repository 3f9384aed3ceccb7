/**
 * Converts the service graph of the API into nodes and edges for the map.
 *
 * In: the answer of GetServiceGraph. Out: nodes and edges. An edge refers to its nodes by index.
 * Counts and times are always finite numbers. No I/O, no clock.
 *
 * @typedef {object} Statistics
 * @property {number} ok
 * @property {number} error Number of errors without throttled requests.
 * @property {number} throttle
 * @property {number} fault
 * @property {number} total
 * @property {number|null} seconds Mean response time; null without requests.
 */

/** The possible outcomes of a request, in the order in which the map draws them. */
export const OUTCOMES = ["ok", "error", "throttle", "fault"];

const number = (value) => (Number.isFinite(value) && value > 0 ? value : 0);

/**
 * Converts the statistics of a node or an edge.
 *
 * @param {any} [summary] The `SummaryStatistics` of the API.
 * @returns {Statistics}
 */
export function statistics(summary = {}) {
  const errors = summary?.ErrorStatistics ?? {};
  const faults = summary?.FaultStatistics ?? {};
  const throttle = number(errors.ThrottleCount);
  const error = Math.max(0, number(errors.TotalCount) - throttle) || number(errors.OtherCount);
  const fault = number(faults.TotalCount) || number(faults.OtherCount);
  const ok = number(summary?.OkCount);
  const total = number(summary?.TotalCount) || ok + error + throttle + fault;
  const seconds = total > 0 ? number(summary?.TotalResponseTime) / total : null;
  return { ok, error, throttle, fault, total, seconds };
}

/** Returns a short label for a type: `DynamoDB Table` for `AWS::DynamoDB::Table`. */
export function typeLabel(type) {
  if (typeof type !== "string" || type === "") return "";
  if (type === "client") return "client";
  const parts = type.split("::");
  return (parts[0] === "AWS" && parts.length > 1 ? parts.slice(1) : parts).join(" ");
}

/**
 * Converts the answer of GetServiceGraph.
 *
 * @param {{Services?: any[]}} answer
 * @returns {{nodes: any[], edges: any[]}}
 */
export function graphOf(answer) {
  const services = Array.isArray(answer?.Services) ? answer.Services : [];
  const indexes = new Map(services.map((service, index) => [service.ReferenceId, index]));
  const nodes = services.map((service) => ({
    name: typeof service.Name === "string" ? service.Name : "?",
    type: typeof service.Type === "string" ? service.Type : "",
    isClient: service.Type === "client",
    histogram: histogramOf(service.ResponseTimeHistogram),
    ...statistics(service.SummaryStatistics),
  }));
  const edges = services.flatMap((service, from) =>
    (Array.isArray(service.Edges) ? service.Edges : [])
      .filter((edge) => indexes.has(edge.ReferenceId))
      .map((edge) => ({
        from,
        to: indexes.get(edge.ReferenceId),
        ...statistics(edge.SummaryStatistics),
      })),
  );
  return { nodes, edges };
}

function histogramOf(entries) {
  if (!Array.isArray(entries)) return [];
  return entries
    .map((entry) => ({ value: number(entry?.Value), count: number(entry?.Count) }))
    .filter((entry) => entry.count > 0)
    .sort((one, other) => one.value - other.value);
}

/**
 * Returns a quantile of the response times: the given fraction of the requests is not slower.
 *
 * @param {{value: number, count: number}[]} histogram Sorted by value.
 * @param {number} share The fraction, from 0 to 1.
 * @returns {number|null} Seconds.
 */
export function quantile(histogram, share) {
  const total = histogram.reduce((sum, entry) => sum + entry.count, 0);
  let seen = 0;
  for (const entry of histogram) {
    seen += entry.count;
    if (seen >= share * total) return entry.value;
  }
  return null;
}
