/**
 * The list of all exceptions of a trace, with their stacks.
 *
 * In: the model of `tree.js`. Out: a view with an entry for each exception, in the order of the
 * rows. An exception that other segments name as their cause is one entry, with the names of these
 * segments. Bound: {@link ENTRY_COUNT_MAX} entries; further ones are counted.
 */

import { copyButton, h } from "../shared/dom.js";
import { count, line, plural } from "../shared/format.js";
import { exceptionBox } from "./exceptions.js";
import { isObject } from "./tree.js";

/** Largest number of entries. */
export const ENTRY_COUNT_MAX = 500;

/**
 * @typedef {object} Entry
 * @property {any} exception
 * @property {import("./tree.js").Node} node The segment or subsegment that recorded it.
 * @property {import("./tree.js").Node[]} passedOn Other nodes that name it as their cause.
 * @property {boolean} isCause Whether the entry before was caused by it.
 */

/**
 * Returns the exceptions of a trace.
 *
 * @param {import("./tree.js").Node[]} nodes
 * @returns {Entry[]}
 */
export function entriesOf(nodes) {
  /** @type {Entry[]} */
  const entries = [];
  /** @type {Map<string, Entry>} */
  const byId = new Map();
  const withCause = nodes.filter((node) => node.hasCause);
  for (const node of withCause) {
    const list = node.data.cause?.exceptions;
    if (!Array.isArray(list)) continue;
    const causes = new Set(list.map((exception) => exception?.cause));
    for (const exception of list) {
      if (!isObject(exception)) continue;
      const id = typeof exception.id === "string" ? exception.id : "";
      const known = id === "" ? undefined : byId.get(id);
      if (known) {
        if (known.node !== node) known.passedOn.push(node);
        continue;
      }
      const entry = { exception, node, passedOn: [], isCause: id !== "" && causes.has(id) };
      entries.push(entry);
      if (id !== "") byId.set(id, entry);
    }
  }
  for (const node of withCause) {
    const { cause } = node.data;
    if (typeof cause === "string") byId.get(cause)?.passedOn.push(node);
  }
  return entries;
}

/** Returns an exception with its stack as text. */
function textOf({ type, message, stack }) {
  const frames = Array.isArray(stack) ? stack.filter(isObject) : [];
  return [
    [type, message].filter((part) => part !== undefined).join(": "),
    ...frames.map(({ label, path, line: at }) => `    at ${label ?? "?"} (${path ?? "?"}:${at ?? "?"})`),
  ].join("\n");
}

/** The view of the exceptions. See the module. */
export class ExceptionList {
  /** @type {HTMLElement} */
  element = h("div", { class: "exception-list", tabIndex: 0, "aria-label": "Exceptions" });

  #select;

  /** @param {(node: import("./tree.js").Node) => void} select Called to show a row. */
  constructor(select) {
    this.#select = select;
  }

  /**
   * Shows the exceptions of a trace.
   *
   * @param {import("./tree.js").Model} model
   * @returns {number} Number of exceptions.
   */
  show(model) {
    const entries = entriesOf(model.nodes);
    const shown = entries.slice(0, ENTRY_COUNT_MAX);
    const rest = entries.length - shown.length;
    this.element.replaceChildren(
      entries.length === 0
        ? h("p", { class: "faint", text: "No segment of this trace has recorded an exception." })
        : h("p", {
            class: "faint",
            text: `${plural(entries.length, "exception")}, in the order of the timeline`,
          }),
      ...shown.map((entry) => this.#entry(entry, model)),
      rest > 0 ? h("p", { class: "faint", text: `${count(rest)} more exceptions` }) : "",
    );
    return entries.length;
  }

  #entry({ exception, node, passedOn, isCause }, model) {
    const go = (to) =>
      h("button", {
        type: "button",
        class: "link",
        text: line(to.name, 100),
        title: "Show in the timeline",
        on: { click: () => this.#select(to) },
      });
    const service = node.service === null ? "" : model.services[node.service];
    const of = service === "" || service === node.name ? null : ` in ${line(service, 100)}`;
    const others = passedOn.slice(0, 20).flatMap((other, at) => [at === 0 ? "" : ", ", go(other)]);
    return h(
      "article",
      { class: "exception-entry" },
      h(
        "div",
        { class: "exception-where" },
        h("span", {}, "Recorded by ", go(node), of),
        others.length > 0 ? h("span", {}, "Passed on by ", others) : null,
        h("span", { class: "grow" }),
        copyButton(() => textOf(exception), "Copy the exception with its stack"),
      ),
      exceptionBox(exception, isCause),
    );
  }
}

