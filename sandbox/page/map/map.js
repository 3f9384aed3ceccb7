/**
 * The service map: the calls between services, with response times and failures.
 *
 * In: the service graph, which is fetched again while traces arrive. Out: a drawing that can be
 * moved and zoomed. A click on a node shows its traces in the list.
 */

import { messageOf, serviceGraph } from "../shared/api.js";
import { h, iconButton, s } from "../shared/dom.js";
import { OUTCOMES, graphOf } from "./graph.js";
import { layout } from "./layout.js";
import { edgeGroup, labelNode, labelPieces, levelOf, nodeGroup, numbersOf } from "./parts.js";
import { READABLE_SCALE, Viewport } from "./viewport.js";

/** Space on each side of the drawing, in pixels. */
const MARGIN = 14;
/** The layout is computed again if the shape of the view changes by more than this factor. */
const SHAPE_FACTOR = 1.3;
/** Size of the labels on the screen, as a part of their size in the drawing, below this scale. */
const LABEL_SCALE = 0.92;
/** Time between two requests for the graph while traces arrive, in milliseconds. */
const REFRESH_MS = 3000;

const RANGES = [
  ["", "All traces"],
  ["300", "Last 5 minutes"],
  ["900", "Last 15 minutes"],
  ["3600", "Last hour"],
];
const LEGEND = [
  ["ok", "ok"],
  ["error", "error (4xx)"],
  ["throttle", "throttle (429)"],
  ["fault", "fault (5xx)"],
];

/** What the numbers are, as the bar says it. */
const KEY = [
  ["Circle", "mean response time, number of requests"],
  ["Ring", "their outcomes"],
  ["Arrow", "mean time of the calls, as the caller sees it"],
  ["Click", "traces of the service"],
];

/** The view of the map. See the module. */
export class MapView {
  title = "Service map";
  /** @type {HTMLElement} */
  element;

  #live;
  #router;
  #svg;
  #scene;
  #viewport;
  #card;
  #note;
  #range;
  #drawn = "";
  /** The graph that was drawn last. @type {{nodes: any[], edges: any[]}|null} */
  #graph = null;
  /** Shape of the view at the last layout: width divided by height. */
  #aspect = 0;
  #level = "";
  #version = -1;
  #timer = 0;

