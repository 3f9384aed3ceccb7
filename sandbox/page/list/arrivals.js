/**
 * Which traces have just come, and how many of them above what people see.
 *
 * In: the rows before and after. Out: whether a row is to light up, and a count. Bound: the
 * arrivals of the last seconds.
 */

/** How long a row is new, and how long that is remembered; milliseconds. */
const FRESH_MS = 1200;
const KEPT_MS = 2000;

/** The arrivals; see the module. */
export class Arrivals {
  /** Traces that came above the rows that are seen. */
  aboveCount = 0;

  #times = new Map();

  /**
   * Notes which rows are new.
   *
   * @param {object[]} before
   * @param {object[]} after
   * @param {number|undefined} anchor The row that stays where it is; what comes above is counted.
   */
  note(before, after, anchor) {
    const now = performance.now();
    for (const [id, time] of this.#times) if (now - time > KEPT_MS) this.#times.delete(id);
    // The first rows are no news.
    if (before.length === 0) return;
    const known = new Set(before.map((trace) => trace.id));
    after.forEach((trace, index) => {
      if (known.has(trace.id)) return;
      this.#times.set(trace.id, now);
      if (anchor !== undefined && index < anchor) this.aboveCount += 1;
    });
  }

  /** @param {string} id */
  isFresh(id) {
    const time = this.#times.get(id);
    return time !== undefined && performance.now() - time < FRESH_MS;
  }
}
