// A task: its output as it grows, and its artifacts when they are asked for.
import { make, pill, refresh, repeat, size, text } from "/static/common.js";
import { linesOf } from "/static/ansi.js";

const root = document.getElementById("task"), log = document.getElementById("log"), said = document.getElementById("log-said");
const url = root.dataset.url, attempt = root.dataset.attempt, stream = log.dataset.stream;
const PIECE = 256 * 1024, MOST_LINES = 20000;
const query = (more) => new URLSearchParams({ stream, ...(attempt ? { attempt } : {}), ...more });
let from = 0, to = 0, rest = new Uint8Array(), hits = [], now = -1;

const follow = document.getElementById("log-follow"), search = document.getElementById("log-search");
const earlier = make("button", { type: "button" }, "Show earlier output");
earlier.addEventListener("click", async () => {
  const start = Math.max(from - PIECE, 0), height = log.scrollHeight;
  const data = await bytes(start), cut = start ? data.indexOf(10) + 1 : 0;
  const lines = draw(data.subarray(cut, from - start));
  earlier.after(...lines);
  from = start + cut;
  log.scrollTop += log.scrollHeight - height;
  tell(); mark();
});

async function bytes(start) {
  const answer = await fetch(`${url}/log?${query({ from: start })}`, { cache: "no-store" });
  if (!answer.ok) throw new Error(String(answer.status));
  isOver = answer.headers.get("X-Ended") === "1";
  return new Uint8Array(await answer.arrayBuffer());
}
let isOver = false;

function draw(data) {
  const words = new TextDecoder().decode(data);
  return words ? linesOf(words.endsWith("\n") ? words.slice(0, -1) : words) : [];
}

function tell() {
  earlier.hidden = from === 0;
  said.textContent = from ? `bytes ${from.toLocaleString("en")} to ${to.toLocaleString("en")}` : size(to) || "0 B";
}

// Shows a log from an offset on; whole lines only, and what is longer than a piece when it is asked for.
async function start(at) {
  from = to = at; rest = new Uint8Array();
  log.replaceChildren(earlier);
  tell();
  await grow();
}

async function grow() {
  const data = await bytes(to);
  if (!data.length && rest.length && isOver) { log.append(...draw(rest)); rest = new Uint8Array(); }
  if (!data.length) return data;
  to += data.length;
  const all = new Uint8Array(rest.length + data.length);
  all.set(rest); all.set(data, rest.length);
  let cut = all.lastIndexOf(10) + 1;
  if (cut === 0 && all.length > PIECE) cut = all.length; // one line without an end
  rest = all.slice(cut);
  const isAtEnd = follow.checked;
  log.append(...draw(all.subarray(0, cut)));
  while (log.childElementCount > MOST_LINES) log.children[1].remove();
  if (isAtEnd) log.scrollTop = log.scrollHeight;
  tell(); mark(false);
  return data;
}

function mark(isJump = true) {
  for (const each of log.querySelectorAll(".hit, .now")) each.classList.remove("hit", "now");
  const wanted = search.value.toLowerCase();
  hits = wanted ? [...log.querySelectorAll(".line")].filter((line) => line.textContent.toLowerCase().includes(wanted)) : [];
  for (const hit of hits) hit.classList.add("hit");
  if (isJump) { now = -1; if (wanted) next(1); }
}

async function next(step) {
  if (!search.value) return;
  const wanted = now + step;
  if (hits.length && wanted >= 0 && wanted < hits.length) { show(wanted); return; }
  if (step > 0 && (wanted >= hits.length || !hits.length)) {
    const found = JSON.parse(await text(`${url}/find?${query({ text: search.value, from: hits.length ? to : 0 })}`)).at;
    if (found !== null && (found < from || found >= to)) { follow.checked = false; await start(found); mark(false); show(0); return; }
  }
  if (hits.length) show(step > 0 ? 0 : hits.length - 1);
  else said.textContent = `${search.value} is not in this output.`;
}

function show(index) {
  hits[now]?.classList.remove("now");
  now = index; follow.checked = false;
  hits[now]?.classList.add("now");
  hits[now]?.scrollIntoView({ block: "center" });
  said.textContent = hits.length ? `${now + 1} of ${hits.length} lines here` : "";
}

search.addEventListener("change", () => mark());
search.addEventListener("keydown", (event) => { if (event.key === "Enter") { event.preventDefault(); if (hits.length && search.value) next(event.shiftKey ? -1 : 1); else mark(); } });
follow.addEventListener("change", () => { if (follow.checked) log.scrollTop = log.scrollHeight; });
log.addEventListener("wheel", (event) => { if (event.deltaY < 0) follow.checked = false; });

// Artifacts are fetched when they are opened.
for (const each of document.querySelectorAll("details.artifact")) {
  const open = async () => {
    if (!each.open || each.dataset.shown) return;
    each.dataset.shown = "1";
    const value = each.querySelector(".value");
    try {
      const page = new DOMParser().parseFromString(await text(each.dataset.src), "text/html");
      value.replaceChildren(...page.body.childNodes);
      const loaded = value.querySelector("details.loaded");
      loaded?.addEventListener("toggle", () => {
        if (loaded.open && !loaded.querySelector("iframe")) {
          const [path, more] = each.dataset.src.split("?");
          loaded.append(make("iframe", { src: `${path}/loaded${more ? `?${more}` : ""}`, sandbox: "allow-scripts", title: "the loaded value" }));
        }
      });
    } catch (error) { value.textContent = "It could not be fetched."; delete each.dataset.shown; }
  };
  each.addEventListener("toggle", open);
  open(); // it may be open before this script runs
}

const total = Number(log.dataset.size);
let begin = Math.max(total - PIECE, 0);
if (begin) { const data = await bytes(begin); begin += data.indexOf(10) + 1; }
await start(begin).catch(() => {});
root.dataset.ready = "1";
repeat(0.5, async () => {
  const data = await grow();
  if (data.length) return 0.1;
  return isOver && !rest.length ? 5 : 0.5;
});

// The rest of the page changes when the task ends.
if (root.dataset.state === "running") {
  repeat(1, async () => {
    const page = new DOMParser().parseFromString(await text(location.href), "text/html"), fresh = page.getElementById("task");
    if (fresh.dataset.state !== "running") { location.reload(); return false; }
    for (const card of fresh.querySelectorAll("article.card")) if (!document.querySelector("article.card")) { location.reload(); return false; }
    return 1;
  });
}

// Cards are loaded again when they change; one that updates itself gets its new data.
const seen = new Map();
for (const frame of document.querySelectorAll("article.card iframe")) {
  if (root.dataset.state !== "running") break;
  const [path, more] = frame.getAttribute("src").split("?");
  repeat(1, async () => {
    const found = JSON.parse(await text(`${path}/version?${more ?? ""}`)), before = seen.get(frame);
    if (before && before.page !== found.page) frame.src = frame.src;
    else if (found.data && before?.data !== found.data) frame.contentWindow.postMessage(JSON.parse(found.data), "*");
    seen.set(frame, found);
  });
}
