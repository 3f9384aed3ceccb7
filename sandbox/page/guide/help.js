/**
 * The keys of the page.
 *
 * In: nothing. Out: a dialog that lists them.
 */

import { h } from "../shared/dom.js";

const GROUPS = [
  [
    "Everywhere",
    [
      [["1", "2", "3"], "Traces, service map, sampling rules"],
      [["/"], "Filter"],
      [["c"], "Connect an application"],
      [["t"], "Colours: system, light, dark"],
      [["?"], "This help"],
    ],
  ],
  [
    "List of traces",
    [
      [["j", "k"], "Next and previous row; arrows too"],
      [["Enter"], "Open the trace"],
      [["p"], "Pause and go on"],
      [["Esc"], "Leave the filter; let go of the row"],
    ],
  ],
  [
    "Trace",
    [
      [["j", "k"], "Next and previous row; arrows too"],
      [["←", "→"], "Close and open what is below"],
      [["f"], "Find; Enter for the next"],
      [["r"], "Documents as they came, and back"],
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
  ["checkout 503", "all of these words, in name, URL, users, annotations"],
  ['service("api") AND fault', "an X-Ray filter expression"],
  ["responsetime > 0.5", "seconds"],
  ['annotation.customer = "returning"', ""],
  ['http.url CONTAINS "/orders" AND http.status = 502', ""],
];

/**
 * Makes the dialog; `showModal()` opens it.
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
  // A click beside it closes it.
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  return dialog;
}
