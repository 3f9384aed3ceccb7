/**
 * The tool bar of a trace: the choice of the view, the search, and the adjustment of clocks.
 *
 * In: counts from the view. Out: the choices of the user.
 */

import { h, setText } from "../shared/dom.js";
import { count } from "../shared/format.js";

const LEGEND = [
  ["ok", "ok"],
  ["error", "error"],
  ["fault", "fault"],
  ["throttle", "throttle"],
  ["progress", "in progress"],
];

/** The tool bar. See the module. */
export class TraceTools {
  /** @type {HTMLElement} */
  element;

  #tabs = new Map();
  #find;
  #foundCount = h("span", { class: "faint", "aria-live": "polite" });
  #adjust;
  #adjustWords = h("span");
  #adjustLabel;

  /**
   * @param {object} on
   * @param {(isRaw: boolean) => void} on.view
   * @param {() => void} on.find
   * @param {() => void} on.adjust
   * @param {(isCollapsed: boolean) => void} on.all Called to collapse or expand all rows.
   */
  constructor(on) {
    this.#find = h("input", {
      type: "search",
      class: "find-input",
      placeholder: "Find in this trace",
      "aria-label": "Find in this trace",
      on: { input: on.find },
    });
    this.#adjust = h("input", { type: "checkbox", checked: true, on: { change: on.adjust } });
    this.#adjustLabel = h("label", { class: "check" }, this.#adjust, this.#adjustWords);
    const button = (text, press) =>
      h("button", { type: "button", class: "button quiet", text, on: { click: press } });
    const legend = LEGEND.map(([state, label]) =>
      h("li", { "data-state": state }, h("i", { class: "swatch" }), label),
    );
    this.element = h(
      "div",
      { class: "trace-tools" },
      h(
        "div",
        { class: "segments", role: "tablist", "aria-label": "View" },
        this.#tab("Timeline", false, on.view),
        this.#tab("Documents", true, on.view),
      ),
      h(
        "div",
        { class: "timeline-tools" },
        this.#find,
        this.#foundCount,
        button("Collapse all", () => on.all(true)),
        button("Expand all", () => on.all(false)),
        this.#adjustLabel,
        h("span", { class: "grow" }),
        h("ul", { class: "legend", "aria-label": "Colours" }, legend),
      ),
    );
    this.reset();
  }

  #tab(text, isRaw, view) {
    const press = () => view(isRaw);
    const tab = h("button", {
      type: "button",
      role: "tab",
      class: "segment",
      text,
      on: { click: press },
    });
    this.#tabs.set(isRaw, tab);
    return tab;
  }

  /** Clears the search before another trace is shown. */
  reset() {
    this.#find.value = "";
    this.showFound(0);
    this.showSkew(0);
  }

  /** The text of the search. */
  get text() {
    return this.#find.value;
  }

  /** Whether the user wants adjusted clocks. */
  get isAdjusted() {
    return this.#adjust.checked;
  }

  /** Whether the search field has the focus. */
  get hasFocus() {
    return document.activeElement === this.#find;
  }

  focus() {
    this.#find.focus();
  }

  /** @param {number} foundCount Number of rows that the search matches. */
  showFound(foundCount) {
    setText(this.#foundCount, this.text.trim() === "" ? "" : `${count(foundCount)} found`);
  }

  /**
   * @param {number} skewedCount Number of segments that have a different clock than their caller.
   */
  showSkew(skewedCount) {
    this.#adjustLabel.hidden = skewedCount === 0;
    setText(this.#adjustWords, `Adjust clocks (${count(skewedCount)})`);
  }

  /** @param {boolean} isRaw */
  showView(isRaw) {
    for (const [raw, tab] of this.#tabs) tab.setAttribute("aria-selected", String(raw === isRaw));
  }
}
