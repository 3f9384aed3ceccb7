/**
 * Computes the positions of the nodes and edges of a graph, in layers from left to right.
 *
 * In: the number of nodes, the edges between them, and the shape of the space. Edges may form rings,
 * and may lead from a node to itself. Out: a position for each node, and a line for each edge. Each
 * group of connected nodes is laid out on its own, and the groups are then packed (`pack.js`). The
 * method for a group is layered graph drawing (Sugiyama): turn edges around to remove rings, assign
 * layers, insert dummy slots where an edge crosses a layer, order each layer by barycentres to get
 * few crossings, and move the slots towards their neighbours. A layer has a largest number of nodes,
 * so that a service that calls fifty others is no column of fifty. The edges of one node share their
 * dummy slots. No I/O, no clock, no recursion.
 *
 * @typedef {object} Slot
 * @property {number} layer
 * @property {number} height
 * @property {number} x
 * @property {number} y
 * @property {number[]} left Indexes of the connected slots in the layer on the left.
 * @property {number[]} right Indexes of the connected slots in the layer on the right.
 *
 * @typedef {{x: number, y: number}} Point
 *
 * @typedef {{nodes: Point[], edges: Point[][], width: number, height: number}} Layout
 */

import { crossings } from "./crossings.js";
import { pack } from "./pack.js";

/** Distance between the centres of two columns, in pixels. */
export const COLUMN_WIDTH = 190;
/** Height of a node, in pixels. */
export const ROW_HEIGHT = 124;
/** Height of a dummy slot, where an edge crosses a layer, in pixels. */
const DUMMY_HEIGHT = 22;
/** Number of passes that improve the order of the slots in their layers. */
const SWEEP_COUNT = 8;
/** Number of passes that move the slots towards their neighbours. */
const PULL_COUNT = 16;
/** Largest number of slots for each node, before a layer may have more nodes. */
const SLOTS_PER_NODE_MAX = 4;
/** Limits that are tried for graphs of at most this many nodes, as multiples of the first one. */
const LIMIT_FACTORS = [1, 0.6, 0.8, 1.3];
const TRIED_COUNT_MAX = 150;
/** Smallest limit for the nodes of a layer. */
const LAYER_COUNT_MIN = 4;
/** Space between two groups, in pixels. */
const GROUP_GAP = 24;

/**
 * Computes the layout.
 *
 * @param {number} count Number of nodes. The nodes are numbered from 0.
 * @param {[number, number][]} edges
 * @param {number} [aspect] Width of the space, divided by its height.
 * @returns {Layout} The lines have the order of `edges`, and begin at the source. All positions are
 *   centres. The width includes half a column on both sides.
 */
export function layout(count, edges, aspect = 1.6) {
  const groups = groupsOf(count, edges);
  const limit = layerLimit(count, aspect);
  const factors = count <= TRIED_COUNT_MAX ? LIMIT_FACTORS : [1];
  const limits = new Set(factors.map((it) => Math.max(LAYER_COUNT_MIN, Math.round(limit * it))));
  const tried = [...limits].map((it) => layoutWith(groups, it, aspect, count, edges.length));
  const scaleOf = ({ width, height }) => Math.min(aspect / (width || 1), 1 / (height || 1));
  return tried.reduce((best, one) => (scaleOf(one) > scaleOf(best) ? one : best));
}

/** Computes the layout with layers of at most `limit` nodes. @returns {Layout} */
function layoutWith(groups, limit, aspect, count, edgeCount) {
  const parts = groups.map((group) => layoutGroup(group, limit));
  const boxes = parts.map(({ width, height }) => ({
    width: width + GROUP_GAP,
    height: height + GROUP_GAP,
  }));
  const { places, width, height } = pack(boxes, aspect);
  /** @type {Point[]} */
  const nodes = new Array(count);
  /** @type {Point[][]} */
  const lines = new Array(edgeCount);
  parts.forEach((part, index) => {
    const move = ({ x, y }) => ({ x: x + places[index].x, y: y + places[index].y });
    groups[index].nodes.forEach((node, at) => (nodes[node] = move(part.nodes[at])));
    groups[index].edges.forEach((edge, at) => (lines[edge.index] = part.edges[at].map(move)));
  });
  return { nodes, edges: lines, width: width - GROUP_GAP, height: height - GROUP_GAP };
}

