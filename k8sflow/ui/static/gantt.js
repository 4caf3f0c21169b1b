// The timeline: a canvas on which only the rows in sight are drawn, so 10,000 tasks cost as little as 20.
import { duration, WORDS } from "/static/common.js";

const ROW = 22, AXIS = 24, BAR = 12;
const STATES = { succeeded: "--bar-good", caught: "--bar-warn", cloned: "--bar-clone", failed: "--bar-bad", lost: "--bar-bad", running: "--bar-run", retrying: "--bar-warn" };

export class Gantt {
  constructor(element, said, open) {
    this.element = element; this.said = said; this.open = open;
    this.canvas = element.querySelector("canvas");
    this.room = document.createElement("div"); this.room.className = "room"; element.append(this.room);
    this.rows = []; this.folded = new Set(); this.chosen = -1; this.start = 0; this.end = 1; this.from = null; this.to = null;
    this.listen();
    new ResizeObserver(() => this.draw()).observe(element);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { this.colours = null; this.draw(); });
  }

  // Takes the steps with their tasks, and the time until which there is something to show.
  show(steps, start, end) {
    const key = this.rows[this.chosen]?.key;
    this.steps = steps; this.start = start; this.end = Math.max(end, start + 0.001);
    this.rows = [];
    for (const step of steps) {
      if (!step.tasks.length) continue;
      this.rows.push({ step, key: step.name });
      if (!this.folded.has(step.name)) for (const task of step.tasks) this.rows.push({ step, task, key: `${step.name}/${task.id}` });
    }
    this.chosen = key === undefined ? -1 : this.rows.findIndex((row) => row.key === key);
    this.room.style.height = `${AXIS + this.rows.length * ROW + 4}px`;
    this.draw();
  }

  fold(all) {
    this.folded = new Set(all ? this.steps.map((step) => step.name) : []);
    this.show(this.steps, this.start, this.end);
  }

  get left() { return this.from ?? this.start; }
  get right() { return this.to ?? this.end; }
  get gutter() { return Math.min(190, Math.max(96, this.width * 0.18)); }
  x(at) { return this.gutter + ((at - this.left) / (this.right - this.left)) * (this.width - this.gutter - 8); }
  time(x) { return this.left + ((x - this.gutter) / (this.width - this.gutter - 8)) * (this.right - this.left); }

  draw() {
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => { this.asked = false; this.paint(); });
  }

  colour(name) {
    this.colours ??= {};
    return (this.colours[name] ??= getComputedStyle(this.element).getPropertyValue(name).trim());
  }

  paint() {
    const ratio = devicePixelRatio || 1, width = this.element.clientWidth, height = this.element.clientHeight;
    if (!width || !height) return;
    if (this.canvas.width !== width * ratio || this.canvas.height !== height * ratio) {
      this.canvas.width = width * ratio; this.canvas.height = height * ratio; this.canvas.style.height = `${height}px`;
    }
    this.width = width;
    const pen = (this.pen = this.canvas.getContext("2d"));
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.textBaseline = "middle";
    const top = this.element.scrollTop, first = Math.max(0, Math.floor(top / ROW)), last = Math.min(this.rows.length, Math.ceil((top + height) / ROW));
    this.grid(height);
    for (let index = first; index < last; index++) this.row(this.rows[index], AXIS + index * ROW - top, index === this.chosen);
    this.axis();
  }

  ticks() {
    const span = this.right - this.left, most = Math.max(2, (this.width - this.gutter) / 90);
    const nice = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400];
    const step = nice.find((each) => span / each <= most) ?? Math.ceil(span / most / 86400) * 86400;
    const found = [];
    for (let at = Math.ceil((this.left - this.start) / step) * step; at <= this.right - this.start; at += step) found.push(at);
    return found;
  }

  grid(height) {
    this.pen.fillStyle = this.colour("--line");
    for (const at of this.ticks()) this.pen.fillRect(Math.round(this.x(this.start + at)), AXIS, 1, height);
  }

  axis() {
    const pen = this.pen;
    pen.fillStyle = this.colour("--panel"); pen.fillRect(0, 0, this.width, AXIS);
    pen.fillStyle = this.colour("--line"); pen.fillRect(0, AXIS - 1, this.width, 1);
    pen.font = "12px system-ui, sans-serif"; pen.fillStyle = this.colour("--muted"); pen.textAlign = "center";
    for (const at of this.ticks()) {
      const x = this.x(this.start + at);
      if (x > this.gutter - 2) pen.fillText(at < 60 ? `${+at.toFixed(3)} s` : duration(at), Math.min(x, this.width - 24), AXIS / 2);
    }
  }

  row(row, y, isChosen) {
    const pen = this.pen, { step, task } = row;
    if (isChosen) { pen.fillStyle = this.colour("--select"); pen.fillRect(0, y, this.width, ROW); }
    pen.save(); pen.beginPath(); pen.rect(this.gutter, y, this.width - this.gutter, ROW); pen.clip();
    if (task) this.task(task, y); else this.step(step, y);
    pen.restore();
    pen.font = task ? "12.5px ui-monospace, monospace" : "600 13px system-ui, sans-serif";
    pen.fillStyle = this.colour(task && task.state === "failed" ? "--bad" : "--ink"); pen.textAlign = "left";
    pen.save(); pen.beginPath(); pen.rect(0, y, this.gutter - 6, ROW); pen.clip();
    const count = step.expected != null && step.expected !== step.done ? `${step.done}/${step.expected}` : `${step.done}`;
    pen.fillText(task ? task.id : `${this.folded.has(step.name) ? "▸" : "▾"} ${step.name} ${count}`, task ? 22 : 6, y + ROW / 2);
    pen.restore();
  }

  bar(from, to, y, colour, height = BAR) {
    if (from == null || to == null) return;
    const left = Math.max(this.x(from), this.gutter - 4), right = Math.min(this.x(to), this.width + 4);
    if (right < this.gutter - 4 || left > this.width) return;
    this.pen.fillStyle = this.colour(colour);
    this.pen.beginPath();
    this.pen.roundRect(left, y + (ROW - height) / 2, Math.max(right - left, 2), height, 2);
    this.pen.fill();
  }

  step(step, y) {
    const began = Math.min(...step.span), ended = Math.max(...step.span);
    if (isFinite(began)) this.bar(began, ended, y, STATES[step.state] ?? "--bar-run", 6);
  }

  task(task, y) {
    let since = task.ready;
    for (const failure of task.failures) {
      const began = failure.started ?? since;
      this.bar(since, began, y, "--bar-wait", 6);
      const isLast = task.state !== "succeeded" && task.state !== "caught" && failure === task.failures.at(-1) && task.state !== "running";
      if (failure.finished) this.bar(began ?? failure.finished, failure.finished, y, isLast && task.state === "failed" ? "--bar-bad" : "--bar-warn");
      since = failure.finished || since;
    }
    if (task.state === "failed" || task.state === "retrying") return;
    const until = task.finished ?? this.end, began = task.started ?? until;
    if (task.launched) { this.bar(since, task.launched, y, "--bar-wait", 6); this.bar(Math.max(task.launched, since ?? 0), began, y, "--bar-start", 9); }
    else this.bar(since, began, y, "--bar-wait", 6);
    if (task.started != null) this.bar(began, until, y, STATES[task.state]);
  }

  describe(row) {
    const { step, task } = row;
    if (!task) {
      const counts = Object.entries(step.counts).map(([state, count]) => `${count.toLocaleString("en")} ${WORDS[state] ?? state}`);
      return `${step.name}: ${counts.join(", ")}`;
    }
    const words = [`${step.name}/${task.id}: ${WORDS[task.state] ?? task.state}`];
    if (task.ready != null && task.started != null) words.push(`waited ${duration((task.launched ?? task.started) - task.ready)}`);
    if (task.launched != null && task.started != null) words.push(`started in ${duration(task.started - task.launched)}`);
    if (task.started != null) words.push(`ran ${duration((task.finished ?? this.end) - task.started)}`);
    if (task.failures.length) words.push(`failed before: ${task.failures.map((each) => each.outcome.replaceAll("_", " ")).join(", ")}`);
    return words.join(", ");
  }

  choose(index, isScrolled) {
    this.chosen = Math.min(Math.max(index, 0), this.rows.length - 1);
    const row = this.rows[this.chosen];
    if (!row) return;
    this.said.textContent = this.describe(row);
    if (isScrolled) {
      const y = this.chosen * ROW, { scrollTop, clientHeight } = this.element;
      if (y < scrollTop) this.element.scrollTop = y;
      else if (y + AXIS + ROW > scrollTop + clientHeight) this.element.scrollTop = y + AXIS + ROW - clientHeight;
    }
    this.draw();
  }

  act(row) {
    if (!row) return;
    if (row.task) { this.open(row.step, row.task); return; }
    if (!this.folded.delete(row.step.name)) this.folded.add(row.step.name);
    this.show(this.steps, this.start, this.end);
  }

  zoom(factor, around = (this.left + this.right) / 2) {
    const left = around - (around - this.left) * factor, right = around + (this.right - around) * factor;
    if (right - left >= this.end - this.start) { this.from = this.to = null; } else if (right - left > 0.002) { this.set(left, right); }
    this.draw();
  }

  set(left, right) {
    const span = right - left, low = Math.min(Math.max(left, this.start), this.end - span);
    this.from = low; this.to = low + span;
  }

  pan(seconds) { if (this.from !== null) { this.set(this.left + seconds, this.right + seconds); this.draw(); } }
  all() { this.from = this.to = null; this.draw(); }

  at(event) {
    const box = this.element.getBoundingClientRect(), y = event.clientY - box.top;
    return { x: event.clientX - box.left, index: y < AXIS ? -1 : Math.floor((y - AXIS + this.element.scrollTop) / ROW) };
  }

  listen() {
    const element = this.element;
    let drag = null;
    element.addEventListener("scroll", () => this.draw());
    element.addEventListener("wheel", (event) => {
      if (event.ctrlKey || event.metaKey) { event.preventDefault(); this.zoom(event.deltaY > 0 ? 1.25 : 0.8, this.time(this.at(event).x)); }
      else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
        event.preventDefault(); this.pan(((event.deltaX || event.deltaY) / this.width) * (this.right - this.left));
      }
    }, { passive: false });
    element.addEventListener("pointerdown", (event) => { if (event.button === 0) drag = { x: event.clientX, moved: false, left: this.left, right: this.right }; });
    element.addEventListener("pointermove", (event) => {
      if (drag && (drag.moved || Math.abs(event.clientX - drag.x) > 4)) {
        if (!drag.moved) { drag.moved = true; element.setPointerCapture(event.pointerId); element.classList.add("dragging"); }
        const by = ((event.clientX - drag.x) / (this.width - this.gutter)) * (drag.right - drag.left);
        if (this.from !== null) { this.set(drag.left - by, drag.right - by); this.draw(); }
      } else if (!drag) {
        const { index } = this.at(event);
        if (index >= 0 && index < this.rows.length && index !== this.chosen) this.choose(index, false);
      }
    });
    const end = (event) => {
      const was = drag; drag = null; element.classList.remove("dragging");
      if (was && !was.moved && event.type === "pointerup") this.act(this.rows[this.at(event).index]);
    };
    element.addEventListener("pointerup", end);
    element.addEventListener("pointercancel", end);
    element.addEventListener("keydown", (event) => {
      const page = Math.floor(element.clientHeight / ROW) - 2, span = this.right - this.left;
      const keys = {
        ArrowDown: () => this.choose(this.chosen + 1, true), ArrowUp: () => this.choose(this.chosen - 1, true), PageDown: () => this.choose(this.chosen + page, true),
        PageUp: () => this.choose(this.chosen - page, true), Home: () => this.choose(0, true), End: () => this.choose(this.rows.length - 1, true),
        ArrowLeft: () => this.pan(-span / 8), ArrowRight: () => this.pan(span / 8), "+": () => this.zoom(0.7), "=": () => this.zoom(0.7), "-": () => this.zoom(1.4), 0: () => this.all(),
        Enter: () => this.act(this.rows[this.chosen]),
      };
      if (keys[event.key] && !event.ctrlKey && !event.metaKey && !event.altKey) { event.preventDefault(); keys[event.key](); }
    });
  }
}
