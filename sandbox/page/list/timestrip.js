/**
 * The strip above the list of traces: a choice of time ranges, and the number of traces over time.
 * Dragging over the bars chooses a range.
 *
 * In: the traces that fit all other filters, and the range as text. Out: the range that the user
 * chooses. Bound: {@link BIN_COUNT} bars.
 */

import { h, iconButton, s, setText } from "../shared/dom.js";
import { clock, plural } from "../shared/format.js";
import { PRESETS, binsOf, formatRange, isRelative, parseRange, spanOf } from "./timerange.js";

const BIN_COUNT = 80;
/** Height of the drawing, in its own units. Each bar has a width of 1. */
const HEIGHT = 100;
/** A drag over fewer pixels than this is a click. */
const DRAG_MIN = 4;

/** Formats a time for an input field: local time, to the second. */
function inputText(seconds) {
  const date = new Date(Math.floor(seconds) * 1000);
  const local = new Date(date.getTime() - date.getTimezoneOffset() * 60_000);
  return local.toISOString().slice(0, 19);
}

/** The strip. See the module. */
export class TimeStrip {
  /** @type {HTMLElement} */
  element;

  #choose;
  #select;
  #custom;
  #from;
  #to;
  #plot;
  #bars = s("g", {});
  #window;
  #hover;
  #clear;
  #text = "";
  /** @type {import("./timerange.js").Range|null} The time that the bars show. */
  #shown = null;
  /** @type {import("./timerange.js").Bin[]} */
  #bins = [];
  #drawn = "";

  /** @param {(text: string) => void} choose Called with the range that the user chooses. */
  constructor(choose) {
    this.#choose = choose;
    this.#select = h(
      "select",
      { "aria-label": "Time range", on: { change: () => this.#selected() } },
      PRESETS.map(([value, label]) => h("option", { value, text: label })),
      h("option", { value: "custom", text: "From … to …" }),
    );
    const field = (label) =>
      h("input", {
        type: "datetime-local",
        step: "1",
        "aria-label": label,
        on: { change: () => this.#typed() },
      });
    this.#from = field("From");
    this.#to = field("To");
    this.#custom = h("span", { class: "time-fields" }, this.#from, "–", this.#to);
    this.#window = s("rect", { class: "time-window", y: 0, height: HEIGHT });
    const box = `0 0 ${BIN_COUNT} ${HEIGHT}`;
    this.#plot = h(
      "div",
      {
        class: "time-plot",
        title: "Drag to choose a time",
        on: {
          pointerdown: (event) => this.#drag(event),
          pointermove: (event) => this.#point(event),
          pointerleave: () => this.#describe(),
        },
      },
      s(
        "svg",
        { viewBox: box, preserveAspectRatio: "none", "aria-hidden": "true" },
        this.#window,
        this.#bars,
      ),
    );
    this.#hover = h("span", { class: "time-hover" });
    this.#clear = iconButton("close", "Show all times", () => this.#choose(""));
    this.element = h(
      "div",
      { class: "time-strip", hidden: true },
      h("div", { class: "time-choice" }, this.#select, this.#custom, this.#clear),
      this.#plot,
      this.#hover,
    );
  }

  /**
   * Shows the traces over time, and the range.
   *
   * @param {any[]} traces
   * @param {string} text The range.
   * @param {number} now In seconds since 1970.
   */
  show(traces, text, now) {
    this.#text = text;
    const range = parseRange(text, now);
    const span = spanOf(traces);
    this.element.hidden = span === null && text === "";
    const isCustom = range !== null && !isRelative(text);
    const isPreset = PRESETS.some(([value]) => value === text);
    this.#select.value = isPreset ? text : isCustom ? "custom" : "";
    this.#custom.hidden = !isCustom;
    this.#clear.hidden = range === null;
    if (isCustom && !this.#custom.contains(document.activeElement)) {
      this.#from.value = inputText(range.from);
      this.#to.value = inputText(range.to);
    }
    // A relative range is shown alone. For another one, the time around it is shown, too.
    const shown = range && isRelative(text) ? { from: range.from, to: now } : span;
    this.#shown = shown;
    this.#bins = shown ? binsOf(traces, shown, BIN_COUNT) : [];
    this.#draw(isCustom ? range : null);
    this.#describe();
  }

  #draw(range) {
    const most = this.#bins.reduce((most, bin) => Math.max(most, bin.count), 0);
    const told = JSON.stringify([this.#bins.map((bin) => [bin.count, bin.badCount]), most]);
    if (told !== this.#drawn) {
      this.#drawn = told;
      const rect = (name, x, y, height) =>
        s("rect", { class: name, x: x + 0.1, y, width: 0.8, height });
      const bars = this.#bins.flatMap((bin, at) => {
        if (bin.count === 0) return [];
        // The smallest number is still seen beside a very large one.
        const height = Math.max(6, (HEIGHT * bin.count) / most);
        const bad = bin.badCount && Math.max(6, (height * bin.badCount) / bin.count);
        return [
          rect("time-good", at, HEIGHT - height, height - bad),
          ...(bad > 0 ? [rect("time-bad", at, HEIGHT - bad, bad)] : []),
        ];
      });
      this.#bars.replaceChildren(...bars);
    }
    this.#mark(range);
  }

  /** Marks a range in the drawing. */
  #mark(range) {
    const shown = this.#shown;
    const length = shown ? shown.to - shown.from : 0;
    const isMarked = range !== null && shown !== null && length > 0;
    this.#window.toggleAttribute("hidden", !isMarked);
    this.#window.style.display = isMarked ? "" : "none";
    if (!isMarked) return;
    const at = (time) =>
      Math.min(Math.max(((time - shown.from) / length) * BIN_COUNT, 0), BIN_COUNT);
    this.#window.setAttribute("x", String(at(range.from)));
    this.#window.setAttribute("width", String(Math.max(0.3, at(range.to) - at(range.from))));
  }

