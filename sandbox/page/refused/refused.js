/**
 * The view of what the sandbox refused: documents that break a rule, and spans that were not taken.
 *
 * In: the kinds of `/api/refused`. Out: a card for each kind, with the broken rule, the field, how to
 * mend it, and the last documents. Bound: the kinds that the sandbox keeps.
 */

import { forgetRefused, messageOf, refused as fetchRefused } from "../shared/api.js";
import { copyButton, h, setText, toast } from "../shared/dom.js";
import { clock, count, line, moment, plural, size } from "../shared/format.js";
import { format } from "../shared/router.js";

/** What each code says, for readers who do not know it. */
const TITLES = {
  ParseError: "The text is not a document",
  DocumentTooLarge: "The document is too large",
  InvalidName: "The name has characters that names may not have, or is too long",
  MissingEndTime: "There is no end, and the work is not marked as in progress",
  RejectedSpan: "A span of OpenTelemetry was not taken",
};

/** Returns the title of a kind: what is wrong, in words. */
function titleOf({ code, field }) {
  if (TITLES[code]) return TITLES[code];
  const name = field.split(".").at(-1) || "document";
  return code.startsWith("Missing") ? `The ${name} is missing` : `The ${name} is not valid`;
}

/**
 * Marks the place of the fault in the start of a document, if it is there.
 *
 * @param {any} sample
 * @returns {(Node|string)[]}
 */
function marked({ start, value, field }) {
  const key = field.split(".").at(-1);
  if (!key || value === null) return [start];
  // The value is escaped as in the document. The first place that has both key and value is marked.
  const escaped = JSON.stringify(value).slice(1, -1);
  const at = start.search(new RegExp(`"${literal(key)}"\\s*:\\s*"?${literal(escaped)}`));
  if (at < 0) return [start];
  const from = start.indexOf(escaped, at + key.length + 2);
  const to = from + escaped.length;
  return [start.slice(0, from), h("mark", { text: start.slice(from, to) }), start.slice(to)];
}

/** Escapes a text for a regular expression. */
const literal = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");

function facts(pairs) {
  return h(
    "dl",
    { class: "facts" },
    pairs
      .filter(([, value]) => value !== null && value !== "")
      .flatMap(([name, value]) => [h("dt", { text: name }), h("dd", {}, value)]),
  );
}

function sampleBox(sample, isOpen) {
  const { at, id, trace_id: traceId, field, value, start, size_bytes: bytes } = sample;
  const link = traceId
    ? h("a", { class: "link mono", href: format({ view: "trace", id: traceId }), text: traceId })
    : null;
  const box = h(
    "details",
    { class: "refused-sample" },
    h(
      "summary",
      {},
      h("span", { class: "refused-at", text: clock(at), title: moment(at) }),
      h("span", { class: "mono refused-value", text: value === null ? "" : line(value, 80) }),
      h("span", { class: "grow" }),
      bytes > 0 ? h("span", { class: "faint", text: size(bytes) }) : null,
    ),
    facts([
      ["Trace", link],
      ["Segment", id ? h("span", { class: "mono", text: id }) : null],
      ["Field", field ? h("span", { class: "mono", text: field }) : null],
      ["Rule", line(sample.sentence, 600)],
    ]),
    start === ""
      ? null
      : h(
          "div",
          { class: "code-box" },
          h("pre", { class: "code", tabIndex: 0 }, marked(sample), start.length < bytes ? "…" : ""),
          copyButton(start, "Copy the start of the document"),
        ),
  );
  box.open = isOpen;
  return box;
}

function card(kind, openNumbers) {
  const [newest] = kind.samples;
  const times =
    kind.count === 1
      ? clock(kind.last_at)
      : `first ${clock(kind.first_at)}, last ${clock(kind.last_at)}`;
  const of = { RejectedSpan: "span" }[kind.code] ?? "document";
  return h(
    "article",
    { class: "refused-kind", id: `refused-${kind.number}`, tabIndex: -1, "data-code": kind.code },
    h(
      "header",
      {},
      h("span", { class: "refused-code mono", text: kind.code }),
      h("h2", { text: titleOf(kind) }),
      h("span", { class: "grow" }),
      h("b", { text: plural(kind.count, of) }),
    ),
    facts([
      ["From", kind.name ? h("b", { text: line(kind.name, 200) }) : null],
      ["Field", kind.field ? h("span", { class: "mono", text: kind.field }) : null],
      [
        "Value",
        newest.value === null
          ? kind.field
            ? h("span", { class: "faint", text: "missing" })
            : null
          : h("span", { class: "mono refused-wrong", text: line(newest.value, 200) }),
      ],
      ["Rule", line(newest.sentence, 600)],
      ["Time", times],
    ]),
    h("p", { class: "refused-mend" }, h("b", { text: "How to mend it " }), ...coded(newest.mend)),
    h(
      "div",
      { class: "refused-samples" },
      h("h3", { text: kind.samples.length < kind.count ? "The last documents" : "Documents" }),
      kind.samples.map((sample, at) => sampleBox(sample, openNumbers.has(`${kind.number} ${at}`))),
    ),
  );
}

