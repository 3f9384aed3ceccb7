/**
 * The waterfall of a trace: a row for each segment and subsegment, with a bar on the time axis.
 *
 * In: the model of `tree.js`. Out: elements for the visible rows, and the row that the user
 * selects. The user can zoom and move the time axis, with keys, the wheel, and by dragging. Bound:
 * the number of nodes in the model.
 */

import { h } from "../shared/dom.js";
import { stepOf } from "../shared/keys.js";
import { Overview } from "./overview.js";
import { rows, span } from "./tree.js";
import { VirtualList } from "../shared/virtual.js";
import { moved, ticksOf, windowOf, zoomed } from "./window.js";
import { createRow, noteOf, updateRow } from "./segmentrow.js";

/** Height of a row, in pixels. */
const ROW_HEIGHT = 28;
/** Factor of one step of the zoom. */
const ZOOM_STEP = 1.5;
/** Shortest movement of the pointer that moves the axis, in pixels. Below, it is a click. */
const DRAG_MIN = 4;

/** The waterfall. See the module. */
export class Waterfall {
  /** @type {HTMLElement} */
  element;
  /** @type {import("./tree.js").Node|null} */
  selected = null;

  #grid;
  #choose;
  #list;
  #axis;
  #ticks;
  #overview;
  #legend;
  /** @type {import("./tree.js").Model|null} */
  #model = null;
  /** @type {Set<import("./tree.js").Node>} */
  #collapsed = new Set();
  #adjusted = true;
  #span = { start: 0, end: 0 };
  /** The visible part of the axis, in seconds since the start of the trace. */
  #window = { from: 0, to: 0 };
  #wasDragged = false;
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
    this.#grid = h(
      "div",
      {
        class: "waterfall",
        role: "treegrid",
        tabIndex: 0,
        "aria-label": "Timeline",
      },
      this.#axis,
    );
    this.#list = new VirtualList(this.#grid, {
      rowHeight: ROW_HEIGHT,
      create: () =>
        createRow({
          pick: (node) => this.#wasDragged || this.#pick(node),
          toggle: (node) => this.#toggle(node, !this.#collapsed.has(node)),
        }),
      update: (element, node, index) => this.#update(element, node, index),
    });
    this.#overview = new Overview((window) => this.#look(window));
    this.#legend = h("ul", { class: "legend services-legend", "aria-label": "Services" });
    this.element = h(
      "div",
      { class: "wf-pane" },
      this.#legend,
      this.#overview.element,
      this.#grid,
    );
    this.#grid.addEventListener("pointerdown", (event) => this.#drag(event));
    this.#grid.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    new ResizeObserver(() => this.#drawAxis()).observe(this.#axis);
  }

  get #length() {
    return this.#span.end - this.#span.start;
  }

  /** Whether only a part of the time axis is visible. */
  get isZoomed() {
    return this.#window.to - this.#window.from < this.#length * 0.9999;
  }

  /** The element that gets the focus. */
  get focusable() {
    return this.#grid;
  }

  /**
   * Shows a trace. Rows that were collapsed before stay collapsed, and the zoom stays.
   *
   * @param {import("./tree.js").Model} model
   * @param {boolean} adjusted Whether clocks are adjusted.
   */
  show(model, adjusted) {
    const keys = new Set([...this.#collapsed].map((node) => node.id));
    this.#collapsed = new Set(
      model.nodes.filter((node) => node.id && keys.has(node.id) && node.children.length),
    );
    const isAll = !this.isZoomed;
    this.#model = model;
    this.#adjusted = adjusted;
    this.#span = span(model.nodes, adjusted);
    const { from, to } = isAll ? { from: 0, to: this.#length } : this.#window;
    this.#window = windowOf(from, to, this.#length);
    this.#grid.scrollLeft = 0;
    this.#overview.show(model.nodes, this.#span, adjusted);
    this.#overview.mark(this.#window);
    this.#drawLegend(model.services);
    this.#drawAxis();
    this.#redraw();
  }

  /** Clears selection, collapsed rows, zoom and scroll position before another trace is shown. */
  reset() {
    this.#collapsed.clear();
    this.selected = null;
    this.#found = null;
    this.#model = null;
    this.#span = { start: 0, end: 0 };
    this.#window = { from: 0, to: 0 };
    this.#grid.scrollTop = 0;
  }

  /**
   * Selects a row, and scrolls to it.
   *
   * @param {import("./tree.js").Node|null} node
   */
  select(node) {
    this.selected = node;
    if (!node) return this.#list.draw(true);
    let wasHidden = false;
    for (let above = node.parent; above; above = above.parent) {
      wasHidden = this.#collapsed.delete(above) || wasHidden;
    }
    if (wasHidden) this.#redraw();
    else this.#list.draw(true);
    const index = this.#list.items.indexOf(node);
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
    this.#grid.scrollTop = 0;
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
    const found = needle === "" || !this.#model ? [] : this.#model.nodes.filter(has);
    this.#found = needle === "" ? null : new Set(found);
    if (found.length === 0) this.#list.draw(true);
    else this.#pickNext(found, direction);
    return found.length;
  }

  /**
   * Selects the next row with an error, a throttle or a fault.
   *
   * @param {number} direction 1 for the next row, -1 for the previous row.
   */
  nextFailure(direction) {
    const failures = this.#model?.failures ?? [];
    if (failures.length > 0) this.#pickNext(failures, direction);
  }

  /** Selects the next of some nodes, which are in the order of the rows. */
  #pickNext(nodes, direction) {
    const at = this.selected?.index ?? -1;
    const least = direction === 0 ? at : at + 1;
    const next =
      direction < 0
        ? (nodes.findLast((node) => node.index < at) ?? nodes.at(-1))
        : (nodes.find((node) => node.index >= least) ?? nodes[0]);
    this.#pick(next);
    this.#show(next);
  }

  /**
   * Zooms the time axis.
   *
   * @param {number} direction 1 to see less, -1 to see more, 0 to see all of it.
   */
  zoom(direction) {
    if (direction === 0) return this.#look({ from: 0, to: this.#length });
    const bar = this.selected && this.#barOf(this.selected);
    const { from, to } = this.#window;
    const middle = bar ? (Math.max(bar.from, from) + Math.min(bar.to, to)) / 2 : (from + to) / 2;
    const at = middle >= from && middle <= to ? middle : (from + to) / 2;
    this.#look(zoomed(this.#window, ZOOM_STEP ** direction, at, this.#length));
  }

  /**
   * Handles a key.
   *
   * @param {KeyboardEvent} event
   * @returns {boolean} Whether the waterfall used the key.
   */
  key(event) {
    if (this.#zoomKey(event)) return true;
    const { items, pageSize } = this.#list;
    const step = stepOf(event.key, pageSize);
    const at = this.selected ? items.indexOf(this.selected) : -1;
    if (step !== undefined && items.length > 0) {
      const next = Math.min(Math.max(at + step, 0), items.length - 1);
      this.#pick(items[next]);
      return true;
    }
    if (at < 0) return false;
    const node = items[at];
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

  #zoomKey(event) {
    const steps = { "+": 1, "=": 1, "-": -1, 0: 0 };
    if (Object.hasOwn(steps, event.key)) this.zoom(steps[event.key]);
    else if (event.key === "z" && this.selected) this.#zoomTo(this.selected);
    else if (event.shiftKey && (event.key === "ArrowLeft" || event.key === "ArrowRight")) {
      const quarter = (this.#window.to - this.#window.from) / 4;
      const sign = event.key === "ArrowLeft" ? -1 : 1;
      this.#look(moved(this.#window, sign * quarter, this.#length));
    } else return false;
    return true;
  }

  /** Start and end of a node's bar, in seconds since the start of the trace. */
  #barOf(node) {
    if (node.start === null) return null;
    const shift = (this.#adjusted ? node.shift : 0) - this.#span.start;
    const to = node.end === null ? this.#length : Math.max(node.end, node.start) + shift;
    return { from: node.start + shift, to };
  }

  /** Makes the bar of a node as wide as the axis, with some room beside it. */
  #zoomTo(node) {
    const bar = this.#barOf(node);
    if (!bar) return;
    const room = (bar.to - bar.from) * 0.1;
    this.#look(windowOf(bar.from - room, bar.to + room, this.#length));
  }

  /** Moves the axis if the bar of a node is not visible. */
  #show(node) {
    const bar = this.#barOf(node);
    const { from, to } = this.#window;
    if (!bar || !this.isZoomed || (bar.to > from && bar.from < to)) return;
    this.#look(moved(this.#window, (bar.from + bar.to) / 2 - (from + to) / 2, this.#length));
  }

  /** Shows a part of the time axis. */
  #look(window) {
    this.#window = windowOf(window.from, window.to, this.#length);
    this.#overview.mark(this.#window);
    this.#drawAxis();
    this.#list.draw(true);
  }

  /** Returns the time at a position on the screen, in seconds since the start of the trace. */
  #timeAt(x) {
    const box = this.#ticks.getBoundingClientRect();
    const { from, to } = this.#window;
    return from + ((x - box.left) / (box.width || 1)) * (to - from);
  }

  #wheel(event) {
    const box = this.#ticks.getBoundingClientRect();
    if (event.clientX < box.left || this.#length === 0) return;
    if (event.ctrlKey || event.metaKey) {
      const lines = event.deltaMode === 1 ? 30 : 1;
      const factor = Math.exp(-event.deltaY * lines * 0.002);
      this.#look(zoomed(this.#window, factor, this.#timeAt(event.clientX), this.#length));
    } else {
      const pixels = event.shiftKey && event.deltaX === 0 ? event.deltaY : event.deltaX;
      if (pixels === 0 || !this.isZoomed) return;
      const seconds = (pixels / (box.width || 1)) * (this.#window.to - this.#window.from);
      this.#look(moved(this.#window, seconds, this.#length));
    }
    event.preventDefault();
  }

  /** Moves the axis with the pointer. In the heading, the pointer draws a new window. */
  #drag(event) {
    this.#wasDragged = false;
    const box = this.#ticks.getBoundingClientRect();
    if (event.button !== 0 || event.clientX < box.left || this.#length === 0) return;
    const isHeading = this.#axis.contains(event.target);
    const before = this.#window;
    const start = this.#timeAt(event.clientX);
    const done = new AbortController();
    const move = (to) => {
      const pixels = to.clientX - event.clientX;
      if (!this.#wasDragged && Math.abs(pixels) < DRAG_MIN) return;
      if (!isHeading && !this.isZoomed) return;
      this.#wasDragged = true;
      if (isHeading) return;
      const seconds = (-pixels / (box.width || 1)) * (before.to - before.from);
      this.#look(moved(before, seconds, this.#length));
    };
    const end = (at) => {
      done.abort();
      if (isHeading && this.#wasDragged) {
        this.#look({ from: start, to: this.#timeAt(at.clientX) });
      }
    };
    addEventListener("pointermove", move, { signal: done.signal });
    addEventListener("pointerup", end, { signal: done.signal });
    addEventListener("pointercancel", () => done.abort(), { signal: done.signal });
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
    const shown = rows(this.#model.nodes, this.#collapsed);
    this.#grid.setAttribute("aria-rowcount", String(shown.length + 1));
    this.#list.setItems(shown);
  }

  #drawLegend(services) {
    this.#legend.replaceChildren(
      ...services.slice(0, 40).map((name, index) =>
        h(
          "li",
          { "data-service": index % 8, title: name.slice(0, 200) },
          h("i", { class: "swatch" }),
          name.slice(0, 60),
        ),
      ),
    );
  }

  #drawAxis() {
    const width = this.#ticks.clientWidth;
    const { from, to } = this.#window;
    const { step, ticks } = ticksOf(this.#window, width);
    const size = to - from || 1;
    const xOf = (at) => ((at - from) / size) * width;
    this.#ticks.replaceChildren(
      ...ticks.map(({ at, text }) =>
        h("span", { class: "tick", text, style: { left: `${xOf(at)}px` } }),
      ),
    );
    const style = this.#grid.style;
    style.setProperty("--step", step > 0 ? `${(step / size) * width}px` : "100%");
    style.setProperty("--first", ticks.length > 0 ? `${xOf(ticks[0].at)}px` : "0px");
  }

  #update(element, node, index) {
    const isSelected = node === this.selected;
    updateRow(element, node, {
      index,
      isSelected,
      isOpen: !this.#collapsed.has(node),
      isFound: this.#found?.has(node) === true,
      start: this.#span.start,
      length: this.#length,
      window: this.#window,
      isAdjusted: this.#adjusted,
    });
    if (isSelected) this.#grid.setAttribute("aria-activedescendant", element.id);
  }
}
