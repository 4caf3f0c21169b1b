// A run: what changed is fetched again and again, and drawn as a timeline, a graph and a table.
import { duration, make, moment, pageAt, pill, repeat, replacePart, size, text } from "/static/common.js";
import { Gantt } from "/static/gantt.js";

const root = document.getElementById("run"), url = root.dataset.url;
const tasks = new Map(), byId = (id) => document.getElementById(id);
let state = null, version = 0, skew = 0, shown = 200;

const pathOf = (step, task) => `${url}/tasks/${encodeURIComponent(step)}/${encodeURIComponent(task)}`;
const gantt = new Gantt(byId("gantt"), byId("gantt-said"), (step, task) => { location.href = pathOf(step.name, task.id); });

function take(row) {
  const [step, id, state, attempt, ready, launched, started, finished, memory, cpu, failures] = row;
  return {
    step: stepNames[step], id, state, attempt, ready, launched, started, finished, memory, cpu, order: tasks.size,
    failures: failures.map(([number, outcome, began, ended, summary]) => ({ number, outcome, started: began, finished: ended, summary })),
  };
}
let stepNames = [];

const byPath = (one, other) => {
  const a = one.id.split(/[.-]/).map(Number), b = other.id.split(/[.-]/).map(Number);
  for (let index = 0; index < Math.max(a.length, b.length); index++) if ((a[index] ?? 0) !== (b[index] ?? 0)) return (a[index] ?? 0) - (b[index] ?? 0);
  return 0;
};
let ordered = [];

async function look() {
  const found = JSON.parse(await text(`${url}/state?since=${version}`));
  const before = state?.status;
  state = found; version = found.version; skew = Date.now() / 1000 - found.now;
  stepNames = found.steps.map(([name]) => name);
  const isFirst = !tasks.size;
  let isNew = false;
  for (const row of found.tasks) {
    const key = `${row[0]}/${row[1]}`;
    isNew ||= !tasks.has(key);
    tasks.set(key, take(row));
  }
  if (isNew) {
    const place = new Map(stepNames.map((name, index) => [name, index]));
    ordered = [...tasks.values()];
    if (!isFirst) ordered.sort((a, b) => place.get(a.step) - place.get(b.step) || byPath(a, b));
  } else if (found.tasks.length) ordered = ordered.map((task) => tasks.get(`${stepNames.indexOf(task.step)}/${task.id}`));
  byId("trouble").textContent = found.error;
  drawTimeline(); drawGraph();
  if (found.tasks.length) drawTasks();
  if ((found.tasks.length && before) || (before && before !== found.status)) await refreshOverview(found.status);
  return found.status === "running" ? found.poll : Math.max(found.poll, 3);
}

async function refreshOverview(status) {
  byId("status").replaceChildren(pill(status));
  root.dataset.status = status;
  const page = await pageAt(`${url}/overview`);
  for (const id of ["overview", "failures"]) replacePart(id, page);
}

const now = () => Date.now() / 1000 - skew;
const end = () => state.finished ?? (state.status === "running" ? now() : Math.max(...ordered.map((task) => task.finished ?? 0), state.created));

function drawTimeline() {
  const steps = state.steps.map(([name, expected, counts, stepState]) => ({ name, expected, counts, state: stepState, tasks: [], span: [], done: (counts.succeeded ?? 0) + (counts.cloned ?? 0) + (counts.caught ?? 0) }));
  const byName = new Map(steps.map((step) => [step.name, step]));
  const until = end();
  for (const task of ordered) {
    const step = byName.get(task.step), at = task.state === "cloned" ? null : task;
    step.tasks.push(task);
    if (!at) continue;
    const from = at.failures[0]?.started ?? at.started, to = at.finished ?? until;
    step.span[0] = Math.min(step.span[0] ?? Infinity, from ?? Infinity); step.span[1] = Math.max(step.span[1] ?? -Infinity, to);
  }
  steps.sort((a, b) => (a.span[0] ?? Infinity) - (b.span[0] ?? Infinity) || 0);
  gantt.show(steps, state.created, until);
  byId("took").textContent = duration(until - state.created);
}

function drawGraph() {
  for (const [name, expected, counts, stepState] of state.steps) {
    const group = root.querySelector(`.graph g[data-step="${CSS.escape(name)}"]`);
    if (!group) continue;
    group.setAttribute("class", stepState);
    let label = group.querySelector("text.count");
    if (!label) {
      const box = [...group.querySelectorAll("rect.step")].at(-1);
      label = document.createElementNS("http://www.w3.org/2000/svg", "text");
      label.setAttribute("class", "count");
      label.setAttribute("x", Number(box.getAttribute("x")) + 2);
      label.setAttribute("y", Number(box.getAttribute("y")) + Number(box.getAttribute("height")) + 14);
      group.append(label);
    }
    const done = (counts.succeeded ?? 0) + (counts.cloned ?? 0) + (counts.caught ?? 0), bad = counts.failed ?? 0;
    const total = Object.values(counts).reduce((sum, count) => sum + count, 0);
    const words = !total ? "" : expected === 1 && done === 1 ? "✓" : `${done}${expected != null ? `/${expected}` : ""}${bad ? ` ✗${bad}` : ""}`;
    if (label.textContent !== words) label.textContent = words;
  }
}

const length = (task) => (task.started == null ? -1 : (task.finished ?? now()) - task.started);
const orders = {
  longest: (a, b) => length(b) - length(a), latest: (a, b) => (b.started ?? 0) - (a.started ?? 0), memory: (a, b) => (b.memory ?? -1) - (a.memory ?? -1),
};

function drawTasks() {
  const step = byId("task-step").value, wanted = byId("task-state").value, id = byId("task-text").value.trim(), order = byId("task-order").value;
  let found = ordered.filter((task) => (!step || task.step === step) && (!wanted || task.state === wanted) && (!id || `${task.step}/${task.id}`.includes(id)));
  if (order) found = [...found].sort(orders[order]);
  const rows = found.slice(0, shown).map((task) => make("tr", {},
    make("td", {}, make("a", { href: pathOf(task.step, task.id) }, `${task.step}/${task.id}`)), make("td", {}, pill(task.state)),
    make("td", {}, moment(task.started)), make("td", { class: "number" }, task.started == null || task.finished == null ? "" : duration(length(task))),
    make("td", { class: "number" }, String(task.attempt + 1)), make("td", { class: "number" }, size(task.memory)), make("td", { class: "number" }, duration(task.cpu))));
  const body = byId("task-list").querySelector("tbody"), focused = body.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  body.replaceChildren(...rows);
  if (focused) body.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
  byId("task-count").textContent = `${found.length.toLocaleString("en")}${found.length === ordered.length ? "" : ` of ${ordered.length.toLocaleString("en")}`} tasks${found.length > shown ? ` (scroll for more than ${shown})` : ""}`;
}

for (const id of ["task-step", "task-state", "task-text", "task-order"]) byId(id).addEventListener("input", () => { shown = 200; drawTasks(); });
byId("task-list").addEventListener("scroll", (event) => {
  const { scrollTop, clientHeight, scrollHeight } = event.target;
  if (scrollTop + clientHeight > scrollHeight - 200 && shown < ordered.length) { shown += 200; drawTasks(); }
});
byId("fold").addEventListener("change", (event) => gantt.fold(event.target.checked));
document.querySelector(".tools").addEventListener("click", (event) => {
  ({ in: () => gantt.zoom(0.7), out: () => gantt.zoom(1.4), all: () => gantt.all() })[event.target.dataset.do]?.();
});

const first = await look().catch(() => 3);
root.dataset.ready = "1";
repeat(first, look);
