/**
 * A row of the waterfall: the name in the tree, and a bar on the time axis.
 *
 * In: a node and its state in the view. Out: the filled cells of a row. The bar has the colour of
 * the service; a mark, the name and the frame of the bar have that of the state. A row is reused for
 * other nodes, so every update sets all texts and attributes that depend on the node.
 */

import { h, setText } from "../shared/dom.js";
import { duration, line } from "../shared/format.js";
import { SERVICE_COLOUR_COUNT } from "./overview.js";

/** Largest number of levels of indentation. More levels would leave no space for the names. */
const DEPTH_MAX = 24;
/** Indentation of one level, in pixels. */
const INDENT = 14;

/** A sign for each state, so that the state is seen without colours too. */
export const MARKS = { ok: "", error: "!", fault: "×", throttle: "‖", progress: "…" };

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
export const noteOf = ({ note }) => line(note, 300);

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
    mark: part("wf-mark"),
    badge: part("ns"),
    name: part("wf-name"),
    note: part("wf-note"),
    bar: part("wf-bar"),
    label: part("wf-label"),
  };
  rowCount += 1;
  const { indent, twist, mark, badge, name, note, bar, label } = own;
  const row = h(
    "div",
    { class: "wf-row", role: "row", id: `wf-row-${rowCount}` },
    h("div", { class: "wf-tree", role: "gridcell" }, indent, twist, mark, badge, name, note),
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
 * @param {import("./tree.js").Node} node
 * @param {object} how
 * @param {number} how.index
 * @param {boolean} how.isSelected
 * @param {boolean} how.isOpen Whether the children are shown.
 * @param {boolean} how.isFound Whether the search matches the row.
 * @param {number} how.start Start of the trace, in seconds since 1970.
 * @param {number} how.length Length of the trace, in seconds.
 * @param {import("./window.js").Window} how.window The visible part of the axis.
 * @param {boolean} how.isAdjusted Whether clocks are adjusted.
 */
export function updateRow(row, node, how) {
  const own = parts.get(row);
  own.node = node;
  row.dataset.state = node.state;
  row.dataset.nodeId = node.id;
  if (node.service === null) delete row.dataset.service;
  else row.dataset.service = String(node.service % SERVICE_COLOUR_COUNT);
  row.classList.toggle("is-segment", node.isSegment);
  row.classList.toggle("is-open-ended", node.inProgress);
  row.classList.toggle("is-found", how.isFound);
  row.setAttribute("aria-level", String(node.depth + 1));
  row.setAttribute("aria-rowindex", String(how.index + 2));
  row.setAttribute("aria-selected", String(how.isSelected));
  if (node.children.length > 0) row.setAttribute("aria-expanded", String(how.isOpen));
  else row.removeAttribute("aria-expanded");
  own.indent.style.width = `${INDENT * Math.min(node.depth, DEPTH_MAX)}px`;
  setText(own.mark, MARKS[node.state] ?? "");
  own.mark.hidden = node.state === "ok";
  own.mark.title = node.state;
  setText(own.badge, node.namespace);
  own.badge.hidden = node.namespace === "";
  own.badge.dataset.ns = node.namespace;
  setText(own.name, line(node.name, 200));
  own.name.title = line(node.name, 500);
  const orphan = { missing: "(parent missing)", ring: "(parents in a ring)" }[node.orphan];
  setText(own.note, [orphan, noteOf(node)].filter(Boolean).join("  "));
  own.note.title = noteOf(node);
  place(own, node, how);
}

/** Places the bar and its label on the visible part of the time axis. */
function place({ bar, label }, node, { start, length, window, isAdjusted }) {
  bar.hidden = node.start === null;
  if (node.start === null) {
    label.style.left = "0";
    return setText(label, "no time");
  }
  const shift = (isAdjusted ? node.shift : 0) - start;
  const size = window.to - window.from || 1;
  const shareOf = (at) => (at - window.from) / size;
  const end = node.end === null ? length : Math.max(node.end, node.start) + shift;
  const [from, to] = [shareOf(node.start + shift), shareOf(end)];
  // Parts of a bar that are not visible are cut off, as very wide elements are not drawn exactly.
  const inside = (share) => Math.min(Math.max(share, -0.02), 1);
  bar.hidden = to < 0 || from > 1;
  bar.style.left = `${100 * inside(from)}%`;
  bar.style.width = `${100 * Math.max(0, inside(to) - inside(from))}%`;
  label.style.left = `${100 * Math.min(Math.max(to, 0), 1)}%`;
  const took = node.end === null ? "in progress" : duration(node.end - node.start);
  const clock = isAdjusted && node.shift !== 0 ? `, clock ${node.shift > 0 ? "+" : ""}${duration(node.shift)}` : "";
  const where = to < 0 ? "◂ " : from > 1 ? "▸ " : "";
  setText(label, `${where}${took}${clock}`);
}
