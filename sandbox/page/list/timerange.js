/**
 * Time ranges of the list of traces.
 *
 * In: a range as text, as it is in the address: `15m` is the last 15 minutes, `1700000000-1700000060`
 * is from one time to another in seconds since 1970, and an empty text is all times. Out: the range
 * in seconds, and the numbers of traces in equal parts of a time. No I/O; the caller passes the time.
 *
 * @typedef {{from: number, to: number}} Range In seconds since 1970. Both ends belong to it.
 * @typedef {{count: number, badCount: number}} Bin Number of traces, and of those with an error.
 */

const UNITS = { s: 1, m: 60, h: 3600, d: 86_400 };

/** The ranges to choose from, with their labels. */
export const PRESETS = [
  ["", "All times"],
  ["1m", "Last minute"],
  ["5m", "Last 5 minutes"],
  ["15m", "Last 15 minutes"],
  ["1h", "Last hour"],
  ["24h", "Last 24 hours"],
];

/**
 * Returns whether the range moves with the time.
 *
 * @param {string} text
 */
export const isRelative = (text) => /^\d{1,6}[smhd]$/.test(text);

/**
 * Parses a range. A text that is not a range is all times.
 *
 * @param {string} text
 * @param {number} now In seconds since 1970.
 * @returns {Range|null} Null for all times.
 */
export function parseRange(text, now) {
  if (isRelative(text)) {
    const length = Number(text.slice(0, -1)) * UNITS[text.slice(-1)];
    return { from: now - length, to: Infinity };
  }
  const parts = /^(\d{1,11}(?:\.\d{1,6})?)-(\d{1,11}(?:\.\d{1,6})?)$/.exec(text);
  if (!parts) return null;
  const [from, to] = [Number(parts[1]), Number(parts[2])];
  return { from: Math.min(from, to), to: Math.max(from, to) };
}

/**
 * Formats a range from one time to another, to the millisecond. Both ends stay in the range.
 *
 * @param {number} from
 * @param {number} to
 */
export function formatRange(from, to) {
  const text = (ms) => String(Math.max(0, ms / 1000));
  return `${text(Math.floor(from * 1000))}-${text(Math.ceil(to * 1000))}`;
}

/**
 * Counts traces in equal parts of a time.
 *
 * @param {any[]} traces
 * @param {Range} range
 * @param {number} binCount
 * @returns {Bin[]}
 */
export function binsOf(traces, { from, to }, binCount) {
  /** @type {Bin[]} */
  const bins = Array.from({ length: binCount }, () => ({ count: 0, badCount: 0 }));
  const length = to - from || 1;
  for (const { start_time: start, fault, error } of traces) {
    if (!(start >= from && start <= to)) continue;
    const bin = bins[Math.min(binCount - 1, Math.floor(((start - from) / length) * binCount))];
    bin.count += 1;
    if (fault || error) bin.badCount += 1;
  }
  return bins;
}

/**
 * Returns the time from the first to the last start of traces.
 *
 * @param {any[]} traces
 * @returns {Range|null} Null without traces.
 */
export function spanOf(traces) {
  let [from, to] = [Infinity, -Infinity];
  for (const { start_time: start } of traces) {
    if (!Number.isFinite(start)) continue;
    from = Math.min(from, start);
    to = Math.max(to, start);
  }
  return from <= to ? { from, to } : null;
}
