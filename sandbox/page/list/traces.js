/**
 * The live list of traces.
 *
 * In: the traces of `live.js`, and the filter in the address. Out: rows, by default the newest
 * first. Enter or a click opens a trace. New traces do not move the selected row if it is visible.
 * If the user has scrolled down, new traces do not move the visible rows either.
 */

import { forgetTraces, messageOf } from "../shared/api.js";
import { Arrivals } from "./arrivals.js";
import { h, icon, iconButton, setText, toast } from "../shared/dom.js";
import { parseDuration, predicate, sort } from "./filter.js";
import { FilterBar, chosenOf } from "./filterbar.js";
import { plural } from "../shared/format.js";
import { stepOf } from "../shared/keys.js";
import { ListHeading } from "./heading.js";
import { kindOfNothing, nothing, statusLine, tellMissing } from "./nothing.js";
import { fullBar } from "./scale.js";
import { isRelative, parseRange } from "./timerange.js";
import { TimeStrip } from "./timestrip.js";
import { createRow, updateRow } from "./tracerow.js";
import { VirtualList } from "../shared/virtual.js";

/** Height of a row, in pixels. */
const ROW_HEIGHT = 34;
/** Time after which a range that moves with the time is evaluated again, in milliseconds. */
const RANGE_STEP_MS = 1000;

/** The view of the list. See the module. */
export class TracesView {
  title = "Traces";
  /** @type {HTMLElement} */
  element;

  #live;
  #router;
  #bar;
  #strip;
  #scroller;
  #list;
  #heading = new ListHeading((order) => this.#orderBy(order));
  #empty;
  #status;
  #unsampled;
  #newer;
  #pause;
  #chosen = chosenOf(new URLSearchParams());
  #order = "-start";
  #selectedId = "";
  #arrivals = new Arrivals();
  #full = 0;
  /** Whether the selected row was visible before the list changed its size. */
  #wasSeen = false;
  /** @type {any[]|null} Traces at the time when the list was paused; null if it is not paused. */
  #paused = null;

