"use strict";
// The panel: the arrays of a value and its gradient, and the verdicts on it.

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
    value.line ? make("p", { class: "quiet" }, `line ${value.line}${value.iteration && `, ${value.iteration}`}`) : "",
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

/** The sections of the panel. */
function parts(value) {
  return [noGradient(value), arrays(value), derivation(value), verdicts(value), chartOf(value)];
}

/** Why no line computes the gradient of a value, if none does. */
function noGradient(value) {
  if (value.constant) return make("p", {}, "No gradient flows through it; it is treated as a constant.");
  if (value.upstream)
    return make("p", {}, "Its gradient is the upstream gradient, an argument of the backward. Here it is random, so that no error cancels by chance.");
  if (value.fused.length)
    return make("p", {}, "No line sets its gradient separately. It is checked together with ",
      make("code", {}, value.fused.join(", ")), ".");
  return null;
}

function arrays(value) {
  const scale = largestOf(value.gradient, value.expected);
  return heatmaps([
    { title: "value", array: value.value },
    { title: value.upstream ? "upstream gradient" : "gradient", array: value.gradient, scale },
    { title: "numerical", array: value.upstream ? null : value.expected, scale },
    { title: "difference", array: value.upstream ? null : value.difference },
  ]);
}

/** The rules of the lines that read the value, from which its gradient follows. */
function derivation(value) {
  const rows = value.uses.map((use) => study.rows[use]).filter((row) => row?.rule);
  if (!rows.length) return null;
  const origin = rows.length === 1 ? "It follows from the line that reads the value."
    : "It is the sum of one term from each line that reads the value.";
  return make("section", {},
    make("h3", {}, "Where the gradient comes from"),
    make("p", { class: "quiet" }, origin),
    ...rows.map(ruleOf));
}

function ruleOf(row) {
  const { name, formulas, why, operation } = row.rule;
  const file = study.files[operation];
  return make("div", { class: "rule" },
    make("div", { class: "line" }, make("span", { class: "number" }, row.line), plainCode(row.html)),
    make("p", {}, make("b", {}, name[0].toUpperCase() + name.slice(1))),
    ...formulas.map((formula) => make("div", { class: "math", html: formula })),
    why ? make("p", { html: why }) : null,
    file ? make("p", {}, make("a", { href: file }, `Open ${operation}`)) : null);
}

/** A line of code whose names are not highlighted and do not open the panel. */
function plainCode(html) {
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
  const message = right ? (found.zero ? "✓ zero up to rounding" : `✓ right to ${found.digits} digits`)
    : `✗ ${found.problems[0] ?? "wrong"}`;
  const rows = [
    [`analytic, at [${found.index.join(", ")}]`, String(found.analytic)],
    ["numeric", String(found.numeric)],
    found.zero ? ["largest error", short(found.absolute)] : ["relative error", short(found.relative)],
    ["tolerance", short(found.bound)],
    right ? ["headroom", found.headroom === null ? "no error" : `${short(found.headroom, 2)} times`] : null,
    ["oracle", `${found.oracle}, ${found.checked} elements`],
    found.skipped ? ["skipped at a kink", String(found.skipped)] : null,
  ].filter(Boolean);
  const term = found.term && found.through
    ? make("p", {}, "The term from ", make("code", {}, found.through)) : null;
  return make("div", { class: "verdict-of" },
    make("p", {}, make("b", { class: right ? "good" : "bad" }, message), " ", link),
    term,
    found.cause ? make("p", { class: "bad" }, `Likely cause: ${found.cause}`) : null,
    make("dl", {}, ...rows.flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)])));
}

function chartOf(value) {
  if (!value.chart || value.upstream) return null;
  return make("section", {}, make("h3", {}, "Error by step size"), errorChart(value.chart));
}
