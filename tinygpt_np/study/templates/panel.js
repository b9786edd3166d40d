"use strict";
// What opens on a click: the numbers of a value, its gradient, and how both were checked.

const panel = document.getElementById("panel");
let opener = null;

document.addEventListener("click", (event) => {
  const from = event.target.closest("main [data-value], main [data-open]");
  const key = from?.dataset.value ?? from?.dataset.open;
  const value = study.values[key] ?? study.params[key];
  if (value) openPanel(value, from);
});

function openPanel(value, from) {
  opener = from;
  document.querySelector(".opened")?.classList.remove("opened");
  from.closest(".line")?.classList.add("opened");
  const close = make("button", { type: "button", class: "close", "aria-label": "Close" }, "✕");
  close.addEventListener("click", closePanel);
  panel.replaceChildren(
    make("header", {}, make("h2", { id: "panel-title" }, make("code", {}, value.name)), close),
    value.line ? make("p", { class: "quiet" }, `of line ${value.line}${value.round && `, ${value.round}`}`) : "",
    ...parts(value).filter(Boolean),
  );
  panel.hidden = false;
  document.body.classList.add("with-panel");
  panel.scrollTop = 0;
  panel.focus();
  from.scrollIntoView({ block: "nearest" });
}

function closePanel() {
  panel.hidden = true;
  document.body.classList.remove("with-panel");
  document.querySelector(".opened")?.classList.remove("opened");
  if (opener?.matches("[data-value]")) focusName(opener);
  else opener?.focus();
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !panel.hidden) closePanel();
});

/** The parts of a panel, from the numbers to what they rest on. */
function parts(value) {
  return [standing(value), numbers(value), derivation(value), verdicts(value), chartOf(value)];
}

function standing(value) {
  if (value.constant) return make("p", {}, "No gradient flows through it: it is a constant here.");
  if (value.given)
    return make("p", {}, "Its gradient is given: it comes in from what reads this output. Here it is drawn at random, so that nothing cancels by chance.");
  if (value.fused.length)
    return make("p", {}, "No line sets its gradient by itself. It is checked together with ",
      make("code", {}, value.fused.join(", ")), ".");
  return null;
}

function numbers(value) {
  const scale = largestOf(value.gradient, value.expected);
  return heatmaps([
    { title: "value", array: value.value },
    { title: value.given ? "gradient, given" : "gradient by hand", array: value.gradient, scale },
    { title: "measured", array: value.given ? null : value.expected, scale },
    { title: "difference", array: value.given ? null : value.difference },
  ]);
}

/** The rule of each line that reads the value: this is where its gradient comes from. */
function derivation(value) {
  const rows = value.uses.map((use) => study.rows[use]).filter((row) => row?.rule);
  if (!rows.length) return null;
  const names = rows.length === 1 ? "the line that reads it" : "the lines that read it, added up";
  return make("section", {},
    make("h3", {}, "How its gradient comes"),
    make("p", { class: "quiet" }, `By way of ${names}.`),
    ...rows.map(ruleOf));
}

function ruleOf(row) {
  const { name, formulas, why, operation } = row.rule;
  const file = study.files[operation];
  return make("div", { class: "rule" },
    make("div", { class: "line" }, make("span", { class: "number" }, row.line), unnamed(row.html)),
    make("p", {}, make("b", {}, name[0].toUpperCase() + name.slice(1))),
    ...formulas.map((formula) => make("div", { class: "math", html: formula })),
    why ? make("p", { html: why }) : null,
    file ? make("p", {}, make("a", { href: file }, `Open ${operation}`)) : null);
}

/** A line of code that does not light, since it stands on no side of the page. */
function unnamed(html) {
  const code = make("code", { html });
  for (const span of code.querySelectorAll("[data-name]")) {
    span.removeAttribute("data-name");
    span.removeAttribute("data-value");
  }
  return code;
}

function verdicts(value) {
  if (!value.verdicts.length) return null;
  return make("section", {}, make("h3", {}, "Verdict"), ...value.verdicts.map(verdict));
}

function verdict(found) {
  const [name, number] = found.id.split(":");
  const link = make("a", { href: `#${found.id}` }, `${name}, line ${number}`);
  const right = found.status === "right";
  const says = right ? (found.zero ? "✓ zero, but for rounding" : `✓ right to ${found.digits} digits`)
    : `✗ ${found.problems[0] ?? "wrong"}`;
  const rows = [
    [`by hand at [${found.index.join(", ")}]`, String(found.analytic)],
    ["measured there", String(found.numeric)],
    found.zero ? ["largest error", short(found.absolute)] : ["error, as a share of the norm", short(found.relative)],
    ["largest that passes", short(found.bound)],
    right ? ["headroom", found.headroom === null ? "no error at all" : `${short(found.headroom, 2)} times`] : null,
    ["oracle", `${found.oracle}, ${found.checked} places`],
    found.skipped ? ["skipped, at a kink", String(found.skipped)] : null,
  ].filter(Boolean);
  const wayIn = found.part && found.way
    ? make("p", {}, "The part that comes by way of ", make("code", {}, found.way)) : null;
  return make("div", { class: "verdict-of" },
    make("p", {}, make("b", { class: right ? "good" : "bad" }, says), " ", link),
    wayIn,
    found.cause ? make("p", { class: "bad" }, `Likely cause: ${found.cause}`) : null,
    make("dl", {}, ...rows.flatMap(([term, words]) => [make("dt", {}, term), make("dd", {}, words)])));
}

function chartOf(value) {
  if (!value.chart || value.given) return null;
  return make("section", {}, make("h3", {}, "Error by step"), errorChart(value.chart));
}
