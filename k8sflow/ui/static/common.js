// What all pages share: amounts as people read them, parts of pages, and asking the server again and again.
document.documentElement.classList.add("js");

export const WORDS = {
  caught: "failed, caught", lost: "unfinished", retrying: "waits for a retry", none: "not started", cloned: "from another run",
};

export function duration(seconds) {
  if (seconds == null || !isFinite(seconds)) return "";
  seconds = Math.max(seconds, 0);
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const all = Math.round(seconds), hours = Math.floor(all / 3600), minutes = Math.floor((all % 3600) / 60);
  return hours ? `${hours} h ${minutes} min` : `${minutes} min ${all % 60} s`;
}

export function size(bytes) {
  if (bytes == null) return "";
  const power = bytes < 1000 ? 0 : Math.min(Math.floor((String(Math.floor(bytes)).length - 1) / 3), 4);
  return power ? `${(bytes / 1000 ** power).toFixed(1)} ${["B", "kB", "MB", "GB", "TB"][power]}` : `${bytes} B`;
}

export function moment(seconds) {
  if (!seconds) return "";
  const at = new Date(seconds * 1000), two = (number) => String(number).padStart(2, "0");
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return `${day} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value != null) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

export function pill(state) {
  return make("span", { class: `pill ${state.replace(" ", "-")}` }, WORDS[state] ?? state.replace("_", " "));
}

// Times in the reader's zone: the server writes its own.
export function localTimes(root = document) {
  for (const time of root.querySelectorAll("time[data-at]")) time.textContent = moment(Number(time.dataset.at));
}

// Replaces a part of the page by the server's new version of it; where nothing changed, not even the selection is lost.
export function replacePart(id, page) {
  const old = document.getElementById(id), fresh = page.getElementById(id);
  localTimes(fresh);
  if (fresh.innerHTML === old.innerHTML) return false;
  old.replaceChildren(...fresh.childNodes);
  return true;
}

export async function pageAt(url) {
  return new DOMParser().parseFromString(await text(url), "text/html");
}

export async function text(url) {
  const answer = await fetch(url, { cache: "no-store" });
  if (!answer.ok) throw new Error(`${answer.status}`);
  return answer.text();
}

// Says that the page is no longer up to date: the server has ended, or the store can't be reached.
function lost(isLost) {
  let said = document.getElementById("lost");
  if (!said) {
    if (!isLost) return;
    said = make("p", { id: "lost", role: "alert", class: "bad" });
    document.querySelector("main").prepend(said);
  }
  const words = isLost ? "This page is no longer updated: the server has ended, or can't read the store. Trying again…" : "";
  if (said.textContent !== words) said.textContent = words;
}

// Calls a function again and again, seconds apart; while the page is hidden, not at all. It ends when that returns false;
// null says that the server was not asked, a number after how many seconds to call it next.
export function repeat(seconds, work) {
  let waiting = null;
  async function once() {
    waiting = null;
    if (document.hidden) return;
    let pause = seconds;
    try {
      const next = await work();
      if (next !== null) lost(false);
      if (next === false) return;
      if (typeof next === "number") pause = next;
    } catch (error) {
      pause = Math.max(seconds, 3);
      lost(true);
    }
    waiting = setTimeout(once, pause * 1000);
  }
  document.addEventListener("visibilitychange", () => { if (!document.hidden && waiting === null) once(); });
  waiting = setTimeout(once, seconds * 1000);
}

localTimes();
