/**
 * Light or dark colours. The default is the setting of the system.
 *
 * In: the user's choice, which is stored in the browser if the browser allows it. Out: the
 * attribute `data-theme` of the document, which the style sheets use.
 */

import { icon, iconButton } from "./dom.js";

const KEY = "xray-sandbox-theme";
/** @typedef {"system"|"light"|"dark"} Choice */
/** @type {Choice[]} */
const CHOICES = ["system", "light", "dark"];
/** @type {Record<Choice, "display"|"sun"|"moon">} */
const ICONS = { system: "display", light: "sun", dark: "moon" };

/** @param {unknown} text @returns {Choice} */
const choiceOf = (text) => CHOICES.find((choice) => choice === text) ?? "system";

function stored() {
  try {
    return choiceOf(localStorage.getItem(KEY));
  } catch {
    return "system";
  }
}

function store(choice) {
  try {
    localStorage.setItem(KEY, choice);
  } catch {
    // The browser does not allow storage. The choice is valid until the page is closed.
  }
}

/**
 * Applies the stored choice. The page calls this before its first paint. Otherwise the user would
 * see the colours change.
 */
export function applyTheme() {
  document.documentElement.dataset.theme = stored();
}

/**
 * Creates a button that switches to the next choice: system, light, dark.
 *
 * @returns {HTMLButtonElement}
 */
export function themeButton() {
  const button = iconButton(
    "display",
    "",
    () => {
      const now = choiceOf(document.documentElement.dataset.theme);
      const next = CHOICES[(CHOICES.indexOf(now) + 1) % CHOICES.length];
      store(next);
      document.documentElement.dataset.theme = next;
      draw();
    },
    { id: "theme" },
  );
  function draw() {
    const choice = choiceOf(document.documentElement.dataset.theme);
    const label = `Colours: ${choice} (t)`;
    button.replaceChildren(icon(ICONS[choice]));
    button.setAttribute("aria-label", label);
    button.title = label;
  }
  draw();
  return button;
}
