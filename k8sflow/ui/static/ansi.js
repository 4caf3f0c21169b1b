// Lines of a terminal as elements: colours and styles (SGR) are kept, other control sequences are left out.
import { make } from "/static/common.js";

const ESCAPE = /\x1b\[([0-9;:]*)m|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b\[[0-?]*[ -/]*[@-~]|\x1b[@-_]/g;
const STYLES = { 1: "b", 2: "d", 3: "i", 4: "u", 9: "s" };

export function linesOf(text) {
  const style = { fg: null, bg: null, on: new Set() };
  return text.split("\n").map((line) => {
    const element = make("div", { class: "line" });
    // What is before a carriage return was overwritten, as by a progress bar.
    const kept = line.replace(/\r+$/, "");
    paint(element, kept.slice(kept.lastIndexOf("\r") + 1), style);
    return element;
  });
}

function paint(element, text, style) {
  let at = 0;
  for (const found of text.matchAll(ESCAPE)) {
    add(element, text.slice(at, found.index), style);
    at = found.index + found[0].length;
    if (found[1] !== undefined) change(style, found[1].split(/[;:]/).map(Number));
  }
  add(element, text.slice(at), style);
}

function add(element, text, style) {
  if (!text) return;
  if (!style.fg && !style.bg && !style.on.size) { element.append(text); return; }
  const classes = [...style.on], span = make(style.on.has("b") ? "b" : "span", {}, text);
  if (typeof style.fg === "number") classes.push(`f${style.fg}`); else if (style.fg) span.style.color = style.fg;
  if (typeof style.bg === "number") classes.push(`g${style.bg}`); else if (style.bg) span.style.background = style.bg;
  span.className = classes.join(" ");
  element.append(span);
}

function change(style, codes) {
  for (let index = 0; index < codes.length; index++) {
    const code = codes[index];
    if (code === 0) { style.fg = style.bg = null; style.on.clear(); }
    else if (STYLES[code]) style.on.add(STYLES[code]);
    else if (code === 22) { style.on.delete("b"); style.on.delete("d"); }
    else if (code === 23) style.on.delete("i"); else if (code === 24) style.on.delete("u"); else if (code === 29) style.on.delete("s");
    else if (code >= 30 && code <= 37) style.fg = code - 30; else if (code >= 90 && code <= 97) style.fg = code - 90;
    else if (code >= 40 && code <= 47) style.bg = code - 40; else if (code >= 100 && code <= 107) style.bg = code - 100;
    else if (code === 39) style.fg = null; else if (code === 49) style.bg = null;
    else if (code === 38 || code === 48) {
      const [colour, used] = wide(codes.slice(index + 1));
      style[code === 38 ? "fg" : "bg"] = colour;
      index += used;
    }
  }
}

function wide([kind, ...more]) {
  if (kind === 2) return [`rgb(${more.slice(0, 3).map((each) => Math.min(each || 0, 255)).join(" ")})`, 4];
  if (kind !== 5) return [null, 1];
  const number = more[0] || 0;
  if (number < 16) return [number % 8, 2];
  if (number >= 232) { const grey = 8 + (number - 232) * 10; return [`rgb(${grey} ${grey} ${grey})`, 2]; }
  const level = (each) => (each ? 55 + each * 40 : 0), index = number - 16;
  return [`rgb(${level(Math.floor(index / 36))} ${level(Math.floor(index / 6) % 6)} ${level(index % 6)})`, 2];
}
