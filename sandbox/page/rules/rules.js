/**
 * The view of the sampling rules that the sandbox gives to SDKs. Rules can be added, changed and
 * deleted.
 *
 * In: the rules of the sandbox. Out: the changed list of all rules. The sandbox checks the list,
 * and its error message is shown in the dialog.
 */

import { messageOf, putSamplingRules, samplingRules } from "../shared/api.js";
import { h, icon, setText, toast } from "../shared/dom.js";
import { count, line } from "../shared/format.js";
import {
  FIELDS,
  NEW_RULE,
  byPriority,
  isDefault,
  isFixed,
  meaningOfRate,
  ruleOf,
  textOf,
} from "./rule.js";

/** How long SDKs take to follow a change. They ask for their targets every 10 seconds. */
const WAIT = "within about 10 seconds";

const CONDITIONS = ["Host", "HTTPMethod", "URLPath", "ServiceName", "ServiceType", "ResourceARN"];
const LABELS = Object.fromEntries(FIELDS.map(({ key, label }) => [key, label]));

/** The view of the rules. See the module. */
export class RulesView {
  title = "Sampling rules";
  /** @type {HTMLElement} */
  element;

  /** @type {any[]|null} Null until the rules are loaded. */
  #rules = null;
  /** @type {Record<string, {request_count: number, sampled_count: number}>} */
  #reported = {};
  #unsampledCount = 0;
  #table;
  #note;
  #dialog;

