/**
 * A view of a JSON value, in lines that can be opened and closed.
 *
 * In: any value, however large or deep. Out: elements. The content of a closed line is created only
 * when the user opens it. Bound: {@link CHILD_COUNT_MAX} members and {@link TEXT_LENGTH_MAX}
 * characters at a time. The user can ask for more.
 */

import { h } from "../shared/dom.js";
import { count, line } from "../shared/format.js";
import { isObject } from "./tree.js";

export const CHILD_COUNT_MAX = 100;
export const TEXT_LENGTH_MAX = 600;

/** A value is fully open at first if its JSON text has fewer characters than this number. */
const OPEN_LENGTH_MAX = 600;

const isContainer = (value) => Array.isArray(value) || isObject(value);

/** Returns the text of a closed line: the number of members. */
function preview(value) {
  const size = Array.isArray(value) ? value.length : Object.keys(value).length;
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  if (size === 0) return `${open}${close}`;
  return `${open} ${count(size)} ${close}`;
}

/**
 * Creates an element for a text. A long text is cut, with a button that shows all of it.
 *
 * @param {string} text
 * @param {string} [name] Class of the element.
 * @returns {HTMLElement}
 */
export function longText(text, name = "") {
  if (text.length <= TEXT_LENGTH_MAX) return h("span", { class: name, text });
  const shown = h("span", { text: `${text.slice(0, TEXT_LENGTH_MAX)}…` });
  const more = h("button", {
    type: "button",
    class: "more",
    text: `show all ${count(text.length)} characters`,
    on: {
      click: () => {
        shown.textContent = text;
        more.remove();
      },
    },
  });
  return h("span", { class: name }, shown, " ", more);
}

function scalar(value) {
  if (typeof value === "string") return longText(JSON.stringify(value), "json-string");
  const kind = value === null ? "null" : typeof value === "object" ? "number" : typeof value;
  return h("span", { class: `json-${kind}`, text: String(value) });
}

/** Adds the members of a container from index `from` on, and a button for the remaining members. */
function addMembers(list, value, from, isOpen) {
  const keys = Array.isArray(value) ? value.keys() : Object.keys(value);
  const all = [...keys];
  for (const key of all.slice(from, from + CHILD_COUNT_MAX)) {
    list.append(h("li", {}, member(line(key, 200), value[key], isOpen)));
  }
  const rest = all.length - from - CHILD_COUNT_MAX;
  if (rest <= 0) return;
  const more = h(
    "li",
    {},
    h("button", {
      type: "button",
      class: "more",
      text: `${count(rest)} more`,
      on: {
        click: () => {
          more.remove();
          addMembers(list, value, from + CHILD_COUNT_MAX, isOpen);
        },
      },
    }),
  );
  list.append(more);
}

function member(key, value, isOpen) {
  const name = key === "" ? null : h("span", { class: "json-key", text: key });
  if (!isContainer(value)) return h("div", { class: "json-line" }, name, scalar(value));
  const list = h("ul", { class: "json-members" });
  const box = h(
    "details",
    { class: "json-box", open: isOpen },
    h("summary", {}, name, h("span", { class: "json-preview", text: preview(value) })),
    list,
  );
  const open = () => list.childElementCount === 0 && addMembers(list, value, 0, isOpen);
  box.addEventListener("toggle", open);
  if (isOpen) open();
  return box;
}

/**
 * Creates a view of a value. The first level is open. A small value is fully open.
 *
 * @param {unknown} value
 * @returns {HTMLElement}
 */
export function jsonView(value) {
  if (!isContainer(value)) return h("div", { class: "json" }, member("", value, true));
  const list = h("ul", { class: "json-members top" });
  addMembers(list, value, 0, JSON.stringify(value).length < OPEN_LENGTH_MAX);
  if (list.childElementCount === 0)
    list.append(h("li", { class: "json-preview", text: preview(value) }));
  return h("div", { class: "json" }, list);
}
