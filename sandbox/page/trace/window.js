/**
 * The visible part of the time axis, and its ticks.
 *
 * In: the length of the axis, and the wishes of the user. Out: a window with two ends, in seconds
 * since the start of the trace. The window never leaves the axis. Bound: {@link ZOOM_MAX}. No I/O,
 * no clock.
 *
 * @typedef {{from: number, to: number}} Window
 */

/** The window is at least this part of the axis. */
const ZOOM_MAX = 50_000;
/** Smallest distance between two ticks of the axis, in pixels. */
const TICK_WIDTH = 96;

/**
 * Returns a window with these ends that lies within the axis. Ends in the wrong order are swapped.
 *
 * @param {number} from
 * @param {number} to
 * @param {number} length Length of the axis, in seconds.
 * @returns {Window}
 */
export function windowOf(from, to, length) {
  const size = Math.min(Math.max(Math.abs(to - from), length / ZOOM_MAX), length);
  const middle = (from + to) / 2;
  const start = Math.min(Math.max(middle - size / 2, 0), length - size);
  return { from: start, to: start + size };
}

/**
 * Returns a larger or smaller window.
 *
 * @param {Window} window
 * @param {number} factor Larger than 1 to see less of the axis.
 * @param {number} at The time that does not move, in seconds since the start of the trace.
 * @param {number} length
 * @returns {Window}
 */
export function zoomed({ from, to }, factor, at, length) {
  const size = Math.min(Math.max((to - from) / factor, length / ZOOM_MAX), length);
  const share = (at - from) / (to - from || 1);
  const start = at - Math.min(Math.max(share, 0), 1) * size;
  return windowOf(start, start + size, length);
}

/**
 * Returns a moved window.
 *
 * @param {Window} window
 * @param {number} seconds
 * @param {number} length
 * @returns {Window}
 */
export function moved({ from, to }, seconds, length) {
  return windowOf(from + seconds, to + seconds, length);
}

/**
 * Returns the step of an axis: 1, 2 or 5 times a power of ten.
 *
 * @param {number} length Length of the axis, in seconds.
 * @param {number} countMax Largest number of steps.
 * @returns {number} Seconds; 0 for an axis without length.
 */
export function tickStep(length, countMax) {
  if (!(length > 0) || countMax < 1) return 0;
  const least = length / countMax;
  const power = 10 ** Math.floor(Math.log10(least));
  const steps = [1, 2, 5, 10].map((factor) => factor * power);
  return steps.find((step) => step >= least * 0.999) ?? 0;
}

/**
 * Returns the ticks of a window. The texts have as many digits as the step needs.
 *
 * @param {Window} window
 * @param {number} width Width of the axis, in pixels.
 * @returns {{step: number, ticks: {at: number, text: string}[]}} Times in seconds since the start.
 */
export function ticksOf({ from, to }, width) {
  const step = tickStep(to - from, Math.floor(width / TICK_WIDTH));
  const ticks = [];
  if (step === 0) return { step, ticks };
  const [unit, name] = to < 1e-3 ? [1e-6, "µs"] : to < 1 ? [1e-3, "ms"] : [1, "s"];
  const digits = Math.min(9, Math.max(0, -Math.floor(Math.log10(step / unit) + 1e-9)));
  for (let number = Math.ceil(from / step - 1e-6); number * step <= to + step * 1e-3; number += 1) {
    const at = number * step;
    ticks.push({ at, text: `${(at / unit).toFixed(digits)} ${name}` });
  }
  return { step, ticks };
}
