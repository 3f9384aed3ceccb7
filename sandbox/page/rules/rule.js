/**
 * Sampling rules: their fields, and what is wrong with one.
 *
 * In: what people type. Out: rules as the API has them, or messages by field. The bounds are those
 * of the service: <https://docs.aws.amazon.com/xray/latest/api/API_SamplingRule.html>. Pure code.
 */

export const DEFAULT_NAME = "Default";

/**
 * The fields of the form, in order. `text` fields may hold `*` and `?`.
 *
 * @type {{key: string, label: string, kind: "text"|"integer"|"percent", hint: string,
 *   max: number, min?: number}[]}
 */
export const FIELDS = [
  {
    key: "RuleName",
    label: "Name",
    kind: "text",
    max: 32,
    hint: "Letters, digits and - _ . up to 32",
  },
  {
    key: "Priority",
    label: "Priority",
    kind: "integer",
    min: 1,
    max: 9999,
    hint: "1 is asked first, 9999 last",
  },
  {
    key: "ReservoirSize",
    label: "Reservoir",
    kind: "integer",
    min: 0,
    max: 1_000_000,
    hint: "Requests a second, before the rate",
  },
  {
    key: "FixedRate",
    label: "Rate",
    kind: "percent",
    min: 0,
    max: 100,
    hint: "Percent of the requests after that",
  },
  { key: "Host", label: "Host", kind: "text", max: 64, hint: "The Host header" },
  { key: "HTTPMethod", label: "HTTP method", kind: "text", max: 10, hint: "GET, POST, …" },
  { key: "URLPath", label: "URL path", kind: "text", max: 128, hint: "/api/*" },
  {
    key: "ServiceName",
    label: "Service name",
    kind: "text",
    max: 64,
    hint: "The name of the segment",
  },
  {
    key: "ServiceType",
    label: "Service type",
    kind: "text",
    max: 64,
    hint: "The origin, AWS::ECS::Container",
  },
  {
    key: "ResourceARN",
    label: "Resource ARN",
    kind: "text",
    max: 500,
    hint: "Where the application runs",
  },
];

/** What a new rule starts with: everything, at the rate that the service suggests. */
export const NEW_RULE = {
  RuleName: "",
  Priority: 1000,
  FixedRate: 0.05,
  ReservoirSize: 1,
  Host: "*",
  HTTPMethod: "*",
  URLPath: "*",
  ServiceName: "*",
  ServiceType: "*",
  ResourceARN: "*",
  Version: 1,
  Attributes: {},
};

/** @param {object} rule @returns {boolean} Whether it is the rule that is always there. */
export const isDefault = (rule) => rule.RuleName === DEFAULT_NAME;

/** The default rule answers for all that no other rule does, so its conditions are fixed. */
export function isFixed(key, rule) {
  return isDefault(rule) && key !== "FixedRate" && key !== "ReservoirSize";
}

/** @param {object} rule @param {string} key @returns {string} What the form shows. */
export function textOf(rule, key) {
  const value = rule[key];
  if (key === "FixedRate") return String(Number((100 * value).toFixed(6)));
  return value === undefined || value === null ? "" : String(value);
}

function problemOf({ key, kind, min, max }, text, names) {
  if (kind === "text") {
    if (text === "") return key === "RuleName" ? "A rule needs a name" : "Use * for any";
    if (text.length > max) return `At most ${max} characters`;
    if (key !== "RuleName") return "";
    if (!/^[A-Za-z0-9_.-]+$/.test(text)) return "Letters, digits, - _ and . only";
    return names.includes(text) ? "Another rule has this name" : "";
  }
  const value = text.trim() === "" ? NaN : Number(text);
  if (!Number.isFinite(value)) return "A number, please";
  if (kind === "integer" && !Number.isInteger(value)) return "A whole number, please";
  return value < min || value > max ? `From ${min} to ${max}` : "";
}

/**
 * Makes a rule of what a form holds.
 *
 * @param {object} base The rule before; fields that the form has not are kept.
 * @param {Record<string, string>} texts
 * @param {string[]} otherNames Names that are taken.
 * @returns {{rule: object, problems: Record<string, string>}} Without problems the rule is good.
 */
export function ruleOf(base, texts, otherNames) {
  const rule = { ...base };
  const problems = {};
  for (const field of FIELDS) {
    if (isFixed(field.key, base)) continue;
    const text = texts[field.key] ?? "";
    const problem = problemOf(field, text, otherNames);
    if (problem) problems[field.key] = problem;
    else if (field.kind === "text") rule[field.key] = text;
    else
      rule[field.key] =
        field.kind === "percent" ? Number((Number(text) / 100).toFixed(8)) : Number(text);
  }
  return { rule, problems };
}

/** In the order in which SDKs ask them. */
export function byPriority(rules) {
  return [...rules].sort(
    (one, other) => one.Priority - other.Priority || (one.RuleName < other.RuleName ? -1 : 1),
  );
}
