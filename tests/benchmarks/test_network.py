"""The model of many machines, against simulations that take each message or byte by itself."""

import math
from dataclasses import replace

import pytest

from benchmarks import network
from benchmarks.network import Job, Machine, Network, Prediction

BETWEEN, MACHINE = Network(3e-3, 2e9), Machine(0.1, step=0.7, update=0.2, adding=3e-10)
JOB = Job(accumulation=24, size=800_000_000, late=0.3, window=0.4)


# By what the steps are divided, from the whole to its parts; see training/ranks/order.py.
DIVISORS = {
    1: [], 3: [3], 6: [2, 3], 12: [2, 2, 3], 40: [2, 2, 2, 5], 56: [2, 2, 2, 7], 90: [2, 5, 3, 3],
    160: [2, 2, 2, 5, 4], 128: [2, 2, 2, 4, 4],
}  # fmt: skip


def parts_of_the_order(accumulation: int) -> set[tuple[int, int]]:
    """Return the first step and the end of each sum that occurs in the fixed order."""
    found, size = {(0, accumulation)}, accumulation
    for divisor in DIVISORS[accumulation]:
        part = size // divisor
        for start in range(0, accumulation, size):
            ends = range(start + part, start + size + 1, part)
            found |= {(start, end) for end in ends} | {(end - part, end) for end in ends}
        size = part
    return found


def fewest(start: int, end: int, parts: set[tuple[int, int]]) -> int:
    """Return the smallest number of parts that together are the steps from start to end."""
    least = {end: 0}
    for place in reversed(range(start, end)):
        ends = [stop for stop in least if (place, stop) in parts]
        least[place] = 1 + min(least[stop] for stop in ends)
    return least[start]


@pytest.mark.parametrize("accumulation", DIVISORS)
def test_partial_sums_are_the_fewest_parts_of_the_order(accumulation: int) -> None:
    parts = parts_of_the_order(accumulation)
    for ranks in network.divisors(accumulation, accumulation):
        share = accumulation // ranks
        expected = [fewest(rank * share, (rank + 1) * share, parts) for rank in range(ranks)]
        assert network.partial_sums(accumulation, ranks) == expected


@pytest.mark.parametrize("ranks", [2, 5, 400])
def test_the_buckets_of_others_are_sent_one_after_the_other(ranks: int) -> None:
    # As many equal buckets for each rank, of at most 1 MB, and at least four.
    each = max(4, math.ceil(JOB.size / ranks / 2**20))
    bucket, clock = JOB.size / ranks / each, 0.0
    for owner in range(ranks):
        if owner != 1:
            clock += each * (BETWEEN.latency + bucket / BETWEEN.bandwidth)
    assert BETWEEN.messages(ranks, JOB.size) == pytest.approx(clock, rel=0.01)


@pytest.mark.parametrize("sent", [0.05, 0.46, 0.6, 0.7, 2.0])
@pytest.mark.parametrize("late", [0.0, 0.3, 1.0])
def test_the_time_that_is_not_hidden_is_that_of_a_queue(sent: float, late: float) -> None:
    window, pieces = 0.47, 2000
    # The backward ends at 0.
    piece = (1 - late) * sent / pieces
    ready = [(-window * (1 - number / pieces), piece) for number in range(pieces)]
    ready.append((0.0, late * sent))
    clock = -math.inf
    for when, seconds in ready:
        clock = max(clock, when) + seconds
    assert network.exposed(sent, window, late) == pytest.approx(max(clock, 0), abs=2e-3)


@pytest.mark.parametrize("reduction", ["exact", "fast"])
def test_one_machine_has_no_communication(reduction: network.Reduction) -> None:
    alone = network.predict(JOB, 1, MACHINE, BETWEEN, reduction)
    assert alone.communication == 0
    assert alone.total == pytest.approx(0.1 + 24 * 0.7 + 23 * JOB.size * 3e-10 + 0.2)
    assert network.efficiency(alone, alone) == 1


def test_a_step_is_computing_adding_messages_and_a_part_of_the_update() -> None:
    found = network.predict(JOB, 12, MACHINE, BETWEEN)
    counts = network.partial_sums(24, 12)
    sent = BETWEEN.messages(12, JOB.size)
    hidden = network.exposed(max(counts) * sent, 0.4 * 0.7, 0.3)
    adding = (sum(counts) - 1) * JOB.size / 12 * 3e-10
    numbers = 2 * 4 * BETWEEN.latency  # Losses and the norm, over four levels.
    expected = 0.1 + 2 * 0.7 + hidden + adding + 0.2 / 12 + sent + numbers
    assert found.total == pytest.approx(expected)
    assert found.share == pytest.approx(1 - (1.5 + 0.2 / 12) / expected)


