/**
 * The rows of a trace: one for each segment and subsegment, in the order of the waterfall.
 *
 * In: the answer of `/api/traces/ID`. The sandbox has built the trees already: links, order, states
 * and adjusted clocks. Out: nodes that refer to each other. The JSON object of a node is read from
 * its document when it is needed, so that a trace is drawn without parsing its documents. Bound:
 * that of the sandbox. No I/O, no clock, no recursion.
 *
 * @typedef {object} Model
 * @property {Node[]} nodes In the order of the rows: each parent is before its children.
 * @property {Node[]} roots
 * @property {string[]} services Names of the services of the segments.
 * @property {number} omittedCount Number of nodes that the sandbox has left out.
 * @property {number} segmentCount
 * @property {number} skewedCount Number of segments that have a different clock than their caller.
 * @property {Node|null} failed The node where a failure began; null if nothing failed.
 * @property {Node[]} failures Nodes with an error, a throttle or a fault.
 */

/** An integer that a double cannot represent exactly. It keeps the digits of the document. */
export class LongNumber {
  /** @param {string} source */
  constructor(source) {
    this.source = source;
  }

  toString() {
    return this.source;
  }
}

function keepLong(key, value, context) {
  const long = Number.isInteger(value) && !Number.isSafeInteger(value) && context?.source;
  return long && /^-?\d+$/.test(context.source) ? new LongNumber(context.source) : value;
}

/** Parses a document. Returns an empty object if the text is not a JSON object. */
function read(text) {
  try {
    const value = /\d{16}/.test(text) ? JSON.parse(text, keepLong) : JSON.parse(text);
    return isObject(value) ? value : {};
  } catch {
    return {};
  }
}

/**
 * Returns whether a value is a JSON object, and not an array or null.
 *
 * @param {unknown} value
 */
export function isObject(value) {
  return (
    typeof value === "object" &&
    value !== null &&
    !Array.isArray(value) &&
    !(value instanceof LongNumber)
  );
}

/** One segment or subsegment. */
export class Node {
  /** Index in the array of nodes. */
  index;
  /** Index of the document that contains the node. */
  document;
  /** @type {string} */
  id;
  /** @type {string} */
  name;
  /** Number of nodes above this one. */
  depth;
  /** Whether the node is a segment and not a subsegment. */
  isSegment;
  /** `sql`, `aws`, `remote`, or empty for work inside the service. */
  namespace;
  /** Start by the document's own clock, in seconds since 1970. @type {number|null} */
  start;
  /** End by the document's own clock, in seconds since 1970. @type {number|null} */
  end;
  /** Whether the node is marked as in progress, or has no end. */
  inProgress;
  /** @type {"ok"|"error"|"fault"|"throttle"|"progress"} */
  state;
  /** @type {Node|null} */
  parent = null;
  parentId;
  /** Reason why the node is not placed below its parent. @type {"missing"|"ring"|""} */
  orphan;
  /** Sorted by start. @type {Node[]} */
  children = [];
  /** Seconds to add to the node's times to adjust its clock to the caller's. */
  shift;
  /** Index of the service in the model; null if its segment is missing. @type {number|null} */
  service;
  /** What the node did, in a few words. */
  note;
  /** Whether the node has an exception, or names the exception of another node. */
  hasCause;

  #path;
  #parsed;

  /**
   * @param {any} row A row of the sandbox's answer.
   * @param {number} index
   * @param {(document: number) => any} parsed Returns the JSON object of a document.
   */
  constructor(row, index, parsed) {
    this.index = index;
    this.document = row.document;
    this.id = row.id ?? "";
    this.name = row.name;
    this.depth = row.depth ?? 0;
    this.isSegment = row.is_segment === true;
    this.namespace = row.namespace ?? "";
    this.start = row.start ?? null;
    this.end = row.end ?? null;
    this.inProgress = row.is_open === true || this.end === null;
    this.state = row.state;
    this.parentId = row.parent_id ?? "";
    this.orphan = row.orphan ?? "";
    this.shift = row.shift ?? 0;
    this.service = row.service ?? null;
    this.note = row.note ?? "";
    this.hasCause = row.has_cause === true;
    this.#path = row.path ?? [];
    this.#parsed = parsed;
  }

  /** JSON object of the node in its document. @returns {any} */
  get data() {
    let at = this.#parsed(this.document);
    for (const position of this.#path) at = at?.subsegments?.[position];
    return isObject(at) ? at : {};
  }

  /** Whether the node has an error, a throttle or a fault. */
  get isFailed() {
    return this.state !== "ok" && this.state !== "progress";
  }
}

/**
 * Makes the model of a trace.
 *
 * @param {{documents: string[], forest: any}} answer
 * @returns {Model}
 */
export function build({ documents, forest }) {
  /** @type {Map<number, any>} */
  const objects = new Map();
  const parsed = (index) => {
    if (!objects.has(index)) objects.set(index, read(documents[index] ?? ""));
    return objects.get(index);
  };
  const nodes = forest.rows.map((row, index) => new Node(row, index, parsed));
  const roots = [];
  nodes.forEach((node, index) => {
    node.parent = nodes[forest.rows[index].parent] ?? null;
    (node.parent ? node.parent.children : roots).push(node);
  });
  return {
    nodes,
    roots,
    services: forest.services,
    omittedCount: forest.omitted_count,
    segmentCount: forest.segment_count,
    skewedCount: forest.skewed_count,
    failed: nodes[forest.failed] ?? null,
    failures: nodes.filter((node) => node.isFailed),
  };
}

/**
 * Returns the exceptions of all nodes with their nodes, by id of the exception. The cause of another
 * node may be one of these ids.
 *
 * @param {Node[]} nodes
 * @returns {Map<string, {exception: any, node: Node}>}
 */
export function exceptionsOf(nodes) {
  const byId = new Map();
  for (const node of nodes) {
    const list = node.hasCause ? node.data.cause?.exceptions : null;
    if (!Array.isArray(list)) continue;
    for (const exception of list) {
      const id = isObject(exception) && typeof exception.id === "string" ? exception.id : "";
      if (id !== "" && !byId.has(id)) byId.set(id, { exception, node });
    }
  }
  return byId;
}

/**
 * Returns the first start and the last end, in seconds since 1970.
 *
 * @param {Node[]} nodes
 * @param {boolean} adjusted Whether clocks are adjusted.
 * @returns {{start: number, end: number}}
 */
export function span(nodes, adjusted) {
  let start = Infinity;
  let end = -Infinity;
  for (const node of nodes) {
    if (node.start === null) continue;
    const shift = adjusted ? node.shift : 0;
    start = Math.min(start, node.start + shift);
    end = Math.max(end, (node.end ?? node.start) + shift, node.start + shift);
  }
  return start <= end ? { start, end } : { start: 0, end: 0 };
}

/**
 * Returns the visible rows. Nodes below a collapsed node are not visible.
 *
 * @param {Node[]} nodes In the order of the rows.
 * @param {Set<Node>} collapsed
 * @returns {Node[]}
 */
export function rows(nodes, collapsed) {
  if (collapsed.size === 0) return nodes;
  let hiddenBelow = Infinity;
  return nodes.filter((node) => {
    if (node.depth > hiddenBelow) return false;
    hiddenBelow = collapsed.has(node) ? node.depth : Infinity;
    return true;
  });
}
