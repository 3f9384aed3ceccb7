/**
 * The fields of a sampling rule, and their checks.
 *
 * In: the texts of a form. Out: a rule in the form of the API, or messages by field. The bounds are
 * from the service: <https://docs.aws.amazon.com/xray/latest/api/API_SamplingRule.html>. No I/O, no
 * clock.
 *
 * @typedef {object} Field
 * @property {string} key Name of the field in the API.
 * @property {string} label
 * @property {"text"|"integer"|"percent"} kind A text may contain `*` and `?`.
 * @property {string} hint
 * @property {number} max Largest number, or longest text in characters.
 * @property {number} [min] Smallest number.
 */

export const DEFAULT_NAME = "Default";

/**
 * The fields of the form, in their order.
 *
 * @type {Field[]}
 */
export const FIELDS = [
  {
    key: "RuleName",
    label: "Name",
    kind: "text",
    max: 32,
    hint: "At most 32 letters, digits, - and _",
  },
  {
    key: "Priority",
    label: "Priority",
    kind: "integer",
    min: 1,
    max: 9999,
    hint: "1 is tried first, 9999 last",
  },
  {
    key: "ReservoirSize",
    label: "Reservoir",
    kind: "integer",
    min: 0,
    max: 1_000_000,
    hint: "Sampled requests a second",
  },
  {
    key: "FixedRate",
    label: "Rate",
    kind: "percent",
    min: 0,
    max: 100,
    hint: "Of the other requests; 100% for every one",
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
    hint: "The origin, such as AWS::ECS::Container",
  },
  {
    key: "ResourceARN",
    label: "Resource ARN",
    kind: "text",
    max: 500,
    hint: "Where the application runs",
  },
];

/** The initial values of a new rule. It matches and samples every request. */
export const NEW_RULE = {
  RuleName: "",
  Priority: 1000,
  FixedRate: 1,
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

/**
 * Returns whether this is the default rule, which always exists.
 *
 * @param {any} rule
 * @returns {boolean}
 */
export const isDefault = (rule) => rule.RuleName === DEFAULT_NAME;

/**
 * Returns whether the user cannot change a field. The default rule matches all requests that no
 * other rule matches, so only its fields FixedRate and ReservoirSize can be changed.
 */
export function isFixed(key, rule) {
  return isDefault(rule) && key !== "FixedRate" && key !== "ReservoirSize";
}

/**
 * Returns the text of a field for the form.
 *
 * @param {any} rule
 * @param {string} key
 * @returns {string}
 */
export function textOf(rule, key) {
  const value = rule[key];
  if (key === "FixedRate") return `${Number((100 * value).toFixed(6))}%`;
  return value === undefined || value === null ? "" : String(value);
}

/**
 * Checks the text of a field.
 *
 * @param {Field} field
 * @param {string} text
 * @param {string[]} names Names of the other rules.
 * @returns {string} The problem; empty if the text is valid.
 */
function problemOf({ key, kind, min = 0, max }, text, names) {
  if (kind === "text") {
    if (text === "") return key === "RuleName" ? "A rule needs a name" : "Use * for any";
    if (text.length > max) return `At most ${max} characters`;
    if (key !== "RuleName") return "";
    if (!/^[A-Za-z0-9_-]+$/.test(text)) return "Use only letters, digits, - and _";
    return names.includes(text) ? "Another rule has this name" : "";
  }
  if (kind === "percent") return problemOfRate(text, min, max);
  const value = text.trim() === "" ? NaN : Number(text);
  if (!Number.isFinite(value)) return "Enter a number";
  if (kind === "integer" && !Number.isInteger(value)) return "Enter a whole number";
  return value < min || value > max ? `From ${min} to ${max}` : "";
}

/** Parses a rate: `5`, `5%`, `0.5 %`. Returns NaN for any other text. */
function percentOf(text) {
  const bare = text.trim().replace(/\s*%$/, "");
  return bare === "" ? NaN : Number(bare);
}

/**
 * Checks a rate. A small number without a percent sign has two meanings: 1 is every request in the
 * API (`FixedRate`), and one in a hundred as a percentage. The form takes neither for granted.
 */
function problemOfRate(text, min, max) {
  const value = percentOf(text);
  if (!Number.isFinite(value)) return "Enter a percentage, such as 5%";
  if (value < min || value > max) return `From ${min}% to ${max}%`;
  if (value > 0 && value <= 1 && !text.includes("%")) {
    return `Write ${value}% for ${oneIn(value)}, or ${Number((value * 100).toFixed(6))}% for ${
      value === 1 ? "every request" : oneIn(value * 100)
    }`;
  }
  return "";
}

const oneIn = (percent) => `1 request in ${Number((100 / percent).toPrecision(3))}`;

/**
 * Says what a rate means: `every request`, `1 request in 20`. Empty if the text is not a rate.
 *
 * @param {string} text
 */
export function meaningOfRate(text) {
  if (problemOfRate(text, 0, 100) !== "") return "";
  const percent = percentOf(text);
  if (percent === 0) return "None of the other requests";
  return percent === 100 ? "Every request" : `About ${oneIn(percent)} of the others`;
}

/**
 * Builds a rule from the texts of the form.
 *
 * @param {any} base The rule before the change. Fields that are not in the form stay unchanged.
 * @param {Record<string, string>} texts
 * @param {string[]} otherNames Names of the other rules.
 * @returns {{rule: any, problems: Record<string, string>}} The rule is valid if there are no
 *   problems.
 */
export function ruleOf(base, texts, otherNames) {
  const rule = { ...base };
  /** @type {Record<string, string>} */
  const problems = {};
  for (const field of FIELDS) {
    if (isFixed(field.key, base)) continue;
    const text = texts[field.key] ?? "";
    const problem = problemOf(field, text, otherNames);
    if (problem) problems[field.key] = problem;
    else if (field.kind === "text") rule[field.key] = text;
    else
      rule[field.key] =
        field.kind === "percent" ? Number((percentOf(text) / 100).toFixed(8)) : Number(text);
  }
  return { rule, problems };
}

/** Returns the rules in the order in which SDKs try them. */
export function byPriority(rules) {
  return [...rules].sort(
    (one, other) => one.Priority - other.Priority || (one.RuleName < other.RuleName ? -1 : 1),
  );
}
