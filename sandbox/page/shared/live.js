/**
 * Polls the traces of the sandbox.
 *
 * In: answers of `/api/traces`, which is polled twice a second, and of `/api/search`. Out: a map of
 * summaries by id, the traces that the text of the filter box matches, and the state of the
 * connection. Each listener is called after a change. Bound: the traces that the sandbox stores; the
 * page removes traces that the sandbox evicted.
 *
 * @typedef {object} Found An answer of `/api/search`.
 * @property {"nothing"|"expression"|"words"|"broken"} mode What the text is.
 * @property {{position: number, text: string}|null} problem What is wrong with a broken expression.
 * @property {string|null} begun The keyword or annotation that the text begins, if no trace matches.
 * @property {string[]} matched Ids of traces.
 * @property {boolean} gone Whether the sandbox does not know the revision.
 * @property {Record<string, {kind: string, before: string, word: string, after: string}>} hits Where
 *   a word was found that the list does not show, by id.
 */

import { search as fetchFound, traces as fetchTraces } from "./api.js";

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
  /** Number of requests that SDKs reported as not sampled. */
  unsampledCount = 0;
  /** Number of documents that the sandbox refused. */
  refusedCount = 0;
  /** @type {Set<string>|null} Ids of traces that the text matches; null if all traces are shown. */
  matched = null;
  /** @type {Found["hits"]} Where a word was found, by id. */
  hits = {};
  /** @type {Found|null} The last answer for the current text; null before it. */
  found = null;
  /** Number that grows with every change. */
  version = 0;

  #fetch;
  #search;
  #revision = 0;
  /** The text of the filter box. */
  #text = "";
  /** The text for which `matched` is. It is an earlier one while the text is half typed. */
  #applied = "";
  #failureCount = 0;
  #isMatchStale = false;
  /** @type {(() => void)[]} */
  #listeners = [];
  #timer = 0;
  /** @type {Promise<void>|null} The poll that is running. */
  #polling = null;

  /**
   * @param {typeof fetchTraces} [fetch]
   * @param {typeof fetchFound} [search]
   */
  constructor(fetch = fetchTraces, search = fetchFound) {
    this.#fetch = fetch;
    this.#search = search;
  }

  /** Whether the sandbox has not yet answered for the current text. */
  get isSearching() {
    return this.#text !== "" && this.found === null;
  }

  /** Whether the list is still that of an earlier text, because the current one is half typed. */
  get isKept() {
    return this.found !== null && this.#applied !== this.#text;
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
   * Sets the text of the filter box: words or an expression.
   *
   * @param {string} text Empty for no filter.
   */
  async setText(text) {
    const trimmed = text.trim();
    if (trimmed === this.#text) return;
    this.#text = trimmed;
    this.found = null;
    if (trimmed === "") {
      this.#applied = "";
      this.matched = null;
      this.hits = {};
      this.#tell();
      return;
    }
    // A poll that is already running may not include the new text.
    await this.#polling;
    await this.poll();
  }

  /** @returns {Promise<void>} */
  async #round() {
    const since = this.#revision;
    const counts = () =>
      [this.connection, this.store?.trace_count, this.unsampledCount, this.refusedCount].join();
    const before = counts();
    let changed = false;
    try {
      const answer = await this.#fetch(since);
      if (answer.gone) return this.#startAnew();
      changed = this.#merge(answer);
      if (this.isSearching) {
        await this.#match();
        changed = true;
      }
      if (this.#applied !== "" && (answer.traces.length > 0 || this.#isMatchStale)) {
        await this.#rematch(this.#isMatchStale ? 0 : since, answer.traces);
        changed = true;
      }
      this.connection = "live";
      this.#failureCount = 0;
    } catch {
      this.connection = "lost";
      this.#failureCount += 1;
      // The sandbox may not have checked the traces of this poll against the text.
      this.#isMatchStale = true;
    }
    if (changed || before !== counts()) this.#tell();
  }

  /** Removes all traces, because the sandbox was restarted or its traces were deleted. */
  #startAnew() {
    this.traces.clear();
    this.#revision = 0;
    this.#isMatchStale = true;
    this.#tell();
    return this.#round();
  }

  /** @returns {boolean} Whether anything changed. */
  #merge({ revision, store, traces, ...counts }) {
    this.unsampledCount = counts.unsampled_request_count ?? 0;
    this.refusedCount = counts.refused_count ?? 0;
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
   * Asks the sandbox which traces match a new text. If the text is half typed, the list of the text
   * before stays.
   */
  async #match() {
    const text = this.#text;
    const found = await this.#search(text, 0);
    if (text !== this.#text) return;
    this.found = found;
    if (found.mode === "broken" || found.begun !== null) return;
    this.#applied = text;
    this.#isMatchStale = false;
    this.matched = new Set(found.matched);
    this.hits = found.hits;
  }

  /**
   * Asks the sandbox again for the text of the list. The request uses the revision of the previous
   * poll, so the answer covers every trace in `changed`. A trace of `changed` that is not in the
   * answer does not match.
   */
  async #rematch(since, changed) {
    const applied = this.#applied;
    const { matched: found, hits, gone } = await this.#search(applied, since);
    if (applied !== this.#applied) return;
    // The traces were deleted meanwhile. The next poll reads all traces again.
    if (gone) return;
    const matched = since === 0 ? new Set() : (this.matched ?? new Set());
    for (const trace of changed) {
      matched.delete(trace.id);
      delete this.hits[trace.id];
    }
    for (const id of found) matched.add(id);
    this.hits = { ...this.hits, ...hits };
    this.#isMatchStale = false;
    this.matched = matched;
  }

  #tell() {
    this.version += 1;
    for (const listener of this.#listeners) listener();
  }
}
