/**
 * A row of the waterfall: the name in the tree, and a bar on the time axis.
 *
 * In: a node and its state in the view. Out: the filled cells of a row. A row is reused for other
 * nodes, so every update sets all texts and attributes that depend on the node.
 */

import { h, setText } from "../shared/dom.js";
import { duration, line, pathOf } from "../shared/format.js";
import { isObject } from "./tree.js";

/** Largest number of levels of indentation. More levels would leave no space for the names. */
const DEPTH_MAX = 24;
/** Indentation of one level, in pixels. */
const INDENT = 14;

/** The elements and the node of each row. */
const parts = new WeakMap();
let rowCount = 0;

/**
 * Returns the note beside a name: the HTTP call, the AWS operation, the SQL query and the
 * exception.
 *
 * @param {import("./tree.js").Node} node
 * @returns {string}
 */
export function noteOf({ data }) {
  const notes = [];
  const { request, response } = isObject(data.http) ? data.http : {};
  const call = [request?.method, pathOf(request?.url), response?.status];
  notes.push(
    call
      .filter((part) => part !== undefined && part !== "")
      .map((part) => line(part, 120))
      .join(" "),
  );
  if (isObject(data.aws)) {
    const { operation, table_name: table, bucket_name: bucket, queue_url: queue } = data.aws;
    notes.push(
      [operation, table ?? bucket ?? pathOf(queue)].map((part) => line(part, 80)).join(" "),
    );
  }
  if (isObject(data.sql)) notes.push(line(data.sql.sanitized_query, 120));
  const exception = data.cause?.exceptions?.[0];
  if (isObject(exception)) notes.push(line(exception.type ?? exception.message, 80));
  return notes.filter((note) => note.trim() !== "").join("  ");
}

/**
 * Creates an empty row.
 *
 * @param {object} on
 * @param {(node: import("./tree.js").Node) => void} on.pick Called when the row is clicked.
 * @param {(node: import("./tree.js").Node) => void} on.toggle Called to open or close the children.
 * @returns {HTMLElement}
 */
export function createRow({ pick, toggle }) {
  const part = (name) => h("span", { class: name });
  const own = {
    /** @type {any} The node; null until the row is filled. */
    node: null,
    indent: part("indent"),
    twist: part("twist"),
    badge: part("ns"),
    name: part("wf-name"),
    note: part("wf-note"),
    bar: part("wf-bar"),
    label: part("wf-label"),
  };
  rowCount += 1;
  const { indent, twist, badge, name, note, bar, label } = own;
  const row = h(
    "div",
    { class: "wf-row", role: "row", id: `wf-row-${rowCount}` },
    h("div", { class: "wf-tree", role: "gridcell" }, indent, twist, badge, name, note),
    h("div", { class: "wf-time", role: "gridcell" }, h("div", { class: "track" }, bar, label)),
  );
  parts.set(row, own);
  twist.addEventListener("click", (event) => {
    if (own.node.children.length === 0) return;
    event.stopPropagation();
    toggle(own.node);
  });
  row.addEventListener("click", () => pick(own.node));
  return row;
}

/**
 * Fills a row with a node.
 *
 * @param {HTMLElement} row
 * @param {{node: import("./tree.js").Node, depth: number}} what
 * @param {object} how
 * @param {number} how.index
 * @param {boolean} how.isSelected
 * @param {boolean} how.isOpen Whether the children are shown.
 * @param {boolean} how.isFound Whether the search matches the row.
 * @param {{start: number, end: number}} how.span Time range of the axis, in seconds since 1970.
 * @param {boolean} how.isAdjusted Whether clocks are adjusted.
 */
export function updateRow(row, { node, depth }, how) {
  const own = parts.get(row);
  own.node = node;
  row.dataset.state = node.state;
  row.dataset.nodeId = node.id;
  row.classList.toggle("is-segment", node.isSegment);
  row.classList.toggle("is-open-ended", node.inProgress);
  row.classList.toggle("is-found", how.isFound);
  row.setAttribute("aria-level", String(depth + 1));
  row.setAttribute("aria-rowindex", String(how.index + 2));
  row.setAttribute("aria-selected", String(how.isSelected));
  if (node.children.length > 0) row.setAttribute("aria-expanded", String(how.isOpen));
  else row.removeAttribute("aria-expanded");
  own.indent.style.width = `${INDENT * Math.min(depth, DEPTH_MAX)}px`;
  setText(own.badge, node.namespace);
  own.badge.hidden = node.namespace === "";
  own.badge.dataset.ns = node.namespace;
  setText(own.name, line(node.name, 200));
  own.name.title = line(node.name, 500);
  const orphan = { missing: "(parent missing)", ring: "(parents in a ring)" }[node.orphan];
  setText(own.note, [orphan, noteOf(node)].filter(Boolean).join("  "));
  place(own, node, how);
}

/** Places the bar and its label on the time axis. */
function place({ bar, label }, node, { span, isAdjusted }) {
  bar.hidden = node.start === null;
  if (node.start === null) {
    label.style.left = "0";
    return setText(label, "no time");
  }
  const length = span.end - span.start || 1;
  const shift = isAdjusted ? node.shift : 0;
  const from = (node.start + shift - span.start) / length;
  const end = node.end === null ? span.end : Math.max(node.end, node.start) + shift;
  const to = Math.min(1, (end - span.start) / length);
  bar.style.left = `${100 * from}%`;
  bar.style.width = `${100 * Math.max(0, to - from)}%`;
  label.style.left = `${100 * Math.max(from, to)}%`;
  const took = node.end === null ? "in progress" : duration(node.end - node.start);
  const sign = shift > 0 ? "+" : "";
  setText(label, shift === 0 ? took : `${took}, clock ${sign}${duration(shift)}`);
}
