"""What is called slower or faster than before, and what only looks like it."""

from typing import Any

import numpy as np
import pytest
from kernel_results import (
    VECTORS,
    each_shape,
    everything,
    kernel,
    of_ours,
    result,
    shown,
    slowed,
    verdicts,
    with_rounds,
)

from benchmarks import compare
from benchmarks.standing import FASTER, SLOWER


def test_a_result_is_the_same_as_itself() -> None:
    assert verdicts(result(), result()) == {}


def test_a_kernel_that_takes_a_third_longer_is_found_and_nothing_else() -> None:
    assert verdicts(result(), slowed(result(), 1.3, of_ours("vectors"))) == each_shape("vectors")


def test_a_kernel_that_takes_a_third_less_is_found_and_nothing_else() -> None:
    assert verdicts(result(), slowed(result(), 1 / 1.3, of_ours("vectors"))) == each_shape(
        "vectors", FASTER
    )


def test_a_tenth_is_not_beyond_the_noise() -> None:
    assert verdicts(result(), slowed(result(), 1.1, of_ours("vectors"))) == {}


def test_a_change_of_all_kernels_is_seen() -> None:
    found = compare.differences(result(), slowed(result(), 1.3, kernel))
    assert {each.verdict for each in found} == {SLOWER}


def test_a_machine_that_is_slower_makes_no_kernel_slower() -> None:
    assert verdicts(result(), slowed(result(), 2, everything)) == {}


def test_a_machine_that_is_faster_makes_no_kernel_faster() -> None:
    assert verdicts(result(), slowed(result(), 0.5, everything)) == {}


def test_what_a_limit_lost_no_kernel_lost() -> None:
    def peak_and_vectors(task: dict[str, Any], each: dict[str, Any]) -> bool:
        return each.get("name") == "peak" or of_ours("vectors")(task, each)

    assert verdicts(result(), slowed(result(), 1.3, peak_and_vectors)) == {}


def test_what_is_no_kernel_beside_it_lost_no_kernel_lost() -> None:
    def neighbours(task: dict[str, Any], each: dict[str, Any]) -> bool:
        names = ("Python", "NumPy", "PyTorch", "vectors")
        return any(of_ours(name)(task, each) for name in names)

    assert verdicts(result(), slowed(result(), 1.3, neighbours)) == {}


def test_a_limit_is_held_against_its_amount() -> None:
    longer = slowed(result(), 2, lambda _, each: each.get("name") == "peak")
    for each in longer["tasks"]:
        for one in each["limits"]:
            one["amount"] *= 2 if one["name"] == "peak" else 1
    assert verdicts(result(), slowed(longer, 1.3, of_ours("vectors"))) == each_shape("vectors")


@pytest.mark.parametrize("name", ["Python", "NumPy", "PyTorch"])
def test_what_is_no_kernel_of_ours_has_no_verdict(name: str) -> None:
    assert verdicts(result(), slowed(result(), 3, of_ours(name))) == {}


def test_runs_that_differ_everywhere_hide_a_difference() -> None:
    rng = np.random.default_rng(0)
    new = result()
    for each in new["tasks"]:
        for one in each["rows"]:
            factor = float(np.exp(0.15 * rng.standard_normal()))
            one["seconds"] = [[factor * value for value in turn] for turn in one["seconds"]]
    new = slowed(new, 1.3, of_ours("vectors"))
    assert verdicts(result(), new) == {}
    assert min(each.beyond for each in compare.differences(result(), new)) > 1.3


def test_a_few_rounds_that_were_as_slow_before_do_not_matter() -> None:
    new = slowed(result(), 1.3, of_ours("vectors"))
    assert verdicts(with_rounds(result(), 2, 1.35), new) == each_shape("vectors")


def test_a_third_of_the_rounds_as_slow_before_leave_it_open() -> None:
    new = slowed(result(), 1.3, of_ours("vectors"))
    assert VECTORS not in verdicts(with_rounds(result(), 3, 1.35), new)


def test_rounds_that_range_far_need_a_wider_gap() -> None:
    old, new = with_rounds(result(), 3, 1.1), slowed(result(), 1.3, of_ours("vectors"))
    assert VECTORS not in verdicts(old, new)
    assert VECTORS in verdicts(old, slowed(new, 1.1, of_ours("vectors")))


def test_one_shape_alone_is_an_accident_of_its_process() -> None:
    assert verdicts(result(), slowed(result(), 1.3, of_ours("vectors", "cpu"))) == {}


def test_another_shape_need_not_be_as_slow() -> None:
    new = slowed(result(), 1.3, of_ours("vectors", "cpu"))
    new = slowed(new, 1.1, of_ours("vectors", "gpt2"))
    assert verdicts(result(), new) == {VECTORS: SLOWER}


def test_a_kernel_of_one_row_must_be_slower_by_twice_the_bound() -> None:
    old = result()
    old["tasks"] = old["tasks"][::3]  # One shape.
    assert verdicts(old, slowed(old, 1.3, of_ours("vectors"))) == {}
    assert verdicts(old, slowed(old, 1.4, of_ours("vectors"))) == {VECTORS: SLOWER}


def test_with_several_threads_it_is_beyond_what_any_rung_gained_over_itself() -> None:
    new = slowed(result(), 1.4, of_ours("parallel"))
    new = slowed(new, 1.4, of_ours("vectors"))
    assert verdicts(result(), new) == {
        **each_shape("vectors"), **each_shape("parallel ×2"),
    }  # fmt: skip
    control = new["tasks"][-1]["controls"][-1]
    control["seconds"] = [[1.5 * value for value in turn] for turn in control["seconds"]]
    assert verdicts(result(), new) == each_shape("vectors")


def test_a_long_step_is_beyond_what_moved_without_a_kernel_of_ours() -> None:
    long = slowed(result(), 100, of_ours("vectors"))
    new = slowed(long, 1.4, of_ours("vectors"))
    assert verdicts(long, new) == each_shape("vectors")
    assert verdicts(long, slowed(new, 1.5, of_ours("Python", "gpt2"))) == {}


def test_with_several_threads_less_than_waking_one_takes_is_not_told() -> None:
    short = slowed(result(), 0.1, of_ours("parallel"))
    assert verdicts(short, slowed(short, 2, of_ours("parallel"))) == {}


def test_less_than_a_microsecond_is_not_told() -> None:
    short = slowed(result(), 0.01, of_ours("vectors"))
    assert verdicts(short, slowed(short, 1.4, of_ours("vectors"))) == {}


def test_few_rounds_tell_nothing() -> None:
    old, new = result(), slowed(result(), 1.3, of_ours("vectors"))
    del new["tasks"][0]["rows"][3]["seconds"][3:]
    found = compare.differences(old, new)
    assert VECTORS not in verdicts(old, new)
    assert "1 have too few rounds to tell" in shown(found)[1]


def test_a_round_without_a_turn_is_no_round() -> None:
    new = slowed(result(), 1.3, of_ours("vectors"))
    new["tasks"][0]["rows"][3]["seconds"][2] = None
    assert verdicts(result(), new) == each_shape("vectors")
