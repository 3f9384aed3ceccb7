/**
 * The notes at a trace: what is missing in it, and why.
 *
 * In: the answer of the sandbox for one trace. Out: elements.
 */

import { h } from "../shared/dom.js";
import { plural } from "../shared/format.js";
import { format } from "../shared/router.js";

/** Returns the words for a number of documents: `1 document was`, `2 documents were`. */
const documents = (number) => `${plural(number, "document")} ${number === 1 ? "was" : "were"}`;

/**
 * Creates the notes of a trace.
 *
 * @param {{refused?: any[], evicted_document_count?: number, replaced_document_count?: number}} answer
 * @returns {HTMLElement[]}
 */
export function traceNotes(answer) {
  const notes = [];
  const refused = answer.refused ?? [];
  /** @type {Map<number, any[]>} */
  const byKind = new Map();
  for (const mention of refused) {
    byKind.set(mention.kind, [...(byKind.get(mention.kind) ?? []), mention]);
  }
  for (const [kind, mentions] of byKind) {
    const [{ code, field }] = mentions;
    const href = format({ view: "refused", query: { kind: String(kind) } });
    const where = field ? ` (${field})` : "";
    notes.push(
      h(
        "span",
        { class: "trace-note" },
        `${documents(mentions.length)} refused: `,
        h("a", { class: "link", href, text: `${code}${where}` }),
      ),
    );
  }
  const evictedCount = answer.evicted_document_count ?? 0;
  if (evictedCount > 0) {
    notes.push(
      h("span", {
        class: "trace-note",
        text: `The oldest ${documents(evictedCount)} dropped: a trace has at most 1,000 documents and 1 MiB`,
      }),
    );
  }
  const replacedCount = answer.replaced_document_count ?? 0;
  if (replacedCount > 0) {
    const has = replacedCount === 1 ? "has" : "have";
    notes.push(
      h("span", {
        class: "trace-note",
        text:
          `${plural(replacedCount, "document")} ${has} the id of another one. ` +
          "Of each id, the one with the later end is shown",
      }),
    );
  }
  return notes;
}