@pytest.mark.parametrize("reduction", ["exact", "fast"])
def test_without_a_cost_of_messages_and_adding_the_work_is_divided(
    reduction: network.Reduction,
) -> None:
    free, machine = Network(0.0, math.inf), replace(MACHINE, packing=0.0, adding=0.0)
    alone = network.predict(JOB, 1, machine, free)
    for ranks in network.divisors(24, 24):
        found = network.predict(JOB, ranks, machine, free, reduction)
        assert network.efficiency(alone, found) == pytest.approx(1)


@pytest.mark.parametrize("reduction", ["exact", "fast"])
def test_a_step_is_shorter_with_more_bandwidth_and_less_latency(
    reduction: network.Reduction,
) -> None:
    for ranks in network.divisors(24, 24)[1:]:
        times = [
            network.predict(JOB, ranks, MACHINE, between, reduction).total
            for between in (replace(BETWEEN, bandwidth=4e9), replace(BETWEEN, latency=1e-3))
        ]
        assert max(times) < network.predict(JOB, ranks, MACHINE, BETWEEN, reduction).total


def test_each_machine_sends_one_sum_if_the_order_is_free() -> None:
    exact, fast = (network.predict(JOB, 12, MACHINE, BETWEEN, how) for how in ("exact", "fast"))
    assert (exact.sums, fast.sums) == (2, 1)
    sent = BETWEEN.messages(12, JOB.size)
    adding = 11 / 12 * JOB.size * 3e-10
    assert fast.gradients == pytest.approx(network.exposed(sent, 0.4 * 0.7, 0.3) + adding)


@pytest.mark.parametrize("ranks", [5, 48, 7])
def test_machines_that_do_not_divide_the_accumulation_are_refused(ranks: int) -> None:
    message = f"{ranks} machines do not divide 24 accumulation steps"
    with pytest.raises(ValueError, match=message):
        network.predict(JOB, ranks, MACHINE, BETWEEN)


def test_communication_begins_to_dominate_at_the_first_that_has_more_than_half() -> None:
    many = [Prediction(ranks, 1, 1, 4.0, part, 1.0, 1.0) for ranks, part in
            ((1, 0.0), (2, 4.0), (4, 4.1), (8, 9.0))]  # fmt: skip
    assert network.begins(many) is many[2]
    assert network.begins(many[:2]) is None


def test_at_the_break_even_half_of_a_step_is_communication() -> None:
    small = replace(JOB, size=10**8, late=0.0)
    ranks = round(network.break_even(small, MACHINE, BETWEEN))
    assert ranks > JOB.accumulation
    # The same with that many accumulation steps, one on each machine.
    machine = replace(MACHINE, step=JOB.accumulation * MACHINE.step / ranks)
    whole = network.predict(replace(small, accumulation=ranks), ranks, machine, BETWEEN)
    assert whole.share == pytest.approx(0.5, abs=0.02)


def test_more_accumulation_moves_the_break_even_in_proportion_without_latency() -> None:
    between, machine = replace(BETWEEN, latency=0.0), replace(MACHINE, packing=0.0, update=0.0)
    jobs = [replace(JOB, accumulation=count, size=4 * 10**9) for count in (400, 800)]
    first, second = (network.break_even(job, machine, between) for job in jobs)
    assert second / first == pytest.approx(2, rel=0.01)


def test_machines_so_much_faster_spend_half_of_the_step_on_communication() -> None:
    factor = network.speed_to_dominate(JOB, 24, MACHINE, BETWEEN)
    found = network.predict(JOB, 24, MACHINE.faster(factor), BETWEEN)
    assert found.share == pytest.approx(0.5)


def test_a_crossing_beyond_all_bounds_is_infinite() -> None:
    assert network.crossing(lambda _: -1.0, 1.0) == math.inf


def test_a_fit_takes_the_latency_of_the_smallest_message_and_the_speed_of_the_largest() -> None:
    latency, per_byte = network.fit([(1000, 2e-6), (10**6, 4e-4), (10**8, 0.05)])
    assert latency == 2e-6
    assert latency + 10**8 * per_byte == pytest.approx(0.05)


@pytest.mark.parametrize("ranks", [2, 5])
def test_on_the_network_of_this_machine_an_exchange_takes_the_measured_time(
    ranks: int,
) -> None:
    between = network.network_of(2e-9, ranks)
    assert 2 * between.messages(ranks, 7e6) == pytest.approx(2e-9 * 7e6)
