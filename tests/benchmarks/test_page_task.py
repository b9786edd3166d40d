"""A task as the page of the kernel benchmark shows it."""

from typing import Any

import pytest
from climbs import entrant, record

from benchmarks import page_task
from benchmarks.roofline import Roofs


def rows_of(task: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The rows as they are shown, by name."""
    view = page_task.view(task, "t0", Roofs({}, {}), 3)
    return {row["name"]: row for group in view["groups"] for row in group}


def test_the_gain_is_shown_with_its_interval_and_verdict() -> None:
    row = rows_of(record())["tiles"]
    assert row["figures"]["gain"] == ("4.00", "4.00–4.00")
    assert row["words"] == "▲ faster"


def test_a_loss_is_slower() -> None:
    task = record(rows=[entrant("tiles"), entrant("loops"), entrant("shared", 2)])
    assert rows_of(task)["loops"]["words"] == "▼ slower"


def test_a_roofline_has_the_limits_that_were_measured_beside_the_task() -> None:
    above = page_task.own_roofs(record(), Roofs({1: 5.0}, {1: {"L1": 3.0, "L2": 2.0}}))
    assert above.peaks == {1: 10.0, 2: 10.0}
    assert above.bandwidths == {1: {"L1": 10.0, "L2": 2.0}, 2: {"L1": 10.0}}


def test_without_a_control_nothing_is_resolved() -> None:
    assert rows_of(record(controls=[]))["tiles"]["words"] == "not resolved"


def test_the_share_of_packed_instructions() -> None:
    rows = rows_of(record(rows=[entrant("shared", 2, packed=0.5)]))
    assert rows["shared ×2"]["figures"]["packed"] == ("50%", "")


def test_of_a_reference_it_is_said_who_is_faster() -> None:
    assert rows_of(record())["theirs"]["words"] == "▲ ours faster"


def test_references_stand_apart() -> None:
    groups = page_task.view(record(), "t0", Roofs({}, {}), 3)["groups"]
    assert [[row["name"] for row in group] for group in groups] == [
        ["loops", "tiles", "shared ×2"],
        ["theirs"],
    ]


def test_what_was_kept_on_disk_was_not_compiled() -> None:
    rows = rows_of(record())
    compiling = [rows[name]["figures"].get("compile s") for name in ("loops", "tiles", "shared ×2")]
    assert compiling == [None, ("0.25", ""), ("kept", "")]


def test_a_small_share_is_not_rounded_to_nothing() -> None:
    assert [page_task.percent(share) for share in (0.5, 0.0004)] == ["50%", "0.04%"]


def test_turns_that_were_not_taken_are_not_counted() -> None:
    slow = entrant("slow", seconds=[[1.0], None, *[[1.0]] * 4])
    tip = rows_of(record(rows=[slow, entrant("shared", 2)]))["slow"]["tip"]
    assert "turns in 5 of 6 rounds" in tip


def test_a_bar_grows_from_the_rung_above_to_its_own_speed() -> None:
    rows = rows_of(record())
    loops, tiles = rows["loops"]["bar"], rows["tiles"]["bar"]
    assert loops.kind == "first"
    assert loops.start == loops.end
    assert tiles.kind == "faster up"
    assert tiles.start == pytest.approx(loops.end)
    assert tiles.end > tiles.start


def test_a_bar_that_lost_ends_at_its_own_speed() -> None:
    rows = rows_of(record(rows=[entrant("tiles"), entrant("loops"), entrant("shared", 2)]))
    above, bar = rows["tiles"]["bar"], rows["loops"]["bar"]
    assert bar.kind == "slower down"
    assert bar.end == pytest.approx(above.end)
    assert bar.start < bar.end


def test_equal_gains_are_equally_long() -> None:
    scale = page_task.Scale(0, 3)
    assert scale.place(100) - scale.place(10) == pytest.approx(scale.place(10) - scale.place(1))


def test_all_speeds_are_on_the_scale() -> None:
    scale = page_task.scale_of([0.01, 3.0, 900.0])
    assert 0 < scale.place(0.01) < scale.place(3.0) < scale.place(900.0) < 100


def test_the_scale_is_marked_in_billions() -> None:
    assert page_task.Scale(8, 2.5).ticks == [(0, "0.1"), (40, "1"), (80, "10")]


def test_the_roof_is_what_bounds_the_task() -> None:
    assert page_task.bounds_of(record()) == {1: 10.0, 2: 10.0}
    assert page_task.bounds_of(record(bytes=160)) == {1: 5.0, 2: 5.0}
