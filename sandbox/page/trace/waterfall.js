/**
 * The waterfall of a trace: a row for each segment and subsegment, with a bar on the time axis.
 *
 * In: the model of `tree.js`. Out: elements for the visible rows, and the row that the user
 * selects. Bound: the number of nodes in the model.
 */

import { h } from "../shared/dom.js";
import { duration } from "../shared/format.js";
import { stepOf } from "../shared/keys.js";
import { rows, span } from "./tree.js";
import { VirtualList } from "../shared/virtual.js";
import { createRow, noteOf, updateRow } from "./segmentrow.js";

/** Height of a row, in pixels. */
const ROW_HEIGHT = 28;
/** Smallest distance between two ticks of the axis, in pixels. */
const TICK_WIDTH = 96;

/**
 * Returns the step of an axis: 1, 2 or 5 times a power of ten.
 *
 * @param {number} length Length of the axis, in seconds.
 * @param {number} countMax Largest number of steps.
 * @returns {number} Seconds; 0 for an axis without length.
 */
export function tickStep(length, countMax) {
  if (!(length > 0) || countMax < 1) return 0;
  const least = length / countMax;
  const power = 10 ** Math.floor(Math.log10(least));
  const steps = [1, 2, 5, 10].map((factor) => factor * power);
  return steps.find((step) => step >= least * 0.999) ?? 0;
}

/** The waterfall. See the module. */
export class Waterfall {
  /** @type {HTMLElement} */
  element;
  /** @type {import("./tree.js").Node|null} */
  selected = null;

  #choose;
  #list;
  #axis;
  #ticks;
  /** @type {import("./tree.js").Model|null} */
  #model = null;
  /** @type {Set<import("./tree.js").Node>} */
  #collapsed = new Set();
  #adjusted = true;
  #span = { start: 0, end: 0 };
  /** @type {Set<import("./tree.js").Node>|null} Nodes that the search finds; null if no search. */
  #found = null;

