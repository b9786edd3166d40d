"""The picture of a sweep."""

import itertools
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.harness.analysis import Interval
from benchmarks.render import sweep_plot
from benchmarks.render.sweep import LIMIT, RUNG, TRAINED, Line, Panel

NAMESPACE = "{http://www.w3.org/2000/svg}"


def line(name: str, kind: str, *speeds: float, threads: int = 1) -> Line:
    """Return a line over 64, 128, …; intervals are 10 % wide."""
    named = {
        64 << place: Interval(speed, 0.9 * speed, 1.1 * speed, 0.95)
        for place, speed in enumerate(speeds)
    }
    return Line(name, kind, threads, named)


def panel(*lines: Line, sizes: tuple[int, ...] = (64, 128, 256)) -> Panel:
    return Panel("matmul", "forward", "N=C=K", "GFLOP/s", sizes, lines)


LINES = [
    line("a < b", RUNG, 1.0, 2.0, 1.5), line("ours", TRAINED, 3.0, 4.0, 5.0),
    line("ours ×2", TRAINED, 3.0, 4.0, 5.0, threads=2), line("theirs", "theirs torch", 2.0, 3.0),
    line("mine", "mine", 2.5, 3.5, 4.5), line("limit", LIMIT, 9.0, 9.0, 9.0),
    Line("wrong", RUNG, 1, {}, {64: "WRONG"}),
]  # fmt: skip


def words(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return [text for each in root.iter(f"{NAMESPACE}text") if (text := each.text)]


def test_lines_are_named_and_axes_have_the_sizes_and_the_unit() -> None:
    found = words(sweep_plot.draw([panel(*LINES)]))
    assert {"matmul forward, GFLOP/s", "N=C=K", "64", "128", "256"} < {*found}
    assert {"a < b", "ours", "ours ×2", "theirs", "mine", "limit"} < {*found}
    assert "wrong" not in found


def test_names_are_apart_where_lines_end_at_the_same_speed() -> None:
    lines = [line(f"name {number}", RUNG, 1.0, 2.0, 5.0) for number in range(4)]
    root = ElementTree.fromstring(sweep_plot.draw([panel(*lines)]))
    heights = sorted(
        float(each.attrib["y"])
        for each in root.iter(f"{NAMESPACE}text")
        if (each.text or "").startswith("name")
    )
    gaps = [after - before for before, after in itertools.pairwise(heights)]
    assert len(gaps) == 3
    assert min(gaps) >= sweep_plot.GAP - 0.01


def test_points_that_prove_nothing_are_hollow() -> None:
    clear, doubtful = line("a", RUNG, 1.0, 2.0), line("a", RUNG, 1.0, 2.0)
    doubtful.doubts[64] = "waited"
    hollow = f"fill: {sweep_plot.COLOURS['paper'][0]}; stroke: {sweep_plot.COLOURS[RUNG][0]}"
    for each, found in ((clear, False), (doubtful, True)):
        svg = sweep_plot.draw([panel(each)])
        assert (hollow in svg) == found
        assert ("hollow: proves nothing" in svg) == found


def test_a_long_name_widens_the_picture() -> None:
    short, long = (
        ElementTree.fromstring(sweep_plot.draw([panel(line(name, RUNG, 1.0, 2.0, 3.0))]))
        for name in ("a", "my_very_long_file_name.py:forward")
    )
    widths = [float(each.attrib["viewBox"].split()[2]) for each in (short, long)]
    assert widths[1] - widths[0] == pytest.approx(72 * 32 * sweep_plot.LETTER, abs=1)


def test_every_colour_has_one_for_a_dark_window_and_each_kind_its_own() -> None:
    svg = sweep_plot.draw([panel(*LINES)])
    style, drawing = re.split("</style>", svg, maxsplit=1)
    dark = style.split("prefers-color-scheme: dark")[1]
    used = {*re.findall(r"(?:fill|stroke): #\w{6}", drawing)}
    assert len(used) > 12
    assert all(f'[style*="{each}"]' in dark for each in used)
    kinds = {*re.findall(r"fill: (#\w{6}); fill-opacity", drawing)}
    assert len(kinds) == len({each.kind for each in LINES})


def light(colour: str) -> float:
    """Return the relative luminance of a colour (WCAG 2.1)."""
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_names_can_be_read_in_a_light_and_in_a_dark_window() -> None:
    named = {key: pair for key, pair in sweep_plot.COLOURS.items() if key not in ("paper", "grid")}
    for pair in (*named.values(), *sweep_plot.REFERENCES):
        for colour, paper in zip(pair, sweep_plot.COLOURS["paper"], strict=True):
            low, high = sorted((light(colour), light(paper)))
            assert (high + 0.05) / (low + 0.05) > 4.5, colour


@pytest.mark.parametrize(
    ("speeds", "ticks"),
    [((1.0, 2.0), {"0"}), ((1.0, 100.0), {"1", "2", "5"}), ((1.0, 1e3), {"10"})],
)
def test_speeds_that_differ_much_have_a_logarithmic_axis(
    speeds: tuple[float, ...], ticks: set[str]
) -> None:
    assert ticks <= {*words(sweep_plot.draw([panel(line("a", RUNG, *speeds), sizes=(64, 128))]))}


def test_many_sizes_and_one_size_have_readable_ticks() -> None:
    many = tuple(range(10_000, 20_000, 100))
    wide = Line("a", RUNG, 1, {size: Interval(1.0, 1.0, 1.0, 1.0) for size in many})
    labels = [text for text in words(sweep_plot.draw([panel(wide, sizes=many)])) if "," in text]
    assert 5 < len(labels) < 12
    assert "64" in words(sweep_plot.draw([panel(line("a", RUNG, 1.0), sizes=(64,))]))
    # Nothing was timed.
    assert "64" in words(sweep_plot.draw([panel(line("a", RUNG), sizes=(64,))]))


def test_a_file_is_new(tmp_path: Path) -> None:
    path = tmp_path / "a.svg"
    sweep_plot.write({"cases": [], "options": {}}, path)
    with pytest.raises(FileExistsError):
        sweep_plot.write({"cases": [], "options": {}}, path)
