/**
 * Creates the elements of the page. All other modules call this module to create elements.
 *
 * In: names and properties from the page's own code, and text from any source. Out: elements. Text
 * is always inserted as text nodes and never as markup. So a document cannot insert elements into
 * the page.
 */

const SVG = "http://www.w3.org/2000/svg";

/** Names of values that must be set as properties of an element and not as attributes. */
const PROPERTIES = new Set(["value", "checked", "disabled", "selected", "htmlFor", "tabIndex"]);

/** Sets the properties of an element and appends its children. */
function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "text") element.textContent = value;
    else if (name === "on") {
      for (const [event, listener] of Object.entries(value)) {
        element.addEventListener(event, listener);
      }
    } else if (name === "style") {
      // The content security policy forbids the attribute `style`, but allows `setProperty`.
      for (const [key, text] of Object.entries(value)) element.style.setProperty(key, text);
    } else if (PROPERTIES.has(name)) element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined));
  return element;
}

/**
 * Creates an HTML element.
 *
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {object} [properties] Attributes, and also `text`, `on` (listeners by event) and `style`.
 * @param {...any} children Nodes, strings, or arrays of these. Strings become text; null is left
 *   out.
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function h(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/**
 * Creates an SVG element, like {@link h}.
 *
 * @template {keyof SVGElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {object} [properties]
 * @param {...any} children
 * @returns {SVGElementTagNameMap[Tag]}
 */
export function s(tag, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

/**
 * Sets the text of an element. Does nothing if the element has this text already.
 *
 * @param {Element} element
 * @param {string} text
 */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Paths of the icons, on a grid of 16 by 16. They are drawn as outlines in the current colour. */
const ICONS = {
  back: "M10 3 5 8l5 5",
  close: "m4 4 8 8m0-8-8 8",
  chevron: "m6 4 4 4-4 4",
  copy: "M5.5 5.5v-3h8v8h-3m-8-5h8v8h-8z",
  check: "m3 8.5 3.5 3.5L13 4.5",
  search: "M7 2.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9M10.5 10.5l3 3",
  pause: "M5.5 3v10m5-10v10",
  play: "M5 3v10l8-5z",
  sun:
    "M8 5.2a2.8 2.8 0 1 0 0 5.6 2.8 2.8 0 0 0 0-5.6M8 1v1.5m0 11V15M1 8h1.5m11 0H15" +
    "M3 3l1.1 1.1m7.8 7.8L13 13m0-10-1.1 1.1M4.1 11.9 3 13",
  moon: "M13.2 9.6A5.6 5.6 0 0 1 6.4 2.8a5.6 5.6 0 1 0 6.8 6.8z",
  display: "M2 3h12v8H2zm4 11h4m-2-3v3",
  help: "M5.8 6a2.2 2.2 0 1 1 3.2 2c-.7.4-1 .8-1 1.6m0 2.4v.1",
  trash: "M3 4.5h10m-6.5-2h3M4.5 4.5l.6 9h5.800l.6-9",
  up: "M8 13V3M4 7l4-4 4 4",
  down: "M8 3v10m-4-4 4 4 4-4",
  download: "M8 2v8m-3.5-3.5 3.5 3.5 3.5-3.5M2.5 11v2.5h11V11",
  plus: "M8 3v10M3 8h10",
  minus: "M3 8h10",
  fit: "M2.5 6V2.5H6m4 0h3.5V6m0 4v3.5H10m-4 0H2.5V10",
  plug: "M5.5 1.5v3.5m5-3.5v3.5m-7 0h9v2.5a4.5 4.5 0 0 1-9 0zm4.5 7v2.5",
};

/**
 * Creates an icon. Screen readers ignore it.
 *
 * @param {keyof typeof ICONS} name
 * @returns {SVGElement}
 */
export function icon(name) {
  const path = s("path", { d: ICONS[name] });
  return s("svg", { class: "icon", viewBox: "0 0 16 16", "aria-hidden": "true" }, path);
}

/**
 * Creates a button with an icon. The label is shown as a tooltip and read by screen readers.
 *
 * @param {keyof typeof ICONS} name
 * @param {string} label
 * @param {() => void} press
 * @param {object} [properties]
 * @returns {HTMLButtonElement}
 */
export function iconButton(name, label, press, properties = {}) {
  const base = { type: "button", class: "icon-button", "aria-label": label, title: label };
  return h("button", { ...base, on: { click: press }, ...properties }, icon(name));
}

/**
 * Returns an element of `index.html`.
 *
 * @param {string} id
 * @returns {HTMLElement}
 */
export function elementOf(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`The page has no element ${id}`);
  return element;
}

/**
 * Shows a message at the edge of the page for a few seconds. Screen readers read it.
 *
 * @param {string} text
 * @param {"info"|"bad"} [kind]
 */
export function toast(text, kind = "info") {
  const box = elementOf("toasts");
  // A message that is shown already is removed, so that it is not shown twice.
  for (const shown of [...box.children]) if (shown.textContent === text) shown.remove();
  const note = h("div", { class: `toast ${kind}`, text });
  box.append(note);
  while (box.childElementCount > 3) box.firstElementChild?.remove();
  setTimeout(() => note.remove(), kind === "bad" ? 8000 : 2500);
}

/** Copies a text with `execCommand`, for browsers that do not allow the Clipboard API. */
function copyBySelection(text) {
  const area = h("textarea", { class: "off-screen", "aria-hidden": "true", value: text });
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}

/**
 * Creates a button that copies a text.
 *
 * @param {string|(() => string)} text
 * @param {string} [label] Tooltip, such as "Copy the id".
 * @param {string} [words] Text beside the icon.
 * @returns {HTMLButtonElement}
 */
export function copyButton(text, label = "Copy", words = "") {
  const button = iconButton("copy", label, async () => {
    const exact = typeof text === "function" ? text() : text;
    let done = true;
    try {
      await navigator.clipboard.writeText(exact);
    } catch {
      done = copyBySelection(exact);
    }
    if (!done) return toast("The browser does not allow the page to copy", "bad");
    button.replaceChildren(icon("check"), words && "Copied");
    button.classList.add("is-done");
    setTimeout(() => {
      button.replaceChildren(icon("copy"), words);
      button.classList.remove("is-done");
    }, 1500);
  });
  button.classList.add("copy");
  if (words) {
    button.classList.replace("icon-button", "button");
    button.append(words);
  }
  return button;
}
