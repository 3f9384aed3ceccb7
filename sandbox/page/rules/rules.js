/**
 * The sampling rules that the sandbox gives to SDKs: to read, change, add and delete.
 *
 * In: the rules of the sandbox. Out: the rules as people want them, all at once. The sandbox has
 * the last word; what it says is shown where people are.
 */

import { putSamplingRules, samplingRules } from "../shared/api.js";
import { h, icon, setText, toast } from "../shared/dom.js";
import { line } from "../shared/format.js";
import { FIELDS, NEW_RULE, byPriority, isDefault, isFixed, ruleOf, textOf } from "./rule.js";

const CONDITIONS = ["Host", "HTTPMethod", "URLPath", "ServiceName", "ServiceType", "ResourceARN"];
const LABELS = Object.fromEntries(FIELDS.map(({ key, label }) => [key, label]));

/** The view; see the module. */
export class RulesView {
  title = "Sampling rules";
  /** @type {HTMLElement} */
  element;

  #rules = null;
  #table;
  #note;
  #dialog;

  constructor() {
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
                "SDKs ask the sandbox for these rules every few minutes. The first that fits a " +
                "request, by priority, decides: so many requests a second from the reservoir, " +
                "and of those after that the rate.",
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
  }

  show() {
    this.#load();
  }

  focus() {
    this.element.parentElement.focus({ preventScroll: true });
  }

  /** @param {KeyboardEvent} event @returns {boolean} */
  key(event) {
    if (
      event.key !== "j" &&
      event.key !== "k" &&
      event.key !== "ArrowDown" &&
      event.key !== "ArrowUp"
    )
      return false;
    const buttons = [...this.#table.querySelectorAll(".rule-edit")];
    const at = buttons.indexOf(document.activeElement);
    const step = event.key === "j" || event.key === "ArrowDown" ? 1 : -1;
    buttons[Math.min(Math.max(at + step, 0), buttons.length - 1)]?.focus();
    return true;
  }

  async #load() {
    if (!this.#rules) setText(this.#note, "Loading…");
    try {
      const answer = await samplingRules();
      this.#rules = byPriority(Array.isArray(answer.rules) ? answer.rules : []);
      setText(this.#note, "");
      this.#draw();
    } catch (error) {
      setText(this.#note, `The rules cannot be loaded: ${error.message}`);
    }
  }

  #draw() {
    const heading = ["Priority", "Name", "Reservoir", "Rate", "Applies to", ""];
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
          this.#rules.map((rule) => this.#row(rule)),
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
      h("td", { class: "number", text: `${textOf(rule, "FixedRate")}%` }),
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
          title: isDefault(rule) ? "The default rule is always there" : null,
          on: { click: () => this.#delete(rule) },
        }),
      ),
    );
  }

  /** @param {object|null} rule Null for a new one. */
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
        inputmode: kind === "text" ? null : "decimal",
        disabled: isFixed(key, base),
        "aria-describedby": `rule-${key}-note`,
      });
      const note = h("span", { class: "field-note", id: `rule-${key}-note`, text: hint });
      inputs.set(key, input);
      problems.set(key, { note, hint });
      const unit = { percent: "%", integer: key === "ReservoirSize" ? "/s" : "" }[kind];
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
      const others = this.#rules.filter((other) => other !== rule).map((other) => other.RuleName);
      const result = ruleOf(base, texts, others);
      for (const [key, { note, hint }] of problems) {
        const problem = touched.has(key) ? result.problems[key] : undefined;
        setText(note, problem ?? hint);
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
            const others = this.#rules.filter((other) => other !== rule);
            const refusal = await this.#save([...others, result.rule]);
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
    this.#dialog.replaceChildren(form);
    this.#dialog.showModal();
    [...inputs.values()].find((input) => !input.disabled)?.focus();
  }

  async #delete(rule) {
    if (!confirm(`Delete the rule ${rule.RuleName}?`)) return;
    const refusal = await this.#save(this.#rules.filter((other) => other !== rule));
    if (refusal !== "") toast(refusal, "bad");
  }

  /** @returns {Promise<string>} Why the sandbox refuses; empty when it does not. */
  async #save(rules) {
    try {
      await putSamplingRules(byPriority(rules));
    } catch (error) {
      return error.message;
    }
    await this.#load();
    toast("Saved; SDKs fetch the rules within five minutes");
    return "";
  }
}