/** Returns how many nodes a layer may have, so that the layout fits the space. */
function layerLimit(count, aspect) {
  const square = Math.sqrt((count * COLUMN_WIDTH) / (ROW_HEIGHT * aspect));
  return Math.max(LAYER_COUNT_MIN, Math.ceil(square));
}

/** Returns the groups of connected nodes, the largest first. Their edges have local numbers. */
function groupsOf(count, edges) {
  const root = Array.from({ length: count }, (_, node) => node);
  const find = (node) => {
    while (root[node] !== node) {
      root[node] = root[root[node]];
      node = root[node];
    }
    return node;
  };
  for (const [from, to] of edges) root[find(from)] = find(to);
  const groups = new Map();
  const local = new Array(count);
  for (let node = 0; node < count; node += 1) {
    const key = find(node);
    if (!groups.has(key)) groups.set(key, { nodes: [], edges: [] });
    local[node] = groups.get(key).nodes.push(node) - 1;
  }
  edges.forEach(([from, to], index) => {
    groups.get(find(from)).edges.push({ from: local[from], to: local[to], index });
  });
  return [...groups.values()].sort((one, other) => other.nodes.length - one.nodes.length);
}

/** Computes the layout of a group. The top left corner of the layout is at 0, 0. */
function layoutGroup({ nodes: { length: count }, edges }, limit) {
  const forward = cutRings(
    count,
    edges.map(({ from, to }) => [from, to]),
  );
  const { slots, paths } = slotsWithin(count, forward, limit);
  const columns = order(slots);
  place(columns, slots);
  shiftToOrigin(slots);
  const nodes = slots.slice(0, count).map(({ x, y }) => ({ x, y }));
  const lines = paths.map((path, index) => {
    const points = path.map((slot) => ({ x: slots[slot].x, y: slots[slot].y }));
    return forward[index].isTurned ? points.reverse() : points;
  });
  const most = (of) => slots.reduce((largest, slot) => Math.max(largest, of(slot)), 0);
  return {
    nodes,
    edges: lines,
    width: most((slot) => slot.x) + COLUMN_WIDTH / 2,
    height: most((slot) => slot.y + slot.height / 2),
  };
}

/**
 * Returns the slots of layers with at most `limit` nodes. If many edges would cross many layers, the
 * layers may have more nodes, so that there are fewer of them.
 */
function slotsWithin(count, edges, limit) {
  const slotCountMax = SLOTS_PER_NODE_MAX * count;
  for (let size = limit; ; size *= 2) {
    const made = dummySlots(count, edges, layers(count, edges, size));
    if (made.slots.length <= slotCountMax || size >= count) return made;
  }
}

/** Returns the edges without rings: an edge that closes a ring is turned around. */
function cutRings(count, edges) {
  /** @type {{to: number, index: number}[][]} */
  const out = Array.from({ length: count }, () => []);
  edges.forEach(([from, to], index) => out[from].push({ to, index }));
  const turned = new Set();
  const state = new Uint8Array(count); // 0 new, 1 on the current path, 2 done
  const hasCaller = new Uint8Array(count);
  for (const [from, to] of edges) if (from !== to) hasCaller[to] = 1;
  const numbers = [...Array(count).keys()];
  const starts = numbers.sort((one, other) => hasCaller[one] - hasCaller[other] || one - other);
  for (const start of starts) {
    if (state[start]) continue;
    const way = [{ node: start, next: 0 }];
    state[start] = 1;
    for (let top = way.at(-1); top; top = way.at(-1)) {
      const edge = out[top.node][top.next];
      if (!edge) {
        state[top.node] = 2;
        way.pop();
        continue;
      }
      top.next += 1;
      if (state[edge.to] === 1) turned.add(edge.index);
      else if (state[edge.to] === 0) {
        state[edge.to] = 1;
        way.push({ node: edge.to, next: 0 });
      }
    }
  }
  return edges.map(([from, to], index) =>
    turned.has(index) ? { from: to, to: from, isTurned: true } : { from, to, isTurned: false },
  );
}

