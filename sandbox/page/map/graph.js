/**
 * The service graph as the map draws it.
 *
 * In: the answer of GetServiceGraph. Out: nodes and edges that refer to each other by index, with
 * counts and times that are numbers. Pure code.
 *
 * @typedef {object} Statistics
 * @property {number} ok
 * @property {number} error Without those throttled.
 * @property {number} throttle
 * @property {number} fault
 * @property {number} total
 * @property {number|null} seconds The mean response time.
 */

/** Kinds of outcome in the order in which they are drawn. */
export const OUTCOMES = ["ok", "error", "throttle", "fault"];

const number = (value) => (Number.isFinite(value) && value > 0 ? value : 0);

/**
 * @param {object} [summary] SummaryStatistics.
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

/** A short word for a type such as `AWS::DynamoDB::Table`. */
export function typeLabel(type) {
  if (typeof type !== "string" || type === "") return "";
  if (type === "client") return "client";
  const parts = type.split("::");
  return (parts[0] === "AWS" && parts.length > 1 ? parts.slice(1) : parts).join(" ");
}

/**
 * @param {{Services?: object[]}} answer
 * @returns {{nodes: object[], edges: object[]}}
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
 * A response time that a share of the requests does not exceed.
 *
 * @param {{value: number, count: number}[]} histogram Sorted.
 * @param {number} share From 0 to 1.
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
