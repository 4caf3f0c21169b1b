// The list of runs, which is always the newest.
import { duration, make, pageAt, repeat, replacePart } from "/static/common.js";

const form = document.querySelector("form.filters"), list = document.getElementById("runs");
for (const field of form.querySelectorAll("select, input[type=datetime-local]")) field.addEventListener("change", () => form.requestSubmit());
const address = new URL(location.href), minutesOf = (at) => -at.getTimezoneOffset();
const times = [...form.querySelectorAll("input[type=datetime-local]")];
form.addEventListener("submit", () => { // an address without empty words, and with times that need no zone
  for (const field of times) if (field.value) {
    form.append(make("input", { type: "hidden", name: field.name, value: field.value + offset(new Date(field.value)) }));
    field.disabled = true;
  }
  for (const field of form.elements) if (field.name && !field.value) field.disabled = true;
});

function offset(at) {
  const minutes = minutesOf(at), two = (number) => String(Math.floor(number)).padStart(2, "0");
  return `${minutes < 0 ? "-" : "+"}${two(Math.abs(minutes) / 60)}:${two(Math.abs(minutes) % 60)}`;
}

for (const field of times) {
  const at = new Date(address.searchParams.get(field.name) ?? "");
  if (!isNaN(at)) field.value = new Date(at.getTime() + minutesOf(at) * 60000).toISOString().slice(0, 16);
}

address.searchParams.set("part", "rows");
address.hash = "";
repeat(Number(list.dataset.poll), async () => {
  const chosen = [...list.querySelectorAll("input[name=run]:checked")].map((box) => box.value);
  const focused = document.activeElement?.closest?.("tr")?.dataset.run, inside = document.activeElement?.tagName;
  if (!replacePart("rows", await pageAt(address))) return;
  for (const box of list.querySelectorAll("input[name=run]")) box.checked = chosen.includes(box.value);
  const row = focused && [...list.querySelectorAll("tr")].find((each) => each.dataset.run === focused);
  row?.querySelector(inside === "INPUT" ? "input" : "a")?.focus();
});
list.addEventListener("submit", (event) => {
  if (list.querySelectorAll("input[name=run]:checked").length === 2) return;
  event.preventDefault();
  list.querySelector("[role=status]").textContent = "Choose two runs of a flow first.";
});
setInterval(() => {
  for (const running of list.querySelectorAll("[data-since]")) running.textContent = duration(Date.now() / 1000 - Number(running.dataset.since));
}, 1000);
