// A task: its output as it grows, and its artifacts when they are asked for.
import { make, pageAt, repeat, size, text } from "/static/common.js";
import { linesOf } from "/static/ansi.js";

const root = document.getElementById("task"), log = document.getElementById("log"), said = document.getElementById("log-said");
const url = root.dataset.url, attempt = root.dataset.attempt, stream = log.dataset.stream;
const poll = Number(root.dataset.poll);
let isDone = root.dataset.over === "1";
const PIECE = 256 * 1024, MOST_LINES = 20000, QUIET_ANSWERS = 3;
const query = (more) => new URLSearchParams({ stream, ...(attempt ? { attempt } : {}), ...more });
let from = 0, to = 0, rest = new Uint8Array(), quiet = 0, isBehind = false, hits = [], now = -1, sought = "";

const follow = document.getElementById("log-follow"), search = document.getElementById("log-search");
const earlier = make("button", { type: "button" }, "Show earlier output");
earlier.addEventListener("click", async () => {
  follow.checked = false;
  const end = from, start = Math.max(end - PIECE, 0), height = log.scrollHeight;
  const data = (await bytes(start)).data.subarray(0, end - start);
  if (from !== end) return; // another part is shown meanwhile
  let cut = start ? data.indexOf(10) + 1 : 0;
  if (cut === data.length) cut = 0; // one line that is longer than a piece
  earlier.after(...draw(data.subarray(cut)));
  from = start + cut;
  log.scrollTop += log.scrollHeight - height;
  tell(); mark(false);
});

async function bytes(start) {
  const answer = await fetch(`${url}/log?${query({ from: start })}`, { cache: "no-store" });
  if (!answer.ok) throw new Error(String(answer.status));
  return { data: new Uint8Array(await answer.arrayBuffer()), hasEnded: answer.headers.get("X-Ended") === "1" };
}

// The elements of lines; each knows how many bytes of the log it shows.
function draw(data) {
  const words = new TextDecoder().decode(data);
  const lines = words ? linesOf(words.endsWith("\n") ? words.slice(0, -1) : words) : [];
  let at = 0;
  for (const line of lines) {
    const end = data.indexOf(10, at) + 1 || data.length;
    line.bytes = end - at;
    at = end;
  }
  return lines;
}

function tell() {
  earlier.hidden = from === 0;
  said.textContent = from ? `bytes ${from.toLocaleString("en")} to ${to.toLocaleString("en")}` : size(to) || "0 B";
}

// The last output may come a moment after the end of the task.
const isOver = () => quiet > QUIET_ANSWERS;
const isNearEnd = () => log.scrollTop + 2 * log.clientHeight > log.scrollHeight;

// Shows a log from an offset on; whole lines only, and what is longer than a piece when it is asked for.
async function start(at) {
  from = to = at; rest = new Uint8Array(); quiet = 0;
  log.replaceChildren(earlier);
  tell();
  await grow();
}

// Shows the last piece of a log.
async function startAtEnd(total) {
  let begin = Math.max(total - PIECE, 0);
  if (begin) begin += (await bytes(begin)).data.indexOf(10) + 1;
  await start(begin);
}

function firstLines(data, count) {
  let end = 0;
  for (; count && end < data.length; count--) end = data.indexOf(10, end) + 1 || data.length;
  return data.subarray(0, end);
}

// Appends the next piece; returns its length. An answer that comes after another part was chosen is dropped.
async function grow() {
  const begin = to, { data: found, hasEnded } = await bytes(begin);
  if (begin !== to) return 0;
  // The lines in sight must not be among those that are removed for the new ones.
  const data = follow.checked ? found : firstLines(found, MOST_LINES / 2);
  isBehind = found.length >= PIECE || data.length < found.length;
  quiet = hasEnded ? quiet + 1 : 0;
  if (isOver() && rest.length) { log.append(...draw(rest)); rest = new Uint8Array(); }
  if (!data.length) return 0;
  to += data.length;
  const all = new Uint8Array(rest.length + data.length);
  all.set(rest); all.set(data, rest.length);
  let cut = all.lastIndexOf(10) + 1;
  if (cut === 0 && all.length > PIECE) cut = all.length; // one line without an end
  rest = all.slice(cut);
  log.append(...draw(all.subarray(0, cut)));
  for (const line of [...log.children].slice(1, -MOST_LINES)) { from += line.bytes; line.remove(); }
  if (follow.checked) log.scrollTop = log.scrollHeight;
  tell(); mark(false);
  return data.length;
}

