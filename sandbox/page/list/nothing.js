/**
 * The message of an empty list of traces, and the status line below the list.
 *
 * In: counts of traces, the state of the connection, and the counts of the store. Out: elements,
 * and a line of text.
 */

import { connectGuide } from "../guide/connect.js";
import { h } from "../shared/dom.js";
import { count, plural, size } from "../shared/format.js";

/** @typedef {"loading"|"none"|"lost"|"guide"} Nothing Reason why the list has no rows. */

/**
 * Returns the reason why the list has no rows.
 *
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
  lost: ["The sandbox does not answer", "The page keeps trying."],
};

/**
 * The guide for connecting an application. It is created only once, so that it keeps the SDK that
 * the user selected.
 *
 * @type {HTMLElement|null}
 */
let guide = null;

/**
 * Creates the message that an empty list shows instead of rows.
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
 * Says above the guide what arrived without a trace: requests that were not sampled, and refused
 * documents. Otherwise the user would look for a fault in the connection.
 *
 * @param {HTMLElement} box The element with the message of the empty list.
 * @param {{unsampledCount: number, refusedCount: number}} counts
 */
export function tellMissing(box, { unsampledCount, refusedCount }) {
  const place = box.querySelector(".guide .waiting");
  const key = `${unsampledCount} ${refusedCount}`;
  if (!place || box.dataset.missing === key) return;
  box.dataset.missing = key;
  box.querySelector(".missing")?.remove();
  const link = (view, text) => h("a", { class: "link", href: `#/${view}`, text });
  const parts = [
    unsampledCount > 0 && [
      `${plural(unsampledCount, "request")} arrived at SDKs and were not sampled. `,
      link("rules", "Sampling rules"),
    ],
    refusedCount > 0 && [
      `${plural(refusedCount, "document")} arrived and were refused. `,
      link("refused", "What was refused"),
    ],
  ].filter((part) => part !== false);
  if (parts.length === 0) return;
  place.after(h("div", { class: "missing", role: "status" }, parts.map((part) => h("p", {}, part))));
}

/**
 * Formats the status line: the number of traces, and the content of the store.
 *
 * @param {object} state
 * @param {number} state.shownCount
 * @param {number} state.allCount
 * @param {boolean} state.isPaused
 * @param {number} state.waitingCount Number of traces that arrived since the list was paused.
 * @param {any} state.store
 * @returns {string}
 */
export function statusLine({ shownCount, allCount, isPaused, waitingCount, store }) {
  const all = plural(allCount, "trace");
  const parts = [shownCount === allCount ? all : `${count(shownCount)} of ${all}`];
  if (isPaused)
    parts.unshift(waitingCount > 0 ? `Paused, ${count(waitingCount)} more since` : "Paused");
  if (store) parts.push(`${plural(store.document_count, "document")}, ${size(store.size_bytes)}`);
  if (store?.evicted_trace_count > 0) {
    parts.push(`${plural(store.evicted_trace_count, "older trace")} evicted`);
  }
  return parts.join("  ·  ");
}
