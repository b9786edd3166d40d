"use strict";
// Heat maps. The arrays of one panel share a cursor, which marks the same element in each.

const FEW = 36;
// A stand-in for minus infinity (a masked score) would make all other elements look like zero.
const HUGE = 1e20;

/** Heat maps of arrays [{title, array, scale}], with the values of the element at the cursor. */
function heatmaps(arrays, axes) {
  const shown = arrays.filter(({ array }) => array);
  const readout = make("output", { class: "readout" }, "Point at an element, or use the arrow keys.");
  const box = make("div", { class: "heatmaps" });
  let cursor = -1;

  function point(index) {
    const shape = shown[0].array.shape;
    if (index < 0 || index >= size(shape)) return;
    cursor = index;
    for (const cell of box.querySelectorAll("[data-index]"))
      cell.classList.toggle("cursor", Number(cell.dataset.index) === cursor);
    const text = shown
      .filter(({ array }) => array.numbers && size(array.shape) === size(shape))
      .map(({ title, array }) => `${title} ${words(array, array.numbers[cursor])}`);
    readout.textContent = `${place(cursor, shape)}  ${text.join(",  ")}`;
  }

  box.addEventListener("pointerover", (event) => {
    const cell = event.target.closest("[data-index]");
    if (cell) point(Number(cell.dataset.index));
  });
  box.addEventListener("keydown", (event) => {
    const map = event.target.closest("[data-columns]");
    const columns = Number(map?.dataset.columns);
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
    if (!map || !(event.key in moves)) return;
    event.preventDefault();
    point(cursor < 0 ? 0 : cursor + moves[event.key]);
  });
  for (const each of shown) box.append(heatmap({ ...each, shape: shown[0].array.shape, axes }));
  return make("div", {}, box, shown.some(({ array }) => array.numbers) ? readout : null);
}

/** One array with its title and legend; its shape is in the title if it is not the usual one. */
function heatmap({ title, array, scale, shape, axes }) {
  const isOther = shapeOf(array.shape) !== shapeOf(shape);
  const caption = `${isOther ? ` ${shapeOf(array.shape)}` : ""}${array.is_mask ? "" : ` norm ${short(array.norm)}`}`;
  const figure = make("figure", { class: "heatmap" });
  figure.append(make("figcaption", {}, make("b", {}, title), caption));
  if (!array.numbers) {
    figure.append(make("p", { class: "quiet" }, array.is_rounding ? "equal up to rounding" : "too large to draw"));
    return figure;
  }
  const largest = scale ?? largestOf(array), columns = array.shape.at(-1) ?? 1;
  const tiles = make("div", {
    class: "tiles", tabindex: 0, role: "group", "data-columns": columns,
    "aria-label": `${title}, ${shapeOf(array.shape)}; the arrow keys move from element to element`,
  });
  // The slices of an array with four axes form a table themselves.
  if (array.shape.length > 3) Object.assign(tiles.style, { display: "grid", gridTemplateColumns: `repeat(${array.shape.at(-3)}, auto)` });
  const few = array.numbers.length <= FEW && !array.is_mask;
  for (const tile of tilesOf(array, isOther ? [] : axes)) tiles.append(few ? table(tile, largest) : picture(tile, largest));
  figure.append(tiles, array.is_mask ? samples({ False: 0, True: 1 }) : few ? "" : legend(largest, array));
  return figure;
}

const words = (array, value) => (array.is_mask ? (value ? "True" : "False") : short(value));
const size = (shape) => shape.reduce((product, length) => product * length, 1);
const shapeOf = (shape) => `(${shape.join(", ")}${shape.length === 1 ? "," : ""})`;

function largestOf(...arrays) {
  const numbers = arrays.flatMap((array) => array?.numbers ?? []);
  return Math.max(0, ...numbers.map((x) => (x === null || Math.abs(x) > HUGE ? 0 : Math.abs(x))));
}

/** The index of an element, from its position in the flat list. */
function place(position, shape) {
  const index = [];
  for (const length of [...shape].reverse()) {
    index.unshift(position % length);
    position = Math.floor(position / length);
  }
  return `[${index.join(", ")}]`;
}

/** An array as two-dimensional tiles: {name, rows, columns, start, numbers}. */
function tilesOf({ shape, numbers }, axes) {
  const columns = shape.at(-1) ?? 1, rows = shape.at(-2) ?? 1, leading = shape.slice(0, -2);
  return Array.from({ length: size(leading) }, (_, tile) => ({
    name: leading.length ? sliceName(tile, leading, axes) : "",
    rows, columns, start: tile * rows * columns,
    numbers: numbers.slice(tile * rows * columns, (tile + 1) * rows * columns),
  }));
}

/** The name of a slice: "B 0, H 1", or "[0, 1]" if the axes have no names. */
function sliceName(tile, leading, axes) {
  const index = place(tile, leading).slice(1, -1).split(", ");
  const isNamed = leading.every((_, axis) => axes[axis]);
  return isNamed ? index.map((number, axis) => `${axes[axis]} ${number}`).join(", ") : `[${index.join(", ")}]`;
}

/** The colour of a number, between the colours of zero and of the largest number. */
function paint(value, largest) {
  if (value === null) return "var(--bad)";
  const fraction = largest ? Math.min(1, Math.abs(value) / largest) : 0;
  const percent = Math.round(100 * fraction ** 0.8);
  return `color-mix(in oklab, var(--${value < 0 ? "minus" : "plus"}) ${percent}%, var(--zero))`;
}

function picture({ name, rows, columns, start, numbers }, largest) {
  const cells = draw("svg", { viewBox: `0 0 ${columns} ${rows}`, class: "cells" });
  cells.style.width = `${columns * 14}px`;
  numbers.forEach((value, index) => {
    const [x, y] = [index % columns, Math.floor(index / columns)];
    const cell = draw("rect", { x, y, width: 1, height: 1, "data-index": start + index });
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
      const position = row * columns + column, value = numbers[position];
      const cell = make("td", { "data-index": start + position }, short(value, 3));
      const color = paint(value, largest);
      // Paler, so that the text stays readable.
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

function legend(largest, { numbers }) {
  return make("div", { class: "legend", "aria-hidden": "true" },
    short(-largest, 3), make("span", { class: "ramp" }), short(largest, 3),
    numbers.includes(null) ? samples({ "not finite": null }) : null);
}

/** A legend of the colours of single numbers, by their names. */
function samples(numbers) {
  return make("div", { class: "legend" }, ...Object.entries(numbers).flatMap(([name, number]) => {
    const square = make("span", { class: "sample" });
    square.style.background = paint(number, 1);
    return [square, name];
  }));
}
