/**
 * Stores the current view in the fragment of the page's address: `#/traces?q=fault`,
 * `#/trace/ID?at=SEGMENT`, `#/map`, `#/rules`, `#/refused?kind=NUMBER`, `#/connect`.
 *
 * In: the address, and the routes that views ask for. Out: routes for the listeners. The address is
 * the only copy of this state. So reloading, bookmarks and the back button work.
 *
 * @typedef {"traces"|"trace"|"map"|"rules"|"refused"|"connect"} ViewName
 *
 * @typedef {object} Route
 * @property {ViewName} view
 * @property {string} id Id of the trace, only for the view `trace`.
 * @property {URLSearchParams} query
 */

/** @type {ViewName[]} */
const VIEWS = ["traces", "trace", "map", "rules", "refused", "connect"];

/**
 * Parses a fragment. An unknown fragment is the route to the list of traces.
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
    // The id is not a valid percent-encoding, so it is used unchanged.
  }
  const known = VIEWS.find((view) => view === name && (name !== "trace" || id !== ""));
  return { view: known ?? "traces", id: name === "trace" ? id : "", query };
}

/**
 * Formats a route as a fragment. Empty parameters are left out.
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

/** Watches and changes the address of the page. */
export class Router {
  /** @type {((route: Route) => void)[]} */
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

  /**
   * Adds a listener, which is called with every new route.
   *
   * @param {(route: Route) => void} listener
   */
  listen(listener) {
    this.#listeners.push(listener);
  }

  /** Calls the listeners with the route of the current address. */
  start() {
    this.#tell();
  }

  /**
   * Goes to a route. The back button returns to the route before.
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
   * Stores a detail of the current view, such as a filter, in the address. This adds no step for
   * the back button. The listeners are not called, because the caller has applied the detail
   * already.
   *
   * @param {Parameters<typeof format>[0]} route
   */
  note(route) {
    const fragment = format(route);
    if (fragment === location.hash) return;
    this.#shown = fragment;
    history.replaceState(null, "", fragment);
  }

  // A step back raises two events, `hashchange` and `popstate`. The listeners are called only for
  // the first event.
  #tell() {
    if (this.#shown === location.hash && this.#shown !== "") return;
    this.#shown = location.hash;
    for (const listener of this.#listeners) listener(this.route);
  }
}
