"use strict";
// Shared by all scripts of a page: helpers, highlighting of names, and the modes.

const study = JSON.parse(document.getElementById("study").textContent);

/** Creates an HTML element; attributes whose value is null are left out. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "html") element.innerHTML = value;
    else if (value !== null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** The parts of a text; code is in backticks. */
const coded = (text) => text.split("`").map((part, index) => (index % 2 ? make("code", {}, part) : part));

/** Creates an SVG element. */
function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Formats a number: 0.2314, 2.2e-16. */
function short(value, digits = 4) {
  if (value === null) return "not finite";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e-4 && size < 1e6) return String(Number(value.toPrecision(digits)));
  return value.toExponential(1);
}

/** The backward lines in the order in which they run. The first table is read from bottom to top. */
function linesInOrder() {
  const [sheet, closed] = document.querySelectorAll(".sheet");
  const linesOf = (table) => [...(table?.querySelectorAll(".line.back[id]") ?? [])];
  return [...linesOf(sheet).reverse(), ...linesOf(closed)];
}

// Highlighting

const differentiable = new Set(
  Object.values(study.values).filter((value) => !value.constant).map((value) => value.name),
);

/** The name whose gradient this is, or the name itself if it is not a gradient. */
function baseOf(name) {
  const base = name.slice(1);
  return name.startsWith("d") && differentiable.has(base) ? base : name;
}

/** Highlights a name and its gradient. If a name is assigned twice, only the same value is lit. */
function light(pointed) {
  const name = pointed.dataset.name, value = pointed.dataset.value;
  const base = baseOf(name), gradient = differentiable.has(base) ? "d" + base : null;
  for (const span of document.querySelectorAll("main [data-name]")) {
    const other = span.dataset.value, isSame = !value || !other || value === other;
    span.classList.toggle("lit", isSame && span.dataset.name === base);
    span.classList.toggle("lit-gradient", isSame && span.dataset.name === gradient);
  }
  for (const line of document.querySelectorAll("main [data-reads]")) {
    const reads = line.dataset.reads.split(" ");
    // Only lines that read the name, not those that assign it.
    const isRead = reads.includes(base) || reads.includes(gradient);
    line.classList.toggle("reads", isRead && line.querySelector(".lit, .lit-gradient") !== null);
  }
}

function darken() {
  for (const lit of document.querySelectorAll(".lit, .lit-gradient, .reads"))
    lit.classList.remove("lit", "lit-gradient", "reads");
}

/** Highlights the name under the pointer, or else the name with the focus. */
function relight(pointed) {
  const name = pointed ?? document.activeElement?.closest?.("[data-name]");
  if (name) light(name);
  else darken();
}

document.addEventListener("pointerover", (event) => relight(event.target.closest("[data-name]")));
document.addEventListener("focusin", () => relight(null));
document.addEventListener("focusout", (event) => event.relatedTarget ?? darken());

// Keyboard: Tab moves to the code, the arrow keys from name to name.

const openable = [...document.querySelectorAll("main [data-value]")];
for (const name of openable) {
  name.tabIndex = -1;
  name.setAttribute("role", "button");
}
if (openable.length) openable[0].tabIndex = 0;

const isShown = (element) => element.getClientRects().length > 0;

/** The name to which an arrow key moves. */
function neighbour(from, key) {
  const names = openable.filter(isShown), index = names.indexOf(from);
  if (key === "ArrowRight") return names[index + 1];
  if (key === "ArrowLeft") return names[index - 1];
  const line = from.closest(".line"), other = (name) => name.closest(".line") !== line;
  const column = from.closest("td");
  // Up and down stay in the column.
  const isInColumn = (name) => name.closest("td").cellIndex === column.cellIndex && other(name);
  if (key === "ArrowDown") return names.slice(index).find(isInColumn);
  const above = names.slice(0, index).filter(isInColumn).pop();
  return above && names.find((name) => name.closest(".line") === above.closest(".line"));
}

document.addEventListener("keydown", (event) => {
  const name = event.target.closest?.("main [data-value]");
  if (!name) return;
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    name.click();
  }
  const next = event.key.startsWith("Arrow") ? neighbour(name, event.key) : null;
  if (next) {
    event.preventDefault();
    focusName(next);
  }
});

function focusName(name) {
  for (const each of openable) each.tabIndex = each === name ? 0 : -1;
  name.focus();
}

// Modes

const modes = document.getElementById("modes");
modes.hidden = false;
for (const each of document.querySelectorAll(".needs-script")) each.hidden = false;

modes.addEventListener("change", () => {
  const mode = modes.elements.mode.value;
  document.body.dataset.mode = mode;
  for (const about of document.querySelectorAll(".about"))
    about.hidden = about.id !== `about-${mode}`;
  document.dispatchEvent(new CustomEvent("mode", { detail: mode }));
});
