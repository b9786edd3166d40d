"""Sweeps of sizes: 64:2048:x2, 64:512:+64 or 64,96,128, for the letters in front of a =, if any."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.cases.shapes import USUAL, size

LIST = re.compile(r"\d{1,10}(,\d{1,10})*", re.ASCII)
RANGE = re.compile(r"(\d{1,10}):(\d{1,10}):([x+])(\d{1,10}\.?\d{0,10})", re.ASCII)
FORMS = "LOW:HIGH:xFACTOR, LOW:HIGH:+STEP or a list such as 64,96,128"
MOST = 100  # sizes


@dataclass(frozen=True)
class Sweep:
    """Ascending sizes, for some letters together; without any for those that the operation has."""

    letters: Sequence[str]
    numbers: Sequence[int]

    def shapes(self, swept: str, base: str) -> list[str]:
        """Return the shapes, given the letters of the operation; other sizes are those of base."""
        letters = "=".join(self.letters or swept)
        before = "" if base == USUAL else f"{base},"
        return [f"{before}{letters}={number}" for number in self.numbers]


def sweep(text: str) -> Sweep:
    """Return a sweep, or raise ValueError with one line."""
    *letters, span = text.replace(" ", "").split("=")
    numbers = sorted({size(str(number), "a size") for number in numbers_of(span)})
    return Sweep(tuple(letters), tuple(numbers))


def numbers_of(span: str) -> Iterator[int]:
    """Yield the sizes of a range or list."""
    if LIST.fullmatch(span):
        yield from map(int, span.split(","))
        return
    match = RANGE.fullmatch(span)
    if match is None:
        raise ValueError(f"must be {FORMS}, not {span or 'nothing'}")
    low, high, step = int(match[1]), int(match[2]), float(match[4])
    if low > high or step <= (match[3] == "x"):
        raise ValueError(f"must rise, unlike {span}")
    value = float(low)
    for _ in range(MOST):
        yield round(value)
        value = value * step if match[3] == "x" else value + step
        if value > high:
            return
    raise ValueError(f"must be at most {MOST} sizes, unlike {span}")
