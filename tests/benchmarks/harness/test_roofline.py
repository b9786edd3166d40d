"""The roofline of a case."""

from xml.etree import ElementTree

import pytest

from benchmarks.harness import roofline
from benchmarks.harness.roofline import Axis, Point, Roofs

ROOFS = Roofs({1: 100e9, 2: 200e9}, {1: {"L1": 200e9, "memory": 10e9}, 2: {"memory": 15e9}})
POINTS = [
    Point("loops", "loops: 1 ms", 0.01e9, True),
    Point("a < b & c", "a < b:\n2 ms", 20e9, True),
    Point("other", "other: 3 ms", 30e9, False),
]


def drawn(points: list[Point] = POINTS, above: Roofs = ROOFS) -> ElementTree.Element:
    return ElementTree.fromstring(roofline.draw(2.0, points, above))


def texts(tag: str, svg: ElementTree.Element) -> set[str]:
    return {"".join(found.itertext()) for found in svg.iter(tag)}


def test_roofs_are_those_of_peaks_and_triads_by_threads() -> None:
    measured = [
        {"name": name, "threads": threads, "where": where, "rate": (rate, 0, 9, 0.9)}
        for name, threads, where, rate in (
            ("peak", 1, None, 5.0), ("triad", 1, "L1", 3.0), ("triad", 2, "L1", 4.0),
            ("BLAS", 1, None, 2.0),
        )
    ]  # fmt: skip
    assert roofline.roofs(measured) == ({1: 5.0}, {1: {"L1": 3.0}, 2: {"L1": 4.0}})


def test_points_and_roofs_have_titles_for_hovering() -> None:
    expected = {point.title for point in POINTS}
    expected |= {"peak, 2 threads: 200 GFLOP/s", "memory, 1 thread: 10 GB/s"}
    assert expected <= texts("title", drawn())
    assert {"a < b & c", "loops", "L1", "peak"} <= texts("text", drawn())
    assert "loops" in texts("text", drawn(above=Roofs({}, {})))


def test_only_the_rungs_of_the_ladder_are_connected() -> None:
    (line,) = drawn().iter("polyline")
    assert len(line.attrib["points"].split()) == 2


def test_the_points_are_where_their_speed_is() -> None:
    heights = [float(circle.attrib["cy"]) for circle in drawn().iter("circle")]
    assert len(set(heights)) == 3
    assert all(roofline.TOP < height < roofline.BOTTOM for height in heights)


def test_a_ridge_is_where_a_bandwidth_suffices_for_the_peak() -> None:
    lines = [each for each in drawn().iter("line") if "L1" in (each.findtext("title") or "")]
    (peak,) = (e for e in drawn().iter("line") if "peak, 1" in (e.findtext("title") or ""))
    assert lines[0].attrib["x2"] == peak.attrib["x1"]
    assert lines[0].attrib["y2"] == peak.attrib["y1"]


def test_an_axis_is_logarithmic_and_marked_at_powers_of_ten() -> None:
    axis = Axis(0.5, 500, 0, 300)
    assert axis.place(50) - axis.place(5) == pytest.approx(100)
    assert axis.ticks() == [1, 10, 100]


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([0.0, 1.0, 5.0], [0.0, 1.0, 5.0]),
        ([1.0, 1.0], [0.95, 1.05]),
        # Not outside of the picture.
        ([0.05, 0.1, 0.1, 0.2, 0.45], [0.0, 0.1, 0.2, 0.3, 0.45]),
    ],
)
def test_labels_that_overlap_are_moved_apart(places: list[float], expected: list[float]) -> None:
    assert roofline.spread(places, 0.1, 0.0) == pytest.approx(expected)