/**
 * Returns the layer of each node. It is behind the layers of its callers, and no layer has more nodes
 * than the limit. Nodes that call others come before nodes that call none.
 */
function layers(count, edges, limit) {
  /** @type {number[][]} */
  const out = Array.from({ length: count }, () => []);
  const waitingFor = new Uint32Array(count);
  for (const { from, to } of edges) {
    if (from === to) continue;
    out[from].push(to);
    waitingFor[to] += 1;
  }
  const layerOf = new Array(count).fill(0);
  const sizes = [];
  let ready = [...Array(count).keys()].filter((node) => waitingFor[node] === 0);
  while (ready.length > 0) {
    ready.sort(
      (one, other) =>
        layerOf[one] - layerOf[other] ||
        Math.sign(out[other].length) - Math.sign(out[one].length) ||
        one - other,
    );
    const next = [];
    for (const node of ready) {
      let layer = layerOf[node];
      while ((sizes[layer] ?? 0) >= limit) layer += 1;
      sizes[layer] = (sizes[layer] ?? 0) + 1;
      layerOf[node] = layer;
      for (const to of out[node]) {
        layerOf[to] = Math.max(layerOf[to], layer + 1);
        waitingFor[to] -= 1;
        if (waitingFor[to] === 0) next.push(to);
      }
    }
    ready = next;
  }
  return layerOf;
}

/**
 * Returns the slots: one for each node, and dummy slots where edges cross a layer. The edges of one
 * source, or those of one target, share the dummy slots: they run together until they part.
 */
function dummySlots(count, edges, layerOf) {
  /** @returns {Slot} */
  const slot = (layer, height) => ({
    layer,
    height,
    x: layer * COLUMN_WIDTH + COLUMN_WIDTH / 2,
    y: 0,
    left: [],
    right: [],
  });
  const slots = layerOf.map((layer) => slot(layer, ROW_HEIGHT));
  const [callCount, callerCount] = [new Uint32Array(count), new Uint32Array(count)];
  for (const { from, to } of edges) {
    callCount[from] += 1;
    callerCount[to] += 1;
  }
  const shared = new Map();
  const linked = new Set();
  const link = (left, right) => {
    const key = left * 1e6 + right;
    if (linked.has(key)) return;
    linked.add(key);
    slots[left].right.push(right);
    slots[right].left.push(left);
  };
  const paths = edges.map(({ from, to }) => {
    const path = [from];
    if (from === to) return path;
    const owner = callCount[from] >= callerCount[to] ? `from ${from}` : `to ${to}`;
    for (let layer = layerOf[from] + 1; layer < layerOf[to]; layer += 1) {
      const key = `${owner} ${layer}`;
      if (!shared.has(key)) shared.set(key, slots.push(slot(layer, DUMMY_HEIGHT)) - 1);
      path.push(shared.get(key));
    }
    path.push(to);
    for (let index = 1; index < path.length; index += 1) link(path[index - 1], path[index]);
    return path;
  });
  return { slots, paths };
}

