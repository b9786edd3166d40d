"""The roofline of a task as SVG: what bounds a kernel, and how near each rung comes to it.

Williams, Waterman, Patterson, "Roofline: an insightful visual performance model", 2009. Its text
stays text, and its colours are the variables of the page that it is put into.
"""

import io
import math
import re
import warnings
from typing import Any, NamedTuple
from xml.etree import ElementTree

GIGA = 1e9
WIDTH, HEIGHT = 6.2, 4.2  # inches, of 72 units of the SVG
INNER = (0.1, 0.12, 0.89, 0.86)  # where the axes lie; a layout engine would take twice as long.
SVG, LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
# What is drawn in these colours has the page's in the end.
INK, QUIET, LINE, PAPER, RUNG, PEER = (f"#0100{number:02d}" for number in range(1, 7))
VARIABLES = {
    INK: "--ink", QUIET: "--quiet", LINE: "--line", PAPER: "--paper", RUNG: "--good",
    PEER: "--peer",
}  # fmt: skip
# Labels keep this share of the height from each other, those of points this share of the width from
# them, and those of lines from where the line begins.
GAP, ASIDE, INSIDE = 0.05, 0.05, 0.02


class Point(NamedTuple):
    """Somebody's speed. step: whether of the ladder; title: what is shown of it when pointed at."""

    label: str
    title: str
    flops_per_second: float
    step: bool


class Roofs(NamedTuple):
    """By number of threads, FLOP/s at the peak and bytes/s from where the bytes lie."""

    peaks: dict[int, float]
    bandwidths: dict[int, dict[str, float]]

    @property
    def ridges(self) -> list[float]:
        """From which FLOPs a byte on each bandwidth suffices for the peak."""
        return [
            self.peaks[threads] / rate
            for threads, rates in self.bandwidths.items()
            if threads in self.peaks
            for rate in rates.values()
        ]


def roofs(limits: list[dict[str, Any]]) -> Roofs:
    found = Roofs({}, {})
    for limit in limits:
        rate, threads = limit["rate"]["median"], limit["threads"]
        if limit["name"] == "peak":
            found.peaks[threads] = rate
        elif limit["name"] == "triad":
            found.bandwidths.setdefault(threads, {})[limit["where"]] = rate
    return found


def draw(name: str, intensity: float, points: list[Point], above: Roofs) -> str:
    """The SVG of a task, as part of a page.

    name: unlike that of any other picture there, for its ids depend on it. intensity: FLOPs a byte.
    points: the ladder's in its order.
    """
    import matplotlib
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 9}
    # The page has the fonts: the ones here need not have every letter of a name.
    with matplotlib.rc_context(style), warnings.catch_warnings():  # pyright: ignore[reportUnknownMemberType]
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure: Any = Figure(figsize=(WIDTH, HEIGHT))
        figure.patch.set_visible(False)
        axes: Any = figure.add_axes(INNER)
        across, upwards = spans(intensity, points, above)
        furnish(axes, across, upwards)
        titles = draw_roofs(axes, above, across, upwards[0])
        titles |= draw_points(axes, intensity, points)
        write_labels(axes, intensity, points, across, upwards)
        picture = io.BytesIO()
        figure.savefig(picture, format="svg")
    return for_page(picture.getvalue().decode(), titles)


def furnish(axes: Any, across: tuple[float, float], upwards: tuple[float, float]) -> None:
    axes.patch.set_visible(False)
    axes.set(xscale="log", yscale="log", xlim=across, ylim=upwards)
    axes.minorticks_off()
    axes.set_xlabel("FLOP a byte", color=INK)
    axes.set_ylabel("GFLOP/s", color=INK)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
    axes.tick_params(color=LINE, labelcolor=QUIET)
    axes.grid(color=LINE, linewidth=0.5)
    for side, spine in axes.spines.items():
        spine.set(color=LINE, visible=side in ("left", "bottom"))


def spans(
    intensity: float, points: list[Point], above: Roofs
) -> tuple[tuple[float, float], tuple[float, float]]:
    """What the axes show: all ridges and points, and room for labels right of them."""
    speeds = [point.flops_per_second / GIGA for point in points]
    speeds += [peak / GIGA for peak in above.peaks.values()]
    ridges = [intensity, *above.ridges]
    low, high = min(speeds, default=1), max(speeds, default=1)
    return (min(ridges) / 4, max(*ridges, 10 * intensity) * 3), (low / 2, high * 2.5)


