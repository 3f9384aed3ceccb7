/**
 * Formats numbers, times and texts in few characters.
 *
 * In: values from the API and from documents, which may be hostile. Out: short texts. No I/O.
 */

/**
 * Formats a duration with at most three digits: `0.4 ms`, `182 ms`, `1.25 s`, `3 m 20 s`.
 *
 * @param {number|null|undefined} seconds
 * @returns {string}
 */
export function duration(seconds) {
  if (typeof seconds !== "number" || !Number.isFinite(seconds)) return "–";
  const size = Math.abs(seconds);
  const sign = seconds < 0 ? "−" : "";
  if (size === 0) return "0 ms";
  if (size < 9.995e-4) return `${sign}${Math.max(1, Math.round(size * 1e6))} µs`;
  if (size < 0.9995) return `${sign}${digits(size * 1e3)} ms`;
  if (size < 99.95) return `${sign}${digits(size)} s`;
  if (size < 3600) return `${sign}${Math.floor(size / 60)} m ${Math.floor(size % 60)} s`;
  if (size < 86_400)
    return `${sign}${Math.floor(size / 3600)} h ${Math.floor((size % 3600) / 60)} m`;
  return `${sign}${digits(size / 86_400)} d`;
}

/** Formats a number with at most three digits and without zeros at the end of a fraction. */
function digits(value) {
  if (value >= 1e6) return value.toExponential(1);
  if (value >= 99.95) return String(Math.round(value));
  return String(Number(value.toFixed(value >= 9.995 ? 1 : 2)));
}

/** Converts seconds since 1970. Returns null for a value that is not a valid time. */
function dateOf(seconds) {
  const date = new Date(seconds * 1e3);
  return typeof seconds === "number" && !Number.isNaN(date.getTime()) ? date : null;
}

const pad = (value, length = 2) => String(value).padStart(length, "0");

/**
 * Formats the time of day. The date is added if it is not today.
 *
 * @param {number} seconds Since 1970.
 * @param {Date} [now]
 * @returns {string}
 */
export function clock(seconds, now = new Date()) {
  const date = dateOf(seconds);
  if (!date) return "–";
  const time = `${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}`;
  if (date.toDateString() === now.toDateString()) return time;
  const day = `${pad(date.getMonth() + 1)}-${pad(date.getDate())}`;
  return date.getFullYear() === now.getFullYear()
    ? `${day} ${time}`
    : `${date.getFullYear()}-${day} ${time}`;
}

/**
 * Formats a time in full: date, local time with milliseconds, and the offset from UTC.
 *
 * @param {number} seconds Since 1970.
 * @returns {string}
 */
export function moment(seconds) {
  const date = dateOf(seconds);
  if (!date) return String(seconds);
  const offset = -date.getTimezoneOffset();
  const [hours, minutes] = [Math.floor(Math.abs(offset) / 60), Math.abs(offset) % 60];
  const zone = `${offset < 0 ? "−" : "+"}${pad(hours)}:${pad(minutes)}`;
  const day = `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())}`;
  const time = `${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}`;
  return `${day} ${time}.${pad(date.getMilliseconds(), 3)} ${zone}`;
}

/**
 * Formats a size: `812 B`, `14.2 kB`.
 *
 * @param {number} bytes
 * @returns {string}
 */
export function size(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  if (bytes < 1e6) return `${digits(bytes / 1e3)} kB`;
  return `${digits(bytes / 1e6)} MB`;
}

/**
 * Formats a part of a whole as a percentage: `0.2%`, `12%`.
 *
 * @param {number} part
 * @param {number} whole
 * @returns {string}
 */
export function percent(part, whole) {
  if (!whole) return "0%";
  const value = (100 * part) / whole;
  return value > 0 && value < 0.1 ? "<0.1%" : `${digits(value)}%`;
}

/**
 * Formats a count with thousands separators.
 *
 * @param {number} value
 * @returns {string}
 */
export function count(value) {
  return Math.round(value).toLocaleString("en");
}

/**
 * Formats a count with its noun: `1 segment`, `2 segments`.
 *
 * @param {number} value
 * @param {string} word
 * @returns {string}
 */
export function plural(value, word) {
  return `${count(value)} ${word}${value === 1 ? "" : "s"}`;
}

/**
 * Formats a value as one line of text. Long text is cut, line breaks become spaces, and control
 * characters are escaped.
 *
 * @param {unknown} value
 * @param {number} [lengthMax] In characters.
 * @returns {string}
 */
export function line(value, lengthMax = 300) {
  if (value === null || value === undefined) return "";
  const text = typeof value === "object" ? (JSON.stringify(value) ?? "") : String(value);
  const cut = text.length > lengthMax ? `${text.slice(0, lengthMax)}…` : text;
  // Characters that reverse or hide the text beside them are escaped too.
  return cut.replace(
    /[\u0000-\u001f\u007f-\u009f\u200b\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g,
    (character) =>
      character === "\n" || character === "\t"
        ? " "
        : `\\u${pad(character.charCodeAt(0).toString(16), 4)}`,
  );
}

/**
 * Returns the path of a URL, without host and query.
 *
 * @param {unknown} url
 * @returns {string}
 */
export function pathOf(url) {
  if (typeof url !== "string") return "";
  const bare = url.split(/[?#]/, 1)[0];
  const host = bare.indexOf("://");
  if (host < 0) return bare;
  const slash = bare.indexOf("/", host + 3);
  return slash < 0 ? "/" : bare.slice(slash);
}

/**
 * Formats a URL with its path and query first, so that they are not cut off where there is little
 * room. The scheme and the host are left out; the name of the segment shows the host.
 *
 * @param {unknown} url
 * @returns {string}
 */
export function pathFirst(url) {
  if (typeof url !== "string") return line(url, 400);
  const rest = /^[a-z][a-z0-9+.-]*:\/\/[^/?#]*(.*)$/is.exec(url);
  return line(rest ? rest[1] || "/" : url, 400);
}
