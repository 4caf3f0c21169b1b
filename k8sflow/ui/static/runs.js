// The list of runs, which is always the newest.
import { duration, refresh, repeat } from "/static/common.js";

const form = document.querySelector("form.filters"), list = document.getElementById("runs");
for (const field of form.querySelectorAll("select, input[type=datetime-local]")) field.addEventListener("change", () => form.requestSubmit());
form.addEventListener("submit", () => { // an address without empty words
  for (const field of form.elements) if (field.name && !field.value) field.disabled = true;
});

const address = new URL(location.href);
address.searchParams.set("part", "rows");
address.hash = "";
repeat(Number(list.dataset.poll), async () => {
  const chosen = [...list.querySelectorAll("input[name=run]:checked")].map((box) => box.value);
  const focused = document.activeElement?.closest?.("tr")?.dataset.run, inside = document.activeElement?.tagName;
  if (!(await refresh("rows", address))) return;
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