def draw_roofs(
    axes: Any, above: Roofs, across: tuple[float, float], bottom: float
) -> dict[str, str]:
    """Solid for the fewest threads, which have labels too, dashed for more."""
    left, right = across
    titles: dict[str, str] = {}
    for order, (threads, peak) in enumerate(sorted(above.peaks.items())):
        style: dict[str, Any] = {"linewidth": 1.1, "linestyle": "--" if order else "-"}
        rates = above.bandwidths.get(threads, {})
        start = peak / max(rates.values(), default=math.inf)
        (roof,) = axes.plot([max(start, left), right], [peak / GIGA] * 2, color=INK, **style)
        roof.set_gid(f"roof-{threads}")
        titles[roof.get_gid()] = f"peak, {several(threads)}: {peak / GIGA:.0f} GFLOP/s"
        if not order:
            write(axes, "peak", (right, peak / GIGA), ha="right", va="bottom", color=QUIET)
        for where, rate in rates.items():
            ends = [left, peak / rate]
            heights = [end * rate / GIGA for end in ends]
            (line,) = axes.plot(ends, heights, color=QUIET, **style)
            line.set_gid(f"roof-{threads}-{where}")
            titles[line.get_gid()] = f"{where}, {several(threads)}: {rate / GIGA:.0f} GB/s"
            if not order:
                start = max(left, bottom * GIGA / rate) * (right / left) ** INSIDE
                place = (start, start * rate / GIGA)
                write(axes, where, place, slope=rate / GIGA, ha="left", va="bottom", color=QUIET)
    return titles


def draw_points(axes: Any, intensity: float, points: list[Point]) -> dict[str, str]:
    steps = [point.flops_per_second / GIGA for point in points if point.step]
    axes.plot([intensity] * len(steps), steps, color=RUNG, linewidth=1, zorder=3)
    titles: dict[str, str] = {}
    for number, point in enumerate(points):
        colour = RUNG if point.step else PEER
        (mark,) = axes.plot(
            [intensity], [point.flops_per_second / GIGA], "o" if point.step else "D",
            color=colour, markersize=6 if point.step else 5,
            markerfacecolor=colour if point.step else PAPER, zorder=4,
        )  # fmt: skip
        mark.set_gid(f"point-{number}")
        titles[mark.get_gid()] = point.title
    return titles


def write_labels(
    axes: Any, intensity: float, points: list[Point], across: tuple[float, float],
    upwards: tuple[float, float],
) -> None:  # fmt: skip
    """Beside the points, moved apart where they would hide each other, with a line to the point."""
    bottom, top = (math.log10(end) for end in upwards)
    gap = GAP * (top - bottom)
    beside = intensity * (across[1] / across[0]) ** ASIDE
    ordered = sorted(points, key=lambda point: point.flops_per_second)
    heights = [math.log10(point.flops_per_second / GIGA) for point in ordered]
    for point, height, place in zip(ordered, heights, apart(heights, gap, top), strict=True):
        ends = ([intensity, beside], [10**height, 10**place])
        axes.plot(*ends, color=LINE, linewidth=0.8, zorder=2)
        write(axes, point.label, (beside, 10**place), ha="left", va="center", color=INK)


def apart(heights: list[float], gap: float, top: float) -> list[float]:
    """The heights, from the lowest on, moved so that each is `gap` above the one below.

    Those that were too near to each other stay around where they were together, below the top.
    """
    groups: list[list[float]] = []
    for height in heights:
        groups.append([height])
        while len(groups) > 1:
            (_, below), (above, _) = reach(groups[-2], gap, top), reach(groups[-1], gap, top)
            if below + gap <= above:
                break
            groups[-2:] = [groups[-2] + groups[-1]]
    lowest = [reach(group, gap, top)[0] for group in groups]
    return [
        low + number * gap
        for low, group in zip(lowest, groups, strict=True)
        for number in range(len(group))
    ]


def reach(group: list[float], gap: float, top: float) -> tuple[float, float]:
    """Where the lowest and the highest of a group come to lie."""
    height = gap * (len(group) - 1)
    highest = min(sum(group) / len(group) + height / 2, top)
    return highest - height, highest


def write(
    axes: Any, text: str, place: tuple[float, float], *, slope: float = 0, **style: Any
) -> None:
    """slope: of the line that the text is written along."""
    angle = math.degrees(math.atan(slope))
    along = {"rotation": angle, "rotation_mode": "anchor", "transform_rotates_text": True}
    # A $ in a name is a $.
    axes.text(*place, text, parse_math=False, fontsize=8, **along, **style)


def several(threads: int) -> str:
    return f"{threads} thread{'s' * (threads != 1)}"


def for_page(picture: str, titles: dict[str, str]) -> str:
    """Puts the titles in, keeps only the ids that are used, and lets the page choose colours, fonts
    and width.
    """
    for prefix, address in (("", SVG), ("xlink", LINK)):
        ElementTree.register_namespace(prefix, address)
    root = ElementTree.fromstring(picture)
    # The date, and a style that would be the whole page's.
    for parent, child in (("", "metadata"), ("defs", "style")):
        holder = root.find(f"{{{SVG}}}{parent}") if parent else root
        if holder is not None:
            for element in holder.findall(f"{{{SVG}}}{child}"):
                holder.remove(element)
    used = {found.group(1) for found in re.finditer(r"[\"(]#([^\")]+)", picture)}
    for element in root.iter():
        own = element.attrib.pop("id", None)
        if own in titles:
            title = ElementTree.Element(f"{{{SVG}}}title")
            title.text = titles[own]
            element.insert(0, title)
        if own is not None and own in used:
            element.set("id", own)
    for attribute in ("width", "height"):
        root.attrib.pop(attribute, None)
    root.set("aria-hidden", "true")
    text = ElementTree.tostring(root, encoding="unicode")
    text = re.sub(r" font-family: [^;\"]*;?", "", text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return re.sub(r">\s+<", "><", text)