/** Returns the slots of each column, in an order with few crossings of edges. */
function order(slots) {
  const columns = columnsOf(slots);
  let best = columns.map((column) => [...column]);
  let fewest = crossings(slots, columns);
  const [rank, wish] = [new Float64Array(slots.length), new Float64Array(slots.length)];
  for (let sweep = 0; sweep < SWEEP_COUNT && fewest > 0; sweep += 1) {
    const toRight = sweep % 2 === 0;
    const side = toRight ? "left" : "right";
    for (const column of columns) column.forEach((slot, position) => (rank[slot] = position));
    for (const column of toRight ? columns : columns.toReversed())
      sortByNeighbours(slots, column, rank, wish, side);
    const now = crossings(slots, columns);
    if (now < fewest) {
      fewest = now;
      best = columns.map((column) => [...column]);
    }
  }
  return best.map((column) => column.map((index) => slots[index]));
}

/**
 * Returns the indexes of the slots of each column. Dummy slots begin in the middle: edges that pass a
 * column of equal nodes then pass it there.
 */
function columnsOf(slots) {
  const columns = [];
  const passing = [];
  slots.forEach((slot, index) => {
    const list = slot.height === DUMMY_HEIGHT ? passing : columns;
    (list[slot.layer] ??= []).push(index);
  });
  passing.forEach((dummies, layer) => {
    const column = (columns[layer] ??= []);
    column.splice(Math.ceil(column.length / 2), 0, ...dummies);
  });
  return columns;
}

/**
 * Sorts the slots of a column by the mean position of their neighbours, and updates their ranks. A
 * slot without neighbours does not move.
 */
function sortByNeighbours(slots, column, rank, wish, side) {
  column.forEach((index, position) => {
    const near = slots[index][side];
    let sum = 0;
    for (const neighbour of near) sum += rank[neighbour];
    wish[index] = near.length > 0 ? sum / near.length : position;
  });
  column.sort((one, other) => wish[one] - wish[other]);
  column.forEach((index, position) => (rank[index] = position));
}

/**
 * Sets the vertical position of each slot: near its neighbours, without overlaps in its column, and
 * within the height of the fullest column, so that the layout has no staircase.
 */
function place(columns, slots) {
  const heights = columns.map((column) => column.reduce((sum, slot) => sum + slot.height, 0));
  const half = Math.max(...heights) / 2;
  for (const column of columns) {
    let y = 0;
    for (const slot of column) {
      slot.y = y + slot.height / 2;
      y += slot.height;
    }
    for (const slot of column) slot.y -= y / 2;
  }
  for (let round = 0; round < PULL_COUNT; round += 1) {
    const toRight = round % 2 === 0;
    for (const column of toRight ? columns : columns.toReversed()) {
      for (const slot of column) {
        let sum = 0;
        for (const index of slot.left) sum += slots[index].y;
        for (const index of slot.right) sum += slots[index].y;
        const nearCount = slot.left.length + slot.right.length;
        if (nearCount > 0) slot.y = (slot.y + sum / nearCount) / 2;
      }
      spread(column, half);
    }
  }
}

/**
 * Separates overlapping slots of a column. The mean position of the column does not change, unless
 * the column would leave the height of the layout, from `-half` to `half`.
 */
function spread(column, half) {
  const gap = (index) => (column[index].height + column[index - 1].height) / 2;
  let wished = 0;
  for (const slot of column) wished += slot.y;
  let got = column[0].y;
  for (let index = 1; index < column.length; index += 1) {
    column[index].y = Math.max(column[index].y, column[index - 1].y + gap(index));
    got += column[index].y;
  }
  const moved = (got - wished) / column.length;
  let least = -half;
  for (const slot of column) {
    slot.y = Math.max(slot.y - moved, least + slot.height / 2);
    least = slot.y + slot.height / 2;
  }
  let most = half;
  for (let index = column.length - 1; index >= 0; index -= 1) {
    const slot = column[index];
    slot.y = Math.min(slot.y, most - slot.height / 2);
    most = slot.y - slot.height / 2;
  }
}

/** Moves all slots so that the top of the highest slot is at 0. */
function shiftToOrigin(slots) {
  const top = slots.reduce((least, slot) => Math.min(least, slot.y - slot.height / 2), Infinity);
  for (const slot of slots) slot.y -= top;
}
