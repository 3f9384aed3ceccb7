/**
 * Downloads a trace as a file.
 *
 * In: the id of a trace. Out: a file with the answer of BatchGetTraces, as `aws xray
 * batch-get-traces` prints it. Each document is in it byte for byte.
 */

import { batchGetTraces } from "../shared/api.js";
import { h } from "../shared/dom.js";

/** Time after which the browser has surely begun to save the file, in milliseconds. */
const SAVED_MS = 60_000;

/** @param {string} id */
export async function download(id) {
  const answer = await batchGetTraces([id]);
  if (answer.Traces.length === 0) throw new Error("the sandbox does not have it any more");
  const text = `${JSON.stringify(answer, null, 2)}\n`;
  const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  h("a", { href: url, download: `trace-${id}.json` }).click();
  setTimeout(() => URL.revokeObjectURL(url), SAVED_MS);
}
