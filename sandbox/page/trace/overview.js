/**
 * A strip with the whole trace above the waterfall. It shows which part of the time axis is visible.
 *
 * In: the model of `tree.js` and the window of `window.js`. Out: the window that the user draws in
 * the strip. Bound: one thin line for each node; nodes that share a line of pixels cover each other.
 */

import { h } from "../shared/dom.js";
import { windowOf } from "./window.js";

/** Height of the strip, in pixels. */
const HEIGHT = 34;
/** Shortest movement of the pointer that draws a window, in pixels. */
const DRAG_MIN = 4;
const STATES = ["error", "throttle", "fault"];

/** Number of colours for services. */
export const SERVICE_COLOUR_COUNT = 8;

/** The strip. See the module. */
export class Overview {
  /** @type {HTMLElement} */
  element;

  #choose;
  #canvas;
  #window;
  #probe;
  /** @type {import("./tree.js").Node[]} */
  #nodes = [];
  #span = { start: 0, end: 0 };
  #adjusted = true;

  /** @param {(window: import("./window.js").Window) => void} choose Called while the user drags. */
  constructor(choose) {
    this.#choose = choose;
    this.#canvas = h("canvas", { class: "overview-bars" });
    this.#window = h("div", { class: "overview-window" });
    this.#probe = h("i", { class: "overview-probe" });
    this.element = h(
      "div",
      {
        class: "overview",
        title: "Drag to look at a part of the time. A double click shows all of it",
        "aria-hidden": "true",
        on: {
          pointerdown: (event) => this.#drag(event),
          dblclick: () => choose({ from: 0, to: this.#length }),
        },
      },
      this.#canvas,
      this.#window,
      this.#probe,
    );
    new ResizeObserver(() => this.#draw()).observe(this.element);
    // The canvas has the colours of the theme at the time when it was drawn.
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw());
    new MutationObserver(() => this.#draw()).observe(document.documentElement, {
      attributeFilter: ["data-theme"],
    });
  }

  get #length() {
    return this.#span.end - this.#span.start;
  }

  /**
   * Shows a trace.
   *
   * @param {import("./tree.js").Node[]} nodes
   * @param {{start: number, end: number}} span
   * @param {boolean} adjusted Whether clocks are adjusted.
   */
  show(nodes, span, adjusted) {
    this.#nodes = nodes;
    this.#span = span;
    this.#adjusted = adjusted;
    this.#draw();
  }

  /**
   * Marks the visible part of the axis.
   *
   * @param {import("./window.js").Window} window
   */
  mark({ from, to }) {
    const length = this.#length || 1;
    this.#window.style.left = `${(100 * from) / length}%`;
    this.#window.style.width = `${(100 * (to - from)) / length}%`;
    this.element.classList.toggle("is-zoomed", to - from < length * 0.9999);
  }

  /** Returns the colours of the services and of the states in the current theme. */
  #colours() {
    const read = (name, value) => {
      this.#probe.removeAttribute("data-service");
      this.#probe.removeAttribute("data-state");
      this.#probe.setAttribute(name, value);
      return getComputedStyle(this.#probe).color;
    };
    const numbers = [...Array(SERVICE_COLOUR_COUNT).keys()];
    return {
      services: numbers.map((number) => read("data-service", String(number))),
      states: Object.fromEntries(STATES.map((state) => [state, read("data-state", state)])),
    };
  }

  #draw() {
    const { clientWidth: width } = this.element;
    const context = this.#canvas.getContext("2d");
    if (width === 0 || !context) return;
    const scale = devicePixelRatio || 1;
    this.#canvas.width = width * scale;
    this.#canvas.height = HEIGHT * scale;
    context.scale(scale, scale);
    const { services, states } = this.#colours();
    const perSecond = width / (this.#length || 1);
    const perRow = Math.min(4, (HEIGHT - 4) / Math.max(1, this.#nodes.length));
    this.#nodes.forEach((node, index) => {
      if (node.start === null) return;
      const shift = this.#adjusted ? node.shift : 0;
      const from = node.start + shift - this.#span.start;
      const to = (node.end ?? this.#span.end - shift) + shift - this.#span.start;
      context.fillStyle =
        states[node.state] ?? services[(node.service ?? 0) % SERVICE_COLOUR_COUNT];
      const top = 2 + index * perRow;
      const high = Math.max(1, perRow - (perRow > 2 ? 1 : 0));
      context.fillRect(from * perSecond, top, Math.max(1, (to - from) * perSecond), high);
    });
  }

  #drag(event) {
    if (event.button !== 0 || this.#length === 0) return;
    const box = this.element.getBoundingClientRect();
    const secondsAt = (x) => ((x - box.left) / box.width) * this.#length;
    const start = event.clientX;
    const done = new AbortController();
    const move = (moved) => {
      if (Math.abs(moved.clientX - start) < DRAG_MIN) return;
      this.#choose(windowOf(secondsAt(start), secondsAt(moved.clientX), this.#length));
    };
    addEventListener("pointermove", move, { signal: done.signal });
    for (const end of ["pointerup", "pointercancel"]) {
      addEventListener(end, () => done.abort(), { signal: done.signal });
    }
    event.preventDefault();
  }
}