  /** @param {{live: import("../shared/live.js").Live}} page */
  constructor({ live }) {
    this.#table = h("div", { class: "rules-list" });
    this.#note = h("p", { class: "empty-note", role: "status" });
    this.#dialog = h("dialog", { class: "dialog rule-dialog", "aria-label": "Sampling rule" });
    this.element = h(
      "section",
      { class: "view rules", "aria-label": "Sampling rules" },
      h(
        "div",
        { class: "page" },
        h(
          "header",
          { class: "page-head" },
          h(
            "div",
            {},
            h("h1", { text: "Sampling rules" }),
            h("p", {
              class: "muted",
              text:
                "SDKs decide by these rules which requests they trace. The first rule that " +
                "matches a request, in the order of priority, applies. The reservoir is the " +
                "number of requests a second that are sampled. The rate is the percentage of the " +
                `other requests that are sampled. SDKs follow a change ${WAIT}. They report how ` +
                "many requests they had and how many they sampled, every 10 seconds.",
            }),
          ),
          h(
            "button",
            { type: "button", class: "button primary", on: { click: () => this.#edit(null) } },
            icon("plus"),
            "Add rule",
          ),
        ),
        this.#note,
        this.#table,
      ),
      this.#dialog,
    );
    this.element.hidden = true;
    live.listen(() => {
      if (this.element.hidden || live.unsampledCount === this.#unsampledCount) return;
      this.#unsampledCount = live.unsampledCount;
      // A dialog that is open keeps the rules that it was opened with.
      if (!this.#dialog.open) this.#load();
    });
  }

  show() {
    this.#load();
  }

  focus() {
    this.element.parentElement?.focus({ preventScroll: true });
  }

  /**
   * Handles a key.
   *
   * @param {KeyboardEvent} event
   * @returns {boolean} Whether the view used the key.
   */
  key(event) {
    if (
      event.key !== "j" &&
      event.key !== "k" &&
      event.key !== "ArrowDown" &&
      event.key !== "ArrowUp"
    )
      return false;
    /** @type {NodeListOf<HTMLElement>} */
    const found = this.#table.querySelectorAll(".rule-edit");
    const buttons = [...found];
    const at = buttons.findIndex((button) => button === document.activeElement);
    const step = event.key === "j" || event.key === "ArrowDown" ? 1 : -1;
    buttons[Math.min(Math.max(at + step, 0), buttons.length - 1)]?.focus();
    return true;
  }

  async #load() {
    if (!this.#rules) setText(this.#note, "Loading…");
    try {
      const answer = await samplingRules();
      this.#rules = byPriority(Array.isArray(answer.rules) ? answer.rules : []);
      this.#reported = answer.reported ?? {};
      setText(this.#note, "");
      this.#draw();
    } catch (error) {
      setText(this.#note, `The rules cannot be loaded: ${messageOf(error)}`);
    }
  }

  #draw() {
    const heading = ["Priority", "Name", "Reservoir", "Rate", "Applies to", "Reported", ""];
    this.#table.replaceChildren(
      h(
        "table",
        { class: "rules-table" },
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            heading.map((text) => h("th", { scope: "col", text })),
          ),
        ),
        h(
          "tbody",
          {},
          (this.#rules ?? []).map((rule) => this.#row(rule)),
        ),
      ),
    );
  }

  #row(rule) {
    const conditions = CONDITIONS.filter((key) => rule[key] !== undefined && rule[key] !== "*");
    const attributes = Object.entries(rule.Attributes ?? {});
    const tags = [
      ...conditions.map((key) => [LABELS[key], rule[key]]),
      ...attributes.map(([key, value]) => [key, value]),
    ];
    const name = line(rule.RuleName, 64);
    return h(
      "tr",
      { "data-rule": name },
      h("td", { class: "number", text: line(rule.Priority, 10) }),
      h(
        "td",
        {},
        h("button", {
          type: "button",
          class: "link rule-edit",
          text: name,
          on: { click: () => this.#edit(rule) },
        }),
      ),
      h("td", { class: "number", text: `${line(rule.ReservoirSize, 10)} /s` }),
      h("td", { class: "number", text: textOf(rule, "FixedRate") }),
      h(
        "td",
        {},
        tags.length === 0
          ? h("span", {
              class: "faint",
              text: isDefault(rule) ? "all other requests" : "every request",
            })
          : tags.map(([label, value]) =>
              h("span", { class: "tag" }, h("b", { text: label }), line(value, 80)),
            ),
      ),
      this.#reportedCell(rule),
      h(
        "td",
        { class: "row-actions" },
        h("button", {
          type: "button",
          class: "button quiet",
          text: "Edit",
          "aria-label": `Edit ${name}`,
          on: { click: () => this.#edit(rule) },
        }),
        h("button", {
          type: "button",
          class: "button quiet danger",
          text: "Delete",
          "aria-label": `Delete ${name}`,
          disabled: isDefault(rule),
          title: isDefault(rule) ? "The default rule cannot be deleted" : null,
          on: { click: () => this.#delete(rule) },
        }),
      ),
    );
  }

  /** Creates the cell with the number of requests that SDKs reported for a rule. */
  #reportedCell(rule) {
    const { request_count: all = 0, sampled_count: sampled = 0 } =
      this.#reported[rule.RuleName] ?? {};
    if (all === 0) return h("td", { class: "faint reported", text: "–" });
    const missing = all - sampled;
    return h(
      "td",
      { class: "reported" },
      `${count(sampled)} of ${count(all)} sampled`,
      missing > 0 ? h("b", { class: "unsampled", text: `${count(missing)} not` }) : null,
    );
  }

  /**
   * Opens the dialog for a rule.
   *
   * @param {any} rule Null for a new rule.
   */
  #edit(rule) {
    const base = rule ?? NEW_RULE;
    const inputs = new Map();
    const problems = new Map();
    const fields = FIELDS.map(({ key, label, kind, hint }) => {
      const input = h("input", {
        type: "text",
        id: `rule-${key}`,
        value: textOf(base, key),
        autocomplete: "off",
        spellcheck: "false",
        inputmode: kind === "integer" ? "numeric" : null,
        disabled: isFixed(key, base),
        "aria-describedby": `rule-${key}-note`,
      });
      const note = h("span", { class: "field-note", id: `rule-${key}-note`, text: hint });
      inputs.set(key, input);
      problems.set(key, { note, hint });
      const unit = key === "ReservoirSize" ? "/s" : "";
      return h(
        "div",
        { class: `field ${kind}` },
        h("label", { htmlFor: `rule-${key}`, text: label }),
        h(
          "div",
          { class: "with-unit" },
          input,
          unit ? h("span", { class: "unit", text: unit }) : null,
        ),
        note,
      );
    });
    const touched = new Set();
    const said = h("p", { class: "form-problem", role: "alert" });
    const read = () => {
      const texts = Object.fromEntries([...inputs].map(([key, input]) => [key, input.value]));
      const others = this.#others(rule).map((other) => other.RuleName);
      const result = ruleOf(base, texts, others);
      for (const [key, { note, hint }] of problems) {
        const problem = touched.has(key) ? result.problems[key] : undefined;
        const meaning = key === "FixedRate" ? meaningOfRate(texts[key]) : "";
        setText(note, problem ?? (meaning || hint));
        note.classList.toggle("is-problem", problem !== undefined);
        inputs.get(key).setAttribute("aria-invalid", String(problem !== undefined));
      }
      return result;
    };
    const form = h(
      "form",
      {
        method: "dialog",
        on: {
          input: (event) => {
            touched.add(event.target.id.replace("rule-", ""));
            read();
          },
          submit: async (event) => {
            event.preventDefault();
            for (const key of inputs.keys()) touched.add(key);
            const result = read();
            const [wrong] = Object.keys(result.problems);
            if (wrong) return inputs.get(wrong).focus();
            const refusal = await this.#save([...this.#others(rule), result.rule]);
            setText(said, refusal);
            if (refusal === "") this.#dialog.close();
          },
        },
      },
      h("h2", { text: rule ? `Edit ${line(rule.RuleName, 64)}` : "New rule" }),
      h("div", { class: "fields" }, fields),
      said,
      h(
        "div",
        { class: "dialog-actions" },
        h("button", {
          type: "button",
          class: "button",
          text: "Cancel",
          on: { click: () => this.#dialog.close() },
        }),
        h("button", { type: "submit", class: "button primary", text: "Save" }),
      ),
    );
    read();
    this.#dialog.replaceChildren(form);
    this.#dialog.showModal();
    [...inputs.values()].find((input) => !input.disabled)?.focus();
  }

  async #delete(rule) {
    if (!confirm(`Delete the rule ${rule.RuleName}?`)) return;
    const refusal = await this.#save(this.#others(rule));
    if (refusal !== "") toast(refusal, "bad");
  }

  /** Returns all rules except `rule`. */
  #others(rule) {
    return (this.#rules ?? []).filter((other) => other !== rule);
  }

  /**
   * Sends all rules to the sandbox.
   *
   * @param {any[]} rules
   * @returns {Promise<string>} The error message; empty if the sandbox accepted the rules.
   */
  async #save(rules) {
    try {
      await putSamplingRules(byPriority(rules));
    } catch (error) {
      return messageOf(error);
    }
    await this.#load();
    toast(`Saved. SDKs follow ${WAIT}`);
    return "";
  }
}
