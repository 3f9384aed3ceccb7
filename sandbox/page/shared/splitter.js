/**
 * A line between two parts of the page that can be moved, by pointer and by keyboard.
 *
 * In: the name of a custom property of the parent that holds a size. Out: the property, in pixels.
 */

import { h } from "./dom.js";

const KEY_STEP = 24;

/**
 * @param {object} options
 * @param {string} options.name The custom property.
 * @param {string} options.label
 * @param {number} options.min Pixels; what remains for the other part is as much.
 * @param {1|-1} options.sign Whether a move to the right makes the size larger or smaller.
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
  const measured = () => (sign > 0 ? line.previousElementSibling : line.nextElementSibling);
  const set = (size) => {
    const whole = line.parentElement.clientWidth;
    const pixels = Math.min(Math.max(size, min), Math.max(min, whole - min));
    line.parentElement.style.setProperty(name, `${Math.round(pixels)}px`);
  };
  line.addEventListener("pointerdown", (event) => {
    const from = event.clientX;
    const size = measured().offsetWidth;
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
    set(measured().offsetWidth + sign * step);
    event.preventDefault();
    event.stopPropagation();
  });
  return line;
}
