/**
 * The exceptions of a segment with their stacks.
 *
 * In: a node. Its cause is a list of exceptions, or the id of an exception of another segment or
 * subsegment. Out: a section. Bound: {@link EXCEPTION_COUNT_MAX} exceptions, and
 * {@link FRAME_COUNT_MAX} frames of each stack until the user asks for more.
 */

import { h } from "../shared/dom.js";
import { count, line } from "../shared/format.js";
import { jsonView, longText } from "./json.js";
import { isObject } from "./tree.js";

export const EXCEPTION_COUNT_MAX = 20;
export const FRAME_COUNT_MAX = 12;

function frame(data) {
  if (!isObject(data)) return h("li", { text: line(data) });
  const at = [data.path, data.line]
    .filter((part) => part !== undefined)
    .map((part) => line(part, 300));
  return h(
    "li",
    {},
    h("span", { class: "frame-label", text: line(data.label, 200) || "?" }),
    h("span", { class: "frame-at", text: at.join(":") }),
  );
}

function stackOf(stack) {
  if (!Array.isArray(stack) || stack.length === 0) return null;
  const list = h("ol", { class: "stack" }, stack.slice(0, FRAME_COUNT_MAX).map(frame));
  const rest = stack.slice(FRAME_COUNT_MAX);
  if (rest.length > 0) {
    const more = h("button", {
      type: "button",
      class: "more",
      text: `${count(rest.length)} more frames`,
      on: { click: () => item.replaceWith(...rest.slice(0, 1000).map(frame)) },
    });
    const item = h("li", {}, more);
    list.append(item);
  }
  return list;
}

/**
 * Creates the box of an exception with its stack.
 *
 * @param {any} exception
 * @param {boolean} isCause Whether it is the cause of the exception above.
 * @returns {HTMLElement}
 */
export function exceptionBox(exception, isCause) {
  const { type, message, remote, truncated, skipped } = exception;
  const notes = [
    isCause && "cause of the exception above",
    remote === true && "in the called service",
    truncated > 0 && `${count(truncated)} frames left out`,
    skipped > 0 && `${count(skipped)} exceptions left out`,
  ].filter(Boolean);
  return h(
    "div",
    { class: "exception" },
    h("div", { class: "exception-type", text: line(type, 300) || "Exception" }),
    message === undefined
      ? null
      : h(
          "div",
          { class: "exception-message" },
          longText(typeof message === "string" ? message : JSON.stringify(message)),
        ),
    notes.length > 0 ? h("div", { class: "exception-notes", text: notes.join(" · ") }) : null,
    stackOf(exception.stack),
  );
}

/** Shows a reference to an exception of another segment, by the id of the exception. */
function reference(id, node, { exceptions, select }) {
  const found = exceptions.get(id);
  if (!found)
    return h("p", {
      class: "faint",
      text: `Exception ${line(id, 64)}, which is not in this trace`,
    });
  const from =
    found.node === node
      ? null
      : h(
          "p",
          { class: "faint" },
          "Thrown in ",
          h("button", {
            type: "button",
            class: "link",
            text: line(found.node.name, 100),
            on: { click: () => select(found.node) },
          }),
        );
  return h("div", {}, from, exceptionBox(found.exception, false));
}

/**
 * Creates the section with the exceptions of a node.
 *
 * @param {import("./tree.js").Node} node
 * @param {{exceptions: Map<string, any>, select: (node: import("./tree.js").Node) => void}} page
 * @returns {HTMLElement|null} Null if the node has no cause.
 */
export function exceptionsSection(node, page) {
  const { cause } = node.data;
  if (cause === undefined || cause === null) return null;
  const box = h("section", { class: "detail" }, h("h3", { text: "Exception" }));
  if (typeof cause === "string") {
    box.append(reference(cause, node, page));
    return box;
  }
  const list = isObject(cause) && Array.isArray(cause.exceptions) ? cause.exceptions : null;
  if (!list) {
    box.append(jsonView(cause));
    return box;
  }
  const own = new Set(list.map((exception) => exception?.id));
  const causes = new Set(
    list.map((exception) => exception?.cause).filter((id) => typeof id === "string"),
  );
  for (const exception of list.slice(0, EXCEPTION_COUNT_MAX)) {
    if (!isObject(exception)) continue;
    box.append(exceptionBox(exception, causes.has(exception.id)));
    const elsewhere = typeof exception.cause === "string" && !own.has(exception.cause);
    if (elsewhere) box.append(reference(exception.cause, node, page));
  }
  const rest = list.length - EXCEPTION_COUNT_MAX;
  if (rest > 0) box.append(h("p", { class: "faint", text: `${count(rest)} more exceptions` }));
  if (typeof cause.working_directory === "string") {
    box.append(
      h("p", { class: "faint", text: `Working directory: ${line(cause.working_directory)}` }),
    );
  }
  return box;
}
