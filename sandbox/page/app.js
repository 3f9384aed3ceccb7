/**
 * The page: its bar, its views, and the keys that work in every view.
 *
 * In: the address and the keyboard. Out: one view at a time. A view is created when it is first
 * shown. It is then kept, so that it keeps its state.
 */

import { ConnectView } from "./guide/connect.js";
import { elementOf, h, icon, iconButton, setText } from "./shared/dom.js";
import { plural } from "./shared/format.js";
import { helpDialog } from "./guide/help.js";
import { Live } from "./shared/live.js";
import { MapView } from "./map/map.js";
import { Router } from "./shared/router.js";
import { RefusedView } from "./refused/refused.js";
import { RulesView } from "./rules/rules.js";
import { applyTheme, themeButton } from "./shared/theme.js";
import { TraceView } from "./trace/trace.js";
import { TracesView } from "./list/traces.js";

applyTheme();

/** The tabs: the view, the label, and the label for a narrow window. */
const TABS = [
  ["traces", "Traces", "Traces"],
  ["map", "Service map", "Map"],
  ["rules", "Sampling rules", "Rules"],
  ["refused", "Refused", "Refused"],
];

const live = new Live();
const router = new Router();
const main = elementOf("main");
const help = helpDialog();
const theme = themeButton();

/**
 * Last route of the list of traces, with its filter.
 *
 * @type {Parameters<typeof router.go>[0]}
 */
let list = { view: "traces" };
/** @type {any} The visible view. */
let shown = null;

const makers = {
  traces: () => new TracesView({ live, router }),
  trace: () =>
    new TraceView({
      live,
      router,
      neighbours: (id) => viewOf("traces").neighbours(id),
      back: (id) => {
        viewOf("traces").select(id);
        router.go(list);
      },
    }),
  map: () => new MapView({ live, router }),
  rules: () => new RulesView({ live }),
  refused: () => new RefusedView({ live }),
  connect: () => new ConnectView(),
};
const views = new Map();

function viewOf(name) {
  if (!views.has(name)) views.set(name, makers[name]());
  return views.get(name);
}

const tabs = new Map(
  TABS.map(([view, label, short], at) => {
    const go = (event) => {
      if (event.metaKey || event.ctrlKey || event.shiftKey || event.button !== 0) return;
      event.preventDefault();
      goTo(view);
    };
    const tab = h(
      "a",
      { class: "tab", href: `#/${view}`, title: `${label} (${at + 1})`, on: { click: go } },
      h("span", { class: "tab-long", text: label }),
      h("span", { class: "tab-short", text: short }),
    );
    return [view, tab];
  }),
);
const refusedCount = h("span", { class: "tab-count" });
const refusedTab = tabs.get("refused");
refusedTab?.append(refusedCount);
const state = h("span", { class: "connection" });
const stateText = h("span", { class: "connection-text" });
elementOf("bar").append(
  h(
    "a",
    { class: "brand", href: "#/traces", "aria-label": "X-Ray sandbox" },
    h("img", { src: "/page/icon.svg", alt: "", width: 20, height: 20 }),
    h("span", {}, "X-Ray ", h("b", { text: "sandbox" })),
  ),
  h("nav", { class: "tabs", "aria-label": "Views" }, [...tabs.values()]),
  h("span", { class: "grow" }),
  h("span", { class: "connection-box", role: "status" }, state, stateText),
  h(
    "a",
    {
      class: "button quiet",
      href: "#/connect",
      title: "Connect an application (c)",
      "aria-label": "Connect an application",
    },
    icon("plug"),
    h("span", { class: "connect-words", text: "Connect" }),
  ),
  theme,
  iconButton("help", "Keys and filters (?)", () => help.showModal()),
);
document.body.append(help);

/** Goes to the view of a tab. The list keeps its filter; other views start without parameters. */
function goTo(view) {
  router.go(view === "traces" ? list : { view });
}

function show(route) {
  const view = viewOf(route.view);
  if (route.view === "traces") list = { view: "traces", query: route.query };
  const isOther = view !== shown;
  const isFirst = shown === null;
  if (isOther) {
    shown?.leave?.();
    // The list stores its filter in the address without a call of this function. So the filter is
    // taken from the view here.
    if (shown && shown === views.get("traces")) list = { view: "traces", query: shown.query };
    if (shown) shown.element.hidden = true;
    shown = view;
    view.element.hidden = false;
    // A hidden view stays in the document. If it were removed, it would lose its scroll position.
    if (!view.element.isConnected) main.append(view.element);
  }
  const active = route.view === "trace" ? "traces" : route.view;
  for (const [name, tab] of tabs) {
    if (name === active) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  }
  document.title = `${view.title} · X-Ray sandbox`;
  view.show(route);
  // The first view does not get the focus, so that no focus mark is visible. Keys work without it.
  if (isOther && !isFirst && !help.open) view.focus();
}

function drawConnection() {
  const words = { connecting: "Connecting…", live: "Live", lost: "No answer, retrying" };
  state.dataset.state = live.connection;
  const size = live.connection === "live" ? `, ${plural(live.traces.size, "trace")}` : "";
  setText(stateText, words[live.connection] + size);
  refusedCount.hidden = live.refusedCount === 0;
  setText(refusedCount, live.refusedCount > 999 ? "999+" : String(live.refusedCount));
  refusedTab?.classList.toggle("is-empty", live.refusedCount === 0);
}

const KEYS = {
  1: () => goTo("traces"),
  2: () => goTo("map"),
  3: () => goTo("rules"),
  4: () => goTo("refused"),
  c: () => goTo("connect"),
  t: () => theme.click(),
  "?": () => help.showModal(),
  "/": () => {
    goTo("traces");
    viewOf("traces").focusFilter();
  },
};

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  if (document.querySelector("dialog[open]")) return;
  const isTyping = event.target.matches?.("input:not([type=checkbox]), textarea, select") === true;
  const used = isTyping ? shown.typing?.(event) : shown.key(event);
  if (used) event.preventDefault();
  else if (!isTyping && event.key in KEYS) {
    event.preventDefault();
    KEYS[event.key]();
  } else if (isTyping && event.key === "Escape") event.target.blur();
}

document.addEventListener("keydown", press);
live.listen(drawConnection);
drawConnection();
router.listen(show);
router.start();
live.start();
