"""The roofline of a case."""

from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.render import roofline
from benchmarks.render.roofline import Axis

ROOFS = {1: {"peak": 100e9, "L1": 200e9, "memory": 10e9}, 2: {"peak": 200e9, "memory": 15e9}}
ROWS: list[dict[str, Any]] = [
    {"name": "loops", "tip": "loops: 1 ms", "speed": 0.01e9, "part": "ladder"},
    {"name": "a < b & c", "tip": "a < b:\n2 ms", "speed": 20e9, "part": "ladder"},
    {"name": "other", "tip": "other: 3 ms", "speed": 30e9, "part": "references"},
]


def test_points_and_roofs_are_drawn_with_titles_and_rungs_are_connected() -> None:
    svg = ElementTree.fromstring(roofline.draw(2.0, ROWS, ROOFS))
    titles = {title.text for title in svg.iter("title")}
    assert {row["tip"] for row in ROWS} < titles
    assert {"peak, 2 threads: 200 GFLOP/s", "memory, 1 thread: 10 GB/s"} < titles
    assert {"a < b & c", "loops", "L1", "peak"} < {text.text for text in svg.iter("text")}
    (path,) = svg.iter("polyline")
    assert len(path.attrib["points"].split()) == 2
    heights = [float(circle.attrib["cy"]) for circle in svg.iter("circle")]
    assert roofline.TOP < heights[0] < heights[1] < heights[2] < roofline.BOTTOM
    # A ridge is where a bandwidth suffices for the peak.
    lines = {line.findtext("title"): line.attrib for line in svg.iter("line")}
    bandwidth, peak = lines["L1, 1 thread: 200 GB/s"], lines["peak, 1 thread: 100 GFLOP/s"]
    assert (bandwidth["x2"], bandwidth["y2"]) == (peak["x1"], peak["y1"])
    assert "<circle" in roofline.draw(2.0, ROWS, {})


def test_roofs_are_those_of_peaks_and_triads_by_threads() -> None:
    limits = ("peak", 1, None), ("triad", 1, "L1"), ("triad", 2, "L1"), ("BLAS", 1, None)
    measured = [
        {"name": name, "threads": threads, "where": where, "rate": (float(number), 0, 9, 0.9)}
        for number, (name, threads, where) in enumerate(limits)
    ]
    assert roofline.roofs(measured) == {1: {"peak": 0.0, "L1": 1.0}, 2: {"L1": 2.0}}


def test_an_axis_is_logarithmic_and_marked_at_powers_of_ten() -> None:
    axis = Axis(0.5, 500, 0, 300)
    assert axis.place(50) - axis.place(5) == pytest.approx(100)
    assert axis.ticks() == [1, 10, 100]


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([1.0, 1.0, 5.0], [0.95, 1.05, 5.0]),
        # Not outside of the picture.
        ([0.05, 0.1, 0.1, 0.2, 0.45], [0.0, 0.1, 0.2, 0.3, 0.45]),
    ],
)
def test_labels_that_overlap_are_moved_apart(places: list[float], expected: list[float]) -> None:
    assert roofline.spread(places, 0.1, 0.0) == pytest.approx(expected)
