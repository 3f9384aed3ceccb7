/**
 * What the list of traces says where it has no rows, and in its last line.
 *
 * In: counts, the state of the connection and of the store. Out: elements, and a line of text.
 */

import { connectGuide } from "../guide/connect.js";
import { h } from "../shared/dom.js";
import { count, plural, size } from "../shared/format.js";

/** @typedef {"loading"|"none"|"lost"|"guide"} Nothing Why there are no rows. */

/**
 * @param {{connection: string, isLoading: boolean, allCount: number}} state
 * @returns {Nothing}
 */
export function kindOfNothing({ connection, isLoading, allCount }) {
  if (isLoading) return "loading";
  if (allCount > 0) return "none";
  return connection === "lost" ? "lost" : "guide";
}

const WORDS = {
  loading: ["Loading…", ""],
  none: ["No trace matches", "Change the filter, or clear it."],
  lost: ["The sandbox does not answer", "The page goes on asking."],
};

/** Made once: it keeps the SDK that somebody chose in it. */
let guide = null;

/**
 * What stands in place of rows.
 *
 * @param {Nothing|""} kind
 * @returns {HTMLElement[]}
 */
export function nothing(kind) {
  if (kind === "") return [];
  if (kind === "guide") return [(guide ??= connectGuide({ isWaiting: true }))];
  const [title, text] = WORDS[kind];
  return [h("div", { class: `empty-note ${kind}` }, h("h2", { text: title }), h("p", { text }))];
}

/**
 * The last line: how many traces, and what the store holds.
 *
 * @param {object} state
 * @param {number} state.shownCount
 * @param {number} state.allCount
 * @param {boolean} state.isPaused
 * @param {number} state.waitingCount Come since it was paused.
 * @param {object|null} state.store
 * @returns {string}
 */
export function statusLine({ shownCount, allCount, isPaused, waitingCount, store }) {
  const all = plural(allCount, "trace");
  const parts = [shownCount === allCount ? all : `${count(shownCount)} of ${all}`];
  if (isPaused)
    parts.unshift(waitingCount > 0 ? `Paused, ${count(waitingCount)} more since` : "Paused");
  if (store) parts.push(`${plural(store.document_count, "document")}, ${size(store.size_bytes)}`);
  if (store?.evicted_trace_count > 0) {
    parts.push(`${count(store.evicted_trace_count)} older ones have given way`);
  }
  return parts.join("  ·  ");
}
