/**
 * Tracks which traces are new in the list.
 *
 * In: all traces, and those of the list. Out: whether a row is highlighted as new, and the number of
 * new traces above the visible rows. Bound: all traces; and those that arrived in the last
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

  /** @type {Set<string>} Ids of all traces at the last change. */
  #known = new Set();
  /** @type {Map<string, number>} Times of arrival by trace id, in milliseconds. */
  #times = new Map();

  /**
   * Records which traces are new. A trace that another filter has hidden is not new.
   *
   * @param {any[]} all All traces, also those that the filter hides.
   * @param {any[]} after The traces of the list.
   * @param {number|undefined} anchor Index of the row that does not move. New traces above this row
   *   are counted.
   */
  note(all, after, anchor) {
    const now = performance.now();
    for (const [id, time] of this.#times) if (now - time > KEPT_MS) this.#times.delete(id);
    const known = this.#known;
    this.#known = new Set(all.map((trace) => trace.id));
    // The traces that the page has loaded first are not highlighted.
    if (known.size === 0) return;
    const arrived = new Set();
    for (const id of this.#known) {
      if (known.has(id)) continue;
      arrived.add(id);
      this.#times.set(id, now);
    }
    if (arrived.size === 0 || anchor === undefined) return;
    for (const trace of after.slice(0, anchor)) if (arrived.has(trace.id)) this.aboveCount += 1;
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
