/**
 * The elements of the service map: nodes with a ring of outcomes, edges, and the table of a node.
 *
 * In: nodes and edges of `graph.js`, with their positions. Out: elements.
 */

import { h, s } from "../shared/dom.js";
import { count, duration, line, percent } from "../shared/format.js";
import { OUTCOMES, quantile, typeLabel } from "./graph.js";

/** Radius of a node, in pixels. */
const RADIUS = 34;
/**
 * How much of a node is shown, by the smallest scale for it. The labels keep their size on the screen,
 * so that a smaller scale leaves less room for each.
 *
 * @type {{least: number, name: string, length: number}[]}
 */
const LEVELS = [
  { least: 0.8, name: "full", length: 24 },
  { least: 0.65, name: "names", length: 17 },
  { least: 0.55, name: "short", length: 14 },
  { least: 0, name: "least", length: 12 },
];

/** Draws the outcomes of a node's requests as arcs of a ring. */
function ring(node) {
  const length = 2 * Math.PI * RADIUS;
  const arcs = [];
  let at = 0;
  for (const outcome of OUTCOMES) {
    const share = node.total > 0 ? node[outcome] / node.total : 0;
    if (share === 0) continue;
    // Each arc has a minimum length, so that a single failure among thousands of requests is
    // visible.
    const drawn = Math.max(share, 0.012);
    arcs.push(
      s("circle", {
        r: RADIUS,
        class: `ring ${outcome}`,
        "stroke-dasharray": `${drawn * length} ${length}`,
        "stroke-dashoffset": -at * length,
      }),
    );
    at += share;
  }
  return s("g", { transform: "rotate(-90)" }, s("circle", { r: RADIUS, class: "ring base" }), arcs);
}

/**
 * Returns the name of the level of detail at a scale.
 *
 * @param {number} scale
 * @returns {string}
 */
export function levelOf(scale) {
  return LEVELS.find(({ least }) => scale >= least)?.name ?? "least";
}

/**
 * Splits a name into at most two lines. The middle of a longer name is left out: names of services
 * often have a common start.
 *
 * @param {string} name
 * @param {number} length Largest number of characters in a line.
 * @returns {string[]}
 */
export function labelLines(name, length) {
  let text = line(name, 200);
  if (text.length <= length) return [text];
  if (text.length > 2 * length) {
    const kept = 2 * length - 1;
    text = `${text.slice(0, Math.ceil(kept / 2))}…${text.slice(-Math.floor(kept / 2))}`;
  }
  const cut = text.slice(0, length).search(/[\s./:@_-][^\s./:@_-]*$/);
  const isGood = cut > length / 3 && text.length - cut - 1 <= length;
  const at = isGood ? cut + 1 : length;
  return [text.slice(0, at), text.slice(at)];
}

/**
 * Returns for each edge which piece of its line has its label: one that it shares with the fewest
 * other edges, and of these the nearest to its middle.
 *
 * @param {{x: number, y: number}[][]} lines
 * @returns {number[]} Index of the point at which the piece begins.
 */
export function labelPieces(lines) {
  const uses = new Map();
  const key = (one, other) =>
    [one, other]
      .sort((a, b) => a.x - b.x)
      .map(({ x, y }) => `${x.toFixed(1)} ${y.toFixed(1)}`)
      .join(" ");
  const keysOf = (line) => line.slice(1).map((point, at) => key(line[at], point));
  for (const line of lines) {
    for (const piece of keysOf(line)) uses.set(piece, (uses.get(piece) ?? 0) + 1);
  }
  return lines.map((line) => {
    const counts = keysOf(line).map((piece) => uses.get(piece));
    const middle = (counts.length - 1) / 2;
    let best = 0;
    counts.forEach((count, at) => {
      const nearer = Math.abs(at - middle) < Math.abs(best - middle);
      if (count < counts[best] || (count === counts[best] && nearer)) best = at;
    });
    return best;
  });
}

/**
 * Returns a curve through the points of an edge: the centres of its nodes and dummy slots. `piece` is
 * the piece with the label.
 */
function curveOf(points, piece) {
  const [first] = points;
  if (points.length === 1) {
    const { x } = first;
    const top = first.y - RADIUS;
    const high = top - 46;
    const d = `M${x - 14} ${top + 2}C${x - 44} ${high} ${x + 44} ${high} ${x + 17} ${top - 5}`;
    return { d, middle: { x, y: top - 32 } };
  }
  // An edge leaves a node at one side and enters the next node at the other side. An edge that
  // leads to the left is drawn a little lower, so that it does not cover an edge to the right.
  const sign = points.at(-1).x > first.x ? 1 : -1;
  const below = sign < 0 ? 10 : 0;
  const line = points.map(({ x, y }) => ({ x, y: y + below }));
  line[0].x += sign * (RADIUS + 4);
  line.at(-1).x -= sign * (RADIUS + 8);
  let d = `M${line[0].x} ${line[0].y}`;
  for (let index = 1; index < line.length; index += 1) {
    const [from, to] = [line[index - 1], line[index]];
    const bend = (to.x - from.x) / 2;
    d += `C${from.x + bend} ${from.y} ${to.x - bend} ${to.y} ${to.x} ${to.y}`;
  }
  const [one, other] = [line[piece], line[piece + 1]];
  return { d, middle: { x: (one.x + other.x) / 2, y: (one.y + other.y) / 2 } };
}

