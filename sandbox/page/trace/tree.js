/**
 * A trace as a forest of segments and subsegments.
 *
 * In: the documents of one trace, as text. Out: nodes in one array that refer to each other, with
 * clean numbers, whatever the documents say. A subsegment that came by itself goes below the
 * segment that it names, and a segment below the subsegment that called it. Rings of parents are
 * cut, nothing here recurses. Bound: {@link NODE_COUNT_MAX}; the rest is counted. Pure code.
 *
 * @typedef {object} Node
 * @property {number} index
 * @property {string} id
 * @property {string} name
 * @property {boolean} isSegment A segment, and no subsegment.
 * @property {string} namespace `remote`, `aws`, `sql` or nothing.
 * @property {number|null} start Seconds since 1970, as the document says.
 * @property {number|null} end
 * @property {boolean} inProgress
 * @property {"ok"|"error"|"fault"|"throttle"|"progress"} state
 * @property {Node|null} parent
 * @property {string} parentId
 * @property {"missing"|"ring"|""} orphan Why it has no parent though it names one.
 * @property {Node[]} children By start.
 * @property {number} document Index of its document.
 * @property {object} data Its part of the document.
 * @property {number} shift Seconds to add to its times to set its clock right.
 */

/** Segments and subsegments looked at; a trace of the service holds fewer. */
export const NODE_COUNT_MAX = 50_000;

/** A child that starts this much before its parent has another clock; seconds. */
const SKEW_MIN = 0.001;

/** A whole number with more digits than a double holds, kept as it is written. */
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

/** @returns {object|null} What a document says, if it says it in JSON. */
function read(text) {
  try {
    const value = /\d{16}/.test(text) ? JSON.parse(text, keepLong) : JSON.parse(text);
    return isObject(value) ? value : null;
  } catch {
    return null;
  }
}

/** @param {unknown} value */
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

/** Documents that announce a segment whose completed document is there too. */
function announcements(values) {
  const complete = new Set();
  const announced = new Map();
  const double = new Set();
  values.forEach((value, index) => {
    if (!value || !string(value.id)) return;
    if (value.in_progress !== true) complete.add(value.id);
    else {
      // Announced again: the last one counts.
      if (announced.has(value.id)) double.add(announced.get(value.id));
      announced.set(value.id, index);
    }
  });
  for (const [id, index] of announced) if (complete.has(id)) double.add(index);
  return double;
}

function collect(values) {
  const nodes = [];
  let omittedCount = 0;
  const double = announcements(values);
  values.forEach((value, document) => {
    if (!value || double.has(document)) return;
    const waiting = [[value, null]];
    while (waiting.length > 0) {
      const [data, parent] = waiting.pop();
      if (nodes.length === NODE_COUNT_MAX) {
        omittedCount += 1;
        continue;
      }
      const node = nodeOf(data, nodes.length, document, parent);
      nodes.push(node);
      const below = Array.isArray(data.subsegments) ? data.subsegments : [];
      for (const child of below.toReversed()) if (isObject(child)) waiting.push([child, node]);
    }
  });
  return { nodes, omittedCount };
}

/** Finds the parent of each document that names one. */
function link(nodes) {
  const byId = new Map();
  for (const node of nodes) if (node.id && !byId.has(node.id)) byId.set(node.id, node);
  for (const node of nodes) {
    if (node.parent || !node.parentId) continue;
    node.parent = byId.get(node.parentId) ?? null;
    if (!node.parent) node.orphan = "missing";
  }
}

/** Walks up from each node; where a walk comes back to itself it takes the link away. */
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

/** Nodes with each parent before its children. */
function topDown(roots) {
  const order = [...roots];
  for (let index = 0; index < order.length; index += 1) {
    for (const child of order[index].children) order.push(child);
  }
  return order;
}

/**
 * Sets clocks right: nothing starts before what called it, so a segment of another host that does
 * is moved into its caller, into the middle if it fits, and all below it with it.
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

/** The exceptions of all nodes by their ids; a cause may be the id of one elsewhere. */
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
 * Builds the forest of a trace.
 *
 * @param {string[]} documents
 * @returns {{nodes: Node[], roots: Node[], omittedCount: number, unreadCount: number,
 *   segmentCount: number, skewedCount: number, exceptions: Map<string, object>}}
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
 * From the first start to the last end, in seconds since 1970.
 *
 * @param {Node[]} nodes
 * @param {boolean} adjusted Whether clocks are set right.
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
 * The rows to show: everything below what is not collapsed, with its depth.
 *
 * @param {Node[]} roots
 * @param {Set<Node>} collapsed
 * @returns {{node: Node, depth: number}[]}
 */
export function rows(roots, collapsed) {
  const shown = [];
  const waiting = roots.toReversed().map((node) => ({ node, depth: 0 }));
  while (waiting.length > 0) {
    const row = waiting.pop();
    shown.push(row);
    if (collapsed.has(row.node)) continue;
    for (let index = row.node.children.length - 1; index >= 0; index -= 1) {
      waiting.push({ node: row.node.children[index], depth: row.depth + 1 });
    }
  }
  return shown;
}
