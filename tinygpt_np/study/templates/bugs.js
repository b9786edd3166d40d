"use strict";
// Break it: what each planted bug reddens.

const choice = document.getElementById("bug");

if (choice) {
  fill();
  choice.addEventListener("change", show);
  document.getElementById("previous-bug").addEventListener("click", () => move(-1));
  document.getElementById("next-bug").addEventListener("click", () => move(1));
  document.addEventListener("mode", ({ detail: mode }) => {
    clear();
    document.documentElement.style.removeProperty("--covered");
    if (mode === "break") show();
  });
}

/** The bugs in groups: of a function, of a kind. */
function fill() {
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
  show();
}

function show() {
  clear();
  const bug = study.bugs[choice.value];
  document.getElementById("bug-number").textContent =
    `${choice.selectedIndex + 1} of ${choice.options.length}`;
  document.getElementById("bug-says").replaceChildren(...told(bug));
  const lines = [...document.querySelectorAll(".line.back[id]")];
  const ran = lines.filter((line) => line.id.startsWith(`${bug.function}:`));
  const order = ran.sort((a, b) => numberOf(a) - numberOf(b));
  const stop = bug.stopped ? numberOf(document.getElementById(bug.blamed) ?? order.at(-1)) : Infinity;
  for (const line of order) mark(line, bug, numberOf(line) > stop);
  const changed = document.getElementById(bug.id);
  if (changed) strike(changed, bug);
  // On a phone the choice does not stay in sight, and would be scrolled away under the finger.
  const head = document.getElementById("about-break");
  const stays = getComputedStyle(head).position === "sticky";
  document.documentElement.style.setProperty("--covered", stays ? `${head.offsetHeight + 12}px` : "1rem");
  if (stays) document.getElementById(bug.blamed || bug.id)?.scrollIntoView({ block: "nearest" });
}

const numberOf = (line) => Number(line.id.split(":")[1]);

/** What the bug is, and what the check says of it. */
function told(bug) {
  const said = bug.reason
    ? make("p", { class: "says shown" }, `= changes nothing: ${bug.reason}`)
    : make("p", { class: "says wrong" }, `✗ ${bug.blamed && bug.blamed !== bug.id ? `line ${bug.blamed.split(":")[1]}: ` : ""}${bug.says}`,
      ...(bug.cause ? [make("br"), `Likely cause: ${bug.cause}`] : []));
  const place = bug.id ? make("a", { href: `#${bug.id}` }, `line ${bug.id.split(":")[1]}`) : "";
  const parts = [make("p", {}, make("b", {}, bug.kind), `: ${bug.what} `, place)];
  if (!bug.id) parts.push(beforeAndAfter(bug));
  return [...parts, said];
}

function beforeAndAfter(bug) {
  return make("div", { class: "changed" }, make("del", {}, make("code", {}, bug.before)),
    make("ins", {}, make("code", {}, bug.after)));
}

function strike(line, bug) {
  line.classList.add("struck");
  line.querySelector(":scope > code").after(beforeAndAfter(bug));
}

/** The status of a line under the bug, as a sign and a word. */
function mark(line, bug, unreached) {
  const red = bug.red[line.id], isChanged = line.id === bug.id;
  const hasGradient = line.dataset.status === "right";
  const [name, words] = unreached ? ["unreached", "– not reached"]
    : !bug.id ? ["unreached", "– replaced"]
    : isChanged && bug.after === "(nothing)" ? ["inherited", "– left out"]
    : line.id === bug.blamed ? ["wrong blamed", isElsewhere(bug) ? "✗ wrong, with what was changed" : "✗ wrong, the first"]
    : red?.status === "wrong" ? ["wrong", "✗ wrong"]
    : red?.status === "inherited" ? ["inherited", `! ${red.says || "because of it"}`]
    : red?.status === "odd" ? ["inherited", `! ${red.says}`]
    : isChanged && !bug.reason ? ["inherited", "! changed"]
    : hasGradient ? ["right", "✓ still right"] : [null, ""];
  if (!name) return;
  line.dataset.broken = name.split(" ")[0];
  line.append(make("span", { class: `badge broken ${name}` }, words));
}

/** Whether the first wrong line is another than the one that was changed. */
const isElsewhere = (bug) => bug.blamed !== bug.id && bug.after !== "(nothing)";

function clear() {
  for (const added of document.querySelectorAll(".broken, .line > .changed")) added.remove();
  for (const line of document.querySelectorAll(".line.back")) {
    line.classList.remove("struck");
    delete line.dataset.broken;
  }
}
