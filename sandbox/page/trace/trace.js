/**
 * The view of one trace: its waterfall, the details of the selected row, all exceptions, and the
 * original documents. A trace with a failure opens on the row where the failure began.
 *
 * In: the id of a trace, and its documents from the sandbox. They are fetched again when the trace
 * changes. Out: the view. The address contains the selected row and the choice of the view.
 */

import { messageOf, statusOf, trace as fetchTrace } from "../shared/api.js";
import { details } from "./details.js";
import { download } from "./download.js";
import { ExceptionList } from "./exceptionlist.js";
import { traceNotes } from "./notes.js";
import { h, toast } from "../shared/dom.js";
import { RawView } from "./raw.js";
import { splitter } from "../shared/splitter.js";
import { traceHead } from "./head.js";
import { TraceTools } from "./tools.js";
import { build, exceptionsOf, span } from "./tree.js";
import { Waterfall } from "./waterfall.js";

/** The view of a trace. See the module. */
export class TraceView {
  title = "Trace";
  /** @type {HTMLElement} */
  element;

  #page;
  #head;
  #tools;
  #body;
  #note;
  #notes = h("div", { class: "trace-notes", role: "status" });
  #aside;
  #waterfall;
  #raw;
  #exceptionList;
  #id = "";
  #revision = -1;
  /** @type {string[]} */
  #documents = [];
  /** @type {(string|null)[]} */
  #otlp = [];
  /** @type {import("./tree.js").Model|null} Null until the trace is loaded. */
  #model = null;
  /** @type {Map<string, any>} Exceptions of the trace with their nodes, by id. */
  #exceptions = new Map();
  /** @type {import("./tools.js").View} */
  #view = "timeline";
  /** Id of the row that the address asks for. */
  #wanted = "";
  /** The values from which the details were drawn last, as JSON. */
  #told = "";

