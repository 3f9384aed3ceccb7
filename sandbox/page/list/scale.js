/**
 * The scale of the bars in the list of traces.
 *
 * In: durations. Out: the duration of a full bar, and the length of a bar. The scale is linear, so
 * that a bar of twice the length is twice the time. It ends at the longest duration, unless a few
 * traces are much slower than all others: then it ends soon after the others, and the bars of the
 * slow ones are full and marked. No I/O, no clock.
 */

/** Part of the traces that has to fit into the scale. */
const PART = 0.9;
/** The longest trace sets the scale if it is at most this many times longer than that part. */
const FACTOR_MAX = 3;
/** Room above that part if the longest trace does not set the scale. */
const ROOM = 1.25;

/**
 * Returns the duration of a full bar, in seconds.
 *
 * @param {(number|null|undefined)[]} durations In seconds. Values that are not positive are ignored.
 * @returns {number} 0 if there is no duration.
 */
export function fullBar(durations) {
  const known = Float64Array.from(durations.filter((it) => Number(it) > 0 && it !== Infinity)).sort();
  if (known.length === 0) return 0;
  const longest = known[known.length - 1];
  const usual = known[Math.floor(PART * (known.length - 1))];
  return longest <= FACTOR_MAX * usual ? longest : ROOM * usual;
}

/**
 * Returns the length of a bar as a part of the full bar, and whether the duration is beyond the
 * scale.
 *
 * @param {number|null|undefined} seconds
 * @param {number} full Duration of a full bar.
 */
export function bar(seconds, full) {
  if (!(Number(seconds) > 0) || !(full > 0)) return { part: 0, isBeyond: false };
  const part = Number(seconds) / full;
  return { part: Math.min(part, 1), isBeyond: part > 1 };
}
