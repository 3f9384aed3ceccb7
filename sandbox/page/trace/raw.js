/**
 * The original documents of a trace.
 *
 * In: the texts of the documents. Out: a view of one document at a time. The buttons copy documents
 * byte for byte. The option "Line breaks" changes only the view.
 */

import { copyButton, h, setText } from "../shared/dom.js";
import { count, line, plural, size } from "../shared/format.js";

/**
 * Largest number of characters that are shown. A document has at most 64 KiB without line breaks.
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
    const copyAll = copyButton(
      () => this.#documents.join("\n"),
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
        h("label", { class: "check" }, pretty, "Line breaks"),
        copyButton(
          () => this.#documents[this.#at] ?? "",
          "Copy this document unchanged",
          "Copy document",
        ),
        copyAll,
      ),
      this.#text,
    );
  }

  get #at() {
    return Math.max(0, this.#choice.selectedIndex);
  }

  /**
   * Shows the documents of a trace.
   *
   * @param {string[]} documents
   * @param {(index: number) => {name: string, id: string}|undefined} describe
   */
  show(documents, describe) {
    const at = this.#at;
    this.#documents = documents;
    this.#choice.replaceChildren(
      ...documents.map((_, index) => {
        const { name = "not JSON", id = "" } = describe(index) ?? {};
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
    const exact = this.#documents[this.#at] ?? "";
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
    setText(this.#about, `${this.#at + 1} of ${all}, ${size(bytes)}${changed}${cut}`);
    setText(this.#text, text.slice(0, SHOWN_LENGTH_MAX));
  }
}