/** Shows the parts of a text in backticks as code. */
function coded(text) {
  return text
    .split("`")
    .map((part, at) => (at % 2 === 1 ? h("code", { text: part }) : part))
    .filter((part) => part !== "");
}

/** The view. See the module. */
export class RefusedView {
  title = "Refused documents";
  /** @type {HTMLElement} */
  element;

  #live;
  #list = h("div", { class: "refused-list" });
  #note = h("div", { class: "empty-note", role: "status" });
  #summary = h("p", { class: "muted" });
  #clear;
  #seenCount = -1;
  #told = "";
  /** Numbers of documents when the kinds were drawn, by number of the kind. */
  #counts = new Map();

  /** @param {{live: import("../shared/live.js").Live}} page */
  constructor({ live }) {
    this.#live = live;
    this.#clear = h("button", {
      type: "button",
      class: "button",
      text: "Clear",
      on: { click: () => this.#forget() },
    });
    this.element = h(
      "section",
      { class: "view refused", "aria-label": "Refused documents" },
      h(
        "div",
        { class: "page" },
        h(
          "header",
          { class: "page-head" },
          h("div", {}, h("h1", { text: "Refused documents" }), this.#summary),
          this.#clear,
        ),
        this.#note,
        this.#list,
      ),
    );
    this.element.hidden = true;
    live.listen(() => {
      if (!this.element.hidden && live.refusedCount !== this.#seenCount) this.#load();
    });
  }

  /** @param {import("../shared/router.js").Route} route */
  async show({ query }) {
    await this.#load();
    const number = query.get("kind");
    const found = number && document.getElementById(`refused-${number}`);
    if (found) {
      found.scrollIntoView({ block: "start" });
      found.focus({ preventScroll: true });
    }
  }

  focus() {
    this.element.parentElement?.focus({ preventScroll: true });
  }

  /**
   * Handles a key.
   *
   * @param {KeyboardEvent} event
   * @returns {boolean} Whether the view used the key.
   */
  key(event) {
    const step = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 }[event.key];
    const cards = /** @type {HTMLElement[]} */ ([...this.#list.children]);
    if (step === undefined || cards.length === 0) return false;
    const at = cards.findIndex((card) => card.contains(document.activeElement));
    const next = at < 0 ? (step > 0 ? 0 : cards.length - 1) : at + step;
    const card = cards[Math.min(Math.max(next, 0), cards.length - 1)];
    card.focus({ preventScroll: true });
    card.scrollIntoView({ block: "nearest" });
    return true;
  }

  async #load() {
    this.#seenCount = this.#live.refusedCount;
    try {
      this.#draw(await fetchRefused());
    } catch (error) {
      setText(this.#note, `The list cannot be loaded: ${messageOf(error)}`);
    }
  }

  #draw({ count: all, kinds, dropped_kind_count: droppedCount }) {
    this.#clear.hidden = all === 0;
    const kindsText = kinds.length === 1 ? "one kind" : `${count(kinds.length)} kinds`;
    const dropped =
      droppedCount > 0 ? ` ${plural(droppedCount, "older kind")} are not shown any more.` : "";
    setText(
      this.#summary,
      "The sandbox checks documents as the service does. The service only names refused documents " +
        "in its answer to the daemon, and the rest of the trace is shown without them." +
        (all === 0 ? "" : ` ${plural(all, "document")} of ${kindsText} so far.${dropped}`),
    );
    this.#note.replaceChildren();
    if (all === 0) {
      this.#note.append(
        h("h2", { text: "Nothing was refused" }),
        h("p", { text: "All documents that arrived are in traces." }),
      );
    }
    const told = JSON.stringify(kinds);
    if (told === this.#told) return;
    this.#told = told;
    // An opened document stays open. A new document moves the others down by one. If it moves
    // the opened one out of the list, the last one is opened.
    const open = new Set();
    for (const box of this.#list.querySelectorAll("article")) {
      const kind = box.id.replace("refused-", "");
      box.querySelectorAll("details").forEach((sample, at) => {
        if (sample.open) open.add(`${kind} ${this.#placeNow(kinds, kind, at)}`);
      });
    }
    this.#counts = new Map(kinds.map((kind) => [String(kind.number), kind.count]));
    this.#list.replaceChildren(...kinds.map((kind) => card(kind, open)));
  }

  /** Returns where the document is now that was at a place when its kind was drawn. */
  #placeNow(kinds, number, place) {
    const kind = kinds.find((one) => String(one.number) === number);
    if (!kind) return place;
    const newCount = Math.max(0, kind.count - (this.#counts.get(number) ?? kind.count));
    return Math.min(place + newCount, kind.samples.length - 1);
  }

  async #forget() {
    try {
      await forgetRefused();
      await this.#live.poll();
      await this.#load();
    } catch (error) {
      toast(messageOf(error), "bad");
    }
  }
}