  /**
   * @param {{live: import("../shared/live.js").Live, router: import("../shared/router.js").Router}}
   *   page
   */
  constructor({ live, router }) {
    this.#live = live;
    this.#router = router;
    this.#bar = new FilterBar((chosen) => this.#choose(chosen));
    this.#strip = new TimeStrip((t) => this.#bar.chooseTime(t));
    this.#scroller = h(
      "div",
      {
        class: "trace-list",
        role: "grid",
        tabIndex: 0,
        "aria-label": "Traces",
        on: { scroll: () => this.#scrolled() },
      },
      this.#heading.element,
    );
    this.#list = new VirtualList(this.#scroller, {
      rowHeight: ROW_HEIGHT,
      create: () => createRow((id) => this.#open(id)),
      update: (row, trace, index) => this.#fill(row, trace, index),
    });
    this.#pause = iconButton("pause", "Pause", () => this.#togglePause());
    this.#newer = h("button", {
      type: "button",
      class: "newer",
      hidden: true,
      on: { click: () => this.#toTop() },
    });
    this.#empty = h("div", { class: "empty" });
    this.#status = h("div", { class: "status-text" });
    this.#unsampled = h("a", { class: "unsampled", href: "#/rules", hidden: true });
    const foot = h(
      "div",
      { class: "list-foot" },
      this.#pause,
      this.#status,
      this.#unsampled,
      iconButton("trash", "Delete all traces", () => this.#forget(), { class: "icon-button last" }),
    );
    this.element = h(
      "section",
      { class: "view traces", "aria-label": "Traces" },
      this.#bar.element,
      this.#strip.element,
      h("div", { class: "list-body" }, this.#scroller, this.#empty, this.#newer),
      foot,
    );
    this.element.hidden = true;
    live.listen(() => !this.element.hidden && this.#refresh());
    setInterval(() => {
      if (!this.element.hidden && isRelative(this.#chosen.t)) this.#refresh();
    }, RANGE_STEP_MS);
    new ResizeObserver(() => this.#wasSeen && this.#reveal()).observe(this.#scroller);
  }

  /** @param {import("../shared/router.js").Route} route */
  show(route) {
    this.#chosen = chosenOf(route.query);
    this.#order = route.query.get("sort") || "-start";
    this.#bar.show(this.#chosen);
    this.#apply();
    this.#reveal();
  }

  /** Scrolls to the selected row, if the list has it. */
  #reveal() {
    // A hidden list has no height.
    const index = this.#scroller.clientHeight > 0 ? this.#index() : -1;
    if (index >= 0) this.#list.reveal(index);
  }

  /**
   * Prepares for another view: a text that the user is still typing must not change the address
   * later.
   */
  leave() {
    this.#chosen = this.#bar.settle();
  }

  /** Moves the focus to the rows. */
  focus() {
    this.#scroller.focus({ preventScroll: true });
  }

  focusFilter() {
    this.#bar.focus();
  }

  /** Returns the ids of the traces before and after a trace, in the order of the list. */
  neighbours(id) {
    const shown = this.#fitting();
    const at = shown.findIndex((trace) => trace.id === id);
    return { before: shown[at - 1]?.id, after: at < 0 ? undefined : shown[at + 1]?.id };
  }

  /** @param {string} id */
  select(id) {
    this.#selectedId = id;
  }

  /**
   * Handles a key while an input field has the focus.
   *
   * @param {KeyboardEvent} event
   * @returns {boolean} Whether the list used the key.
   */
  typing(event) {
    const isDown = event.key === "Enter" || event.key === "ArrowDown";
    if (!this.#bar.hasFocus || !(isDown || event.key === "Escape")) return false;
    this.focus();
    if (isDown && this.#index() < 0) this.#move(1);
    return true;
  }

  /**
   * Handles a key.
   *
   * @param {KeyboardEvent} event
   * @returns {boolean} Whether the list used the key.
   */
  key(event) {
    const step = stepOf(event.key, this.#list.pageSize);
    if (step !== undefined) {
      this.#move(step);
      return true;
    }
    if (event.key === "Enter" && this.#index() >= 0) {
      if (document.activeElement?.closest("button, a:not(.trace-row)")) return false;
      this.#open(this.#selectedId);
      return true;
    }
    if (event.key === "Escape" && this.#selectedId) {
      this.#selectedId = "";
      this.#list.draw(true);
      return true;
    }
    if (event.key === "p") {
      this.#togglePause();
      return true;
    }
    return false;
  }

  #orderBy(order) {
    this.#order = order;
    this.#scroller.scrollTop = 0;
    this.#note();
    this.#refresh();
    this.#reveal();
  }

  #choose(chosen) {
    this.#chosen = chosen;
    this.#scroller.scrollTop = 0;
    this.#note();
    this.#apply();
    this.#reveal();
  }

  /** The parameters of the list for the address. */
  get query() {
    const { q, flags, status, min, t } = this.#chosen;
    const sort = this.#order === "-start" ? "" : this.#order;
    return { q, flags: flags.join(","), status: status.join(","), min, t, sort };
  }

  /** Stores filter and sort order in the address. A reload or a shared link shows the same list. */
  #note() {
    this.#router.note({ view: "traces", query: this.query });
  }

  #apply() {
    this.#live.setText(this.#chosen.q);
    this.#refresh();
  }

  get #all() {
    return this.#paused ?? [...this.#live.traces.values()];
  }

  /** Returns the traces that all filters but the time range allow. */
  #fittingAnyTime() {
    const { flags, status, min } = this.#chosen;
    const fits = predicate({
      flags: new Set(flags),
      statuses: new Set(status),
      minSeconds: parseDuration(min) || 0,
    });
    const { matched, isSearching } = this.#live;
    // A page that is loaded with a text in its address does not show the other traces first.
    if (isSearching && matched === null && this.#list.items.length === 0) return [];
    return this.#all.filter((trace) => fits(trace) && (matched === null || matched.has(trace.id)));
  }

  /** Returns those of `traces` that the time range allows, sorted. */
  #inTime(traces) {
    const range = parseRange(this.#chosen.t, Date.now() / 1000);
    const isIn = ({ start_time: start }) => !range || (start >= range.from && start <= range.to);
    return sort(range ? traces.filter(isIn) : [...traces], this.#order);
  }

  #fitting() {
    return this.#inTime(this.#fittingAnyTime());
  }

  #refresh() {
    const anyTime = this.#fittingAnyTime();
    const shown = this.#inTime(anyTime);
    this.#strip.show(anyTime, this.#chosen.t, Date.now() / 1000);
    this.#full = fullBar(shown.map((trace) => trace.duration_seconds));
    this.#replace(shown);
    this.#bar.explain(this.#live.found, this.#live.isKept);
    this.#heading.show(this.#order);
    this.#scroller.setAttribute("aria-rowcount", String(shown.length + 1));
    this.#describe(shown.length, this.#all.length);
  }

  /**
   * Replaces the rows. The selected row does not move if it is visible. Otherwise, if the user has
   * scrolled down, the first visible row does not move.
   */
  #replace(traces) {
    const before = this.#list.items;
    const { from, to } = this.#list.seen;
    const selected = this.#index();
    const isSeen = selected >= from && selected < to;
    const anchor = isSeen ? before[selected] : this.#scroller.scrollTop > 0 ? before[from] : null;
    const positions = new Map(traces.map((trace, index) => [trace.id, index]));
    const now = anchor ? positions.get(anchor.id) : undefined;
    const shift = now === undefined ? 0 : now - (isSeen ? selected : from);
    this.#arrivals.note(this.#all, traces, now);
    this.#list.setItems(traces, shift);
    this.#scrolled();
  }

  #fill(row, trace, index) {
    const isSelected = trace.id === this.#selectedId;
    const isFresh = this.#arrivals.isFresh(trace.id);
    const hit = this.#live.hits[trace.id];
    updateRow(row, trace, { index, isSelected, isFresh, full: this.#full, hit });
    if (isSelected) this.#scroller.setAttribute("aria-activedescendant", row.id);
  }

  #index() {
    if (this.#selectedId === "") return -1;
    return this.#list.items.findIndex((trace) => trace.id === this.#selectedId);
  }

  #move(step) {
    const { items, seen } = this.#list;
    if (items.length === 0) return;
    const at = this.#index();
    const next = at < 0 ? (Number.isFinite(step) ? seen.from : step > 0 ? Infinity : 0) : at + step;
    const index = Math.min(Math.max(next, 0), items.length - 1);
    this.#selectedId = items[index].id;
    const { activeElement: active } = document;
    if (active === document.body || active?.matches(".trace-row")) this.focus();
    this.#list.reveal(index);
    this.#list.draw(true);
  }

  #open(id) {
    this.#selectedId = id;
    this.#router.go({ view: "trace", id });
  }

  #scrolled() {
    if (this.#scroller.scrollTop < 2) this.#arrivals.aboveCount = 0;
    const { from, to } = this.#list.seen;
    const index = this.#index();
    this.#wasSeen = index >= from && index < to;
    const { aboveCount } = this.#arrivals;
    this.#newer.hidden = aboveCount === 0;
    if (aboveCount > 0) this.#newer.replaceChildren(icon("up"), plural(aboveCount, "new trace"));
  }

  #toTop() {
    this.#scroller.scrollTop = 0;
    this.focus();
  }

  #togglePause() {
    this.#paused = this.#paused ? null : [...this.#live.traces.values()];
    const label = this.#paused ? "Continue" : "Pause";
    this.#pause.replaceChildren(icon(this.#paused ? "play" : "pause"));
    this.#pause.setAttribute("aria-label", label);
    this.#pause.title = label;
    this.element.classList.toggle("is-paused", this.#paused !== null);
    this.#refresh();
  }

  #describe(shownCount, allCount) {
    const { connection, store, traces, isSearching, unsampledCount, refusedCount } = this.#live;
    const isLoading = connection === "connecting" || isSearching;
    const kind = shownCount > 0 ? "" : kindOfNothing({ connection, isLoading, allCount });
    this.#scroller.classList.toggle("is-empty", kind !== "");
    if (this.#empty.dataset.kind !== kind) {
      this.#empty.dataset.kind = kind;
      this.#empty.replaceChildren(...nothing(kind));
    }
    tellMissing(this.#empty, { unsampledCount, refusedCount });
    this.#unsampled.hidden = unsampledCount === 0;
    const were = unsampledCount === 1 ? "was" : "were";
    setText(this.#unsampled, `${plural(unsampledCount, "request")} ${were} not sampled`);
    const waitingCount = this.#paused ? traces.size - this.#paused.length : 0;
    const counts = { shownCount, allCount, waitingCount };
    setText(this.#status, statusLine({ ...counts, store, isPaused: this.#paused !== null }));
  }

  async #forget() {
    if (this.#live.traces.size === 0) return;
    if (!confirm("Delete all traces that the sandbox holds?")) return;
    try {
      await forgetTraces();
      this.#selectedId = "";
      await this.#live.poll();
    } catch (error) {
      toast(messageOf(error), "bad");
    }
  }
}
