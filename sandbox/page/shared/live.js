/**
 * The traces of the sandbox, followed as they come.
 *
 * In: answers of `/api/traces`, asked for twice a second. Out: a map of summaries by id, the ids
 * that an expression matches, the state of the connection, and a call to each listener whenever
 * one of them has changed. Bound: what the sandbox itself holds; the page drops what was evicted
 * there.
 */

import { traces as fetchTraces } from "./api.js";

/**
 * Between two polls, while the page is seen and while it is hidden. The daemon lets a segment wait
 * for others for a second; with half of one more a trace is on the page within two.
 */
export const POLL_MS = 500;
export const POLL_HIDDEN_MS = 5000;

/**
 * How long to wait for the next poll.
 *
 * @param {{hidden: boolean, failureCount: number}} state Failures in a row.
 * @returns {number} Milliseconds.
 */
export function pollDelay({ hidden, failureCount }) {
  if (hidden) return POLL_HIDDEN_MS;
  return Math.min(POLL_MS * 2 ** failureCount, POLL_HIDDEN_MS);
}

/** The traces as the page knows them. */
export class Live {
  /** @type {Map<string, object>} */
  traces = new Map();
  /** @type {object|null} What the sandbox says of its store. */
  store = null;
  /** @type {"connecting"|"live"|"lost"} */
  connection = "connecting";
  /** @type {Set<string>|null} The ids that the expression matches; null while not known. */
  matched = null;
  /** Why the sandbox refuses the expression. */
  refusal = "";
  /** Changes with whatever the views draw. */
  version = 0;

  #fetch;
  #revision = 0;
  #expression = "";
  #failureCount = 0;
  #isMatchStale = false;
  #listeners = [];
  #timer = 0;
  #polling = null;

  /** @param {typeof fetchTraces} [fetch] */
  constructor(fetch = fetchTraces) {
    this.#fetch = fetch;
  }

  /** @param {() => void} listener */
  listen(listener) {
    this.#listeners.push(listener);
  }

  /** Polls from now on. */
  start() {
    document.addEventListener("visibilitychange", () => this.#schedule(document.hidden));
    this.#schedule();
  }

  /** Asks at once, whatever the interval. */
  poll() {
    clearTimeout(this.#timer);
    this.#polling ??= this.#round().finally(() => {
      this.#polling = null;
      this.#schedule(true);
    });
    return this.#polling;
  }

  /** @param {boolean} [later] Whether to wait for the interval first. */
  #schedule(later = false) {
    clearTimeout(this.#timer);
    const state = { hidden: document.hidden, failureCount: this.#failureCount };
    this.#timer = setTimeout(() => this.poll(), later ? pollDelay(state) : 0);
  }

  /**
   * Has the sandbox evaluate an expression from now on.
   *
   * @param {string} expression Empty for none.
   */
  async setExpression(expression) {
    if (expression === this.#expression) return;
    this.#expression = expression;
    this.matched = null;
    this.refusal = "";
    this.#tell();
    if (expression === "") return;
    // The round that runs may be past the question.
    await this.#polling;
    await this.poll();
  }

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
      // What came may not have been matched.
      this.#isMatchStale = true;
    }
    const after = `${this.connection} ${this.store?.trace_count}`;
    if (changed || before !== after) this.#tell();
  }

  /** The sandbox is another process: nothing that is known holds. */
  #startAnew() {
    this.traces.clear();
    this.#revision = 0;
    this.matched = null;
    this.#tell();
    return this.#round();
  }

  /** @returns {boolean} Whether anything is different now. */
  #merge({ revision, store, traces }) {
    for (const trace of traces) this.traces.set(trace.id, trace);
    this.#revision = revision;
    this.store = store;
    const surplus = this.traces.size - store.trace_count;
    if (surplus > 0) {
      // The sandbox evicts what was touched longest ago.
      const oldest = [...this.traces.values()].sort((one, other) => one.revision - other.revision);
      for (const trace of oldest.slice(0, surplus)) this.traces.delete(trace.id);
    }
    return traces.length > 0 || surplus > 0;
  }

  /**
   * Asks which traces match. Asked with the revision of the poll before, so the answer speaks of
   * every trace in `changed`; those that are not in it do not match any more.
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
      if (error.status !== 400) throw error;
      this.matched = new Set();
      this.refusal = error.message;
    }
  }

  #tell() {
    this.version += 1;
    for (const listener of this.#listeners) listener();
  }
}
