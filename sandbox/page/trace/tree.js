/**
 * Builds the trees of segments and subsegments of a trace.
 *
 * In: the documents of one trace, as text. Out: an array of nodes that refer to each other. Times
 * are finite numbers or null, even for hostile documents. A subsegment in a separate document is
 * placed below its parent segment. A segment is placed below the subsegment that called it. If
 * parents form a ring, one link of the ring is removed. Bound: {@link NODE_COUNT_MAX}; further
 * nodes are only counted. No I/O, no clock, no recursion.
 *
 * @typedef {object} Node
 * @property {number} index Index in the array of nodes.
 * @property {string} id
 * @property {string} name
 * @property {boolean} isSegment Whether the node is a segment and not a subsegment.
 * @property {string} namespace `sql`, the namespace of the document (`remote` or `aws`), or empty.
 * @property {number|null} start Start by the document's own clock, in seconds since 1970.
 * @property {number|null} end End by the document's own clock, in seconds since 1970.
 * @property {boolean} inProgress
 * @property {"ok"|"error"|"fault"|"throttle"|"progress"} state
 * @property {Node|null} parent
 * @property {string} parentId
 * @property {"missing"|"ring"|""} orphan Reason why the node is not placed below its parent.
 * @property {Node[]} children Sorted by start.
 * @property {number} document Index of the document that contains the node.
 * @property {any} data JSON object of the node in its document.
 * @property {number} shift Seconds to add to the node's times to adjust its clock to the caller's.
 *
 * @typedef {object} Model
 * @property {Node[]} nodes
 * @property {Node[]} roots Sorted by start.
 * @property {number} omittedCount Number of nodes beyond {@link NODE_COUNT_MAX}.
 * @property {number} unreadCount Number of documents that are not JSON objects.
 * @property {number} segmentCount
 * @property {number} skewedCount Number of segments that have a different clock than their caller.
 * @property {Map<string, any>} exceptions Exceptions with their nodes, by id of the exception.
 */

/** Largest number of nodes. A trace in the service has fewer. */
export const NODE_COUNT_MAX = 50_000;

/** A segment that starts more than this before its parent has a different clock. In seconds. */
const SKEW_MIN = 0.001;

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

