"use strict";
// Arrays as colours. Those of one panel share a cursor: the same place is shown in each.

const FEW = 36;
// What stands for minus infinity (a hidden score) would leave everything else without colour.
const HUGE = 1e20;

/** The maps of some arrays [{title, array, scale}], and a line that says what is at the cursor. */
function heatmaps(arrays) {
  const shown = arrays.filter(({ array }) => array);
  const readout = make("output", { class: "readout" }, "Point at a number, or use the arrows.");
  const box = make("div", { class: "heatmaps" });
  let at = -1;

  function point(index) {
    const shape = shown[0].array.shape;
    if (index < 0 || index >= size(shape)) return;
    at = index;
    for (const cell of box.querySelectorAll("[data-at]"))
      cell.classList.toggle("at", Number(cell.dataset.at) === at);
    const said = shown
      .filter(({ array }) => array.numbers && size(array.shape) === size(shape))
      .map(({ title, array }) => `${title} ${short(array.numbers[at])}`);
    readout.textContent = `${place(at, shape)}  ${said.join(",  ")}`;
  }

  box.addEventListener("pointerover", (event) => {
    const cell = event.target.closest("[data-at]");
    if (cell) point(Number(cell.dataset.at));
  });
  box.addEventListener("keydown", (event) => {
    const map = event.target.closest("[data-columns]");
    const columns = Number(map?.dataset.columns);
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
    if (!map || !(event.key in moves)) return;
    event.preventDefault();
    point(at < 0 ? 0 : at + moves[event.key]);
  });
  for (const each of shown) box.append(heatmap(each));
  return make("div", {}, box, shown.some(({ array }) => array.numbers) ? readout : null);
}

/** One array, with what it is called and the meaning of its colours. */
function heatmap({ title, array, scale }) {
  const words = `${array.shape.length ? shapeOf(array.shape) : "a number"}, norm ${short(array.norm)}`;
  const figure = make("figure", { class: "heatmap" });
  figure.append(make("figcaption", {}, make("b", {}, title), ` ${words}`));
  if (!array.numbers) {
    figure.append(make("p", { class: "quiet" }, "Too large to be drawn."));
    return figure;
  }
  const largest = scale ?? largestOf(array), columns = array.shape.at(-1) ?? 1;
  const tiles = make("div", {
    class: "tiles", tabindex: 0, role: "group", "data-columns": columns,
    "aria-label": `${title}, ${words}; the arrows go from number to number`,
  });
  const few = array.numbers.length <= FEW;
  for (const tile of tilesOf(array)) tiles.append(few ? table(tile, largest) : picture(tile, largest));
  figure.append(tiles, legend(largest));
  return figure;
}

const size = (shape) => shape.reduce((product, length) => product * length, 1);
const shapeOf = (shape) => `(${shape.join(", ")}${shape.length === 1 ? "," : ""})`;

function largestOf(...arrays) {
  const numbers = arrays.flatMap((array) => array?.numbers ?? []);
  return Math.max(0, ...numbers.map((x) => (x === null || Math.abs(x) > HUGE ? 0 : Math.abs(x))));
}

/** The index of a number in the flat list, as NumPy writes it. */
function place(at, shape) {
  const index = [];
  for (const length of [...shape].reverse()) {
    index.unshift(at % length);
    at = Math.floor(at / length);
  }
  return `[${index.join(", ")}]`;
}

/** An array in two dimensions at a time: {name, rows, columns, start, numbers}. */
function tilesOf({ shape, numbers }) {
  const columns = shape.at(-1) ?? 1, rows = shape.at(-2) ?? 1, leading = shape.slice(0, -2);
  return Array.from({ length: size(leading) }, (_, tile) => ({
    name: leading.length ? `${place(tile, leading).slice(0, -1)}, :, :]` : "",
    rows, columns, start: tile * rows * columns,
    numbers: numbers.slice(tile * rows * columns, (tile + 1) * rows * columns),
  }));
}

/** The colour of a number: towards one side or the other from what zero looks like. */
function paint(value, largest) {
  if (value === null) return "var(--bad)";
  const share = largest ? Math.min(1, Math.abs(value) / largest) : 0;
  const percent = Math.round(100 * share ** 0.8);
  return `color-mix(in oklab, var(--${value < 0 ? "minus" : "plus"}) ${percent}%, var(--zero))`;
}

function picture({ name, rows, columns, start, numbers }, largest) {
  const cells = draw("svg", { viewBox: `0 0 ${columns} ${rows}`, class: "cells" });
  cells.style.maxWidth = `${columns * 16}px`;
  numbers.forEach((value, index) => {
    const [x, y] = [index % columns, Math.floor(index / columns)];
    const cell = draw("rect", { x, y, width: 1, height: 1, "data-at": start + index });
    cell.style.fill = paint(value, largest);
    cells.append(cell);
  });
  return tiled(name, cells);
}

function table({ name, rows, columns, start, numbers }, largest) {
  const body = make("tbody");
  for (let row = 0; row < rows; row++) {
    const line = make("tr");
    for (let column = 0; column < columns; column++) {
      const at = row * columns + column, value = numbers[at];
      const cell = make("td", { "data-at": start + at }, short(value, 3));
      const color = paint(value, largest);
      // At full strength no ink could be read on it.
      cell.style.background = `color-mix(in oklab, ${color} 45%, var(--paper))`;
      line.append(cell);
    }
    body.append(line);
  }
  return tiled(name, make("table", { class: "numbers" }, body));
}

function tiled(name, content) {
  return make("div", { class: "tile" }, name ? make("small", {}, name) : null, content);
}

function legend(largest) {
  return make("div", { class: "legend", "aria-hidden": "true" },
    short(-largest, 3), make("span", { class: "ramp" }), short(largest, 3));
}
