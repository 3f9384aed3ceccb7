/**
 * Tracks which traces are new in the list.
 *
 * In: the traces of the list before and after a change. Out: whether a row is highlighted as new,
 * and the number of new traces above the visible rows. Bound: the traces that arrived in the last
 * {@link KEPT_MS}.
 */

/** A new row stays highlighted for this time, in milliseconds. */
const FRESH_MS = 1200;
/** Time after which the arrival of a trace is removed from the map, in milliseconds. */
const KEPT_MS = 2000;

/** The new traces. See the module. */
export class Arrivals {
  /** Number of new traces above the visible rows. */
  aboveCount = 0;

  /** @type {Map<string, number>} Times of arrival by trace id, in milliseconds. */
  #times = new Map();

  /**
   * Records which traces are new.
   *
   * @param {any[]} before
   * @param {any[]} after
   * @param {number|undefined} anchor Index of the row that does not move. New traces above this row
   *   are counted.
   */
  note(before, after, anchor) {
    const now = performance.now();
    for (const [id, time] of this.#times) if (now - time > KEPT_MS) this.#times.delete(id);
    // If the list was empty before, its traces are not highlighted.
    if (before.length === 0) return;
    const known = new Set(before.map((trace) => trace.id));
    after.forEach((trace, index) => {
      if (known.has(trace.id)) return;
      this.#times.set(trace.id, now);
      if (anchor !== undefined && index < anchor) this.aboveCount += 1;
    });
  }

  /**
   * Returns whether a trace is highlighted as new.
   *
   * @param {string} id
   */
  isFresh(id) {
    const time = this.#times.get(id);
    return time !== undefined && performance.now() - time < FRESH_MS;
  }
}
