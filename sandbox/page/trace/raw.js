/**
 * The original documents of a trace.
 *
 * In: the texts of the documents. Out: a view of one document at a time. The buttons copy documents
 * byte for byte. The option "Line breaks" changes only the view. For a span of OpenTelemetry, the
 * original is its OTLP JSON; the option "As X-Ray" shows the document that the sandbox made of it.
 */

import { copyButton, h, setText } from "../shared/dom.js";
import { count, line, plural, size } from "../shared/format.js";

/**
 * Largest number of characters that are shown. A document has at most 64 KiB without line breaks,
 * and the JSON of a span 256 KiB.
 */
const SHOWN_LENGTH_MAX = 200_000;

/** The view of the documents. See the module. */
export class RawView {
  /** @type {HTMLElement} */
  element;

  #choice;
  #text;
  #about;
  /** @type {string[]} */
  #documents = [];
  /** The OTLP JSON of each document that was made of a span. @type {(string|null)[]} */
  #otlp = [];
  #asXray;
  #isPretty = false;

  constructor() {
    this.#choice = h("select", { "aria-label": "Document", on: { change: () => this.#draw() } });
    this.#text = h("pre", { class: "raw-text", tabIndex: 0, "aria-label": "Original document" });
    this.#about = h("span", { class: "faint" });
    const pretty = h("input", {
      type: "checkbox",
      on: {
        change: () => {
          this.#isPretty = pretty.checked;
          this.#draw();
        },
      },
    });
    const box = h("input", { type: "checkbox", on: { change: () => this.#draw() } });
    this.#asXray = { box, label: h("label", { class: "check" }, box, "As X-Ray") };
    const copyAll = copyButton(
      () => this.#documents.map((_, index) => this.#original(index)).join("\n"),
      "Copy all documents, one per line",
      "Copy all",
    );
    this.element = h(
      "div",
      { class: "raw" },
      h(
        "div",
        { class: "raw-bar" },
        this.#choice,
        this.#about,
        h("span", { class: "grow" }),
        this.#asXray.label,
        h("label", { class: "check" }, pretty, "Line breaks"),
        copyButton(
          () => this.#original(this.#at),
          "Copy this document unchanged",
          "Copy document",
        ),
        copyAll,
      ),
      this.#text,
    );
  }

  /** Returns the text that the sandbox received, or the OTLP JSON of a span. */
  #original(index) {
    const text = this.#documents[index] ?? "";
    return this.#asXray.box.checked ? text : (this.#otlp[index] ?? text);
  }

  get #at() {
    return Math.max(0, this.#choice.selectedIndex);
  }

  /**
   * Shows the documents of a trace.
   *
   * @param {string[]} documents
   * @param {(string|null)[]} otlp
   * @param {(index: number) => {name: string, id: string}|undefined} describe
   */
  show(documents, otlp, describe) {
    const at = this.#at;
    this.#documents = documents;
    this.#otlp = otlp;
    this.#asXray.label.hidden = !otlp.some((text) => text !== null);
    this.#choice.replaceChildren(
      ...documents.map((_, index) => {
        const { name = "?", id = "" } = describe(index) ?? {};
        return h("option", { text: `${index + 1}. ${line(name, 60)}  ${line(id, 16)}` });
      }),
    );
    this.#choice.selectedIndex = Math.min(at, documents.length - 1);
    this.#draw();
  }

  /**
   * Selects a document.
   *
   * @param {number} index
   */
  select(index) {
    this.#choice.selectedIndex = index;
    this.#draw();
  }

  #draw() {
    const exact = this.#original(this.#at);
    let text = exact;
    if (this.#isPretty) {
      try {
        text = JSON.stringify(JSON.parse(exact), null, 2);
      } catch {
        // The text is not JSON, so it is shown unchanged.
      }
    }
    const bytes = new TextEncoder().encode(exact).length;
    const rest = text.length - SHOWN_LENGTH_MAX;
    const cut = rest > 0 ? `, ${count(rest)} characters not shown` : "";
    const all = plural(this.#documents.length, "document");
    const changed = this.#isPretty ? ", formatted for reading" : "";
    const isOtlp = Boolean(this.#otlp[this.#at]) && !this.#asXray.box.checked;
    const form = isOtlp ? ", OTLP" : "";
    setText(this.#about, `${this.#at + 1} of ${all}, ${size(bytes)}${form}${changed}${cut}`);
    setText(this.#text, text.slice(0, SHOWN_LENGTH_MAX));
  }
}
