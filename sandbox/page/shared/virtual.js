/**
 * A list of any length that holds elements only for the rows that are seen.
 *
 * In: items, and how a row is made and filled. Out: rows in a scrolling element. Rows have one
 * height; their elements are used again, so scrolling makes no new ones. Bound: what browsers
 * scroll, some millions of pixels.
 */

import { h } from "./dom.js";

const OVERSCAN = 6;

/** The list; see the module. */
export class VirtualList {
  /** @type {any[]} */
  items = [];

  #scroller;
  #sizer;
  #rowHeight;
  #create;
  #update;
  #rows = [];
  #drawnFor = [];

  /**
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
   * Shows other items.
   *
   * @param {any[]} items
   * @param {number} [shift] Rows that came in above the first one seen: it stays where it is.
   */
  setItems(items, shift = 0) {
    this.items = items;
    this.#sizer.style.height = `${items.length * this.#rowHeight}px`;
    if (shift !== 0) this.#scroller.scrollTop += shift * this.#rowHeight;
    this.draw(true);
  }

  /** The items that are seen, at least in part: from and up to these indexes. */
  get seen() {
    // What stands above the rows, such as a heading, sticks to the top and covers as much of them.
    const top = this.#scroller.scrollTop;
    const bottom = top + this.#scroller.clientHeight - this.#sizer.offsetTop;
    const to = Math.ceil(bottom / this.#rowHeight);
    return { from: Math.floor(top / this.#rowHeight), to: Math.min(this.items.length, to) };
  }

  /**
   * Fills the rows that are seen.
   *
   * @param {boolean} [all] Those too whose item is the same as before.
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
    // Row n holds the items n, n + rows, n + 2 rows...: while scrolling most keep theirs.
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
   * The element of an item, if it is among the rows.
   *
   * @param {number} index
   * @returns {HTMLElement|null}
   */
  rowOf(index) {
    if (this.#rows.length === 0) return null;
    const at = index % this.#rows.length;
    return this.#drawnFor[at]?.index === index ? this.#rows[at] : null;
  }

  /**
   * Scrolls as little as it takes to see an item.
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

  /** Whole rows that fit. */
  get pageSize() {
    const room = this.#scroller.clientHeight - this.#sizer.offsetTop;
    return Math.max(1, Math.floor(room / this.#rowHeight) - 1);
  }
}