/** Parses a document. Returns null if the text is not a JSON object. */
function read(text) {
  try {
    const value = /\d{16}/.test(text) ? JSON.parse(text, keepLong) : JSON.parse(text);
    return isObject(value) ? value : null;
  } catch {
    return null;
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

const seconds = (value) => (Number.isFinite(value) ? value : null);
const string = (value) => (typeof value === "string" ? value : "");

/** @returns {Node["state"]} */
function stateOf(data, inProgress) {
  const status = Number(data.http?.response?.status);
  if (data.fault === true) return "fault";
  if (data.throttle === true) return "throttle";
  if (data.error === true) return status === 429 ? "throttle" : "error";
  if (status >= 500) return "fault";
  if (status >= 400) return status === 429 ? "throttle" : "error";
  return inProgress ? "progress" : "ok";
}

/** @returns {Node} */
function nodeOf(data, index, document, parent) {
  const end = seconds(data.end_time);
  const inProgress = data.in_progress === true || end === null;
  const sql = isObject(data.sql) ? "sql" : "";
  return {
    index,
    document,
    data,
    parent,
    id: string(data.id),
    name: string(data.name) || "?",
    isSegment: parent === null && data.type !== "subsegment",
    namespace: sql || (string(data.namespace) && data.namespace.slice(0, 12)),
    start: seconds(data.start_time),
    end,
    inProgress,
    state: stateOf(data, inProgress),
    parentId: parent === null ? string(data.parent_id) : parent.id,
    orphan: "",
    children: [],
    shift: 0,
  };
}

/**
 * Returns the indexes of the in-progress documents that are not shown, because another document of
 * the same segment is complete or arrived later.
 */
function announcements(values) {
  const complete = new Set();
  const announced = new Map();
  const double = new Set();
  values.forEach((value, index) => {
    if (!value || !string(value.id)) return;
    if (value.in_progress !== true) complete.add(value.id);
    else {
      // The segment was sent in progress several times. Only the last of these documents is used.
      if (announced.has(value.id)) double.add(announced.get(value.id));
      announced.set(value.id, index);
    }
  });
  for (const [id, index] of announced) if (complete.has(id)) double.add(index);
  return double;
}

function collect(values) {
  /** @type {Node[]} */
  const nodes = [];
  let omittedCount = 0;
  const double = announcements(values);
  values.forEach((value, document) => {
    if (!value || double.has(document)) return;
    /** @type {{data: any, parent: Node|null}[]} */
    const waiting = [{ data: value, parent: null }];
    for (let next = waiting.pop(); next; next = waiting.pop()) {
      const { data, parent } = next;
      if (nodes.length === NODE_COUNT_MAX) {
        omittedCount += 1;
        continue;
      }
      const node = nodeOf(data, nodes.length, document, parent);
      nodes.push(node);
      const below = Array.isArray(data.subsegments) ? data.subsegments : [];
      for (const child of below.toReversed()) {
        if (isObject(child)) waiting.push({ data: child, parent: node });
      }
    }
  });
  return { nodes, omittedCount };
}

/** Links the root node of each document to its parent in another document. */
function link(nodes) {
  const byId = new Map();
  for (const node of nodes) if (node.id && !byId.has(node.id)) byId.set(node.id, node);
  for (const node of nodes) {
    if (node.parent || !node.parentId) continue;
    node.parent = byId.get(node.parentId) ?? null;
    if (!node.parent) node.orphan = "missing";
  }
}

/** Walks from each node to its parents, and removes each link that closes a ring of parents. */
function cutRings(nodes) {
  const seenIn = new Int32Array(nodes.length).fill(-1);
  for (const first of nodes) {
    let at = first;
    while (seenIn[at.index] < 0) {
      seenIn[at.index] = first.index;
      if (!at.parent) break;
      if (seenIn[at.parent.index] === first.index) {
        at.parent = null;
        at.orphan = "ring";
        break;
      }
      at = at.parent;
    }
  }
}

/** Returns the nodes in an order in which each parent comes before its children. */
function topDown(roots) {
  const order = [...roots];
  for (let index = 0; index < order.length; index += 1) {
    for (const child of order[index].children) order.push(child);
  }
  return order;
}

/**
 * Adjusts the clocks of segments that start before their callers.
 *
 * If a segment starts before its caller, its host has a different clock. The segment is moved into
 * the time of its caller: to the middle if it is shorter than the caller, otherwise to the caller's
 * start. All nodes below the segment are moved by the same time. Returns the number of adjusted
 * segments.
 */
function setClocks(roots) {
  let skewedCount = 0;
  for (const node of topDown(roots)) {
    const { parent } = node;
    if (!parent || parent.start === null || node.start === null) continue;
    node.shift = parent.shift;
    const late = parent.start + parent.shift - (node.start + node.shift);
    if (!node.isSegment || late <= SKEW_MIN) continue;
    const room =
      (parent.end ?? parent.start) - parent.start - ((node.end ?? node.start) - node.start);
    node.shift += late + Math.max(0, room) / 2;
    skewedCount += 1;
  }
  return skewedCount;
}

/** Returns the exceptions of all nodes by id. The cause of another node may be one of these ids. */
function exceptionsOf(nodes) {
  const byId = new Map();
  for (const node of nodes) {
    const list = node.data.cause?.exceptions;
    if (!Array.isArray(list)) continue;
    for (const exception of list) {
      if (isObject(exception) && string(exception.id) && !byId.has(exception.id)) {
        byId.set(exception.id, { exception, node });
      }
    }
  }
  return byId;
}

/**
 * Builds the trees of a trace.
 *
 * @param {string[]} documents
 * @returns {Model}
 */
export function build(documents) {
  const values = documents.map(read);
  const { nodes, omittedCount } = collect(values);
  link(nodes);
  cutRings(nodes);
  const roots = [];
  for (const node of nodes) (node.parent ? node.parent.children : roots).push(node);
  const byStart = (one, other) => (one.start ?? Infinity) - (other.start ?? Infinity) || 0;
  for (const node of nodes) node.children.sort(byStart);
  roots.sort(byStart);
  return {
    nodes,
    roots,
    omittedCount,
    unreadCount: values.filter((value) => value === null).length,
    segmentCount: nodes.filter((node) => node.isSegment).length,
    skewedCount: setClocks(roots),
    exceptions: exceptionsOf(nodes),
  };
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
 * Returns the visible rows with their depths. Nodes below a collapsed node are not visible.
 *
 * @param {Node[]} roots
 * @param {Set<Node>} collapsed
 * @returns {{node: Node, depth: number}[]}
 */
export function rows(roots, collapsed) {
  /** @type {{node: Node, depth: number}[]} */
  const shown = [];
  const waiting = roots.toReversed().map((node) => ({ node, depth: 0 }));
  for (let row = waiting.pop(); row; row = waiting.pop()) {
    shown.push(row);
    if (collapsed.has(row.node)) continue;
    for (let index = row.node.children.length - 1; index >= 0; index -= 1) {
      waiting.push({ node: row.node.children[index], depth: row.depth + 1 });
    }
  }
  return shown;
}
