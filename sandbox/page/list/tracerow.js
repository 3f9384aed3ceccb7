/**
 * A row of the list of traces. It is a link to its trace, so that the browser can open it in another
 * tab.
 *
 * In: the summary of a trace. Out: the filled cells of a row. A row is reused for other traces, so
 * every update sets all texts and attributes that depend on the summary.
 */

import { h, setText } from "../shared/dom.js";
import { stateOf, statusClass } from "./filter.js";
import { clock, duration, line, moment, pathFirst } from "../shared/format.js";
import { format } from "../shared/router.js";
import { bar } from "./scale.js";

const FLAGS = [
  ["fault", "fault"],
  ["error", "error"],
  ["throttle", "throttle"],
  ["in_progress", "in progress"],
];

/** The elements of each row, and the id of its trace. */
const parts = new WeakMap();
let rowCount = 0;

/**
 * Creates an empty row.
 *
 * @param {(id: string) => void} open Called when the row is clicked.
 * @returns {HTMLElement}
 */
export function createRow(open) {
  const part = (name) => h("span", { class: name });
  const own = {
    id: "",
    name: part("name"),
    method: part("method"),
    url: part("url"),
    hit: h("span", { class: "hit", hidden: true }),
    status: part("status"),
    meter: part("meter-fill"),
    duration: part("duration"),
    start: part("start"),
    services: part("services-text"),
    flags: FLAGS.map(([flag, label]) => h("span", { class: `flag ${flag}`, text: label })),
  };
  const cell = (name, ...children) =>
    h("div", { class: `cell ${name}`, role: "gridcell" }, children);
  rowCount += 1;
  const row = h(
    "a",
    {
      class: "trace-row",
      role: "row",
      id: `trace-row-${rowCount}`,
      tabIndex: -1,
      // Text in the row can be selected.
      draggable: "false",
    },
    cell("state", part("dot")),
    cell("trace", own.name, own.hit, own.method, own.url),
    cell("status-cell", own.status),
    cell("duration-cell", own.duration, h("span", { class: "meter" }, own.meter)),
    cell("start-cell", own.start),
    cell("services", own.services),
    cell("flags", own.flags),
  );
  parts.set(row, own);
  row.addEventListener("click", (event) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    // A click that ends a selection of text does not open the trace.
    if (String(getSelection()) === "") open(own.id);
  });
  return row;
}

/** Shows where a searched word was found, if the row does not show it anyway. */
function showHit(element, hit) {
  element.hidden = !hit;
  if (!hit) return element.replaceChildren();
  const { kind, before, word, after } = hit;
  element.replaceChildren(
    h("b", { text: kind }),
    " ",
    h("span", { class: "hit-before", text: line(before, 60) }),
    h("mark", { text: line(word, 200) }),
    line(after, 60),
  );
  element.title = line(before + word + after, 400);
}

/**
 * Fills a row with a trace.
 *
 * @param {HTMLElement} row
 * @param {any} trace
 * @param {object} how
 * @param {number} how.index
 * @param {boolean} how.isSelected
 * @param {boolean} how.isFresh Whether the trace is highlighted as new.
 * @param {number} how.full Duration of a full bar, in seconds.
 * @param {any} how.hit Where a searched word was found, if the row does not show it anyway.
 */
export function updateRow(row, trace, { index, isSelected, isFresh, full, hit }) {
  const own = parts.get(row);
  own.id = trace.id;
  const state = stateOf(trace);
  row.dataset.state = state;
  row.dataset.traceId = trace.id;
  row.setAttribute("href", format({ view: "trace", id: trace.id }));
  row.classList.toggle("is-odd", index % 2 === 1);
  row.classList.toggle("is-fresh", isFresh);
  row.setAttribute("aria-selected", String(isSelected));
  row.setAttribute("aria-rowindex", String(index + 2));
  const { method, url, status } = trace.http ?? {};
  setText(own.name, line(trace.name, 200) || "?");
  setText(own.method, line(method, 12));
  setText(own.url, pathFirst(url));
  own.url.title = line(url, 1000);
  setText(own.status, line(status, 6) || "–");
  showHit(own.hit, hit);
  own.status.dataset.class = statusClass(trace);
  const isOpen = trace.in_progress && !(trace.duration_seconds > 0);
  setText(own.duration, isOpen ? "…" : duration(trace.duration_seconds));
  const { part, isBeyond } = bar(trace.duration_seconds, full);
  own.meter.style.width = `${100 * part}%`;
  own.meter.classList.toggle("is-beyond", isBeyond);
  const scale = `A full bar is ${duration(full)}`;
  own.meter.parentElement.title = isBeyond ? `Longer than the bar. ${scale}` : scale;
  setText(own.start, clock(trace.start_time));
  own.start.title = moment(trace.start_time);
  const services = (trace.services ?? []).filter((name) => name !== trace.name);
  setText(own.services, line(services.slice(0, 8).join(", "), 200));
  own.services.title = line(services.join(", "), 1000);
  own.flags.forEach((flag, at) => (flag.hidden = trace[FLAGS[at][0]] !== true));
}
