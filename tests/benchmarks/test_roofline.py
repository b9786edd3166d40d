"""The picture of what bounds a kernel."""

import itertools
import re
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import roofline
from benchmarks.roofline import Point, Roofs

ROOFS = Roofs({1: 100e9, 2: 200e9}, {1: {"L1": 200e9, "memory": 10e9}, 2: {"memory": 15e9}})
POINTS = [
    Point("loops", "loops: 1 ms", 0.01e9, True),
    Point("a < b & $c$", "a < b:\n2 ms", 20e9, True),
    Point("other", "other: 3 ms", 30e9, False),
]


def drawn(points: list[Point] = POINTS, above: Roofs = ROOFS, name: str = "t0") -> str:
    return roofline.draw(name, 2.0, points, above)


def texts(tag: str, svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return ["".join(found.itertext()) for found in root.iter(f"{{{roofline.SVG}}}{tag}")]


def limit(name: str, threads: int, where: str | None, rate: float) -> dict[str, Any]:
    return {"name": name, "threads": threads, "where": where, "rate": {"median": rate}}


def test_roofs_are_of_peaks_and_triads_by_threads() -> None:
    measured = [
        limit("peak", 1, None, 5.0), limit("triad", 1, "L1", 3.0), limit("triad", 2, "L1", 4.0),
        limit("BLAS", 1, None, 2.0),
    ]  # fmt: skip
    assert roofline.roofs(measured) == ({1: 5.0}, {1: {"L1": 3.0}, 2: {"L1": 4.0}})


def test_a_ridge_is_where_a_bandwidth_suffices_for_the_peak() -> None:
    assert sorted(ROOFS.ridges) == [0.5, 10.0, pytest.approx(200 / 15)]


def test_who_is_pointed_at_is_told() -> None:
    assert {point.title for point in POINTS} <= set(texts("title", drawn()))


def test_roofs_that_are_pointed_at_are_told() -> None:
    roofs = {"peak, 2 threads: 200 GFLOP/s", "memory, 1 thread: 10 GB/s"}
    assert roofs <= set(texts("title", drawn()))


def test_names_are_text_as_they_are() -> None:
    assert {"a < b & $c$", "loops", "L1", "peak"} <= set(texts("text", drawn()))


def test_a_picture_does_not_change() -> None:
    assert drawn() == drawn()


def test_pictures_share_no_ids() -> None:
    ids = [set(re.findall(r' id="([^"]*)"', drawn(name=name))) for name in ("t0", "t1")]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_what_is_referred_to_is_there() -> None:
    svg = drawn()
    ids = set(re.findall(r' id="([^"]*)"', svg))
    assert set(re.findall(r"url\(#([^)]*)\)|href=\"#([^\"]*)\"", svg)) <= {
        pair for each in ids for pair in ((each, ""), ("", each))
    }


def test_colours_are_those_of_the_page() -> None:
    svg = drawn()
    assert "var(--good)" in svg
    assert not re.findall(r"#[0-9a-f]{6}", svg)


def test_the_page_around_a_picture_keeps_its_style() -> None:
    assert not texts("style", drawn())


def test_a_picture_is_as_wide_as_there_is_room() -> None:
    root = ElementTree.fromstring(drawn())
    assert not {"width", "height"} & set(root.attrib)
    assert "viewBox" in root.attrib


def test_only_the_ladder_is_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    plotted: list[Any] = []

    class Axes:
        def plot(self, xs: Any, ys: Any, *_: Any, **style: Any) -> list[Any]:
            plotted.append(ys)
            return [Mark()]

    class Mark:
        def set_gid(self, gid: str) -> None: ...

        def get_gid(self) -> str:
            return ""

    roofline.draw_points(Axes(), 2.0, POINTS)
    assert plotted[0] == [0.01, 20.0]


def test_it_is_drawn_without_roofs() -> None:
    assert "loops" in texts("text", drawn(above=Roofs({}, {})))


def test_labels_that_would_hide_each_other_are_moved_apart() -> None:
    places = roofline.apart([0.0, 0.01, 0.02, 0.13, 5.0], 0.1, 6.0)
    assert all(b - a >= 0.1 - 1e-9 for a, b in itertools.pairwise(places))


def test_labels_with_room_stay_beside_their_points() -> None:
    assert roofline.apart([0.0, 1.0, 5.0], 0.1, 6.0) == [0.0, 1.0, 5.0]


def test_labels_move_up_as_much_as_down() -> None:
    assert roofline.apart([1.0, 1.0], 0.1, 6.0) == pytest.approx([0.95, 1.05])


def test_labels_do_not_leave_the_picture_at_its_top() -> None:
    places = roofline.apart([0.55, 0.8, 0.9, 0.9, 0.95], 0.1, 1.0)
    assert places == pytest.approx([0.55, 0.7, 0.8, 0.9, 1.0])
