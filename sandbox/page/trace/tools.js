/**
 * The tool bar of a trace: the choice of the view, the search, the way to the next failure, the zoom,
 * and the adjustment of clocks.
 *
 * In: counts from the view. Out: the choices of the user.
 */

import { h, icon, iconButton, setText } from "../shared/dom.js";
import { count, plural } from "../shared/format.js";
import { MARKS } from "./segmentrow.js";

/** @typedef {"timeline"|"exceptions"|"raw"} View */

/** The marks of the states, see `segmentrow.js`. */
const LEGEND = [
  ["error", "error"],
  ["throttle", "throttle"],
  ["fault", "fault"],
  ["progress", "in progress"],
];

/** The tool bar. See the module. */
export class TraceTools {
  /** @type {HTMLElement} */
  element;

  #tabs = new Map();
  #find;
  #foundCount = h("span", { class: "faint", "aria-live": "polite" });
  #exceptionCount = h("span", { class: "tab-count" });
  #failures;
  #failureWords = h("span");
  #adjust;
  #adjustWords = h("span");
  #adjustLabel;

  /**
   * @param {object} on
   * @param {(view: View) => void} on.view
   * @param {() => void} on.find
   * @param {() => void} on.adjust
   * @param {() => void} on.failure Called to go to the next failure.
   * @param {(direction: number) => void} on.zoom
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
    this.#failures = h(
      "button",
      {
        type: "button",
        class: "button failures",
        title: "Next error, throttle or fault (e; back with E)",
        on: { click: on.failure },
      },
      icon("down"),
      this.#failureWords,
    );
    const legend = LEGEND.map(([state, label]) =>
      h("li", { "data-state": state }, h("i", { class: "wf-mark", text: MARKS[state] }), label),
    );
    this.element = h(
      "div",
      { class: "trace-tools" },
      h(
        "div",
        { class: "segments", role: "tablist", "aria-label": "View" },
        this.#tab("Timeline", "timeline", on.view),
        this.#tab("Exceptions", "exceptions", on.view),
        this.#tab("Documents", "raw", on.view),
      ),
      h(
        "div",
        { class: "timeline-tools" },
        this.#find,
        this.#foundCount,
        this.#failures,
        h(
          "span",
          { class: "zoom", role: "group", "aria-label": "Zoom" },
          iconButton("minus", "Zoom out (-)", () => on.zoom(-1)),
          iconButton("plus", "Zoom in (+), or to the selected row (z)", () => on.zoom(1)),
          iconButton("fit", "Show all of the time (0)", () => on.zoom(0)),
        ),
        button("Collapse all", () => on.all(true)),
        button("Expand all", () => on.all(false)),
        this.#adjustLabel,
        h("span", { class: "grow" }),
        h("ul", { class: "legend", "aria-label": "Colours" }, legend),
      ),
    );
    this.reset();
  }

  #tab(text, name, view) {
    const tab = h(
      "button",
      { type: "button", role: "tab", class: "segment", on: { click: () => view(name) } },
      text,
      name === "exceptions" ? this.#exceptionCount : null,
    );
    this.#tabs.set(name, tab);
    return tab;
  }

  /** Clears the search before another trace is shown. */
  reset() {
    this.#find.value = "";
    this.showFound(0);
    this.showSkew(0);
    this.showFailures(0, 0);
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

  /**
   * @param {number} failureCount Number of rows with an error, a throttle or a fault.
   * @param {number} exceptionCount
   */
  showFailures(failureCount, exceptionCount) {
    this.#failures.hidden = failureCount === 0;
    setText(this.#failureWords, plural(failureCount, "error"));
    setText(this.#exceptionCount, exceptionCount === 0 ? "" : count(exceptionCount));
    const tab = this.#tabs.get("exceptions");
    tab.disabled = exceptionCount === 0;
  }

  /** @param {View} view */
  showView(view) {
    for (const [name, tab] of this.#tabs) tab.setAttribute("aria-selected", String(name === view));
  }
}
