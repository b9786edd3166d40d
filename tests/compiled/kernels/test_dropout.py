"""The bounds on statistics are six standard deviations of what independent draws would give."""

import numpy as np
import pytest
from helpers.kernel_twins import assert_within, normals, poisoned

from benchmarks.cases.rounding import U, gamma
from tinygpt_np.compiled.kernels import dropout

rng, normal = normals(17)
KEY, MANY = 0x0123456789ABCDEF, 200_000


def filled(size: int = MANY, p: float = 0.5, key: int = KEY, start: int = 0) -> np.ndarray:
    mask = poisoned(size)
    dropout.fill_mask(mask, p, np.uint64(key), start)
    return mask


def assert_independent(one: np.ndarray, other: np.ndarray) -> None:
    assert abs(float(np.corrcoef(one, other)[0, 1])) <= 6 / len(one) ** 0.5


@pytest.mark.parametrize("p", [0, 0.1, 0.9, 1 - 2**-53])
def test_the_dropped_are_p_of_all_and_the_kept_make_up_for_them(p: float) -> None:
    mask = filled(p=p)
    assert set(np.unique(mask).tolist()) <= {0.0, float(np.float32(1 / (1 - p)))}
    assert abs((mask == 0).mean() - p) <= 6 * (p * (1 - p) / MANY) ** 0.5


def test_neighbours_and_places_far_away_are_independent() -> None:
    mask = filled()
    for distance in (1, 2, 16, 1024):
        assert_independent(mask[distance:], mask[:-distance])
    for start in (MANY, 2**31, 2**32, 2**33, 2**62):
        assert_independent(mask, filled(start=start))


@pytest.mark.parametrize("bit", [0, 1, 31, 32, 63])
def test_keys_that_differ_in_one_bit_give_independent_masks(bit: int) -> None:
    one, other = filled(), filled(key=KEY ^ (1 << bit))
    # Nor is one the other with its places exchanged.
    for swap in (0, 1, 2, 4, 8):
        assert_independent(one, other[np.arange(MANY) ^ swap])


def test_keys_whose_mixes_agree_in_one_half_give_independent_masks() -> None:
    # With one half alone in the hash, their masks would be the same. Of 200,000 keys some pairs
    # agree in 32 bits by chance.
    once = [np.uint64(dropout.mix64(key)) for key in np.arange(MANY, dtype=np.uint64)]
    mixes = np.array([dropout.mix64(bits) for bits in once], np.uint64)
    for half in (mixes & np.uint64(2**32 - 1), mixes >> np.uint64(32)):
        order = np.argsort(half)
        first = np.nonzero(np.diff(half[order]) == 0)[0][0]
        assert_independent(filled(key=int(order[first])), filled(key=int(order[first + 1])))


@pytest.mark.parametrize("start", [0, 5, 2**32 - 77])
def test_the_parts_of_a_mask_are_those_of_the_whole(start: int) -> None:
    whole = filled(500, start=start)
    for end in (1, 63, 77, 78, 499):
        parts = [filled(end, start=start), filled(500 - end, start=start + end)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_each_mask_of_a_step_has_a_key_of_its_own_and_begins_at_a_sequence() -> None:
    def part(number: int, first: int, count: int = MANY) -> np.ndarray:
        mask = poisoned(count)
        dropout.fill_part(mask, 0.5, np.array([KEY, first], np.uint64), number, 100)
        return mask

    np.testing.assert_array_equal(part(0, 0), filled())
    for number in (0, 3):
        np.testing.assert_array_equal(part(number, 7, 300), part(number, 0)[700:1000])
    for one, other in ((0, 1), (1, 2), (0, 2)):
        assert_independent(part(one, 0), part(other, 0))


def test_a_mask_drawn_depends_on_the_state_of_the_generator() -> None:
    one, other = np.random.default_rng(3), np.random.default_rng(3)
    first, again, second = (
        dropout.draw_mask((7, 5, 3), 0.5, rng, np.dtype(np.float32)) for rng in (one, other, one)
    )
    assert (first.shape, first.dtype) == ((7, 5, 3), np.float32)
    np.testing.assert_array_equal(first, again)
    assert (first != second).any()
    with pytest.raises(TypeError, match=r"^dropout.draw_mask: dtype must be float32, not float64$"):
        dropout.draw_mask((2,), 0.5, one, np.dtype(np.float64))


def test_values_are_multiplied_by_the_mask_and_added() -> None:
    (x, branch, y), mask = normal(3, 95), filled(95)
    dropout.forward_values(branch, mask, y)
    np.testing.assert_array_equal(y, branch * mask)
    dropout.add_masked(x, branch, mask, y)
    truth = x.astype(np.float64) + branch.astype(np.float64) * mask
    # The product, if it is rounded by itself, and the sum.
    assert_within(y, truth, U * np.abs(truth) + gamma(2) * np.abs(branch * mask))