  /**
   * @param {object} page
   * @param {import("../shared/live.js").Live} page.live
   * @param {import("../shared/router.js").Router} page.router
   * @param {(id: string) => {before?: string, after?: string}} page.neighbours Returns the ids of
   *   the traces above and below in the list.
   * @param {(id: string) => void} page.back Returns to the list and selects the trace there.
   */
  constructor(page) {
    this.#page = page;
    this.#waterfall = new Waterfall((node) => this.#chosen(node));
    this.#raw = new RawView();
    this.#exceptionList = new ExceptionList((node) => {
      this.#setView("timeline");
      this.#select(node);
      this.#noteRoute(node);
    });
    this.#head = h("header", { class: "trace-head" });
    this.#note = h("div", { class: "empty-note", role: "status" });
    this.#aside = h("aside", {
      class: "details",
      "aria-label": "Details of the selected row",
      tabIndex: 0,
    });
    const timeline = h(
      "div",
      { class: "timeline" },
      this.#waterfall.element,
      splitter({ name: "--details-size", label: "Width of the details", min: 260, sign: -1 }),
      this.#aside,
    );
    this.#body = h(
      "div",
      { class: "trace-body" },
      this.#note,
      timeline,
      this.#exceptionList.element,
      this.#raw.element,
    );
    this.#tools = new TraceTools({
      view: (view) => this.#setView(view),
      find: () => this.#search(0),
      adjust: () => this.#model && this.#drawAll(),
      failure: () => this.#waterfall.nextFailure(1),
      zoom: (direction) => this.#waterfall.zoom(direction),
      all: (isCollapsed) => this.#waterfall.setAll(isCollapsed),
    });
    this.element = h(
      "section",
      { class: "view trace-view", "aria-label": "Trace" },
      this.#head,
      this.#notes,
      this.#tools.element,
      this.#body,
    );
    this.element.hidden = true;
    page.live.listen(() => !this.element.hidden && this.#changed());
  }

  /** @param {import("../shared/router.js").Route} route */
  show({ id, query }) {
    const view = query.get("view");
    this.#view = view === "raw" || view === "exceptions" ? view : "timeline";
    this.#wanted = query.get("at") ?? "";
    if (id !== this.#id || !this.#model) {
      this.#id = id;
      this.#model = null;
      this.#waterfall.reset();
      this.#tools.reset();
      this.#load();
    } else {
      this.#drawTabs();
      this.#select(this.#nodeAt(this.#wanted));
    }
  }

  focus() {
    const target = {
      raw: this.element.querySelector("select"),
      exceptions: this.#exceptionList.element,
      timeline: this.#waterfall.focusable,
    }[this.#view];
    target?.focus({ preventScroll: true });
  }

  /**
   * Handles a key while an input field has the focus.
   *
   * @param {KeyboardEvent} event
   * @returns {boolean} Whether the view used the key.
   */
  typing(event) {
    if (!this.#tools.hasFocus) return false;
    if (event.key === "Enter") this.#search(event.shiftKey ? -1 : 1);
    else if (event.key === "Escape") this.focus();
    else return false;
    return true;
  }

  /**
   * Handles a key.
   *
   * @param {KeyboardEvent} event
   * @returns {boolean} Whether the view used the key.
   */
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
    if (event.key === "r" || event.key === "x") {
      const view = event.key === "r" ? "raw" : "exceptions";
      this.#setView(this.#view === view ? "timeline" : view);
      return true;
    }
    if (event.key === "d") {
      this.#download();
      return true;
    }
    const isTimeline = this.#view === "timeline";
    if (event.key === "f" && isTimeline) {
      this.#tools.focus();
      return true;
    }
    if ((event.key === "e" || event.key === "E") && isTimeline) {
      this.#waterfall.nextFailure(event.key === "e" ? 1 : -1);
      return true;
    }
    // If the details have the focus, the arrow keys and page keys scroll them.
    if (this.#aside.contains(document.activeElement) && event.key.length > 1) return false;
    const isUsed = this.#model !== null && isTimeline && this.#waterfall.key(event);
    if (isUsed && document.activeElement === document.body) this.focus();
    return isUsed;
  }

  async #load() {
    const id = this.#id;
    this.#revision = this.#page.live.traces.get(id)?.revision ?? -1;
    if (!this.#model) {
      this.#say("", "");
      this.#notes.replaceChildren();
    }
    this.#drawHead();
    try {
      const answer = await fetchTrace(id);
      if (id !== this.#id) return;
      this.#notes.replaceChildren(...traceNotes(answer));
      const { documents, forest } = answer;
      if (documents === null)
        return this.#say(
          "All documents of this trace were refused",
          "The note above names the broken rule.",
        );
      this.#documents = documents;
      this.#otlp = answer.otlp;
      this.#model = build({ documents, forest });
      this.#exceptions = exceptionsOf(this.#model.nodes);
      this.#drawAll();
    } catch (error) {
      if (id !== this.#id) return;
      // After a failure, the page keeps showing the trace that it loaded before.
      if (this.#model && statusOf(error) !== 404) return;
      if (statusOf(error) === 404)
        this.#say(
          "The sandbox does not have this trace",
          "The trace was deleted, was evicted by newer traces, or never arrived.",
        );
      else this.#say("The trace cannot be loaded", messageOf(error));
    }
  }

  /** Loads the trace again if it has changed. */
  #changed() {
    const summary = this.#page.live.traces.get(this.#id);
    if (summary && summary.revision !== this.#revision) this.#load();
  }

  #drawAll() {
    const model = this.#model;
    if (!model) return;
    this.element.dataset.has = "trace";
    this.#tools.showSkew(model.skewedCount);
    const exceptionCount = this.#exceptionList.show(model);
    this.#tools.showFailures(model.failures.length, exceptionCount);
    if (exceptionCount === 0 && this.#view === "exceptions") this.#view = "timeline";
    const selected = this.#wanted;
    this.#drawHead();
    this.#waterfall.show(model, this.#tools.isAdjusted);
    const byDocument = new Map();
    for (const node of model.nodes)
      if (!byDocument.has(node.document)) byDocument.set(node.document, node);
    this.#raw.show(this.#documents, this.#otlp, (index) => byDocument.get(index));
    this.#drawTabs();
    this.#select(this.#nodeAt(selected));
  }

  #nodeAt(id) {
    const { nodes, failed } = this.#model ?? { nodes: [], failed: null };
    return nodes.find((node) => node.id === id && id !== "") ?? failed ?? nodes[0] ?? null;
  }

  #select(node) {
    this.#waterfall.select(node);
    if (node && this.#view === "raw") this.#raw.select(node.document);
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
      query: { at: this.#wanted, view: this.#view === "timeline" ? "" : this.#view },
    });
  }

  #drawDetails(node) {
    const model = this.#model;
    if (!node || !model) {
      this.#told = "";
      return this.#aside.replaceChildren();
    }
    const { start } = span(model.nodes, this.#tools.isAdjusted);
    // If the trace changes outside of the selected node, the details are not drawn again. So they
    // do not scroll while the user reads.
    const told = [node.id, node.shift, start, node.parent?.name, this.#documents[node.document]];
    if (JSON.stringify(told) === this.#told) return;
    this.#told = JSON.stringify(told);
    this.#aside.replaceChildren(
      details(node, {
        isSpan: this.#otlp[node.document] !== null,
        exceptions: this.#exceptions,
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
        isAdjusted: this.#tools.isAdjusted,
        neighbours: this.#page.neighbours(this.#id),
        open: (id) => this.#open(id),
        back: () => this.#back(),
        download: () => this.#download(),
      }),
    );
  }

  #search(direction) {
    if (!this.#model) return;
    this.#tools.showFound(this.#waterfall.find(this.#tools.text, direction));
  }

  /** @param {import("./tools.js").View} view */
  #setView(view) {
    if (view === "exceptions" && !this.#model?.nodes.some((node) => node.hasCause)) return;
    this.#view = view;
    if (view === "raw" && this.#waterfall.selected) {
      this.#raw.select(this.#waterfall.selected.document);
    }
    this.#drawTabs();
    this.#noteRoute();
  }

  #drawTabs() {
    this.element.dataset.view = this.#view;
    this.#tools.showView(this.#view);
  }

  async #download() {
    try {
      await download(this.#id);
    } catch (error) {
      toast(`The trace cannot be downloaded: ${messageOf(error)}`, "bad");
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
