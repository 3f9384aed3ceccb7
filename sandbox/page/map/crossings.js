/**
 * Counts how often the edges between neighbouring layers cross.
 *
 * In: the slots of a layout and their order in the columns. Out: the number of crossings. The edges
 * of a layer are sorted by their left ends; each pair whose right ends are in the other order
 * crosses. A binary indexed tree counts these pairs in O(n log n), see
 * <https://doi.org/10.1007/3-540-36151-0_13> (Barth, Jünger and Mutzel). No I/O, no clock.
 */

/**
 * @param {import("./layout.js").Slot[]} slots
 * @param {number[][]} columns Indexes of the slots of each column, from top to bottom.
 * @returns {number}
 */
export function crossings(slots, columns) {
  const rank = new Uint32Array(slots.length);
  for (const column of columns) column.forEach((slot, position) => (rank[slot] = position));
  let count = 0;
  columns.forEach((column, layer) => {
    const size = columns[layer + 1]?.length ?? 0;
    if (size === 0) return;
    // `seen` counts the right ends so far, up to each position.
    const seen = new Uint32Array(size + 1);
    let total = 0;
    for (const index of column) {
      const ends = slots[index].right.map((to) => rank[to]);
      for (const end of ends) {
        let notBelow = 0;
        for (let at = end + 1; at > 0; at -= at & -at) notBelow += seen[at];
        count += total - notBelow;
      }
      // Edges of the same slot do not cross, so they are added after they were counted.
      for (const end of ends) {
        for (let at = end + 1; at <= size; at += at & -at) seen[at] += 1;
      }
      total += ends.length;
    }
  });
  return count;
}