function mark(isJump = true) {
  const chosen = hits[now];
  for (const each of log.querySelectorAll(".hit, .now")) each.classList.remove("hit", "now");
  const wanted = search.value.toLowerCase();
  hits = wanted ? [...log.querySelectorAll(".line")].filter((line) => line.textContent.toLowerCase().includes(wanted)) : [];
  for (const hit of hits) hit.classList.add("hit");
  now = isJump ? -1 : hits.indexOf(chosen);
  hits[now]?.classList.add("now");
  if (!isJump) return;
  sought = search.value;
  next(1);
}

async function next(step) {
  if (!search.value) return;
  const wanted = now + step;
  if (hits.length && wanted >= 0 && wanted < hits.length) { show(wanted); return; }
  if (step > 0 && (wanted >= hits.length || !hits.length)) {
    const end = to - rest.length; // of the last line that is shown
    const found = JSON.parse(await text(`${url}/find?${query({ text: search.value, from: hits.length ? end : 0 })}`)).at;
    if (found !== null && (found < from || found >= end)) { follow.checked = false; await start(found); mark(false); show(0); return; }
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

search.addEventListener("change", () => { if (search.value !== sought) mark(); });
search.addEventListener("keydown", (event) => { if (event.key === "Enter") { event.preventDefault(); if (hits.length && search.value) next(event.shiftKey ? -1 : 1); else mark(); } });
follow.addEventListener("change", async () => {
  if (!follow.checked) return;
  if (isBehind) await startAtEnd(Number((await pageAt(`${url}?${query({})}`)).getElementById("log").dataset.size));
  log.scrollTop = log.scrollHeight;
});
log.addEventListener("wheel", (event) => { if (event.deltaY < 0) follow.checked = false; });

// Artifacts are fetched when they are opened.
for (const each of document.querySelectorAll("details.artifact")) {
  const open = async () => {
    if (!each.open || each.dataset.shown) return;
    each.dataset.shown = "1";
    const value = each.querySelector(".value");
    try {
      const page = await pageAt(each.dataset.src);
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

await startAtEnd(Number(log.dataset.size)).catch(() => {});
root.dataset.ready = "1";
repeat(poll, async () => {
  if (isOver() || !(follow.checked || isNearEnd())) return null;
  return (await grow()) ? 0.1 : poll;
});

// The rest of the page changes with the task's state, with each execution, and with each card.
if (!isDone) {
  repeat(Math.max(poll, 1), async () => {
    const fresh = (await pageAt(location.href)).getElementById("task");
    if (fresh.dataset.version !== root.dataset.version) { location.reload(); return false; }
    isDone = fresh.dataset.over === "1";
    return !isDone;
  });
}

// A server that ends when no page asks for anything must not end while this one is looked at.
repeat(20, () => text("/static/ansi.js"));

// Cards are loaded again when they change; one that updates itself gets its new data.
const seen = new Map();
for (const frame of document.querySelectorAll("article.card iframe")) {
  if (isDone) break;
  const [path, more] = frame.getAttribute("src").split("?");
  repeat(poll, async () => {
    const found = JSON.parse(await text(`${path}/version?${more ?? ""}`)), before = seen.get(frame);
    if (before && before.page !== found.page) frame.src = frame.src;
    else if (found.data && before?.data !== found.data) frame.contentWindow.postMessage(JSON.parse(found.data), "*");
    seen.set(frame, found);
    return !isDone;
  });
}
