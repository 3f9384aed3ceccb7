/**
 * A list of any length that has elements only for the visible rows.
 *
 * In: items, and functions that create and fill a row. Out: rows in a scrolling element. All rows
 * have the same height. While the user scrolls, the elements of hidden rows are reused for visible
 * rows. Bound: the largest height that browsers can scroll, some millions of pixels.
 */

import { h } from "./dom.js";

/** Number of rows that are filled above and below the visible rows. */
const OVERSCAN = 6;

/** A virtual list. See the module. */
export class VirtualList {
  /** @type {any[]} */
  items = [];

  #scroller;
  #sizer;
  #rowHeight;
  #create;
  #update;
  /** @type {HTMLElement[]} */
  #rows = [];
  /** @type {({index: number, item: any}|null)[]} The item that each row shows; null if hidden. */
  #drawnFor = [];

  /**
   * Creates a list inside a scrolling element.
   *
   * @param {HTMLElement} scroller
   * @param {object} options
   * @param {number} options.rowHeight Pixels.
   * @param {() => HTMLElement} options.create
   * @param {(row: HTMLElement, item: any, index: number) => void} options.update
   */
  constructor(scroller, { rowHeight, create, update }) {
    this.#scroller = scroller;
    this.#rowHeight = rowHeight;
    this.#create = create;
    this.#update = update;
    this.#sizer = h("div", { class: "sizer", role: "presentation" });
    scroller.append(this.#sizer);
    scroller.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.draw()).observe(scroller);
  }

  /**
   * Replaces the items.
   *
   * @param {any[]} items
   * @param {number} [shift] Number of rows that were inserted above the visible rows. The list
   *   scrolls by this number, so that the visible rows do not move.
   */
  setItems(items, shift = 0) {
    this.items = items;
    this.#sizer.style.height = `${items.length * this.#rowHeight}px`;
    if (shift !== 0) this.#scroller.scrollTop += shift * this.#rowHeight;
    this.draw(true);
  }

  /**
   * The indexes of the items that are at least partly visible: `from` inclusive, `to` exclusive.
   */
  get seen() {
    // The heading above the rows stays visible while the user scrolls. It takes the space of
    // `offsetTop` pixels.
    const top = this.#scroller.scrollTop;
    const bottom = top + this.#scroller.clientHeight - this.#sizer.offsetTop;
    const to = Math.ceil(bottom / this.#rowHeight);
    return { from: Math.floor(top / this.#rowHeight), to: Math.min(this.items.length, to) };
  }

  /**
   * Fills the visible rows.
   *
   * @param {boolean} [all] Whether to fill all visible rows. By default, only rows with a new item
   *   are filled.
   */
  draw(all = false) {
    const seen = this.seen;
    const from = Math.max(0, seen.from - OVERSCAN);
    const to = Math.min(this.items.length, seen.to + OVERSCAN);
    while (this.#rows.length < to - from) {
      const row = this.#create();
      row.classList.add("virtual-row");
      this.#rows.push(row);
      this.#drawnFor.push(null);
      this.#sizer.append(row);
    }
    // With r row elements, element n shows the items n, n + r, n + 2r and so on. So most elements
    // keep their item while the user scrolls.
    const used = new Set();
    for (let index = from; index < to; index += 1) {
      const at = index % this.#rows.length;
      used.add(at);
      const row = this.#rows[at];
      const drawn = this.#drawnFor[at];
      if (!all && drawn?.index === index && drawn.item === this.items[index]) continue;
      row.style.transform = `translateY(${index * this.#rowHeight}px)`;
      row.hidden = false;
      this.#drawnFor[at] = { index, item: this.items[index] };
      this.#update(row, this.items[index], index);
    }
    this.#rows.forEach((row, at) => {
      if (used.has(at) || row.hidden) return;
      row.hidden = true;
      this.#drawnFor[at] = null;
    });
  }


  /**
   * Scrolls to an item. Does not scroll if the item is visible.
   *
   * @param {number} index
   */
  reveal(index) {
    const scroller = this.#scroller;
    const top = index * this.#rowHeight;
    const bottom = top + this.#rowHeight + this.#sizer.offsetTop;
    if (top < scroller.scrollTop) scroller.scrollTop = top;
    else if (bottom > scroller.scrollTop + scroller.clientHeight) {
      scroller.scrollTop = bottom - scroller.clientHeight;
    }
    this.draw();
  }

  /** Number of rows of a page step: the number of rows that fit, less one, but at least 1. */
  get pageSize() {
    const room = this.#scroller.clientHeight - this.#sizer.offsetTop;
    return Math.max(1, Math.floor(room / this.#rowHeight) - 1);
  }
}
