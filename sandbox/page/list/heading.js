/**
 * The heading of the list of traces.
 *
 * In: an order, which is the name of a column; a `-` before it means descending. Out: the order
 * that the user selects with a click.
 */

import { h } from "../shared/dom.js";

/** For each column: its heading, and the sort order that the first click selects. */
const COLUMNS = [
  ["", ""],
  ["Trace", "name"],
  ["Status", "-status"],
  ["Duration", "-duration"],
  ["Start", "-start"],
  ["Other services", ""],
  ["Flags", ""],
];

/** The heading. See the module. */
export class ListHeading {
  /** @type {HTMLElement} */
  element;

  #order = "";
  #cells = new Map();

  /** @param {(order: string) => void} choose Called with the order that the user selects. */
  constructor(choose) {
    const cells = COLUMNS.map(([label, order]) => this.#cell(label, order, choose));
    this.element = h("div", { class: "trace-row heading", role: "row" }, cells);
  }

  #cell(label, order, choose) {
    const cell = h("div", { role: "columnheader", class: "cell" });
    if (order === "") {
      cell.append(label);
      return cell;
    }
    const turned = order.startsWith("-") ? order.slice(1) : `-${order}`;
    const press = () => choose(this.#order === order ? turned : order);
    cell.append(h("button", { type: "button", text: label, on: { click: press } }));
    this.#cells.set(order.replace("-", ""), cell);
    return cell;
  }

  /**
   * Marks the column that the list is sorted by.
   *
   * @param {string} order
   */
  show(order) {
    this.#order = order;
    const direction = order.startsWith("-") ? "descending" : "ascending";
    for (const [column, cell] of this.#cells) {
      cell.setAttribute("aria-sort", order.replace("-", "") === column ? direction : "none");
    }
  }
}
