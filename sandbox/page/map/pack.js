/**
 * Packs boxes into a space of a given shape, without voids between them where possible.
 *
 * In: the sizes of the boxes, and the shape of the space. Out: a place for each box. Each box goes to
 * the highest place where it fits, from left to right (a skyline). Several widths are tried, and the
 * one that the space shows largest is used. No I/O, no clock.
 *
 * @typedef {{width: number, height: number}} Box
 */

/** Widths that are tried, as multiples of the width of a space with the area of all boxes. */
const WIDTHS = [0.8, 0.9, 1, 1.1, 1.2, 1.35, 1.5, 1.8];

/**
 * @param {Box[]} boxes
 * @param {number} aspect Width of the space, divided by its height.
 * @returns {{places: {x: number, y: number}[], width: number, height: number}} The top left corner
 *   of each box, and the size of all.
 */
export function pack(boxes, aspect) {
  const area = boxes.reduce((sum, box) => sum + box.width * box.height, 0);
  const widest = boxes.reduce((most, box) => Math.max(most, box.width), 0);
  const tried = WIDTHS.map((factor) => {
    const wanted = Math.max(widest, Math.sqrt(area * aspect) * factor);
    return packInto(boxes, wanted);
  });
  const scaleOf = ({ width, height }) => Math.min(aspect / (width || 1), 1 / (height || 1));
  return tried.reduce((best, one) => (scaleOf(one) > scaleOf(best) * 1.0001 ? one : best));
}

function packInto(boxes, limit) {
  // The skyline: from each x on, the boxes reach down to y. The highest boxes are placed first.
  let line = [{ x: 0, y: 0 }];
  const places = new Array(boxes.length);
  const order = boxes.map((_, index) => index);
  order.sort((one, other) => boxes[other].height - boxes[one].height || one - other);
  for (const index of order) {
    const { width, height } = boxes[index];
    let best = { x: 0, y: deepest(line, 0, width) };
    for (const { x } of line) {
      if (x + width > limit + 0.001) continue;
      const y = deepest(line, x, x + width);
      if (y < best.y) best = { x, y };
    }
    places[index] = best;
    line = raise(line, best.x, best.x + width, best.y + height);
  }
  const size = (of) => order.reduce((most, index) => Math.max(most, of(index)), 0);
  return {
    places,
    width: size((index) => places[index].x + boxes[index].width),
    height: size((index) => places[index].y + boxes[index].height),
  };
}

/** Returns the lowest point of the skyline between two ends. */
function deepest(line, from, to) {
  let y = 0;
  line.forEach((part, index) => {
    const end = line[index + 1]?.x ?? Infinity;
    if (part.x < to && end > from) y = Math.max(y, part.y);
  });
  return y;
}

/** Returns the skyline with a box between two ends. */
function raise(line, from, to, y) {
  const before = line.filter((part) => part.x < from);
  const covered = line.filter((part) => part.x <= to);
  const after = line.filter((part) => part.x > to);
  return [...before, { x: from, y }, { x: to, y: covered.at(-1)?.y ?? 0 }, ...after];
}
