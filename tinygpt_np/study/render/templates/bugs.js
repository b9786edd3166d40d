"use strict";
// Break it mode: shows which lines a planted bug makes wrong.

const choice = document.getElementById("bug");

if (choice) {
  fillChoice();
  choice.addEventListener("change", showBug);
  document.getElementById("previous-bug").addEventListener("click", () => move(-1));
  document.getElementById("next-bug").addEventListener("click", () => move(1));
  document.addEventListener("mode", ({ detail: mode }) => {
    clearBug();
    document.documentElement.style.removeProperty("--covered");
    if (mode === "break") showBug();
  });
}

/** Fills the list of bugs, grouped by function and kind. */
function fillChoice() {
  const groups = new Map();
  study.bugs.forEach((bug, index) => {
    const name = `${bug.function}: ${bug.kind}`;
    groups.set(name, [...(groups.get(name) ?? []), index]);
  });
  for (const [label, indices] of [...groups].sort(([a], [b]) => (a < b ? 1 : -1))) {
    const group = make("optgroup", { label });
    for (const index of indices) group.append(make("option", { value: index }, study.bugs[index].after));
    choice.append(group);
  }
  choice.selectedIndex = 0;
}

function move(by) {
  const count = choice.options.length;
  choice.selectedIndex = (choice.selectedIndex + by + count) % count;
  showBug();
}

function showBug() {
  clearBug();
  const bug = study.bugs[choice.value];
  document.getElementById("bug-number").textContent =
    `${choice.selectedIndex + 1} of ${choice.options.length}`;
  document.getElementById("bug-description").replaceChildren(...describe(bug));
  const lines = [...document.querySelectorAll(".line.back[id]")]
    .filter((line) => line.id.startsWith(`${bug.function}:`))
    .sort((a, b) => numberOf(a) - numberOf(b));
  const raising = document.getElementById(bug.first_wrong) ?? lines.at(-1);
  const last = bug.stopped ? numberOf(raising) : Infinity;
  for (const line of lines) mark(line, bug, numberOf(line) > last);
  const changed = document.getElementById(bug.id);
  if (changed) showChange(changed, bug);
  // On a phone the header is not sticky; scrolling would move the buttons away from the finger.
  const header = document.getElementById("about-break");
  const isSticky = getComputedStyle(header).position === "sticky";
  document.documentElement.style.setProperty("--covered", isSticky ? `${header.offsetHeight + 12}px` : "1rem");
  if (isSticky) document.getElementById(bug.first_wrong || bug.id)?.scrollIntoView({ block: "nearest" });
}

const numberOf = (line) => Number(line.id.split(":")[1]);

/** What the bug is, and what the check reports. */
function describe(bug) {
  const elsewhere = bug.first_wrong && bug.first_wrong !== bug.id;
  const place = elsewhere ? `line ${bug.first_wrong.split(":")[1]}: ` : "";
  const report = bug.reason
    ? make("p", { class: "message neutral" }, `= changes nothing: ${bug.reason}`)
    : make("p", { class: "message wrong" }, `✗ ${place}${bug.message}`,
      ...(bug.cause ? [make("br"), `Likely cause: ${bug.cause}`] : []));
  const link = bug.id ? make("a", { href: `#${bug.id}` }, `line ${bug.id.split(":")[1]}`) : "";
  const parts = [make("p", {}, make("b", {}, bug.kind), `: ${bug.what} `, link)];
  if (!bug.id) parts.push(beforeAndAfter(bug));
  return [...parts, report];
}

function beforeAndAfter(bug) {
  return make("div", { class: "changed" }, make("del", {}, make("code", {}, bug.before)),
    make("ins", {}, make("code", {}, bug.after)));
}

function showChange(line, bug) {
  line.classList.add("struck");
  line.querySelector(":scope > code").after(beforeAndAfter(bug));
}

/** Marks a line with its status under the bug, as a sign and a word. */
function mark(line, bug, unreached) {
  const found = bug.affected[line.id], isChanged = line.id === bug.id;
  const hasGradient = line.dataset.status === "right";
  const [name, words] = unreached ? ["unreached", "– not reached"]
    : !bug.id ? ["unreached", "– replaced"]
    : isChanged && bug.after === "(nothing)" ? ["inherited", "– deleted"]
    : line.id === bug.first_wrong ? ["wrong first", isElsewhere(bug) ? "✗ wrong, with the changed line" : "✗ wrong, the first"]
    : found?.status === "wrong" ? ["wrong", "✗ wrong"]
    : found?.status === "inherited" ? ["inherited", `! ${found.message || "as a consequence"}`]
    : found?.status === "warning" ? ["inherited", `! ${found.message}`]
    : isChanged && !bug.reason ? ["inherited", "! changed"]
    : hasGradient ? ["right", "✓ still right"] : [null, ""];
  if (!name) return;
  line.dataset.broken = name.split(" ")[0];
  line.append(make("span", { class: `badge broken ${name}` }, words));
}

/** Whether the first wrong line is not the changed one. */
const isElsewhere = (bug) => bug.first_wrong !== bug.id && bug.after !== "(nothing)";

function clearBug() {
  for (const added of document.querySelectorAll(".broken, .line > .changed")) added.remove();
  for (const line of document.querySelectorAll(".line.back")) {
    line.classList.remove("struck");
    delete line.dataset.broken;
  }
}