  /**
   * @param {{live: import("../shared/live.js").Live, router: import("../shared/router.js").Router}}
   *   page
   */
  constructor({ live, router }) {
    this.#live = live;
    this.#router = router;
    this.#scene = s("g", {});
    this.#svg = s(
      "svg",
      { class: "map", role: "group", "aria-label": "Service map" },
      s(
        "defs",
        {},
        OUTCOMES.map((outcome) =>
          s(
            "marker",
            {
              id: `arrow-${outcome}`,
              class: `arrow ${outcome}`,
              viewBox: "0 0 8 8",
              refX: 6,
              refY: 4,
              markerWidth: 8,
              markerHeight: 8,
              markerUnits: "userSpaceOnUse",
              orient: "auto",
            },
            s("path", { d: "M0 .8 7 4 0 7.2z" }),
          ),
        ),
      ),
      this.#scene,
    );
    this.#viewport = new Viewport(this.#svg, this.#scene, (scale) => this.#label(scale));
    new ResizeObserver(() => this.#reshape()).observe(this.#svg);
    this.#card = h("div", { class: "map-card", hidden: true });
    this.#note = h("div", { class: "empty-note", role: "status" });
    this.#range = h(
      "select",
      { "aria-label": "Time range", on: { change: () => this.#choose() } },
      RANGES.map(([value, text]) => h("option", { value, text })),
    );
    this.element = h(
      "section",
      { class: "view map-view", "aria-label": "Service map" },
      h(
        "div",
        { class: "map-bar" },
        this.#range,
        h(
          "ul",
          { class: "legend", "aria-label": "Colours" },
          LEGEND.map(([state, label]) =>
            h("li", { "data-state": state }, h("i", { class: "swatch" }), label),
          ),
        ),
        h("span", { class: "grow" }),
        h(
          "span",
          { class: "zoom", role: "group", "aria-label": "Zoom" },
          iconButton("minus", "Zoom out (-)", () => this.#viewport.zoom(1 / 1.25)),
          iconButton("plus", "Zoom in (+)", () => this.#viewport.zoom(1.25)),
          iconButton("fit", "Show all (0)", () => this.#viewport.fit()),
        ),
        h(
          "dl",
          { class: "map-key", "aria-label": "What the numbers are" },
          KEY.map(([term, text]) => h("div", {}, h("dt", { text: term }), h("dd", { text }))),
        ),
      ),
      h("div", { class: "map-body" }, this.#svg, this.#card, this.#note),
    );
    live.listen(() => this.#changed());
  }

  /** @param {import("../shared/router.js").Route} route */
  show({ query }) {
    this.#range.value = query.get("range") ?? "";
    if (this.#range.selectedIndex < 0) this.#range.value = "";
    this.#card.hidden = true;
    this.#load();
  }

  /** The nodes that can have the focus: all nodes except clients. */
  get #nodes() {
    /** @type {NodeListOf<SVGElement>} */
    const found = this.#scene.querySelectorAll(".map-node:not(.client)");
    return [...found];
  }

  focus() {
    this.#nodes[0]?.focus({ preventScroll: true });
  }

  /**
   * Handles a key.
   *
   * @param {KeyboardEvent} event
   * @returns {boolean} Whether the view used the key.
   */
  key(event) {
    const zooms = { "+": 1.25, "=": 1.25, "-": 1 / 1.25 };
    if (event.key in zooms) this.#viewport.zoom(zooms[event.key]);
    else if (event.key === "0") this.#viewport.fit();
    else if (event.key === "j" || event.key === "k" || event.key.startsWith("Arrow")) {
      const nodes = this.#nodes;
      const step =
        event.key === "j" || event.key === "ArrowDown" || event.key === "ArrowRight" ? 1 : -1;
      const at = nodes.findIndex((node) => node === document.activeElement);
      nodes[(at + step + nodes.length) % nodes.length]?.focus();
    } else return false;
    return true;
  }

  #choose() {
    this.#router.note({ view: "map", query: { range: this.#range.value } });
    this.#load();
  }

  #changed() {
    if (this.element.hidden || this.#version === this.#live.version || this.#timer) return;
    this.#timer = setTimeout(() => {
      this.#timer = 0;
      if (!this.element.hidden) this.#load();
    }, REFRESH_MS);
  }

  async #load() {
    this.#version = this.#live.version;
    const window = Number(this.#range.value);
    const now = Math.ceil(Date.now() / 1000);
    try {
      this.#draw(graphOf(await serviceGraph(window ? { start: now - window, end: now } : {})));
    } catch (error) {
      if (this.#drawn === "") this.#say("The map cannot be loaded", messageOf(error));
    }
  }

  #say(title, text) {
    this.#note.hidden = title === "";
    this.#note.replaceChildren(h("h2", { text: title }), h("p", { text }));
  }

  /** Computes the layout again if the shape of the view has changed much. */
  #reshape() {
    const aspect = this.#shape();
    const factor = Math.max(aspect / this.#aspect, this.#aspect / aspect);
    if (this.#graph && aspect > 0 && factor > SHAPE_FACTOR) {
      this.#drawn = "";
      this.#draw(this.#graph);
    }
  }

  #shape() {
    const { clientWidth: width, clientHeight: height } = this.#svg;
    return height > 0 ? width / height : 0;
  }

  /**
   * Gives the labels a size that is readable at a scale, and leaves out what has no room.
   *
   * @param {number} scale
   */
  #label(scale) {
    const shown = Math.max(scale, READABLE_SCALE);
    this.#scene.style.setProperty("--label", String(Math.max(1, LABEL_SCALE / shown)));
    const level = levelOf(scale);
    if (level === this.#level) return;
    this.#level = level;
    this.#scene.dataset.level = level;
    for (const group of this.#scene.querySelectorAll(".map-node")) {
      const node = this.#graph?.nodes[Number(group.getAttribute("data-index"))];
      if (node) labelNode(group, node, level);
    }
  }

  #draw(graph) {
    const { nodes, edges } = graph;
    this.#graph = graph;
    this.#aspect = this.#shape();
    if (nodes.length === 0)
      this.#say("No service yet", "There are no traces in this time range.");
    else this.#say("", "");
    const active = document.activeElement;
    const focused = active instanceof SVGElement ? active.dataset.index : undefined;
    const placed = layout(
      nodes.length,
      edges.map(({ from, to }) => [from, to]),
      this.#aspect || undefined,
    );
    const pieces = labelPieces(placed.edges);
    const lines = edges.map((edge, at) => edgeGroup(edge, placed.edges[at], pieces[at]));
    const circles = nodes.map((node, index) => this.#node(node, index, placed.nodes[index]));
    this.#scene.replaceChildren(...lines, ...circles);
    this.#level = "";
    if (focused !== undefined) circles[focused]?.focus({ preventScroll: true });
    // If the nodes or edges have changed, the whole map is shown. If only numbers have changed, the
    // position and the zoom stay.
    const shape = JSON.stringify([
      nodes.map((node) => node.name),
      edges.map(({ from, to }) => [from, to]),
    ]);
    const bounds = {
      x: -MARGIN,
      y: -MARGIN / 2,
      width: placed.width + 2 * MARGIN,
      // Labels with a larger size than in the drawing reach below the lowest row.
      height: placed.height + 2.5 * MARGIN,
    };
    this.#viewport.setBounds(bounds, shape !== this.#drawn);
    this.#drawn = shape;
  }

  #node(node, index, position) {
    const group = nodeGroup(node, index, position);
    if (node.isClient) return group;
    const open = () => this.#router.go({ view: "traces", query: { q: serviceFilter(node.name) } });
    const tell = () => {
      this.#card.replaceChildren(...numbersOf(node));
      this.#card.hidden = false;
    };
    group.addEventListener("click", () => this.#viewport.wasDragged || open());
    group.addEventListener("keydown", (event) => event.key === "Enter" && open());
    for (const event of ["pointerenter", "focus"]) group.addEventListener(event, tell);
    for (const event of ["pointerleave", "blur"]) {
      group.addEventListener(event, () => (this.#card.hidden = true));
    }
    return group;
  }
}

/**
 * Returns the filter expression for the traces of a service.
 *
 * @param {string} name
 * @returns {string}
 */
export function serviceFilter(name) {
  return `service("${name.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}")`;
}
