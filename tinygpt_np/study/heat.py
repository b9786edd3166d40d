"""A heat map in a terminal: an array as rows of cells, the larger the denser, with a sign."""

import numpy as np
from rich.style import Style
from rich.text import Text

from tinygpt_np.config import counted

# Blue below zero and red above; the minus is for eyes and terminals without colours.
SHADES = ("·", "░", "▒", "▓", "█")
ROWS = 32


def picture(array: np.ndarray, width: int) -> Text:
    """The array with all axes but the last one on top of another, cut where there is no room."""
    rows = array.reshape(-1, array.shape[-1])  # (..., last)
    columns = max(width // 2 - 1, 1)
    largest = float(np.abs(rows[np.isfinite(rows)]).max(initial=0.0)) or 1.0
    text = Text()
    for row in rows[:ROWS, :columns]:
        for number in row:
            text.append(*cell(float(number), largest))
        text.append(" …\n" if rows.shape[1] > columns else "\n")
    if len(rows) > ROWS:
        text.append(f"… {counted(len(rows) - ROWS, 'more row')}\n")
    return text.append(f"minus and blue below 0, red above; full at ±{largest:.3g}", style="dim")


def cell(number: float, largest: float) -> tuple[str, Style]:
    if not np.isfinite(number):
        return "??", Style(color="magenta", reverse=True)
    share = min(abs(number) / largest, 1.0)
    shade = SHADES[min(int(share * len(SHADES)), len(SHADES) - 1)]
    sign = "-" if number < 0 and shade != SHADES[0] else " "
    return sign + shade, Style(color="red" if number > 0 else "blue")
