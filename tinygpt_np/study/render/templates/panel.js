"use strict";
// The panel: the rule behind a gradient with its verdict, then the arrays.

const panel = document.getElementById("panel");
// The panel is a column next to the code where there is room for it, and covers the page elsewhere.
const isWide = matchMedia("(min-width: 75rem)");
let opener = null;

document.addEventListener("click", (event) => {
  const from = event.target.closest("main [data-value], main [data-open]");
  if (from && document.body.dataset.mode !== "break") open(from);
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !panel.hidden) closePanel();
});

document.addEventListener("mode", ({ detail: mode }) => {
  if (mode === "read") openFirst();
  else hidePanel();
});

openFirst();

/** Opens the first gradient that is not right, or else the one that is computed first. */
function openFirst() {
  const marks = linesInOrder().flatMap((line) => [...line.querySelectorAll("[data-open]")]);
  const first = marks.find((each) => each.matches(".wrong, .inherited")) ?? marks[0];
  if (first && isWide.matches) show(first);
}

function open(from) {
  if (!show(from)) return;
  opener = from;
  panel.focus();
  from.scrollIntoView({ block: "nearest" });
}

/** Fills the panel; returns whether there is something to show. */
function show(from) {
  const key = from.dataset.value ?? from.dataset.open, value = study.values[key] ?? study.params[key];
  if (!value) return false;
  hidePanel();
  const line = from.closest(".line");
  line?.classList.add("opened");
  const close = make("button", { type: "button", class: "close", "aria-label": "Close" }, "✕");
  close.addEventListener("click", closePanel);
  const { axes, iteration } = value, shape = value.value?.shape ?? [];
  const sizes = shape.map((length, axis) => (axes[axis] ? `${axes[axis]} ${length}` : length));
  const place = value.line ? `line ${value.line}${iteration && `, ${iteration}`}` : "parameter";
  panel.replaceChildren(
    make("header", {}, make("h2", { id: "panel-title" }, make("code", {}, value.name)),
      make("span", { class: "quiet" }, `${shape.length ? `${shapeOf(sizes)}, ` : ""}${place}`), close),
    make("div", { class: "parts" }, ...parts(value, line?.id)),
  );
  panel.hidden = false;
  document.body.classList.add("with-panel");
  panel.scrollTop = 0;
  return true;
}

function hidePanel() {
  panel.hidden = true;
  document.body.classList.remove("with-panel");
  document.querySelector(".opened")?.classList.remove("opened");
}

function closePanel() {
  hidePanel();
  if (opener?.matches("[data-value]")) focusName(opener);
  else opener?.focus();
}

/** The sections of the panel; the verdict on the line that was clicked comes first. */
function parts(value, id) {
  const gradient = value.gradientName;
  const verdicts = [...value.verdicts].sort((a, b) => (b.id === id) - (a.id === id));
  const lacking = value.missing.map((each) => missing(each, gradient));
  const rules = verdicts.length
    ? verdicts.map((found, index) => (index || lacking.length ? other : reason)(found, gradient))
    : value.uses.map((use) => ruleOf(study.rows[use], gradient));
  return [make("div", {}, ...[...lacking, noGradient(value), ...rules].filter(Boolean)), arrays(value),
    chartOf(value)].filter(Boolean);
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

/** The rule that gives a gradient, or its derivation, and the verdict. */
function reason(found, gradient) {
  return make("section", { class: "reason" },
    found.row === null ? derivationOf() : ruleOf(study.rows[found.row], gradient), verdict(found));
}

/** The same for another line that computes a part of the gradient, or all of it; folded if it is right. */
function other(found, gradient) {
  const [name, number] = found.id.split(":"), right = found.status === "right";
  return make("details", { class: "reason", open: right ? null : "" },
    make("summary", {}, make("span", { class: kindOf(found) }, { good: "✓", warn: "?", bad: "✗" }[kindOf(found)]),
      ` ${found.term ? "the term of " : ""}${name}, line ${number}`),
    reason(found, gradient));
}

/** The rule of a forward line that no line of the backward reverses. */
function missing({ row, message }, gradient) {
  return make("section", { class: "reason" },
    make("p", {}, make("b", { class: "bad" }, ...coded(`✗ ${message}`))), ruleOf(study.rows[row], gradient));
}

/** The rule of a forward line, with the formulas of one of the gradients that it gives. */
function ruleOf(row, gradient) {
  if (!row?.rule) return null;
  const { name, formulas, why, operation } = row.rule;
  const file = study.files[operation];
  return make("div", { class: "rule" },
    make("p", {}, make("b", {}, name[0].toUpperCase() + name.slice(1)), ` in line ${row.line}  `, plainCode(row.html)),
    ...formulas.filter(({ of }) => !of || of === gradient).map(({ html }) => make("div", { class: "math", html })),
    why ? make("p", { class: "quiet", html: why }) : null,
    file ? make("p", {}, make("a", { href: file }, `Open ${operation}`)) : null);
}

/** The derivation in the docstring, for a line that reverses several lines at once. */
function derivationOf() {
  const text = document.querySelector("#derivation:has(.math)");
  return make("div", { class: "rule" },
    make("p", {}, "This line reverses several lines at once, so no single rule gives it."),
    ...(text ? [...text.cloneNode(true).children].slice(1) : []));
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

/** The class of a verdict. */
function kindOf({ status }) {
  return status === "right" ? "good" : status === "unmeasured" ? "warn" : "bad";
}

function verdict(found) {
  const right = found.status === "right", kind = kindOf(found), [problem] = found.messages;
  const message = right ? (found.zero ? "✓ zero up to rounding" : `✓ right to ${found.digits} digits`)
    : kind === "warn" ? `? not measured: ${problem}` : `✗ ${problem ?? "wrong"}`;
  const rows = [
    found.analytic === null ? null : [`analytic, at [${found.index.join(", ")}]`, String(found.analytic)],
    found.numeric === null ? null : ["numeric", String(found.numeric)],
    found.zero ? ["largest error", short(found.absolute)] : ["relative error", short(found.relative)],
    ["tolerance", short(found.bound)],
    right ? ["headroom", found.headroom === null ? "no error" : `${short(found.headroom, 2)} times`] : null,
    ["oracle", `${found.oracle}, ${found.checked} elements`],
    found.skipped ? ["skipped at a kink", String(found.skipped)] : null,
  ].filter(Boolean);
  const [name, number] = found.id.split(":");
  return make("div", { class: "verdict-of" },
    make("p", {}, make("b", { class: kind }, ...coded(message)), ", ",
      make("a", { href: `#${found.id}` }, `${name}, line ${number}`)),
    found.cause ? make("p", { class: "cause" }, ...coded(`Likely cause: ${found.cause}`)) : null,
    make("details", { open: right ? null : "" }, make("summary", {}, "Figures"),
      make("dl", {}, ...rows.flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)]))));
}

function arrays(value) {
  const scale = largestOf(value.gradient, value.expected);
  return heatmaps([
    { title: "value", array: value.value },
    { title: value.upstream ? "upstream gradient" : "gradient", array: value.gradient, scale },
    { title: "expected", array: value.upstream ? null : value.expected, scale },
    { title: "difference", array: value.upstream ? null : value.difference },
  ], value.axes);
}

function chartOf(value) {
  if (!value.chart || value.upstream) return null;
  return make("section", {}, make("h3", {}, "Error by step size"), errorChart(value.chart));
}
