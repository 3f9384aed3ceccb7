/**
 * The bar above the list of traces: the filter box and the chips.
 *
 * In: a choice, from the address of the page. Out: the choices of the user.
 */

import { h, icon, setText } from "../shared/dom.js";
import { parseDuration } from "./filter.js";

const FLAGS = [
  ["error", "Errors", "Traces with a client error (4xx)"],
  ["fault", "Faults", "Traces with a server fault (5xx)"],
  ["throttle", "Throttles", "Traces with a throttled call (429)"],
  ["progress", "In progress", "Traces that are not complete"],
];
const STATUSES = ["2xx", "3xx", "4xx", "5xx"];

/**
 * Time from the last key that the user presses until the filter is applied, in milliseconds. The
 * result should be on the screen within 100 ms.
 */
const TYPING_PAUSE_MS = 40;

/** @typedef {{q: string, flags: string[], status: string[], min: string, t: string}} Chosen */

/**
 * Reads the user's choice of filters from the parameters of the address.
 *
 * @param {URLSearchParams} query
 * @returns {Chosen}
 */
export function chosenOf(query) {
  const list = (name) => (query.get(name) ?? "").split(",").filter((part) => part !== "");
  return {
    q: query.get("q") ?? "",
    flags: list("flags"),
    status: list("status"),
    min: query.get("min") ?? "",
    t: query.get("t") ?? "",
  };
}

/** The filter bar. See the module. */
export class FilterBar {
  /** @type {HTMLElement} */
  element;

  #chosen = chosenOf(new URLSearchParams());
  #change;
  #input;
  #mode;
  #message;
  #chips = new Map();
  #min;
  #clear;
  #timer = 0;

  /** @param {(chosen: Chosen) => void} change Called with every choice of the user. */
  constructor(change) {
    this.#change = change;
    this.#input = h("input", {
      type: "search",
      id: "filter",
      class: "filter-input",
      placeholder: 'Search for words, or by an expression: service("api") AND responsetime > 0.5',
      "aria-label": "Filter: words, or an X-Ray filter expression",
      "aria-describedby": "filter-message",
      autocomplete: "off",
      autocapitalize: "off",
      spellcheck: "false",
      on: { input: () => this.#typed() },
    });
    this.#mode = h("span", { class: "filter-mode", "aria-live": "polite" });
    this.#message = h("div", { class: "filter-message", id: "filter-message", role: "alert" });
    this.#min = h("input", {
      type: "text",
      class: "min-input",
      placeholder: "any",
      "aria-label": "Shortest duration, such as 100 ms or 1.5 s",
      autocomplete: "off",
      on: { input: () => this.#typed() },
    });
    this.#clear = h("button", {
      type: "button",
      class: "button quiet",
      text: "Clear",
      on: { click: () => this.#choose(chosenOf(new URLSearchParams())) },
    });
    const flags = FLAGS.map(([flag, label, title]) => this.#chip("flags", flag, label, title));
    const statuses = STATUSES.map((status) =>
      this.#chip("status", status, status, `Traces answered with ${status}`),
    );
    this.element = h(
      "div",
      { class: "filter-bar", role: "search" },
      h(
        "div",
        { class: "filter-box" },
        icon("search"),
        this.#input,
        this.#mode,
        h("kbd", { text: "/", "aria-hidden": "true" }),
      ),
      h(
        "div",
        { class: "chips" },
        h("div", { class: "chip-group", role: "group", "aria-label": "Flags" }, flags),
        h("div", { class: "chip-group", role: "group", "aria-label": "Status" }, statuses),
        h("label", { class: "min" }, "Longer than", this.#min),
        this.#clear,
      ),
      this.#message,
    );
  }

  /**
   * Shows a choice of filters in the bar.
   *
   * @param {Chosen} chosen
   */
  show(chosen) {
    clearTimeout(this.#timer);
    this.#chosen = chosen;
    // An equal text is not assigned again, because this would move the cursor of the user.
    if (this.#input.value !== chosen.q) this.#input.value = chosen.q;
    if (this.#min.value !== chosen.min) this.#min.value = chosen.min;
    this.#draw();
  }

  /**
   * Returns the current choice, including a text that the user is still typing. The callback is not
   * called for this text any more.
   *
   * @returns {Chosen}
   */
  settle() {
    clearTimeout(this.#timer);
    return this.#chosen;
  }

  focus() {
    this.#input.focus();
    this.#input.select();
  }

  /** Whether the filter box has the focus. */
  get hasFocus() {
    return this.#input === document.activeElement;
  }

  /**
   * Shows what the sandbox took the text for, and what is wrong with it.
   *
   * @param {import("../shared/live.js").Found|null} found Null before the answer.
   * @param {boolean} isKept Whether the list is still that of an earlier text.
   */
  explain(found, isKept) {
    if (this.#chosen.q.trim() === "") found = null;
    else if (found === null) return;
    const isExpression = found?.mode === "expression" || found?.mode === "broken";
    this.#mode.hidden = found === null;
    setText(this.#mode, isExpression ? "expression" : "text");
    this.#mode.classList.toggle("is-expression", isExpression);
    const problem = found?.problem;
    let message = "";
    if (problem) message = `At character ${problem.position}: ${problem.text}.`;
    else if (isKept) {
      message = `No trace matches this text. It begins ${found?.begun}.`;
    }
    if (message !== "" && isKept) message += " The list has not changed.";
    setText(this.#message, message);
    this.#message.hidden = message === "";
    this.#input.setAttribute("aria-invalid", String(problem !== null && problem !== undefined));
  }

  /**
   * Chooses a time range.
   *
   * @param {string} t
   */
  chooseTime(t) {
    this.#choose({ ...this.#chosen, t });
  }

  #chip(kind, value, label, title) {
    const chip = h("button", {
      type: "button",
      class: `chip ${value}`,
      "aria-pressed": "false",
      title,
      text: label,
      on: {
        click: () => {
          const now = this.#chosen[kind];
          const next = now.includes(value) ? now.filter((one) => one !== value) : [...now, value];
          this.#choose({ ...this.#chosen, [kind]: next });
        },
      },
    });
    this.#chips.set(`${kind} ${value}`, chip);
    return chip;
  }

  #typed() {
    clearTimeout(this.#timer);
    this.#chosen = { ...this.#chosen, q: this.#input.value, min: this.#min.value };
    this.#draw();
    this.#timer = setTimeout(() => this.#change(this.#chosen), TYPING_PAUSE_MS);
  }

  #choose(chosen) {
    this.show(chosen);
    this.#change(chosen);
  }

  #draw() {
    const { q, flags, status, min, t } = this.#chosen;
    for (const [key, chip] of this.#chips) {
      const [kind, value] = key.split(" ");
      chip.setAttribute("aria-pressed", String(this.#chosen[kind].includes(value)));
    }
    this.#min.setAttribute("aria-invalid", String(Number.isNaN(parseDuration(min))));
    this.#clear.hidden = [q, min, t, ...flags, ...status].every((part) => part === "");
  }
}
