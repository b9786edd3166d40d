"""Draw arrays in the terminal: numbers, shades of a heat map, or the fields of a mask.

An array with more than two axes is drawn as slices along the last two, each with its indices.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
from rich.console import RenderableType
from rich.padding import Padding
from rich.style import Style
from rich.text import Text

from tinygpt_np.config import counted
from tinygpt_np.gradcheck.report import shape_text, value

# The maximum number of elements of an array that is printed in numbers: of floats, of others.
PRINTED, PRINTED_INTEGERS = 36, 200
# The maximum width and number of lines of a slice, and of all slices.
WIDTH, LINES, ALL_LINES = 140, 32, 48
INDENT, GAP = 4, 3
# Blue below zero and red above. The minus sign is for terminals and readers without colours.
SHADES = ("·", "░", "▒", "▓", "█")

Cell = Callable[[Any], tuple[str, Style | str]]


def array(name: str, numbers: Any, width: int) -> Iterator[RenderableType]:
    """Show an array with its name, shape and norm; a large one is drawn instead of printed."""
    found = np.asarray(numbers)
    size = f", norm {norm(found)}" if norm(found) else ""
    yield Text(f"{name}  {shape_text(found.shape)}{size}", style="bold")
    for part in drawn(found, min(width, WIDTH) - INDENT):
        yield Padding(part, (0, 0, 0, INDENT), expand=False)


def norm(array: Any) -> str:
    """Return the norm of an array as text, or "" if it is not an array of floats."""
    found = np.asarray(array) if array is not None else np.asarray("")
    return f"{float(np.linalg.norm(found)):.4g}" if found.dtype.kind == "f" else ""


def drawn(array: np.ndarray, width: int) -> Iterator[Text]:
    """Yield a drawing of an array, with what its cells mean."""
    if array.dtype == bool:
        yield from side_by_side(array, width, mask_cell)
        yield Text("█ true, · false", style="dim")
    elif array.dtype.kind not in "fiu" or array.ndim == 0:
        yield Text(np.array2string(array, precision=4, threshold=PRINTED_INTEGERS))
    elif array.size <= (PRINTED if array.dtype.kind == "f" else PRINTED_INTEGERS):
        yield from side_by_side(array, width, None)
    else:
        lowest, highest, mean = (value(float(f(array))) for f in (np.min, np.max, np.mean))
        yield Text(f"from {lowest} to {highest}, mean {mean}")
        finite = np.abs(array[np.isfinite(array)])
        largest = float(finite.max(initial=0.0)) or 1.0
        yield from side_by_side(array, width, lambda number: cell(float(number), largest))
        yield Text(f"minus and blue below 0, red above; █ at ±{largest:.3g}", style="dim")


def side_by_side(array: np.ndarray, width: int, draw: Cell | None) -> Iterator[Text]:
    """Yield the slices of an array, as many next to each other as fit; None prints numbers."""
    blocks = [
        [Text(label, style="dim"), *rows] if label else rows
        for label, rows in slices(array, width, draw)
    ]
    used = 0
    while blocks:
        taken, room = 0, width
        while taken < len(blocks) and (taken == 0 or room >= width_of(blocks[taken])):
            room -= width_of(blocks[taken]) + GAP
            taken += 1
        group, blocks = blocks[:taken], blocks[taken:]
        for row in range(max(map(len, group))):
            yield joined([block[row] if row < len(block) else Text() for block in group], group)
        used += max(map(len, group))
        if blocks and used > ALL_LINES:
            yield Text(f"… {counted(len(blocks), 'more slice')}")
            return


def slices(array: np.ndarray, width: int, draw: Cell | None) -> Iterator[tuple[str, list[Text]]]:
    """Yield the index of each slice along the last two axes, and its lines."""
    matrix = array if draw is None else array.reshape((1,) * (2 - array.ndim) + array.shape)
    lead = matrix.shape[:-2]
    columns = max(width // 2 - 1, 1)
    for index in np.ndindex(lead):
        label = f"[{', '.join(map(str, index))}]" if lead else ""
        if draw is None:
            text = np.array2string(
                matrix[index], precision=4, suppress_small=True, max_line_width=width
            )
            yield label, [Text(line) for line in text.splitlines()]
            continue
        lines = [drawn_row(row, columns, draw) for row in islice(matrix[index], LINES)]
        if len(matrix[index]) > LINES:
            lines.append(Text(f"… {counted(len(matrix[index]) - LINES, 'more row')}"))
        yield label, lines


def drawn_row(row: np.ndarray, columns: int, draw: Cell) -> Text:
    """Return a row of cells; those that do not fit are left out."""
    line = Text()
    for number in row[:columns]:
        line.append(*draw(number))
    return line.append(" …" if len(row) > columns else "")


def width_of(block: list[Text]) -> int:
    """Return the width of the lines of a block."""
    return max(line.cell_len for line in block)


def joined(lines: list[Text], blocks: list[list[Text]]) -> Text:
    """Return lines of blocks next to each other."""
    result = Text()
    for line, block in zip(lines, blocks, strict=True):
        result.append_text(line)
        result.append(" " * (width_of(block) - line.cell_len + GAP))
    result.rstrip()
    return result


def mask_cell(is_set: Any) -> tuple[str, Style | str]:
    """Return the cell of a mask."""
    return (" █", "") if is_set else (" ·", "dim")


def cell(number: float, largest: float) -> tuple[str, Style | str]:
    """Return the sign and shade of a number, and its colour."""
    if not np.isfinite(number):
        return "??", Style(color="magenta", reverse=True)
    fraction = min(abs(number) / largest, 1.0)
    shade = SHADES[min(int(fraction * len(SHADES)), len(SHADES) - 1)]
    sign = "-" if number < 0 and shade != SHADES[0] else " "
    return sign + shade, Style(color="red" if number > 0 else "blue")
