/**
 * The help: a dialog that lists the keys and examples of filters.
 *
 * In: nothing. Out: the dialog.
 */

import { h } from "../shared/dom.js";

/** @type {[string, [string[], string][]][]} */
const GROUPS = [
  [
    "Everywhere",
    [
      [["1", "2", "3", "4"], "Traces, map, rules, refused documents"],
      [["/"], "Filter"],
      [["c"], "Connect an application"],
      [["t"], "Colours: system, light, dark"],
      [["?"], "This help"],
    ],
  ],
  [
    "List of traces",
    [
      [["j", "k"], "Next and previous row (or arrow keys)"],
      [["Enter"], "Open the trace"],
      [["p"], "Pause and continue"],
      [["Esc"], "Leave the filter, or deselect the row"],
    ],
  ],
  [
    "Trace",
    [
      [["j", "k"], "Next and previous row (or arrow keys)"],
      [["←", "→"], "Close and open the children of a row"],
      [["e", "E"], "Next and previous error"],
      [["+", "-", "0"], "Zoom the time, show all of it"],
      [["z"], "Zoom to the row"],
      [["⇧ ←", "⇧ →"], "Move the time (or drag)"],
      [["f"], "Find (Enter for the next row)"],
      [["x"], "All exceptions, and back"],
      [["d"], "Download the trace"],
      [["r"], "Original documents, and back"],
      [["[", "]"], "Trace above and below in the list"],
      [["Esc"], "Back to the list"],
    ],
  ],
  [
    "Service map",
    [
      [["j", "k"], "Next and previous service"],
      [["Enter"], "Traces of the service"],
      [["+", "-", "0"], "Zoom, show all"],
    ],
  ],
];

const FILTERS = [
  ["checkout 503 declined", "all of these words: in names, URLs, SQL, exceptions, annotations, users"],
  ['"fault"', "the word in quotation marks, and not the keyword"],
  ['service("api") AND fault', "an X-Ray filter expression"],
  ["responsetime > 0.5", "seconds"],
  ['annotation.customer = "returning"', ""],
  ['http.url CONTAINS "/orders" AND http.status = 502', ""],
];

/**
 * Creates the dialog. `showModal()` opens it.
 *
 * @returns {HTMLDialogElement}
 */
export function helpDialog() {
  const keys = GROUPS.map(([title, entries]) =>
    h(
      "section",
      {},
      h("h3", { text: title }),
      h(
        "dl",
        { class: "keys" },
        entries.map(([names, text]) =>
          h(
            "div",
            {},
            h(
              "dt",
              {},
              names.map((name) => h("kbd", { text: name })),
            ),
            h("dd", { text }),
          ),
        ),
      ),
    ),
  );
  const filters = h(
    "section",
    { class: "wide" },
    h("h3", { text: "Filters" }),
    h(
      "dl",
      { class: "keys filters" },
      FILTERS.map(([text, note]) =>
        h("div", {}, h("dt", {}, h("code", { text })), h("dd", { text: note })),
      ),
    ),
  );
  const dialog = h("dialog", { class: "dialog help", "aria-label": "Keys and filters" });
  const close = h("button", {
    type: "button",
    class: "button",
    text: "Close",
    on: { click: () => dialog.close() },
  });
  dialog.append(
    h("div", { class: "help-groups" }, keys, filters),
    h("div", { class: "dialog-actions" }, close),
  );
  // A click outside the dialog closes the dialog. The target of this click is the dialog element,
  // and not an element inside the dialog.
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  return dialog;
}
