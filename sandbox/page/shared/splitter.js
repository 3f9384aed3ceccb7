/**
 * A line between two parts of the page. The user moves the line with the pointer or the keyboard.
 *
 * In: the name of a custom CSS property of the parent, which holds a size. Out: the value of this
 * property, in pixels.
 */

import { h } from "./dom.js";

const KEY_STEP = 24;

/**
 * Creates a splitter.
 *
 * @param {object} options
 * @param {string} options.name Name of the custom property.
 * @param {string} options.label
 * @param {number} options.min Smallest size of each of the two parts, in pixels.
 * @param {1|-1} options.sign 1 if a move to the right makes the size larger, -1 if smaller.
 * @returns {HTMLElement}
 */
export function splitter({ name, label, min, sign }) {
  const line = h("div", {
    class: "splitter",
    role: "separator",
    "aria-orientation": "vertical",
    "aria-label": label,
    tabIndex: 0,
  });
  const measured = () => {
    const part = sign > 0 ? line.previousElementSibling : line.nextElementSibling;
    return part instanceof HTMLElement ? part.offsetWidth : 0;
  };
  const set = (size) => {
    const parent = line.parentElement;
    if (!parent) return;
    const pixels = Math.min(Math.max(size, min), Math.max(min, parent.clientWidth - min));
    parent.style.setProperty(name, `${Math.round(pixels)}px`);
  };
  line.addEventListener("pointerdown", (event) => {
    const from = event.clientX;
    const size = measured();
    line.setPointerCapture(event.pointerId);
    const move = (moved) => set(size + sign * (moved.clientX - from));
    line.addEventListener("pointermove", move);
    line.addEventListener(
      "lostpointercapture",
      () => line.removeEventListener("pointermove", move),
      { once: true },
    );
    event.preventDefault();
  });
  line.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -KEY_STEP, ArrowRight: KEY_STEP }[event.key];
    if (step === undefined) return;
    set(measured() + sign * step);
    event.preventDefault();
    event.stopPropagation();
  });
  return line;
}