  /**
   * @param {(node: import("./tree.js").Node) => void} choose Called when the user selects a row.
   */
  constructor(choose) {
    this.#choose = choose;
    this.#ticks = h("div", { class: "ticks" });
    this.#axis = h(
      "div",
      { class: "wf-row axis", role: "row" },
      h("div", { class: "wf-tree", role: "columnheader", text: "Segment" }),
      h("div", { class: "wf-time", role: "columnheader", "aria-label": "Time" }, this.#ticks),
    );
    this.element = h(
      "div",
      {
        class: "waterfall",
        role: "treegrid",
        tabIndex: 0,
        "aria-label": "Timeline",
      },
      this.#axis,
    );
    this.#list = new VirtualList(this.element, {
      rowHeight: ROW_HEIGHT,
      create: () =>
        createRow({
          pick: (node) => this.#pick(node),
          toggle: (node) => this.#toggle(node, !this.#collapsed.has(node)),
        }),
      update: (element, row, index) => this.#update(element, row, index),
    });
    new ResizeObserver(() => this.#drawAxis()).observe(this.#axis);
  }

  /**
   * Shows a trace. Rows that were collapsed before stay collapsed.
   *
   * @param {import("./tree.js").Model} model
   * @param {boolean} adjusted Whether clocks are adjusted.
   */
  show(model, adjusted) {
    const keys = new Set([...this.#collapsed].map((node) => node.id));
    this.#collapsed = new Set(
      model.nodes.filter((node) => node.id && keys.has(node.id) && node.children.length),
    );
    this.#model = model;
    this.#adjusted = adjusted;
    this.#span = span(model.nodes, adjusted);
    this.element.scrollLeft = 0;
    this.#drawAxis();
    this.#redraw();
  }

  /** Clears selection, collapsed rows and scroll position before another trace is shown. */
  reset() {
    this.#collapsed.clear();
    this.selected = null;
    this.#found = null;
    this.element.scrollTop = 0;
  }

  /**
   * Selects a row, and scrolls to it.
   *
   * @param {import("./tree.js").Node|null} node
   */
  select(node) {
    this.selected = node;
    if (!node) return this.#list.draw(true);
    for (let above = node.parent; above; above = above.parent) this.#collapsed.delete(above);
    this.#redraw();
    const index = this.#list.items.findIndex((row) => row.node === node);
    if (index >= 0) this.#list.reveal(index);
  }

  /**
   * Collapses or expands all rows.
   *
   * @param {boolean} collapsed
   */
  setAll(collapsed) {
    if (!this.#model) return;
    const { nodes } = this.#model;
    this.#collapsed = new Set(collapsed ? nodes.filter((node) => node.children.length > 0) : []);
    this.element.scrollTop = 0;
    this.#redraw();
  }

  /**
   * Marks the rows that contain a text, and selects the next one.
   *
   * @param {string} text
   * @param {number} [direction] 1 for the next row, -1 for the previous row, 0 to stay at a row
   *   that matches.
   * @returns {number} Number of rows that contain the text.
   */
  find(text, direction = 0) {
    const needle = text.trim().toLowerCase();
    const has = (node) => `${node.name} ${noteOf(node)} ${node.id}`.toLowerCase().includes(needle);
    const roots = needle === "" || !this.#model ? [] : this.#model.roots;
    const all = rows(roots, new Set()).map((row) => row.node);
    const found = all.filter(has);
    this.#found = needle === "" ? null : new Set(found);
    if (found.length === 0) this.#list.draw(true);
    else {
      const position = new Map(all.map((node, index) => [node, index]));
      const indexOf = (node) => position.get(node) ?? -1;
      const at = this.selected ? indexOf(this.selected) : -1;
      const least = direction === 0 ? at : at + 1;
      const next =
        direction < 0
          ? (found.findLast((node) => indexOf(node) < at) ?? found.at(-1))
          : (found.find((node) => indexOf(node) >= least) ?? found[0]);
      this.#pick(next);
    }
    return found.length;
  }

  /**
   * Handles a key.
   *
   * @param {KeyboardEvent} event
   * @returns {boolean} Whether the waterfall used the key.
   */
  key(event) {
    const { items, pageSize } = this.#list;
    const step = stepOf(event.key, pageSize);
    const at = items.findIndex((row) => row.node === this.selected);
    if (step !== undefined && items.length > 0) {
      const next = Math.min(Math.max(at + step, 0), items.length - 1);
      this.#pick(items[next].node);
      return true;
    }
    if (at < 0) return false;
    const { node } = items[at];
    const isOpen = node.children.length > 0 && !this.#collapsed.has(node);
    if (event.key === "ArrowRight" || event.key === "l") {
      if (isOpen) this.#pick(node.children[0]);
      else this.#toggle(node, false);
      return true;
    }
    if (event.key === "ArrowLeft" || event.key === "h") {
      if (isOpen) this.#toggle(node, true);
      else if (node.parent) this.#pick(node.parent);
      return true;
    }
    return false;
  }

  #pick(node) {
    this.select(node);
    this.#choose(node);
  }

  #toggle(node, collapse) {
    if (collapse) this.#collapsed.add(node);
    else this.#collapsed.delete(node);
    this.#redraw();
  }

  #redraw() {
    if (!this.#model) return;
    const shown = rows(this.#model.roots, this.#collapsed);
    this.element.setAttribute("aria-rowcount", String(shown.length + 1));
    this.#list.setItems(shown);
  }

  #drawAxis() {
    const length = this.#span.end - this.#span.start;
    const width = this.#ticks.clientWidth;
    const step = tickStep(length, Math.floor(width / TICK_WIDTH));
    const ticks = [];
    for (let at = 0; step > 0 && at <= length * 1.0001; at += step) {
      const tick = h("span", {
        class: "tick",
        text: duration(at),
        style: { left: `${(100 * at) / length}%` },
      });
      ticks.push(tick);
    }
    this.#ticks.replaceChildren(...ticks);
    this.element.style.setProperty("--step", step > 0 ? `${(100 * step) / length}%` : "100%");
  }

  #update(element, row, index) {
    const isSelected = row.node === this.selected;
    updateRow(element, row, {
      index,
      isSelected,
      isOpen: !this.#collapsed.has(row.node),
      isFound: this.#found?.has(row.node) === true,
      span: this.#span,
      isAdjusted: this.#adjusted,
    });
    if (isSelected) this.element.setAttribute("aria-activedescendant", element.id);
  }
}
