/**
 * Where the page is, in the fragment of its address: `#/traces?q=fault`, `#/trace/ID?at=SEGMENT`,
 * `#/map`, `#/rules`, `#/connect`.
 *
 * In: the address, and where views want to go. Out: routes to whoever listens. The address is the
 * only copy of that state, so that it can be reloaded, kept and gone back from.
 *
 * @typedef {object} Route
 * @property {"traces"|"trace"|"map"|"rules"|"connect"} view
 * @property {string} id The trace's, for the view `trace`.
 * @property {URLSearchParams} query
 */

const VIEWS = new Set(["traces", "trace", "map", "rules", "connect"]);

/**
 * Reads a fragment; what it does not understand is the list of traces.
 *
 * @param {string} fragment With or without the `#`.
 * @returns {Route}
 */
export function parse(fragment) {
  const [path, ...rest] = fragment.replace(/^#/, "").split("?");
  const [, name = "", ...parts] = path.split("/");
  const query = new URLSearchParams(rest.join("?"));
  let id = parts.join("/");
  try {
    id = decodeURIComponent(id);
  } catch {
    // A percent sign that escapes nothing: then it is meant as it is.
  }
  const known = VIEWS.has(name) && (name !== "trace" || id !== "");
  return { view: known ? name : "traces", id: name === "trace" ? id : "", query };
}

/**
 * Writes a fragment; parameters that are empty are left out.
 *
 * @param {{view: string, id?: string, query?: URLSearchParams|Record<string, string>}} route
 * @returns {string}
 */
export function format({ view, id = "", query = {} }) {
  const pairs = [...new URLSearchParams(query)].filter(([, value]) => value !== "");
  const text = new URLSearchParams(pairs).toString();
  const path = view === "trace" ? `trace/${encodeURIComponent(id)}` : view;
  return `#/${path}${text === "" ? "" : `?${text}`}`;
}

/** Follows the address of the page. */
export class Router {
  #listeners = [];
  #shown = "";

  constructor() {
    addEventListener("hashchange", () => this.#tell());
    addEventListener("popstate", () => this.#tell());
  }

  /** @returns {Route} */
  get route() {
    return parse(location.hash);
  }

  /** @param {(route: Route) => void} listener */
  listen(listener) {
    this.#listeners.push(listener);
  }

  /** Tells where the page is, at the start. */
  start() {
    this.#tell();
  }

  /**
   * Goes somewhere; the place before stays behind the back button.
   *
   * @param {Parameters<typeof format>[0]} route
   */
  go(route) {
    const fragment = format(route);
    if (fragment === location.hash) return;
    history.pushState(null, "", fragment);
    this.#tell();
  }

  /**
   * Notes a detail of the place, such as a filter, without a step for the back button. Who notes
   * it has applied it already, so nobody is told.
   *
   * @param {Parameters<typeof format>[0]} route
   */
  note(route) {
    const fragment = format(route);
    if (fragment === location.hash) return;
    this.#shown = fragment;
    history.replaceState(null, "", fragment);
  }

  // A step back raises both events, and is told once.
  #tell() {
    if (this.#shown === location.hash && this.#shown !== "") return;
    this.#shown = location.hash;
    for (const listener of this.#listeners) listener(this.route);
  }
}
