/**
 * The heading of the list of traces.
 *
 * In: an order, a column with `-` before it for the largest first. Out: the order that people
 * click for.
 */

import { h } from "../shared/dom.js";

/** The columns: heading, and the order that a click on it asks for. */
const COLUMNS = [
  ["", ""],
  ["Trace", "name"],
  ["Status", "-status"],
  ["Duration", "-duration"],
  ["Start", "-start"],
  ["Other services", ""],
  ["Flags", ""],
];

/** The heading; see the module. */
export class ListHeading {
  /** @type {HTMLElement} */
  element;

  #order = "";
  #cells = new Map();

  /** @param {(order: string) => void} choose */
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

  /** @param {string} order */
  show(order) {
    this.#order = order;
    const direction = order.startsWith("-") ? "descending" : "ascending";
    for (const [column, cell] of this.#cells) {
      cell.setAttribute("aria-sort", order.replace("-", "") === column ? direction : "none");
    }
  }
}
