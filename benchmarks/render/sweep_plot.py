"""The panels of a sweep as an SVG picture."""

import io
import itertools
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness.analysis import Interval
from benchmarks.render.cells import MINE
from benchmarks.render.roofline import spread
from benchmarks.render.sweep import LIMIT, RUNG, TRAINED, Line, Panel, panels

# In a light window and in a dark one.
COLOURS = {
    "paper": ("#ffffff", "#14171a"), "ink": ("#1c2024", "#e4e8ec"), "grid": ("#d8dde2", "#343a41"),
    LIMIT: ("#2b3138", "#d3d9de"), RUNG: ("#6b7580", "#98a3ae"), TRAINED: ("#1a7f4b", "#5cc98b"),
    MINE: ("#0b64b4", "#6cb4f0"),
}  # fmt: skip
REFERENCES = (("#6b4fa8", "#b39ddb"), ("#a8560c", "#f0a35e"), ("#a82c6e", "#f08fc0"))
# Inches of the axes, of the margins, and of a letter in the right one; points between two names.
ACROSS, UP, LEFT, BOTTOM, TOP, RIGHT, LETTER = 4.4, 2.75, 0.65, 0.5, 0.35, 0.3, 0.075
GAP = 10
# Speeds are drawn on a logarithmic axis if they differ by more than this factor.
WIDE = 20
FAR = 300  # with ticks at powers of ten only
DASHES = ("-", "--", ":")  # by the number of threads
LETTERS = 60  # that fit below an axis


def write(found: Mapping[str, Any], path: Path) -> None:
    """Write the picture of all directions to a new file."""
    with path.open("x", encoding="utf-8") as file:
        file.write(draw(panels(found)))


def draw(shown: Sequence[Panel]) -> str:
    """Return panels as an SVG picture whose colours follow the window's, two in a row."""
    # Imported here because that takes half a second.
    import matplotlib
    from matplotlib.figure import Figure

    columns, rows = min(len(shown), 2), -(-len(shown) // 2)
    longest = max((len(line.name) for panel in shown for line in panel.lines), default=0)
    width, height = LEFT + ACROSS + RIGHT + LETTER * longest, BOTTOM + UP + TOP
    style: dict[Any, Any] = {
        "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9, "svg.hashsalt": "",
        "axes.spines.top": False, "axes.spines.right": False, "axes.unicode_minus": False,
        "text.parse_math": False,
    }  # fmt: skip
    style |= dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"),
        COLOURS["ink"][0],
    )
    with matplotlib.rc_context(style), warnings.catch_warnings():  # pyright: ignore[reportUnknownMemberType]
        # Fonts here may lack the letters of a kernel's name.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        all_width, all_height = width * columns, height * rows
        figure: Any = Figure((all_width, all_height), facecolor=COLOURS["paper"][0])
        for place, panel in enumerate(shown):
            row, column = divmod(place, 2)
            left, bottom = width * column + LEFT, height * (rows - 1 - row) + BOTTOM
            box = left / all_width, bottom / all_height, ACROSS / all_width, UP / all_height
            draw_panel(figure.add_axes(box, facecolor="none"), panel)
        svg = io.StringIO()
        figure.savefig(svg, format="svg", metadata={"Date": None})
    return svg.getvalue().replace("</style>", f"{dark_mode()}</style>", 1)


def dark_mode() -> str:
    """Return the style that replaces the colours in a dark window."""
    rules = "".join(
        f'[style*="{part}: {light}"] {{ {part}: {dark} !important }} '
        for light, dark in (*COLOURS.values(), *REFERENCES)
        for part in ("fill", "stroke")
    )
    return f"@media (prefers-color-scheme: dark) {{ {rules}}}"


def draw_panel(axes: Any, panel: Panel) -> None:
    """Draw the lines of a panel with bands for their intervals, and their names at the right."""
    lines = [line for line in panel.lines if line.speeds]
    others = [line.kind for line in lines if line.kind not in COLOURS]
    colours = COLOURS | dict(zip(dict.fromkeys(others), itertools.cycle(REFERENCES), strict=False))
    counts = sorted({line.threads for line in lines})
    for line in lines:
        colour, sizes = colours[line.kind][0], sorted(line.speeds)
        medians, lows, highs, _ = zip(*(line.speeds[size] for size in sizes), strict=True)
        axes.plot(
            sizes, medians, DASHES[min(counts.index(line.threads), 2)], color=colour,
            linewidth=2 if line.kind in (TRAINED, MINE) else 1,
            marker="" if line.kind == LIMIT else "o", markersize=3,
        )  # fmt: skip
        doubtful = sorted(line.doubts)
        axes.plot(
            doubtful, [line.speeds[size].median for size in doubtful], "o", markersize=4,
            color=colour, markerfacecolor=COLOURS["paper"][0],
        )  # fmt: skip
        axes.fill_between(sizes, lows, highs, color=colour, alpha=0.2, linewidth=0)
    axes.set_title(f"{panel.title}, {panel.unit}", loc="left", fontsize=10)
    doubts = any(line.doubts for line in lines)
    axes.set_xlabel(panel.letters + "   (hollow: proves nothing, see the table)" * doubts)
    axes.grid(color=COLOURS["grid"][0], linewidth=0.5)
    axes.set_axisbelow(True)
    scale(axes, panel.sizes, [speed for line in lines for speed in line.speeds.values()])
    add_names(axes, lines, colours)


def scale(axes: Any, sizes: Sequence[int], speeds: Sequence[Interval]) -> None:
    """Set the axes: sizes in equal steps on a linear one, speeds that differ little from 0."""
    steps = {after - before for before, after in itertools.pairwise(sizes)}
    if len(steps) > 1:
        axes.set_xscale("log", base=2)
    labels = [f"{size:,}" for size in sizes]
    every = -(-len(", ".join(labels)) // LETTERS)
    axes.set_xticks(sizes[::every], labels[::every])
    axes.set_xticks([], minor=True)
    most = max((speed.high for speed in speeds), default=1.0)
    least = min((speed.low for speed in speeds), default=1.0)
    if most > WIDE * least:
        axes.set_yscale("log", subs=[])
        axes.yaxis.get_major_locator().set_params(subs=(1, 2, 5) if most < FAR * least else (1,))
        axes.set_ylim(least / 1.5, most * 1.5)
    else:
        axes.set_ylim(0, most * 1.1)
    axes.yaxis.set_major_formatter("{x:g}")


def add_names(axes: Any, lines: Sequence[Line], colours: Mapping[str, tuple[str, str]]) -> None:
    """Write the name of each line at its right end, moved apart where they are close."""
    box, points = axes.get_window_extent(), 72 / axes.figure.dpi
    ends = [(size := max(line.speeds), line.speeds[size].median) for line in lines]
    heights = [(axes.transData.transform(end)[1] - box.y0) * points for end in ends]
    ordered = sorted(zip(heights, ends, lines, strict=True), key=lambda each: each[0])
    places = spread([height for height, *_ in ordered], GAP, 0)
    for place, (_, end, line) in zip(places, ordered, strict=True):
        axes.annotate(
            line.name, end, (box.width * points + 12, place), textcoords="axes points",
            color=colours[line.kind][0], va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": COLOURS["grid"][0], "linewidth": 0.7},
        )  # fmt: skip
