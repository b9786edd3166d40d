"""The order of the sum of batches is the same for any number of ranks."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygpt_np.training.ranks import order
from tinygpt_np.training.ranks.order import PartialSums, Plan

NUMBERS = st.integers(1, 48)


def divisors(number: int) -> list[int]:
    return [each for each in range(1, number + 1) if number % each == 0]


def partial_sums(plan: Plan, values: np.ndarray) -> list[np.ndarray]:
    """Follow a plan with one number for the gradient of each batch, in arrays that are reused."""
    arrays = [np.full(1, np.nan, np.float32) for _ in range(plan.count)]
    for each in plan.rounds:
        for batch, array in zip(each.batches, each.arrays, strict=True):
            arrays[array][0] = values[batch]
        for additions in each.additions:
            for left, right in additions:
                arrays[left] += arrays[right]
    return [arrays[array] for array in plan.arrays]


def summed(values: np.ndarray, ranks: int, at_once: int) -> np.float32:
    """Return the sum over ranks."""
    plans = [
        order.plan(len(values), order.share(len(values), ranks, rank), at_once)
        for rank in range(ranks)
    ]
    parts = [part.copy() for plan in plans for part in partial_sums(plan, values)]
    sums = PartialSums(len(values))
    ranges = [batches for plan in plans for batches in plan.ranges]
    for array, batches in enumerate(ranges):
        for left, right in sums.push(batches, array):
            parts[left] += parts[right]
    assert sums.ranges == [(0, len(values))]
    assert sums.arrays == [0]
    return parts[0][0]


@given(NUMBERS, st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_a_sum_has_the_same_bits_for_all_numbers_of_ranks(
    batches: int, at_once: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    values = (rng.standard_normal(batches) * 10.0 ** rng.integers(-4, 5, batches)).astype("f4")
    found = {summed(values, ranks, at_once).tobytes() for ranks in divisors(batches)}
    assert len(found) == 1
    exact = sum(map(Fraction, values.tolist()))
    bound = batches * np.finfo(np.float32).eps * np.abs(values, dtype=np.float64).sum()
    assert abs(Fraction(float(np.frombuffer(found.pop(), "f4")[0])) - exact) <= bound


def test_twelve_batches_are_halved_twice_and_then_added_from_left_to_right() -> None:
    quarters = {(a, b, b + 1) for a in (0, 3, 6, 9) for b in (a + 1, a + 2)}
    assert order.additions((0, 12)) == quarters | {(0, 3, 6), (6, 9, 12), (0, 6, 12)}


def test_parts_are_divided_by_their_largest_odd_prime_factor_or_by_four() -> None:
    fifths = {(0, a, a + 3) for a in (3, 6, 9, 12)}
    thirds = {(a, b, b + 1) for a in (0, 3, 6, 9, 12) for b in (a + 1, a + 2)}
    assert order.additions((0, 15)) == fifths | thirds
    quarters = {(a, a + b, a + b + 2) for a in (0, 8) for b in (2, 4, 6)}
    pairs = {(a, a + 1, a + 2) for a in range(0, 16, 2)}
    assert order.additions((0, 16), 1) == {(0, 8, 16)} | quarters | pairs


CASES = [
    *[(1, 1, 1, 1), (12, 1, 4, 1), (12, 3, 4, 3), (40, 8, 2, 1), (40, 40, 1, 1), (64, 1, 6, 1)],
    *[(480, 1, 7, 1), (480, 5, 8, 5), (480, 8, 4, 1), (1024, 16, 5, 2)],
]


@pytest.mark.parametrize(("batches", "ranks", "gradients", "sent"), CASES)
def test_the_gradients_that_a_rank_holds_and_sends_are_few(
    batches: int, ranks: int, gradients: int, sent: int
) -> None:
    plans = [order.plan(batches, order.share(batches, ranks, rank), 1) for rank in range(ranks)]
    assert max(plan.count for plan in plans) == gradients
    assert max(len(plan.ranges) for plan in plans) == sent


@given(NUMBERS, st.integers(1, 4))
def test_the_first_partial_sum_of_a_rank_is_in_its_first_array(batches: int, at_once: int) -> None:
    for ranks in divisors(batches):
        for rank in range(ranks):
            own = order.share(batches, ranks, rank)
            assert order.plan(batches, own, at_once).arrays[0] == 0


def test_batches_that_cannot_be_divided_are_refused_with_the_nearest_numbers_that_can() -> None:
    message = (
        "= 40 cannot be divided among 3 ranks: start 2 or 4, or a new run with "
        "--gradient-accumulation-steps 39 or 42"
    )
    with pytest.raises(ValueError, match=message):
        order.share(40, 3, 0)
    with pytest.raises(
        ValueError, match=r"start 1, or a new run with --gradient-accumulation-steps 2$"
    ):
        order.share(1, 2, 1)
