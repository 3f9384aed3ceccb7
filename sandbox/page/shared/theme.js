/**
 * Light or dark: as the system has it, until somebody chooses.
 *
 * In: the choice, kept in the browser's storage where that is allowed. Out: `data-theme` of the
 * document, which the style sheets follow.
 */

import { icon, iconButton } from "./dom.js";

const KEY = "xray-sandbox-theme";
const CHOICES = ["system", "light", "dark"];
const ICONS = { system: "display", light: "sun", dark: "moon" };

function stored() {
  try {
    const choice = localStorage.getItem(KEY);
    return CHOICES.includes(choice) ? choice : "system";
  } catch {
    return "system";
  }
}

function store(choice) {
  try {
    localStorage.setItem(KEY, choice);
  } catch {
    // Then it holds until the page is closed.
  }
}

/** Applies the choice of before; early, so that nothing flashes. */
export function applyTheme() {
  document.documentElement.dataset.theme = stored();
}

/**
 * A button that goes through the choices.
 *
 * @returns {HTMLButtonElement}
 */
export function themeButton() {
  const button = iconButton(
    "display",
    "",
    () => {
      const now = document.documentElement.dataset.theme;
      const next = CHOICES[(CHOICES.indexOf(now) + 1) % CHOICES.length];
      store(next);
      document.documentElement.dataset.theme = next;
      draw();
    },
    { id: "theme" },
  );
  function draw() {
    const choice = document.documentElement.dataset.theme;
    const label = `Colours: ${choice} (t)`;
    button.replaceChildren(icon(ICONS[choice]));
    button.setAttribute("aria-label", label);
    button.title = label;
  }
  draw();
  return button;
}
