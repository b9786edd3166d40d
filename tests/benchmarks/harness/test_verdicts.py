"""Which ratios prove a difference, with controls, and on simulated noisy machines."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import noisy_runs

from benchmarks.harness.analysis import FASTER, SAME, SLOWER, analyse, compared
from benchmarks.harness.verdicts import judge

Row = dict[str, Any]


def row(name: str, seconds: list[float], threads: int = 1, **more: Any) -> Row:
    about = {"rung": name, "by": "ours", "threads": threads, "reference": False, "trained": False}
    return {**about, "turns": [[each] for each in seconds], **more}


def peak(threads: int = 1, cpus: float = 1.0) -> Row:
    return {"name": "peak", "threads": threads, "amount": cpus, "turns": [[1.0]] * 6}


def case(*rows: Row, controls: list[Row], limits: list[Row] | None = None) -> Row:
    rows = tuple({**each} for each in rows)
    limits = limits or [peak()]
    return analyse({"rows": [*rows], "controls": controls, "limits": limits}, [])


def judged(*rows: Row, controls: list[Row], limits: list[Row] | None = None) -> list[Row]:
    return judge(case(*rows, controls=controls, limits=limits))["rows"]


SLOW = row("slow", [4.0, 8.0, 4.0, 4.0, 4.0, 4.0])
FAST = row("fast", [2.0, 4.0, 2.0, 2.0, 2.0, 2.0])
TWIN = row("fast", [2.0, 4.2, 2.1, 1.9, 2.0, 2.0])
MIXED = row("mixed", [1.0, 4.1, 2.1, 1.0, 1.0, 2.1])
BETTER = row("better", [1.7, 3.4, 1.7, 1.7, 1.7, 1.7])


def twin(name: str, *factors: float, threads: int = 1, **more: Any) -> Row:
    """Return a control of a rung that takes a second in each round."""
    return row(name, [*factors], threads, **more)


@pytest.mark.parametrize(
    ("above", "below", "control", "expected"),
    [
        (SLOW, FAST, TWIN, FASTER),
        (FAST, SLOW, row("slow", [4.0, 8.4, 4.2, 3.8, 4.0, 4.0]), SLOWER),
        (FAST, BETTER, row("better", [1.7, 3.4, 1.7, 1.7, 1.7, 1.8]), FASTER),
        # Within what the control differs from itself by, in either direction; and within 10 %.
        (FAST, BETTER, row("better", [1.4, 3.4, 1.7, 1.9, 1.6, 1.8]), SAME),
        (FAST, BETTER, row("better", [2.1, 3.4, 1.7, 1.6, 1.7, 1.8]), SAME),
        (FAST, row("1.08", [1.85, 3.7, 1.85, 1.85, 1.85, 1.85]), row("1.08", [1.85] * 6), SAME),
        # An interval with 1 in it.
        (FAST, MIXED, MIXED, SAME),
    ],
)
def test_a_gain_is_resolved_only_beyond_its_control(
    above: Row, below: Row, control: Row, expected: str
) -> None:
    assert judged(above, below, controls=[control])[1]["verdict"] == expected


def test_an_interval_must_be_beyond_what_is_usual_in_the_run() -> None:
    # The median is 1.5, an end of the interval 1.2; this control is narrow by luck.
    rows = row("above", [1.2, 1.5, 1.5, 1.5, 1.5, 1.6]), row("below", [1.0] * 6)
    record = case(*rows, controls=[twin("below", *[1.0] * 6)])
    wide = [case(rows[1], controls=[twin("below", 0.7, *[1.0] * 5)])] * 6
    narrow = [case(rows[1], controls=[twin("below", 0.9, *[1.0] * 5)])] * 6
    for earlier, expected in ((narrow, FASTER), (wide, SAME), (5 * narrow + wide, FASTER)):
        assert judge(record, earlier)["rows"][1]["verdict"] == expected
    # Controls on other numbers of threads do not matter.
    several = case(row("b", [1.0] * 6, 2), controls=[twin("b", 0.5, *[1.0] * 5, threads=2)])
    assert judge(record, [several])["rows"][1]["verdict"] == FASTER


PEER = row("theirs", [3.0] * 6, by="torch", reference=True)


def test_a_kernel_of_the_user_gets_a_verdict_against_each_that_has_a_control() -> None:
    mine, trained = row("mine", [1.5] * 6, by="mine", reference=True), row("fast", [2.0] * 6)
    trained["trained"] = True
    rows = trained, mine, PEER, row("NumPy", [9.0] * 6, by="numpy", reference=True)
    controls = [twin("fast", *[2.0] * 6), {**mine}, {**PEER}]
    found = judged(*rows, controls=controls)[1]
    assert (found["verdict"], found.get("unresolved")) == (FASTER, None)
    assert [(each["verdict"], each["unresolved"]) for each in found["against"]] == [
        (FASTER, None), (FASTER, None), (SAME, "no A/A of numpy"),
    ]  # fmt: skip


OURS = row("ours", [2.0] * 6, trained=True)
CONTROLS = {"ours": row("ours", [2.0] * 6), "torch": row("theirs", [3.0] * 6, by="torch")}


def against_a_peer(**changes: Row) -> Row:
    return judged(OURS, PEER, controls=[*(CONTROLS | changes).values()])[1]


def test_the_controls_of_both_sides_count() -> None:
    assert against_a_peer()["verdict"] == FASTER
    noisy = {
        "ours": row("ours", [1.2, 2.0, 2.0, 2.0, 2.0, 2.0]),
        "torch": row("theirs", [1.9, 3.0, 3.0, 3.0, 3.0, 3.0], by="torch"),
    }
    # In the other cases of the run there was no noise.
    earlier = [case(OURS, PEER, controls=[*CONTROLS.values()])] * 20
    for by, control in noisy.items():
        assert against_a_peer(**{by: control})["verdict"] == SAME
        record = case(OURS, PEER, controls=[*(CONTROLS | {by: control}).values()])
        assert judge(record, earlier)["rows"][1]["verdict"] == SAME
    record = case(OURS, PEER, controls=[*CONTROLS.values()])
    assert judge(record, earlier)["rows"][1]["verdict"] == FASTER


def test_a_control_far_from_itself_is_a_warning_and_leaves_no_verdict() -> None:
    far = row("theirs", [2.6] * 6, by="torch")
    found = against_a_peer(torch=far)
    assert (found["verdict"], found["warnings"]) == (SAME, ["A/A of torch is 1.15"])
    assert found["unresolved"] == "A/A of torch is 1.15"
    # Nearer, or not in all rounds.
    for seconds in ([2.8] * 6, [2.6, 2.6, 2.6, 2.6, 2.6, 3.1]):
        assert "warnings" not in against_a_peer(torch=row("theirs", seconds, by="torch"))
    (found,) = judged(OURS, PEER, controls=[CONTROLS["ours"]])[1:]
    assert (found["verdict"], found["unresolved"]) == (SAME, "no A/A of torch")


def test_too_few_rounds_prove_nothing() -> None:
    rows = row("slow", [4.0] * 4), row("fast", [2.0] * 4)
    found = judged(*rows, controls=[row("fast", [2.0] * 4)], limits=[peak()])[1]
    assert (found["verdict"], found["unresolved"]) == (SAME, "too few rounds")


def test_whole_models_have_no_controls_and_no_verdict() -> None:
    found = judged(SLOW, FAST, controls=[])[1]
    assert found["verdict"] == SAME
    assert "unresolved" not in found


@pytest.mark.parametrize(
    ("cpus", "expected"), [(1.99, FASTER), (1.61, FASTER), (1.59, SAME), (0.5, SAME)]
)
def test_several_threads_without_their_cpus_prove_nothing(cpus: float, expected: str) -> None:
    two = [
        row("one", [4.0] * 6, trained=True),
        row("two", [2.0] * 6, 2, trained=True),
        row("theirs", [3.0] * 6, 2, by="torch", reference=True),
    ]
    controls = [
        row("one", [4.0] * 6), row("two", [2.0] * 6, 2), row("theirs", [3.0] * 6, 2, by="torch"),
    ]  # fmt: skip
    one, *others = judged(*two, controls=controls, limits=[peak(), peak(2, cpus)])
    assert "unresolved" not in one
    for each in others:
        assert each["verdict"] == expected
        reason = f"2 threads had {cpus:.1f} CPUs"
        assert each.get("unresolved") == (None if expected == FASTER else reason)


def test_the_peak_of_several_threads_is_compared_with_one_in_the_same_round() -> None:
    # The machine halves its speed after three rounds, then two threads get one CPU.
    one = peak() | {"turns": [[1.0]] * 3 + [[2.0]] * 4}
    two = peak(2, 2.0) | {"turns": [[1.0]] * 3 + [[4.0]] * 4, "waits": [0.0] * 3 + [0.5] * 4}
    rows = row("one", [4.0] * 7), row("two", [2.0] * 7, 2)
    controls = [row("one", [4.0] * 7), row("two", [2.0] * 7, 2)]
    found = judged(*rows, controls=controls, limits=[one, two])[1]
    assert found["unresolved"] == "2 threads had 1.0 CPUs"


def test_rows_that_waited_in_many_turns_prove_nothing_also_for_what_is_compared_with_them() -> None:
    waited = {"waits": [0.2, 0.2, 0.2, 0.0, 0.0, 0.0]}
    rows = SLOW | waited, FAST, BETTER
    controls = [row("better", [1.7, 3.4, 1.7, 1.7, 1.7, 1.7])]
    slow, fast, better = judged(*rows, controls=controls)
    assert slow["unresolved"] == "waited for a CPU in 3 of 6 turns"
    assert fast["unresolved"] == "slow: waited for a CPU in 3 of 6 turns"
    assert better["verdict"] == FASTER
    for waits in ([0.2, 0.2, 0.0, 0.0, 0.0, 0.0], [0.04] * 6, [None] * 6):
        assert judged(SLOW | {"waits": waits}, FAST, controls=[TWIN])[1]["verdict"] == FASTER


# Simulated machines


def counted(noise: Callable[..., Any], runs: int, rounds: int) -> Counter[tuple[float, str]]:
    """Return how often rows of a true ratio got each verdict."""
    rng, found = np.random.default_rng(7), Counter[tuple[float, str]]()
    for _ in range(runs):
        for record in noisy_runs.run(rng, noise, rounds=rounds)["cases"]:
            for row, other in compared(record):
                true = row["true"] / other["true"]
                true = true if row["reference"] else 1 / true
                found[round(true, 1), row["verdict"]] += 1
    return found


@pytest.mark.parametrize("rounds", [6, 9])
@pytest.mark.parametrize(
    # The least part of rows 1.3 times and 4 times as fast that must be found.
    ("noise", "small", "large"),
    [
        (noisy_runs.idle, 0.9, 0.95),
        (noisy_runs.heavy_tails, 0.4, 0.9),
        (noisy_runs.ticks, 0.1, 0.8),
        (noisy_runs.burst, 0.0, 0.5),
        (noisy_runs.slow_process, 0.2, 0.7),
        (noisy_runs.busy, 0.9, 0.95),
    ],
)
def test_on_noisy_machines_hardly_any_verdict_is_wrong_and_gains_are_found(
    noise: Callable[..., Any], small: float, large: float, rounds: int
) -> None:
    found = counted(noise, 60, rounds)
    equal, wrong = sum(found[1.0, each] for each in (FASTER, SAME, SLOWER)), 0
    wrong += found[1.0, FASTER] + sum(count for (_, word), count in found.items() if word == SLOWER)
    assert equal == 60 * 4 * 6
    assert wrong <= 1
    for true, least in ((1.3, small), (4.0, large)):
        assert found[true, FASTER] >= least * (found[true, FASTER] + found[true, SAME])
