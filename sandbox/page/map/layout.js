/**
 * Computes the positions of the nodes and edges of a graph, in layers from left to right.
 *
 * In: the number of nodes, and the edges between them. Edges may form rings, and may lead from a
 * node to itself. Out: a position for each node, and a line for each edge. The method is layered
 * graph drawing (Sugiyama): turn edges around to remove rings, assign layers by the longest path,
 * insert dummy slots where an edge crosses a layer, order each layer by barycentres to get few
 * crossings, and move the slots towards their neighbours. No I/O, no clock, no recursion.
 *
 * @typedef {object} Slot
 * @property {number} layer
 * @property {number} height
 * @property {number} x
 * @property {number} y
 * @property {number[]} left Indexes of the connected slots in the layer on the left.
 * @property {number[]} right Indexes of the connected slots in the layer on the right.
 */

/** Distance between the centres of two columns, in pixels. */
export const COLUMN_WIDTH = 210;
/** Height of a node, in pixels. */
export const ROW_HEIGHT = 124;
/** Height of a dummy slot, where an edge crosses a layer, in pixels. */
const DUMMY_HEIGHT = 44;
/** Number of passes that improve the order of the slots in their layers. */
const SWEEP_COUNT = 12;
/** Number of passes that move the slots towards their neighbours. */
const PULL_COUNT = 24;

/**
 * Computes the layout.
 *
 * @param {number} count Number of nodes. The nodes are numbered from 0.
 * @param {[number, number][]} edges
 * @returns {{nodes: {x: number, y: number}[], edges: {x: number, y: number}[][], width: number,
 *   height: number}} The lines have the order of `edges`, and begin at the source. All positions
 *   are centres.
 */
export function layout(count, edges) {
  const forward = cutRings(count, edges);
  const layerOf = layers(count, forward);
  const { slots, paths } = dummySlots(count, forward, layerOf);
  const columns = order(slots);
  place(columns, slots);
  shiftToOrigin(slots);
  const nodes = slots.slice(0, count).map(({ x, y }) => ({ x, y }));
  const lines = paths.map((path, index) => {
    const points = path.map((slot) => ({ x: slots[slot].x, y: slots[slot].y }));
    return forward[index].isTurned ? points.reverse() : points;
  });
  return { nodes, edges: lines, ...extent(slots) };
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

/** Returns the layer of each node: the length of the longest path that leads to it. */
function layers(count, edges) {
  /** @type {number[][]} */
  const out = Array.from({ length: count }, () => []);
  const waitingFor = new Uint32Array(count);
  for (const { from, to } of edges) {
    if (from === to) continue;
    out[from].push(to);
    waitingFor[to] += 1;
  }
  const layerOf = new Array(count).fill(0);
  const ready = [...Array(count).keys()].filter((node) => waitingFor[node] === 0);
  for (let index = 0; index < ready.length; index += 1) {
    const node = ready[index];
    for (const to of out[node]) {
      layerOf[to] = Math.max(layerOf[to], layerOf[node] + 1);
      waitingFor[to] -= 1;
      if (waitingFor[to] === 0) ready.push(to);
    }
  }
  return layerOf;
}

/** Returns the slots: one for each node, and a dummy slot for each layer that an edge crosses. */
function dummySlots(count, edges, layerOf) {
  /** @returns {Slot} */
  const slot = (layer, height) => ({
    layer,
    height,
    x: layer * COLUMN_WIDTH,
    y: 0,
    left: [],
    right: [],
  });
  const slots = layerOf.map((layer) => slot(layer, ROW_HEIGHT));
  slots.length = count;
  const paths = edges.map(({ from, to }) => {
    const path = [from];
    if (from === to) return path;
    for (let layer = layerOf[from] + 1; layer < layerOf[to]; layer += 1) {
      path.push(slots.push(slot(layer, DUMMY_HEIGHT)) - 1);
    }
    path.push(to);
    for (let index = 1; index < path.length; index += 1) {
      slots[path[index - 1]].right.push(path[index]);
      slots[path[index]].left.push(path[index - 1]);
    }
    return path;
  });
  return { slots, paths };
}

/** Returns the slots of each column, in an order with few crossings of edges. */
function order(slots) {
  const columns = [];
  slots.forEach((slot, index) => (columns[slot.layer] ??= []).push(index));
  let best = columns.map((column) => [...column]);
  let fewest = crossings(slots, columns);
  for (let sweep = 0; sweep < SWEEP_COUNT && fewest > 0; sweep += 1) {
    const toRight = sweep % 2 === 0;
    const side = toRight ? "left" : "right";
    for (const column of toRight ? columns : columns.toReversed())
      sortByNeighbours(slots, column, columns, side);
    const now = crossings(slots, columns);
    if (now < fewest) {
      fewest = now;
      best = columns.map((column) => [...column]);
    }
  }
  return best.map((column) => column.map((index) => slots[index]));
}

function ranks(slots, columns) {
  const rank = new Float64Array(slots.length);
  for (const column of columns) column.forEach((slot, position) => (rank[slot] = position));
  return rank;
}

/**
 * Sorts the slots of a column by the mean position of their neighbours. A slot without neighbours
 * does not move.
 */
function sortByNeighbours(slots, column, columns, side) {
  const rank = ranks(slots, columns);
  const wish = new Map(
    column.map((index, position) => {
      const near = slots[index][side];
      const mean = near.reduce((sum, neighbour) => sum + rank[neighbour], 0) / near.length;
      return [index, near.length > 0 ? mean : position];
    }),
  );
  column.sort((one, other) => wish.get(one) - wish.get(other));
}

function crossings(slots, columns) {
  const rank = ranks(slots, columns);
  let count = 0;
  for (const column of columns) {
    const ends = [];
    for (const index of column) {
      for (const to of slots[index].right) ends.push([rank[index], rank[to]]);
    }
    for (let one = 0; one < ends.length; one += 1) {
      for (let other = one + 1; other < ends.length; other += 1) {
        count += (ends[one][0] - ends[other][0]) * (ends[one][1] - ends[other][1]) < 0 ? 1 : 0;
      }
    }
  }
  return count;
}

/** Sets the vertical position of each slot: near its neighbours, without overlaps in its column. */
function place(columns, slots) {
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
        const near = [...slot.left, ...slot.right].map((index) => slots[index].y);
        if (near.length > 0)
          slot.y = (slot.y + near.reduce((sum, y) => sum + y, 0) / near.length) / 2;
      }
      spread(column);
    }
  }
}

/** Separates overlapping slots of a column. The mean position of the column does not change. */
function spread(column) {
  const gap = (index) => (column[index].height + column[index - 1].height) / 2;
  const wished = column.reduce((sum, slot) => sum + slot.y, 0);
  for (let index = 1; index < column.length; index += 1) {
    column[index].y = Math.max(column[index].y, column[index - 1].y + gap(index));
  }
  const moved = (column.reduce((sum, slot) => sum + slot.y, 0) - wished) / column.length;
  for (const slot of column) slot.y -= moved;
}

/** Moves all slots so that the top of the highest slot is at 0. */
function shiftToOrigin(slots) {
  const top = slots.reduce((least, slot) => Math.min(least, slot.y - slot.height / 2), Infinity);
  for (const slot of slots) slot.y -= top;
}

/**
 * Returns the size of the layout: the width between the centres of the outer columns, and the
 * height.
 */
function extent(slots) {
  const most = (of) => slots.reduce((largest, slot) => Math.max(largest, of(slot)), 0);
  return { width: most((slot) => slot.x), height: most((slot) => slot.y + slot.height / 2) };
}
