/**
 * Moves and zooms a drawing with the pointer, the wheel and buttons.
 *
 * In: an SVG element, the group with the drawing (the scene), and the bounds of the drawing. Out:
 * the attribute `transform` of the scene.
 */

const SCALE_MIN = 0.05;
const SCALE_MAX = 3;
/** Largest scale that {@link Viewport.fit} uses for a small drawing. */
const FIT_SCALE_MAX = 1.25;
/** Smallest scale at which the labels are readable. A large drawing begins with it. */
export const READABLE_SCALE = 0.5;
/** Shortest movement of the pointer that moves the drawing, in pixels. Below, it is a click. */
const DRAG_MIN = 4;

/** The viewport. See the module. */
export class Viewport {
  /** Whether the last press of the pointer moved the drawing. */
  wasDragged = false;

  #svg;
  #scene;
  #bounds = { x: 0, y: 0, width: 1, height: 1 };
  #scale = 1;
  #x = 0;
  #y = 0;
  /** Whether the whole drawing is shown. If so, a change of the page's size fits it again. */
  #isFitted = true;
  #scaled;

  /**
   * @param {SVGSVGElement} svg
   * @param {SVGGElement} scene
   * @param {(scale: number) => void} scaled Called when the scale has changed.
   */
  constructor(svg, scene, scaled) {
    this.#svg = svg;
    this.#scene = scene;
    this.#scaled = scaled;
    svg.addEventListener("pointerdown", (event) => this.#drag(event));
    svg.addEventListener(
      "wheel",
      (event) => {
        event.preventDefault();
        const box = svg.getBoundingClientRect();
        const factor = Math.exp(-event.deltaY * (event.deltaMode === 1 ? 0.05 : 0.0015));
        this.zoom(factor, { x: event.clientX - box.x, y: event.clientY - box.y });
      },
      { passive: false },
    );
    new ResizeObserver(() => this.#isFitted && this.fit(READABLE_SCALE)).observe(svg);
  }

  /**
   * Sets the bounds of the drawing.
   *
   * @param {{x: number, y: number, width: number, height: number}} bounds
   * @param {boolean} fit Whether to show the drawing from its start now.
   */
  setBounds(bounds, fit) {
    this.#bounds = bounds;
    if (fit || this.#isFitted) this.fit(READABLE_SCALE);
  }

  /**
   * Shows the whole drawing. If it needs a smaller scale than `least`, the part at its start is shown.
   *
   * @param {number} [least]
   */
  fit(least = SCALE_MIN) {
    const { clientWidth: width, clientHeight: height } = this.#svg;
    if (width === 0 || height === 0) return;
    const { x, y, width: w, height: h } = this.#bounds;
    this.#scale = Math.max(least, Math.min(width / w, height / h, FIT_SCALE_MAX));
    this.#x = Math.max(0, (width - w * this.#scale) / 2) - x * this.#scale;
    this.#y = Math.max(0, (height - h * this.#scale) / 2) - y * this.#scale;
    this.#isFitted = true;
    this.#apply();
  }

  /**
   * Zooms the drawing.
   *
   * @param {number} factor
   * @param {{x: number, y: number}} [at] The point that does not move. The default is the middle.
   */
  zoom(factor, at = { x: this.#svg.clientWidth / 2, y: this.#svg.clientHeight / 2 }) {
    const scale = Math.min(Math.max(this.#scale * factor, SCALE_MIN), SCALE_MAX);
    this.#x = at.x - ((at.x - this.#x) * scale) / this.#scale;
    this.#y = at.y - ((at.y - this.#y) * scale) / this.#scale;
    this.#scale = scale;
    this.#isFitted = false;
    this.#apply();
  }

  #drag(event) {
    if (event.button !== 0) return;
    const from = { x: event.clientX - this.#x, y: event.clientY - this.#y };
    const start = { x: event.clientX, y: event.clientY };
    this.wasDragged = false;
    const move = (moved) => {
      const far = Math.hypot(moved.clientX - start.x, moved.clientY - start.y) >= DRAG_MIN;
      if (!this.wasDragged && !far) return;
      this.wasDragged = true;
      this.#isFitted = false;
      this.#x = moved.clientX - from.x;
      this.#y = moved.clientY - from.y;
      this.#apply();
    };
    const done = new AbortController();
    addEventListener("pointermove", move, { signal: done.signal });
    addEventListener("pointerup", () => done.abort(), { signal: done.signal });
    addEventListener("pointercancel", () => done.abort(), { signal: done.signal });
  }

  #apply() {
    this.#scene.setAttribute("transform", `translate(${this.#x} ${this.#y}) scale(${this.#scale})`);
    this.#scaled(this.#scale);
  }
}
