/**
 * One trace: its waterfall, the details of the chosen row, and the documents as they came.
 *
 * In: an id, and the documents that the sandbox has for it; they are fetched again when the trace
 * changes. Out: the view. The chosen row and the view of documents are in the address.
 */

import { trace as fetchTrace } from "./api.js";
import { details } from "./details.js";
import { h, setText } from "./dom.js";
import { count } from "./format.js";
import { RawView } from "./raw.js";
import { splitter } from "./splitter.js";
import { traceHead } from "./tracehead.js";
import { build, span } from "./tree.js";
import { Waterfall } from "./waterfall.js";

const LEGEND = [
  ["ok", "ok"],
  ["error", "error"],
  ["fault", "fault"],
  ["throttle", "throttle"],
  ["progress", "in progress"],
];

/** The view; see the module. */
export class TraceView {
  title = "Trace";
  /** @type {HTMLElement} */
  element;

  #page;
  #head;
  #tools;
  #body;
  #note;
  #aside;
  #waterfall;
  #raw;
  #tabs = new Map();
  #find;
  #foundCount;
  #adjust;
  #id = "";
  #revision = -1;
  #documents = [];
  #model = null;
  #isRaw = false;
  #wanted = "";

  /**
   * @param {object} page
   * @param {import("./live.js").Live} page.live
   * @param {import("./router.js").Router} page.router
   * @param {(id: string) => {before?: string, after?: string}} page.neighbours
   */
  constructor(page) {
    this.#page = page;
    this.#waterfall = new Waterfall((node) => this.#chosen(node));
    this.#raw = new RawView();
    this.#head = h("header", { class: "trace-head" });
    this.#note = h("div", { class: "empty-note", role: "status" });
    this.#aside = h("aside", {
      class: "details",
      "aria-label": "Details of the chosen row",
      tabIndex: 0,
    });
    const timeline = h(
      "div",
      { class: "timeline" },
      this.#waterfall.element,
      splitter({ name: "--details-size", label: "Width of the details", min: 260, sign: -1 }),
      this.#aside,
    );
    this.#body = h("div", { class: "trace-body" }, this.#note, timeline, this.#raw.element);
    this.#tools = this.#toolbar();
    this.element = h(
      "section",
      { class: "view trace", "aria-label": "Trace" },
      this.#head,
      this.#tools,
      this.#body,
    );
    this.element.hidden = true;
    page.live.listen(() => !this.element.hidden && this.#changed());
  }

  /** @param {import("./router.js").Route} route */
  show({ id, query }) {
    this.#isRaw = query.get("view") === "raw";
    this.#wanted = query.get("at") ?? "";
    if (id !== this.#id || !this.#model) {
      this.#id = id;
      this.#model = null;
      this.#waterfall.reset();
      this.#find.value = "";
      setText(this.#foundCount, "");
      this.#load();
    } else {
      this.#drawTabs();
      this.#select(this.#nodeAt(this.#wanted));
    }
  }

  focus() {
    (this.#isRaw ? this.element.querySelector("select") : this.#waterfall.element).focus({
      preventScroll: true,
    });
  }

  /** A key while the keyboard is in a field. @param {KeyboardEvent} event @returns {boolean} */
  typing(event) {
    if (document.activeElement !== this.#find) return false;
    if (event.key === "Enter") this.#search(event.shiftKey ? -1 : 1);
    else if (event.key === "Escape") this.focus();
    else return false;
    return true;
  }

  /** @param {KeyboardEvent} event @returns {boolean} */
  key(event) {
    if (event.key === "Escape") {
      this.#back();
      return true;
    }
    if (event.key === "[" || event.key === "]") {
      const { before, after } = this.#page.neighbours(this.#id);
      this.#open(event.key === "[" ? before : after);
      return true;
    }
    if (event.key === "r") {
      this.#setRaw(!this.#isRaw);
      return true;
    }
    if (event.key === "f" && !this.#isRaw) {
      this.#find.focus();
      return true;
    }
    // The details scroll by the keys that scroll.
    if (this.#aside.contains(document.activeElement) && event.key.length > 1) return false;
    return this.#model !== null && !this.#isRaw && this.#waterfall.key(event);
  }

  async #load() {
    const id = this.#id;
    this.#revision = this.#page.live.traces.get(id)?.revision ?? -1;
    if (!this.#model) this.#say("", "");
    this.#drawHead();
    try {
      const answer = await fetchTrace(id);
      if (id !== this.#id) return;
      this.#documents = answer.documents;
      this.#model = build(answer.documents);
      this.#drawAll();
    } catch (error) {
      if (id !== this.#id) return;
      // What is on the page already is better than an excuse.
      if (this.#model && error.status !== 404) return;
      if (error.status === 404)
        this.#say(
          "This trace is not here",
          "It was deleted, has given way to newer ones, or never came.",
        );
      else this.#say("The trace cannot be loaded", error.message);
    }
  }

  /** The list may know of more documents by now. */
  #changed() {
    const summary = this.#page.live.traces.get(this.#id);
    if (summary && summary.revision !== this.#revision) this.#load();
  }

  #drawAll() {
    const model = this.#model;
    this.element.dataset.has = "trace";
    this.#adjust.parentElement.hidden = model.skewedCount === 0;
    setText(this.#adjust.nextSibling, `Set clocks right (${count(model.skewedCount)})`);
    const selected = this.#wanted || this.#waterfall.selected?.id;
    this.#drawHead();
    this.#waterfall.show(model, this.#adjust.checked);
    const byDocument = new Map();
    for (const node of model.nodes)
      if (!byDocument.has(node.document)) byDocument.set(node.document, node);
    this.#raw.show(this.#documents, (index) => byDocument.get(index));
    this.#drawTabs();
    this.#select(this.#nodeAt(selected));
  }

  #nodeAt(id) {
    const { nodes, roots } = this.#model;
    return nodes.find((node) => node.id === id && id !== "") ?? roots[0] ?? null;
  }

  #select(node) {
    this.#waterfall.select(node);
    if (node && this.#isRaw) this.#raw.select(node.document);
    this.#drawDetails(node);
  }

  #chosen(node) {
    this.#drawDetails(node);
    this.#noteRoute(node);
  }

  #noteRoute(node = this.#waterfall.selected) {
    this.#wanted = node?.id ?? "";
    this.#page.router.note({
      view: "trace",
      id: this.#id,
      query: { at: this.#wanted, view: this.#isRaw ? "raw" : "" },
    });
  }

  #drawDetails(node) {
    if (!node) return this.#aside.replaceChildren();
    const { start } = span(this.#model.nodes, this.#adjust.checked);
    this.#aside.replaceChildren(
      details(node, {
        exceptions: this.#model.exceptions,
        start,
        select: (other) => {
          this.#select(other);
          this.#noteRoute(other);
        },
        filter: (q) => this.#page.router.go({ view: "traces", query: { q } }),
        openTrace: (id) => this.#open(id),
      }),
    );
    this.#aside.scrollTop = 0;
  }

  #drawHead() {
    const summary = this.#page.live.traces.get(this.#id) ?? {};
    this.#head.replaceChildren(
      ...traceHead({
        id: this.#id,
        summary,
        model: this.#model,
        isAdjusted: this.#adjust.checked,
        neighbours: this.#page.neighbours(this.#id),
        open: (id) => this.#open(id),
        back: () => this.#back(),
      }),
    );
  }

  #toolbar() {
    const tab = (raw, label) => {
      const button = h("button", {
        type: "button",
        role: "tab",
        class: "segment",
        text: label,
        on: { click: () => this.#setRaw(raw) },
      });
      this.#tabs.set(raw, button);
      return button;
    };
    this.#find = h("input", {
      type: "search",
      class: "find-input",
      placeholder: "Find in this trace",
      "aria-label": "Find in this trace",
      on: { input: () => this.#search(0) },
    });
    this.#foundCount = h("span", { class: "faint", "aria-live": "polite" });
    this.#adjust = h("input", {
      type: "checkbox",
      checked: true,
      on: { change: () => this.#model && this.#drawAll() },
    });
    const button = (label, press) =>
      h("button", { type: "button", class: "button quiet", text: label, on: { click: press } });
    return h(
      "div",
      { class: "trace-tools" },
      h(
        "div",
        { class: "segments", role: "tablist", "aria-label": "View" },
        tab(false, "Timeline"),
        tab(true, "Documents"),
      ),
      h(
        "div",
        { class: "timeline-tools" },
        this.#find,
        this.#foundCount,
        button("Collapse all", () => this.#waterfall.setAll(true)),
        button("Expand all", () => this.#waterfall.setAll(false)),
        h("label", { class: "check", hidden: true }, this.#adjust, h("span")),
        h("span", { class: "grow" }),
        h(
          "ul",
          { class: "legend", "aria-label": "Colours" },
          LEGEND.map(([state, label]) =>
            h("li", { "data-state": state }, h("i", { class: "swatch" }), label),
          ),
        ),
      ),
    );
  }

  #search(direction) {
    if (!this.#model) return;
    const found = this.#waterfall.find(this.#find.value, direction);
    setText(this.#foundCount, this.#find.value.trim() === "" ? "" : `${count(found)} found`);
  }

  #setRaw(raw) {
    this.#isRaw = raw;
    if (raw && this.#waterfall.selected) this.#raw.select(this.#waterfall.selected.document);
    this.#drawTabs();
    this.#noteRoute();
  }

  #drawTabs() {
    this.element.classList.toggle("is-raw", this.#isRaw);
    for (const [raw, button] of this.#tabs) {
      button.setAttribute("aria-selected", String(raw === this.#isRaw));
    }
  }

  #say(title, text) {
    this.element.dataset.has = "note";
    this.#note.replaceChildren(
      title ? h("h2", { text: title }) : h("p", { class: "loading", text: "Loading…" }),
      h("p", { text }),
    );
  }

  #open(id) {
    if (id) this.#page.router.go({ view: "trace", id });
  }

  #back() {
    this.#page.back(this.#id);
  }
}