function worst({ fault, throttle, error }) {
  if (fault > 0) return "fault";
  if (throttle > 0) return "throttle";
  return error > 0 ? "error" : "ok";
}

/**
 * Draws an edge: an arrow with the mean response time.
 *
 * @param {any} edge
 * @param {{x: number, y: number}[]} points
 * @param {number} piece Index of the point at which the piece with the label begins.
 * @returns {SVGElement}
 */
export function edgeGroup(edge, points, piece) {
  const { d, middle } = curveOf(points, piece);
  const outcome = worst(edge);
  return s(
    "g",
    { class: "map-edge" },
    s("path", {
      d,
      class: `line ${outcome}`,
      "marker-end": `url(#arrow-${outcome})`,
      "stroke-width": 1.2 + Math.min(2, Math.log10(1 + edge.total) / 2),
    }),
    s("text", { x: middle.x, y: middle.y - 5, class: "edge-label", text: duration(edge.seconds) }),
  );
}

/** Draws a client as the outline of a person, without numbers. */
function clientParts() {
  const person = "M0-14a7 7 0 1 1 0 14 7 7 0 0 1 0-14M-13 15a13 11 0 0 1 26 0";
  return [s("path", { class: "person", d: person }), s("g", { class: "node-label" })];
}

function serviceParts(node) {
  return [
    ring(node),
    s("text", { class: "node-time", y: 0, text: duration(node.seconds) }),
    s("text", { class: "node-count", y: 14, text: `${count(node.total)} req` }),
    s("g", { class: "node-label" }),
  ];
}

/**
 * Writes the label below a node: its name, and what else there is room for.
 *
 * @param {Element} group The group of the node.
 * @param {any} node
 * @param {string} level Name of a level of detail.
 */
export function labelNode(group, node, level) {
  const { length } = LEVELS.find(({ name }) => name === level) ?? LEVELS[0];
  const lines = node.isClient ? ["Client"] : labelLines(node.name, length);
  const names = lines.map((text, at) => s("tspan", { x: 0, dy: at === 0 ? 0 : 13, text }));
  // The type is left out if it is the same as the name. Where the circle is too small for the time,
  // the time takes the place of the type, if the name leaves a line.
  const type = line(typeLabel(node.type), length + 4);
  const time = lines.length === 1 && !node.isClient ? duration(node.seconds) : "";
  const second = level === "full" ? (type === node.name || node.isClient ? "" : type) : time;
  group
    .querySelector(".node-label")
    ?.replaceChildren(
      s("text", { class: "node-name", y: 13 }, names),
      s("text", { class: "node-type", y: 13 + 13 * lines.length, text: second }),
    );
}

/**
 * Draws a node: a ring with the mean response time and the number of requests, and the name below.
 *
 * @param {any} node
 * @param {number} index
 * @param {{x: number, y: number}} position
 * @returns {SVGElement}
 */
export function nodeGroup(node, index, { x, y }) {
  const failed = percent(node.total - node.ok, node.total);
  const label =
    `${line(node.name, 100)}, ${typeLabel(node.type)}: ${count(node.total)} requests, ` +
    `${duration(node.seconds)} on average, ${failed} not ok`;
  return s(
    "g",
    {
      class: node.isClient ? "map-node client" : "map-node",
      transform: `translate(${x} ${y})`,
      tabindex: node.isClient ? null : 0,
      role: node.isClient ? "img" : "link",
      "aria-label": node.isClient ? "Client" : label,
      "data-index": index,
      "data-name": line(node.name, 200),
    },
    s("circle", { r: RADIUS + 7, class: "focus-ring" }),
    s("circle", { r: RADIUS - 4, class: "disc" }),
    node.isClient ? clientParts() : serviceParts(node),
  );
}

/**
 * Creates the table with the numbers of a node.
 *
 * @param {any} node
 * @returns {HTMLElement[]}
 */
export function numbersOf(node) {
  const rows = OUTCOMES.map((outcome) =>
    h(
      "tr",
      { "data-state": outcome },
      h("th", { scope: "row" }, h("i", { class: "swatch" }), outcome),
      h("td", { text: count(node[outcome]) }),
      h("td", { text: percent(node[outcome], node.total) }),
    ),
  );
  const times = [
    ["mean", node.seconds],
    ["p50", quantile(node.histogram, 0.5)],
    ["p90", quantile(node.histogram, 0.9)],
    ["p99", quantile(node.histogram, 0.99)],
  ].filter(([, value]) => value !== null);
  return [
    h("h3", { text: line(node.name, 120) }),
    h("p", { class: "faint", text: line(typeLabel(node.type), 60) }),
    h("table", {}, h("tbody", {}, rows)),
    h(
      "dl",
      { class: "times" },
      times.map(([name, value]) =>
        h("div", {}, h("dt", { text: name }), h("dd", { text: duration(value) })),
      ),
    ),
  ];
}