  #describe() {
    const shown = this.#shown;
    const text = shown ? `${clock(shown.from)} – ${clock(shown.to)}` : "";
    setText(this.#hover, text);
  }

  /** Returns the time at the pointer. */
  #timeAt(event) {
    const { left, width } = this.#plot.getBoundingClientRect();
    const part = Math.min(Math.max((event.clientX - left) / (width || 1), 0), 1);
    const { from, to } = this.#shown ?? { from: 0, to: 0 };
    return from + part * (to - from);
  }

  /** Says what is under the pointer. */
  #point(event) {
    if (!this.#shown || this.#bins.length === 0) return;
    const { from, to } = this.#shown;
    const step = (to - from) / BIN_COUNT;
    const at = Math.min(BIN_COUNT - 1, Math.floor((this.#timeAt(event) - from) / (step || 1)));
    const { count, badCount } = this.#bins[Math.max(0, at)];
    const bad = badCount > 0 ? `, ${plural(badCount, "error")}` : "";
    setText(this.#hover, `${clock(from + at * step)}: ${plural(count, "trace")}${bad}`);
  }

  #drag(event) {
    if (event.button !== 0 || !this.#shown) return;
    event.preventDefault();
    const first = { x: event.clientX, time: this.#timeAt(event) };
    this.#plot.setPointerCapture(event.pointerId);
    // Each bar that the pointer touches is in the range as a whole.
    const { from: start, to: last } = this.#shown;
    const step = (last - start) / BIN_COUNT || 1;
    const ranged = (at) => {
      const times = [first.time, this.#timeAt(at)];
      const from = start + Math.floor((Math.min(...times) - start) / step) * step;
      const to = start + Math.ceil((Math.max(...times) - start) / step) * step;
      return { from: Math.max(from, start), to: Math.min(to, last) };
    };
    const move = (at) => this.#mark(ranged(at));
    const end = (at) => {
      this.#plot.removeEventListener("pointermove", move);
      if (at.type === "pointercancel") return this.#choose(this.#text);
      const { from, to } = ranged(at);
      if (Math.abs(at.clientX - first.x) >= DRAG_MIN) this.#choose(formatRange(from, to));
      else this.#choose(this.#text);
    };
    this.#plot.addEventListener("pointermove", move);
    this.#plot.addEventListener("pointerup", end, { once: true });
    this.#plot.addEventListener("pointercancel", end, { once: true });
  }

  #selected() {
    const { value } = this.#select;
    if (value !== "custom") return this.#choose(value);
    const { from, to } = this.#shown ?? { from: 0, to: Date.now() / 1000 };
    this.#choose(formatRange(Math.floor(from), Math.ceil(to)));
    this.#from.focus();
  }

  #typed() {
    const seconds = (field) => new Date(field.value).getTime() / 1000;
    const [from, to] = [seconds(this.#from), seconds(this.#to)];
    // The field has whole seconds; the last second belongs to the range.
    if (Number.isFinite(from) && Number.isFinite(to)) this.#choose(formatRange(from, to + 0.999));
  }
}
