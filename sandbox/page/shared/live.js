/**
 * Polls the traces of the sandbox.
 *
 * In: answers of `/api/traces`, which is polled twice a second. Out: a map of summaries by id, the
 * ids that a filter expression matches, and the state of the connection. Each listener is called
 * after a change. Bound: the traces that the sandbox stores; the page removes traces that the
 * sandbox evicted.
 */

import { messageOf, statusOf, traces as fetchTraces } from "./api.js";

/**
 * Time between two polls while the page is visible, in milliseconds. The daemon sends a segment
 * after at most one second, so a trace is on the page within two seconds.
 */
export const POLL_MS = 500;
/** Time between two polls while the page is hidden, and longest time after failed polls, in ms. */
export const POLL_HIDDEN_MS = 5000;

/**
 * Returns the time until the next poll.
 *
 * @param {{hidden: boolean, failureCount: number}} state Number of failures in a row.
 * @returns {number} Milliseconds.
 */
export function pollDelay({ hidden, failureCount }) {
  if (hidden) return POLL_HIDDEN_MS;
  return Math.min(POLL_MS * 2 ** failureCount, POLL_HIDDEN_MS);
}

/** The traces that the page knows. */
export class Live {
  /** @type {Map<string, any>} Summaries by trace id. */
  traces = new Map();
  /** @type {any} The counts of the sandbox's store; null before the first answer. */
  store = null;
  /** @type {"connecting"|"live"|"lost"} */
  connection = "connecting";
  /** @type {Set<string>|null} Ids of traces that the filter matches; null while not known. */
  matched = null;
  /** Error message of the sandbox if it refuses the filter expression; empty otherwise. */
  refusal = "";
  /** Number that grows with every change. */
  version = 0;

  #fetch;
  #revision = 0;
  #expression = "";
  #failureCount = 0;
  #isMatchStale = false;
  /** @type {(() => void)[]} */
  #listeners = [];
  #timer = 0;
  /** @type {Promise<void>|null} The poll that is running. */
  #polling = null;

  /** @param {typeof fetchTraces} [fetch] */
  constructor(fetch = fetchTraces) {
    this.#fetch = fetch;
  }

  /**
   * Adds a listener, which is called after every change.
   *
   * @param {() => void} listener
   */
  listen(listener) {
    this.#listeners.push(listener);
  }

  /** Starts polling. */
  start() {
    document.addEventListener("visibilitychange", () => this.#schedule(document.hidden));
    this.#schedule();
  }

  /** Polls now, without waiting for the interval. */
  poll() {
    clearTimeout(this.#timer);
    this.#polling ??= this.#round().finally(() => {
      this.#polling = null;
      this.#schedule(true);
    });
    return this.#polling;
  }

  /**
   * Schedules the next poll.
   *
   * @param {boolean} [later] Whether to wait for the interval first.
   */
  #schedule(later = false) {
    clearTimeout(this.#timer);
    const state = { hidden: document.hidden, failureCount: this.#failureCount };
    this.#timer = setTimeout(() => this.poll(), later ? pollDelay(state) : 0);
  }

  /**
   * Sets the filter expression that the sandbox evaluates with every poll.
   *
   * @param {string} expression Empty for no expression.
   */
  async setExpression(expression) {
    if (expression === this.#expression) return;
    this.#expression = expression;
    this.matched = null;
    this.refusal = "";
    this.#tell();
    if (expression === "") return;
    // A poll that is already running may not include the new expression.
    await this.#polling;
    await this.poll();
  }

  /** @returns {Promise<void>} */
  async #round() {
    const since = this.#revision;
    const before = `${this.connection} ${this.store?.trace_count}`;
    let changed = false;
    try {
      const answer = await this.#fetch(since);
      if (answer.gone) return this.#startAnew();
      changed = this.#merge(answer);
      const isStale = this.#isMatchStale || this.matched === null;
      if (this.#expression !== "" && (changed || isStale)) {
        await this.#match(isStale ? 0 : since, answer.traces);
        changed = true;
      }
      this.connection = "live";
      this.#failureCount = 0;
    } catch {
      this.connection = "lost";
      this.#failureCount += 1;
      // The sandbox may not have checked the traces of this poll against the expression.
      this.#isMatchStale = true;
    }
    const after = `${this.connection} ${this.store?.trace_count}`;
    if (changed || before !== after) this.#tell();
  }

  /** Removes all traces, because the sandbox was restarted or its traces were deleted. */
  #startAnew() {
    this.traces.clear();
    this.#revision = 0;
    this.matched = null;
    this.#tell();
    return this.#round();
  }

  /** @returns {boolean} Whether anything changed. */
  #merge({ revision, store, traces }) {
    for (const trace of traces) this.traces.set(trace.id, trace);
    this.#revision = revision;
    this.store = store;
    const surplus = this.traces.size - store.trace_count;
    if (surplus > 0) {
      // The sandbox evicts the traces that have not changed for the longest time.
      const oldest = [...this.traces.values()].sort((one, other) => one.revision - other.revision);
      for (const trace of oldest.slice(0, surplus)) this.traces.delete(trace.id);
    }
    return traces.length > 0 || surplus > 0;
  }

  /**
   * Asks the sandbox which traces match the expression. The request uses the revision of the
   * previous poll, so the answer covers every trace in `changed`. A trace of `changed` that is not
   * in the answer does not match.
   */
  async #match(since, changed) {
    const expression = this.#expression;
    try {
      const { traces } = await this.#fetch(since, expression);
      if (expression !== this.#expression) return;
      const matched = since === 0 ? new Set() : (this.matched ?? new Set());
      for (const trace of changed) matched.delete(trace.id);
      for (const trace of traces) matched.add(trace.id);
      this.#isMatchStale = false;
      this.matched = matched;
      this.refusal = "";
    } catch (error) {
      if (expression !== this.#expression) return;
      if (statusOf(error) !== 400) throw error;
      this.matched = new Set();
      this.refusal = messageOf(error);
    }
  }

  #tell() {
    this.version += 1;
    for (const listener of this.#listeners) listener();
  }
}
