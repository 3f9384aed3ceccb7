/**
 * Maps keys to steps in a list of rows.
 *
 * In: a key. Out: the number of rows to move. No I/O, no clock.
 */

/**
 * Returns the step of a key.
 *
 * @param {string} key The `key` of a keyboard event.
 * @param {number} pageSize Number of visible rows.
 * @returns {number|undefined} Number of rows. Infinite for a jump to the first or last row;
 *   undefined for all other keys.
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
