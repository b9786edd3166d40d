"""The roofline of a case as SVG: the limits of the machine and the speed of each rung.

Williams, Waterman, Patterson, "Roofline: an insightful visual performance model", 2009. Both axes
are logarithmic. Colours are the CSS variables of the page that contains the picture.
"""

import math
from collections.abc import Iterator
from html import escape
from typing import Any, NamedTuple

from benchmarks.render.cells import GIGA, LADDER, MINE, REFERENCES, several

WIDTH, HEIGHT = 446.0, 302.0
LEFT, RIGHT, TOP, BOTTOM = 45.0, 441.0, 6.0, 266.0  # of the axes
# Least distance of two labels, distance of a label from its point, radius of a point.
GAP, ASIDE, RADIUS = 13.0, 20.0, 3.0
COLOURS = {LADDER: "var(--good)", MINE: "var(--mine)", REFERENCES: "var(--peer)"}

# By threads: FLOP/s as "peak", and bytes/s by cache.
Roofs = dict[int, dict[str, float]]


class Axis(NamedTuple):
    """A logarithmic axis from `low` to `high`, drawn from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        """Return where a value is drawn."""
        fraction = math.log(value / self.low) / math.log(self.high / self.low)
        return self.start + fraction * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Return the powers of ten on the axis."""
        first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
        return [10.0**power for power in range(first, last + 1)]


def roofs(limits: list[dict[str, Any]]) -> Roofs:
    """Return the roofs from the limits of a machine."""
    found: Roofs = {}
    for limit in limits:
        if limit["name"] in ("peak", "triad"):
            name = limit["where"] or limit["name"]
            found.setdefault(limit["threads"], {})[name] = limit["rate"][0]
    return found


def draw(intensity: float, rows: list[dict[str, Any]], above: Roofs) -> str:
    """Return the picture of a case and of the rows of page.view_row. intensity: FLOPs per byte."""
    speeds = [row["speed"] for row in rows]
    speeds += [rates["peak"] for rates in above.values()]
    ridges = [
        rates["peak"] / rate
        for rates in above.values()
        for where, rate in rates.items()
        if where != "peak"
    ]
    right = 3 * max([10 * intensity, *ridges])
    across = Axis(min([intensity, *ridges]) / 4, right, LEFT, RIGHT)
    up = Axis(min(speeds) / 2 / GIGA, max(speeds) * 2.5 / GIGA, BOTTOM, TOP)
    parts = [
        *axes(across, up),
        *roof_lines(above, across, up),
        *marks(across.place(intensity), rows, up),
    ]
    box = f"0 0 {WIDTH:g} {HEIGHT:g}"
    return f'<svg viewBox="{box}" font-size="9" aria-hidden="true">{"".join(parts)}</svg>'


def axes(across: Axis, up: Axis) -> Iterator[str]:
    """Yield the grid, its numbers and the names of the axes."""
    for value in across.ticks():
        x = across.place(value)
        yield line(x, TOP, x, BOTTOM, "--line", 0.5)
        yield text(x, BOTTOM + 12, f"{value:g}", "--quiet", "middle")
    for value in up.ticks():
        y = up.place(value)
        yield line(LEFT, y, RIGHT, y, "--line", 0.5)
        yield text(LEFT - 4, y + 3, f"{value:g}", "--quiet", "end")
    yield text((LEFT + RIGHT) / 2, HEIGHT - 8, "FLOP/byte", "--ink", "middle")
    turned = f"translate(10 {(TOP + BOTTOM) / 2}) rotate(-90)"
    yield text(0, 0, "GFLOP/s", "--ink", "middle", turned)


def roof_lines(above: Roofs, across: Axis, up: Axis) -> Iterator[str]:
    """Yield the roofs: solid and labelled for the fewest threads, dashed for more."""
    for order, (threads, rates) in enumerate(sorted(above.items())):
        peak = rates["peak"]
        bandwidths = {where: rate for where, rate in rates.items() if where != "peak"}
        start = max(peak / max(bandwidths.values(), default=math.inf), across.low)
        y = up.place(peak / GIGA)
        title = f"peak, {several(threads)}: {peak / GIGA:.0f} GFLOP/s"
        yield line(across.place(start), y, RIGHT, y, "--ink", 1.1, bool(order), title)
        if not order:
            yield text(RIGHT, y - 3, "peak", "--quiet", "end")
        for where, rate in bandwidths.items():
            # From the left or the bottom of the axes to the peak.
            first, last = max(across.low, up.low * GIGA / rate), peak / rate
            (x, y), (x2, y2) = (
                (across.place(at), up.place(at * rate / GIGA)) for at in (first, last)
            )
            title = f"{where}, {several(threads)}: {rate / GIGA:.0f} GB/s"
            yield line(x, y, x2, y2, "--quiet", 1.1, bool(order), title)
            if not order:
                slope = math.degrees(math.atan2(y2 - y, x2 - x))
                turned = f"translate({x + 6:.1f} {y - 8:.1f}) rotate({slope:.1f})"
                yield text(0, 0, where, "--quiet", "start", turned)


def marks(x: float, rows: list[dict[str, Any]], up: Axis) -> Iterator[str]:
    """Yield points with labels and titles for hovering; the rungs of the ladder are connected."""
    placed = [(up.place(row["speed"] / GIGA), row) for row in rows]
    path = " ".join(f"{x:.1f},{y:.1f}" for y, row in placed if row["part"] == LADDER)
    yield f'<polyline points="{path}" fill="none" stroke="var(--good)"/>'
    placed.sort(key=lambda pair: pair[0])
    labels = spread([y for y, _ in placed], GAP, TOP + GAP / 2)
    for (y, row), beside in zip(placed, labels, strict=True):
        yield line(x, y, x + ASIDE, beside, "--line", 0.8)
        yield text(x + ASIDE, beside + 3, row["name"], "--ink", "start")
        colour = COLOURS[row["part"]]
        fill = "var(--paper)" if row["part"] == REFERENCES else colour
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{RADIUS:g}" stroke="{colour}" fill="{fill}">'
        yield f"<title>{escape(row['tip'])}</title></circle>"


def spread(places: list[float], gap: float, least: float) -> list[float]:
    """Move ascending places `gap` apart, close ones around their common center, from `least` on."""
    groups: list[list[float]] = []

    def start_of(group: list[float]) -> float:
        return max(sum(group) / len(group) - gap * (len(group) - 1) / 2, least)

    for place in places:
        groups.append([place])
        while len(groups) > 1 and (
            start_of(groups[-2]) + gap * len(groups[-2]) > start_of(groups[-1])
        ):
            groups[-2:] = [groups[-2] + groups[-1]]
    return [start_of(group) + gap * number for group in groups for number in range(len(group))]


def line(
    x1: float, y1: float, x2: float, y2: float, colour: str, width: float, dashed: bool = False,
    title: str = "",
) -> str:  # fmt: skip
    """Return a line, with a title shown on hovering."""
    dashes = ' stroke-dasharray="4 2"' if dashed else ""
    shown = f"<title>{escape(title)}</title>" if title else ""
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="var({colour})" stroke-width="{width:g}"{dashes}>{shown}</line>'


def text(x: float, y: float, words: str, colour: str, anchor: str, transform: str = "") -> str:
    """Return a text in the font of the page."""
    turned = f' transform="{transform}"' if transform else ""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{turned}'
    return f'<text {place} fill="var({colour})">{escape(words)}</text>'
