"use strict";
// The error of the numerical derivatives by step size, on logarithmic axes.

const WIDE = 420, HIGH = 270, LEFT = 46, RIGHT = 12, TOP = 14, BOTTOM = 40;
// Smaller errors are drawn at the lower edge.
const FLOOR = 1e-17, CEILING = 1e2;

function errorChart({ steps, central, complex }) {
  const x = (h) => LEFT + ((Math.log10(h) + 16) / 16) * (WIDE - LEFT - RIGHT);
  const y = (error) => {
    const log = Math.log10(Math.min(CEILING, Math.max(FLOOR, error ?? CEILING)));
    return TOP + ((2 - log) / 19) * (HIGH - TOP - BOTTOM);
  };
  const best = indexOfLeast(central), spot = { h: steps[best], error: central[best] };
  const svg = draw("svg", {
    viewBox: `0 0 ${WIDE} ${HIGH}`, class: "chart", role: "img", "aria-label": inWords(spot, steps, complex),
  });
  axes(svg, x, y);
  const curve = (errors, name) => {
    const points = errors.map((error, index) => `${x(steps[index])},${y(error)}`);
    svg.append(draw("polyline", { points: points.join(" "), class: `curve ${name}` }));
    for (const point of points) {
      const [cx, cy] = point.split(",");
      svg.append(name === "central"
        ? draw("circle", { cx, cy, r: 2.2, class: name })
        : draw("rect", { x: cx - 2, y: cy - 2, width: 4, height: 4, class: name }));
    }
  };
  curve(central, "central");
  if (complex.length) curve(complex, "complex");
  annotate(svg, x, y, spot, best);
  return make("figure", { class: "chart" }, svg,
    key(complex.length), make("figcaption", {}, inWords(spot, steps, complex)));
}

function indexOfLeast(errors) {
  const finite = errors.map((error) => error ?? Infinity);
  return finite.indexOf(Math.min(...finite));
}

function axes(svg, x, y) {
  for (const power of [-16, -12, -8, -4, 0]) {
    const [px, py] = [x(10 ** power), y(10 ** power)];
    svg.append(
      draw("line", { x1: px, x2: px, y1: TOP, y2: HIGH - BOTTOM, class: "grid" }),
      draw("line", { x1: LEFT, x2: WIDE - RIGHT, y1: py, y2: py, class: "grid" }),
      text(px, HIGH - BOTTOM + 15, ten(power), "middle"),
      text(LEFT - 6, py + 4, ten(power), "end"),
    );
  }
  svg.append(text(WIDE - RIGHT, HIGH - 6, "step h", "end"), text(4, TOP - 3, "relative error", "start"));
}

const SUPERSCRIPTS = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 4: "⁴", 6: "⁶", 8: "⁸" };
const ten = (power) =>
  power ? `10${[...String(power)].map((each) => SUPERSCRIPTS[each]).join("")}` : "1";

function text(x, y, words, anchor, name = "") {
  return draw("text", { x, y, "text-anchor": anchor, class: name }, words);
}

/** Labels the best step size and the causes of the error on both sides of it. */
function annotate(svg, x, y, spot, best) {
  const [px, py] = [x(spot.h), y(spot.error)];
  svg.append(draw("circle", { cx: px, cy: py, r: 6.5, class: "spot" }));
  const anchor = px > WIDE - 90 ? "end" : px < LEFT + 60 ? "start" : "middle";
  svg.append(text(px, Math.min(py + 20, HIGH - BOTTOM - 3), "sweet spot", anchor, "spot"));
  svg.append(text(x(10 ** -12.5), y(10), "rounding", "middle", "word"));
  if (best > 1) svg.append(text(x(10 ** -1.8), y(10), "truncation", "middle", "word"));
}

function key(hasComplex) {
  const entry = (name, words) => make("span", { class: `entry ${name}` }, words);
  return make("p", { class: "key" }, entry("central", "● central difference"),
    hasComplex ? entry("complex", "■ complex step") : null);
}

function inWords({ h, error }, steps, complex) {
  const digits = Math.max(0, Math.floor(-Math.log10(Math.max(error, FLOOR))));
  const central = h === steps[0]
    ? "The loss is linear or quadratic in this direction, so a large step has no truncation error; smaller steps only lose digits to rounding."
    : `The central difference is best at h = ${short(h)}, with ${digits} digits: larger steps ignore the curvature (truncation error, which grows as h²), smaller ones subtract two nearly equal numbers (rounding error, which grows as 1/h).`;
  const complexStep = complex.length
    ? " The complex step subtracts nothing, so it has no rounding error at small steps."
    : " This forward does not accept complex numbers, so there is no complex step.";
  return central + complexStep;
}
