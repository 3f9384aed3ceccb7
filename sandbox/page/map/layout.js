/**
 * Where the nodes and edges of a graph go: layers from left to right.
 *
 * In: the number of nodes and edges between them, rings and loops included. Out: a position for
 * each node and a line for each edge. The steps are the usual ones: cut rings (depth first),
 * longest path layering, stand-ins where an edge crosses a layer, barycentre ordering with the
 * fewest crossings kept, and positions pulled towards the neighbours. Nothing recurses. Pure code.
 */

/** Distances between nodes, and how often the order is improved. */
export const COLUMN_WIDTH = 210;
export const ROW_HEIGHT = 124;
const STAND_IN_HEIGHT = 44;
const SWEEP_COUNT = 12;
const PULL_COUNT = 24;

/**
 * @param {number} count Nodes, numbered from 0.
 * @param {[number, number][]} edges
 * @returns {{nodes: {x: number, y: number}[], edges: {x: number, y: number}[][],
 *   width: number, height: number}} Edges in the order given, from their source. All positions
 *   are of centres.
 */
export function layout(count, edges) {
  const forward = cutRings(count, edges);
  const layerOf = layers(count, forward);
  const { slots, paths } = standIns(count, forward, layerOf);
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

/** Edges as `from`, `to` without rings: those that lead back are turned around. */
function cutRings(count, edges) {
  const out = Array.from({ length: count }, () => []);
  edges.forEach(([from, to], index) => out[from].push({ to, index }));
  const turned = new Set();
  const state = new Uint8Array(count); // 1 on the way, 2 done
  const hasCaller = new Uint8Array(count);
  for (const [from, to] of edges) if (from !== to) hasCaller[to] = 1;
  const numbers = [...Array(count).keys()];
  const starts = numbers.sort((one, other) => hasCaller[one] - hasCaller[other] || one - other);
  for (const start of starts) {
    if (state[start]) continue;
    const way = [{ node: start, next: 0 }];
    state[start] = 1;
    while (way.length > 0) {
      const top = way.at(-1);
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

/** The longest path from a start to each node. */
function layers(count, edges) {
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

/** Slots: the nodes, and one stand-in wherever an edge passes through a layer. */
function standIns(count, edges, layerOf) {
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
      path.push(slots.push(slot(layer, STAND_IN_HEIGHT)) - 1);
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

/** Slots by column, ordered so that few edges cross. */
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

/** Sorts a column by the mean position of its neighbours; who has none stays. */
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

/** Gives each slot its height on the page: near its neighbours, and clear of those beside it. */
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

/** Pushes slots of a column apart, downwards and upwards by the same amount. */
function spread(column) {
  const gap = (index) => (column[index].height + column[index - 1].height) / 2;
  const wished = column.reduce((sum, slot) => sum + slot.y, 0);
  for (let index = 1; index < column.length; index += 1) {
    column[index].y = Math.max(column[index].y, column[index - 1].y + gap(index));
  }
  const moved = (column.reduce((sum, slot) => sum + slot.y, 0) - wished) / column.length;
  for (const slot of column) slot.y -= moved;
}

/** Moves everything so that the uppermost slot begins at 0. */
function shiftToOrigin(slots) {
  const top = slots.reduce((least, slot) => Math.min(least, slot.y - slot.height / 2), Infinity);
  for (const slot of slots) slot.y -= top;
}

/** From the centres of the first column to those of the last, and the height of all rows. */
function extent(slots) {
  const most = (of) => slots.reduce((largest, slot) => Math.max(largest, of(slot)), 0);
  return { width: most((slot) => slot.x), height: most((slot) => slot.y + slot.height / 2) };
}
