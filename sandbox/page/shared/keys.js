/**
 * Keys that go through rows.
 *
 * In: a key. Out: how many rows it goes on. Pure code.
 */

/**
 * @param {string} key As the event names it.
 * @param {number} pageSize Rows that are seen at once.
 * @returns {number|undefined} Rows; infinite for the first or last one, undefined for other keys.
 */
export function stepOf(key, pageSize) {
  const steps = {
    j: 1,
    ArrowDown: 1,
    k: -1,
    ArrowUp: -1,
    PageDown: pageSize,
    PageUp: -pageSize,
    Home: -Infinity,
    End: Infinity,
  };
  return Object.hasOwn(steps, key) ? steps[key] : undefined;
}
