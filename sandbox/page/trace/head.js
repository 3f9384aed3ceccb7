/**
 * The head of a trace: its name and HTTP call, its id, and buttons for the traces above and below.
 *
 * In: the summary from the list (if there is one), and the nodes of the trace. Out: elements.
 */

import { copyButton, h, iconButton } from "../shared/dom.js";
import { statusClass } from "../list/filter.js";
import { clock, count, duration, line, moment, pathFirst, plural } from "../shared/format.js";
import { span } from "./tree.js";

/**
 * Creates the head of a trace.
 *
 * @param {object} trace
 * @param {string} trace.id
 * @param {any} trace.summary
 * @param {import("./tree.js").Model|null} trace.model Null while the trace is loading.
 * @param {boolean} trace.isAdjusted Whether clocks are adjusted.
 * @param {{before?: string, after?: string}} trace.neighbours
 * @param {(id: string|undefined) => void} trace.open
 * @param {() => void} trace.back
 * @param {() => void} trace.download
 * @returns {HTMLElement[]}
 */
export function traceHead({ id, summary, model, isAdjusted, neighbours, ...on }) {
  const { open, back, download } = on;
  const { method, url, status } = summary.http ?? {};
  const name = summary.name ?? model?.roots[0]?.name ?? "Trace";
  const time = model ? span(model.nodes, isAdjusted) : null;
  const isOpen = model?.nodes.some((node) => node.inProgress && node.isSegment) === true;
  const length = time ? time.end - time.start : 0;
  const parts = model && [
    isOpen ? length > 0 && `${duration(length)} so far` : duration(length),
    plural(model.segmentCount, "segment"),
    plural(model.nodes.length - model.segmentCount, "subsegment"),
    model.omittedCount > 0 && `${count(model.omittedCount)} more not shown`,
    isOpen && "in progress",
  ];
  const { before, after } = neighbours;
  return [
    iconButton("back", "Back to the list (Esc)", () => back()),
    h(
      "div",
      { class: "trace-title" },
      h("h1", {}, line(name, 120)),
      h("span", { class: "method", text: line(method, 12) }),
      h("span", { class: "url", text: pathFirst(url), title: line(url, 2000) }),
      status
        ? h("span", { class: "status", "data-class": statusClass(summary), text: line(status, 6) })
        : null,
    ),
    h(
      "div",
      { class: "trace-facts" },
      h("span", { class: "mono with-copy" }, line(id, 140), copyButton(id, "Copy the trace's id")),
      time && time.start > 0
        ? h("span", { text: clock(time.start), title: moment(time.start) })
        : null,
      (parts ?? []).filter(Boolean).map((text) => h("span", { text })),
    ),
    h(
      "div",
      { class: "trace-nav" },
      iconButton("download", "Download the trace as JSON (d)", () => download()),
      iconButton("up", "Trace above in the list ([)", () => open(before), { disabled: !before }),
      iconButton("down", "Trace below in the list (])", () => open(after), { disabled: !after }),
    ),
  ];
}
