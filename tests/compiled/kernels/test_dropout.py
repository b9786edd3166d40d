"""The bounds on statistics are six standard deviations of what independent draws would give."""

import numpy as np
import pytest
from helpers.kernel_bounds import U, assert_within, gamma
from helpers.kernel_twins import normals, poisoned

from tinygpt_np.compiled.kernels import dropout

rng, normal = normals(17)
KEY = np.uint64(0x0123456789ABCDEF)
MANY = 200_000
HALF_FULL = 2**32 - 77


def filled(size: int, p: float = 0.5, key: int | np.uint64 = KEY, start: int = 0) -> np.ndarray:
    mask = poisoned(size)
    dropout.fill_mask(mask, p, np.uint64(key), start)
    return mask


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])


@pytest.mark.parametrize("size", [1, 15, 16, 17, 1000])
def test_forward_multiplies_by_the_mask(size: int) -> None:
    x, mask, y = normal(size), filled(size), poisoned(size)
    dropout.forward_values(x, mask, y)
    np.testing.assert_array_equal(y, x * mask)


@pytest.mark.parametrize("p", [0, 0.1, 0.5, 0.9, 1 - 2**-53])
def test_the_dropped_are_p_of_all_and_the_kept_make_up_for_them(p: float) -> None:
    mask = filled(MANY, p)
    assert set(np.unique(mask).tolist()) <= {0.0, float(np.float32(1 / (1 - p)))}
    spread = 6 * (p * (1 - p) / MANY) ** 0.5
    assert abs((mask == 0).mean() - p) <= spread


@pytest.mark.parametrize("distance", [1, 2, 16, 1024])
def test_neighbours_are_independent(distance: int) -> None:
    mask = filled(MANY)
    assert abs(correlation(mask[distance:], mask[:-distance])) <= 6 / (MANY - distance) ** 0.5


@pytest.mark.parametrize("bit", [0, 1, 31, 32, 63])
def test_keys_that_differ_in_one_bit_give_independent_masks(bit: int) -> None:
    other = filled(MANY, key=KEY ^ np.uint64(1 << bit))
    assert abs(correlation(filled(MANY), other)) <= 6 / MANY**0.5
    # Nor is one the other with its places exchanged.
    for swap in (1, 2, 4, 8):
        places = np.arange(MANY) ^ swap
        assert abs(correlation(filled(MANY), other[places])) <= 6 / MANY**0.5


def test_keys_whose_mixes_agree_in_one_half_give_independent_masks() -> None:
    # With one half alone in the hash, their masks would be the same. Of 200,000 keys some pairs
    # agree in 32 bits by chance.
    keys = np.arange(200_000, dtype=np.uint64)
    once = [np.uint64(dropout.mix64(key)) for key in keys]
    mixes = np.array([dropout.mix64(bits) for bits in once], np.uint64)
    for half in (mixes & np.uint64(2**32 - 1), mixes >> np.uint64(32)):
        order = np.argsort(half)
        (twins,) = np.nonzero(np.diff(half[order]) == 0)
        a, b = (filled(MANY, key=int(keys[order[twins[0] + i]])) for i in (0, 1))
        assert abs(correlation(a, b)) <= 6 / MANY**0.5


@pytest.mark.parametrize("start", [MANY, 2**31, 2**32, 2**33, 2**62])
def test_other_places_are_independent_of_the_first(start: int) -> None:
    assert abs(correlation(filled(MANY), filled(MANY, start=start))) <= 6 / MANY**0.5


def test_pairs_of_neighbours_fall_evenly_in_all_their_four_ways() -> None:
    mask = filled(MANY) > 0
    pairs = np.bincount(2 * mask[::2] + mask[1::2], minlength=4) / (MANY / 2)
    assert (np.abs(pairs - 0.25) <= 6 * (0.25 * 0.75 / (MANY / 2)) ** 0.5).all()


def test_the_parts_of_a_mask_are_those_of_the_whole() -> None:
    for start in (0, 5, HALF_FULL):
        whole = filled(500, start=start)
        for end in (1, 63, 77, 78, 499):
            parts = [filled(end, start=start), filled(500 - end, start=start + end)]
            np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_a_mask_drawn_is_fresh_each_time_and_the_same_from_the_same_seed() -> None:
    one, other = np.random.default_rng(3), np.random.default_rng(3)
    first = dropout.draw_mask((7, 5, 3), 0.5, one, np.dtype(np.float32))
    assert first.shape == (7, 5, 3)
    assert first.dtype == np.float32
    again = dropout.draw_mask((7, 5, 3), 0.5, other, np.dtype(np.float32))
    np.testing.assert_array_equal(first, again)
    assert (first != dropout.draw_mask((7, 5, 3), 0.5, one, np.dtype(np.float32))).any()


def test_a_mask_of_another_dtype_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^dropout.draw_mask: dtype must be float32, not float64$"):
        dropout.draw_mask((2,), 0.5, rng, np.dtype(np.float64))


def test_what_a_mask_leaves_of_a_branch_is_added() -> None:
    x, branch, mask, y = normal(95), normal(95), filled(95), poisoned(95)
    dropout.add_masked(x, branch, mask, y)
    truth = x.astype(np.float64) + branch.astype(np.float64) * mask
    # The product, if it is rounded by itself, and the sum.
    assert_within(y, truth, U * np.abs(truth) + gamma(2) * np.abs(branch * mask))
