"""Show results in a notebook as HTML that needs no network and no script: frame and heat maps."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import jinja2
import numpy as np
from markupsafe import Markup, escape

# A heat map has at most this many rows and columns; it shows those around the worst element.
ROWS, COLUMNS = 24, 32
# The numbers of so few elements are written into their cells.
FEW = 36


@dataclass(frozen=True)
class Cell:
    """An element: its text, its place, and its colour. sign: "plus", "minus", "bad" or "zero".

    percent: the absolute value in percent of the largest one. is_worst: whether the error is
    largest here.
    """

    text: str
    place: str
    sign: str
    percent: int
    is_worst: bool


@dataclass(frozen=True)
class HeatMap:
    """A part of an array, in rows of cells. part: the part in words, or "" if it is all of it."""

    title: str
    part: str
    largest: str
    rows: list[list[Cell]]
    with_numbers: bool


@cache
def templates(module: str) -> jinja2.Environment:
    """Return the templates of the package that a module is in."""
    package, _, _ = module.rpartition(".")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package, "templates"), autoescape=True,
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    cast(Any, environment.filters).update(with_code=with_code)
    return environment


def with_code(text: str) -> Markup:
    """Return a text as HTML, with `code` as code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def render(name: str, **values: Any) -> Markup:
    """Render a template of this package."""
    template = templates(__name__).get_template(name)
    return Markup(template.render(**values))


def framed(body: Markup, text: str) -> str:
    """Return the HTML with the style that it needs; text is shown where styles are removed."""
    return render("notebook.html.jinja", body=body, text=text)


def comparison(found: np.ndarray, expected: np.ndarray, index: Sequence[int]) -> Markup:
    """Show a gradient, what it should be and the difference; the worst element is at index."""
    largest = max(largest_of(found), largest_of(expected))
    difference = found - expected
    maps = [
        heat_map("found", found, index, largest),
        heat_map("expected", expected, index, largest),
        heat_map("difference", difference, index, largest_of(difference)),
    ]
    return render("heat_maps.html.jinja", maps=maps)


def largest_of(array: np.ndarray) -> float:
    """Return the largest absolute value that is finite, or 0."""
    return float(np.abs(array[np.isfinite(array)]).max(initial=0.0))


def heat_map(title: str, array: np.ndarray, index: Sequence[int], largest: float) -> HeatMap:
    """Return the cells of the matrix around the element at index, in the last two axes."""
    matrix, leading = np.atleast_2d(array[tuple(index[:-2])]), [str(i) for i in index[:-2]]
    worst = (0, 0, *index)[-2:]
    rows, columns = map(window, matrix.shape, worst, (ROWS, COLUMNS))

    def within(row: object, column: object) -> str:
        """Return a place in the array, whose vectors and scalars have no rows."""
        last = [str(row), str(column)][2 - min(array.ndim, 2) :]
        return f"[{', '.join([*leading, *last])}]"

    def cell(row: int, column: int) -> Cell:
        number = float(matrix[row, column])
        sign = "plus" if number > 0 else "minus" if number < 0 else "zero"
        fraction = min(abs(number) / (largest or 1.0), 1.0) if np.isfinite(number) else 1.0
        return Cell(
            f"{number:.3g}", within(row, column), sign if np.isfinite(number) else "bad",
            round(100 * fraction**0.8), (row, column) == worst,
        )  # fmt: skip

    part = within(*map(side, (rows, columns), matrix.shape))
    is_part = any(character.isdigit() for character in part)
    cells = [[cell(row, column) for column in columns] for row in rows]
    with_numbers = len(rows) * len(columns) <= FEW
    return HeatMap(title, part if is_part else "", f"{largest:.3g}", cells, with_numbers)


def window(length: int, center: int, most: int) -> range:
    """Return at most this many indices of an axis, around the center."""
    start = min(max(center - most // 2, 0), max(length - most, 0))
    return range(start, min(start + most, length))


def side(shown: range, length: int) -> str:
    """Return the slice of an axis that is shown."""
    return ":" if len(shown) == length else f"{shown.start}:{shown.stop}"
