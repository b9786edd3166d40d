"use strict";
// What all scripts of a page share; names and their lights; the modes.

const study = JSON.parse(document.getElementById("study").textContent);

/** An element; attributes whose value is null are left out. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "html") element.innerHTML = value;
    else if (value !== null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** The same for pictures. */
function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** A number as it is read: 0.2314, 2.2e-16. */
function short(value, digits = 4) {
  if (value === null) return "not finite";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e-4 && size < 1e6) return String(Number(value.toPrecision(digits)));
  return value.toExponential(1);
}

// Lights

const flowing = new Set(
  Object.values(study.values).filter((value) => !value.constant).map((value) => value.name),
);

/** The name whose gradient this is, or the name itself. */
function baseOf(name) {
  const base = name.slice(1);
  return name.startsWith("d") && flowing.has(base) ? base : name;
}

/** Lights a name and its gradient; of a name that is set again, only what is the same value. */
function light(pointed) {
  const name = pointed.dataset.name, value = pointed.dataset.value;
  const base = baseOf(name), gradient = flowing.has(base) ? "d" + base : null;
  for (const span of document.querySelectorAll("main [data-name]")) {
    const other = span.dataset.value, isSame = !value || !other || value === other;
    span.classList.toggle("lit", isSame && span.dataset.name === base);
    span.classList.toggle("lit-gradient", isSame && span.dataset.name === gradient);
  }
  for (const line of document.querySelectorAll("main [data-reads]")) {
    const reads = line.dataset.reads.split(" ");
    // Of the names that the line reads, not of those that it sets.
    const isRead = reads.includes(base) || reads.includes(gradient);
    line.classList.toggle("reads", isRead && line.querySelector(".lit, .lit-gradient") !== null);
  }
}

function darken() {
  for (const lit of document.querySelectorAll(".lit, .lit-gradient, .reads"))
    lit.classList.remove("lit", "lit-gradient", "reads");
}

/** What is pointed at counts; else the name that has the focus. */
function relight(pointed) {
  const name = pointed ?? document.activeElement?.closest?.("[data-name]");
  if (name) light(name);
  else darken();
}

document.addEventListener("pointerover", (event) => relight(event.target.closest("[data-name]")));
document.addEventListener("focusin", () => relight(null));
document.addEventListener("focusout", (event) => event.relatedTarget ?? darken());

// Names by keyboard: the code is one stop of the Tab key, the arrows go on from there.

const openable = [...document.querySelectorAll("main [data-value]")];
for (const name of openable) {
  name.tabIndex = -1;
  name.setAttribute("role", "button");
}
if (openable.length) openable[0].tabIndex = 0;

const isShown = (element) => element.getClientRects().length > 0;

function step(from, key) {
  const names = openable.filter(isShown), at = names.indexOf(from);
  if (key === "ArrowRight") return names[at + 1];
  if (key === "ArrowLeft") return names[at - 1];
  const line = from.closest(".line"), other = (name) => name.closest(".line") !== line;
  const column = from.closest("td");
  // Up and down stay on their side of the page while there are lines.
  const isBeside = (name) => name.closest("td").cellIndex === column.cellIndex && other(name);
  if (key === "ArrowDown") return names.slice(at).find(isBeside);
  const above = names.slice(0, at).filter(isBeside).pop();
  return above && names.find((name) => name.closest(".line") === above.closest(".line"));
}

document.addEventListener("keydown", (event) => {
  const name = event.target.closest?.("main [data-value]");
  if (!name) return;
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    name.click();
  }
  const next = event.key.startsWith("Arrow") ? step(name, event.key) : null;
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
document.querySelector(".needs-script").hidden = false;

modes.addEventListener("change", () => {
  const mode = modes.elements.mode.value;
  document.body.dataset.mode = mode;
  // Open, it pushes the code off the screen, and it contains the formulas to be worked out.
  const derivation = document.querySelector("details.derivation");
  if (derivation) derivation.open = mode === "read";
  for (const about of document.querySelectorAll(".about"))
    about.hidden = about.id !== `about-${mode}`;
  document.dispatchEvent(new CustomEvent("mode", { detail: mode }));
});
