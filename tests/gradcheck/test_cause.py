"""The likely cause: each mistake is called by its name, and nothing else is."""

import numpy as np
import pytest

from tinygpt_np.gradcheck.verdict import likely_cause

rng = np.random.default_rng(5)
N, C, V = 6, 8, 11
EXPECTED = rng.standard_normal((N, C))
SQUARE = rng.standard_normal((C, C))
HEADS = rng.standard_normal((2, 3, 4, 5))
IDS = np.array([3, 0, 3, 9, 3, 0])


def cause(found: np.ndarray, expected: np.ndarray = EXPECTED) -> str:
    return likely_cause(found, expected, [*expected.shape, expected.size, 1, 0], 1e-12)


@pytest.mark.parametrize(
    ("factor", "name"),
    [
        (2, "too large by a factor of 2: counted twice"),
        (0.5, "half of it: a factor of 2 is missing"),
        (6, "too large by a factor of 6, a length or a number of elements here"),
        (1 / 8, "too small by a factor of 8, a length or a number of elements here"),
        (48, "too large by a factor of 48, a length or a number of elements here"),
        (8**0.5, "too large by a factor of √8, a length or a number of elements here"),
        (6**-0.5, "too small by a factor of √6, a length or a number of elements here"),
        (-1, "the sign is wrong"),
        (-2, "the sign is wrong, and it is too large by a factor of 2: counted twice"),
        (-1 / 6, "the sign is wrong, and it is too small by a factor of 6, "
         "a length or a number of elements here"),
        (1.25, "1.25 times the right one"),
        (0, "all zero: never computed, or cut off on the way"),
    ],
)  # fmt: skip
def test_a_factor_is_named(factor: float, name: str) -> None:
    assert cause(factor * EXPECTED) == name


def test_a_factor_is_named_beside_a_small_second_error() -> None:
    noise = 1e-8 * rng.standard_normal((N, C))
    assert cause(2 * EXPECTED + noise).startswith("too large by a factor of 2")


def test_a_swap_of_two_axes_is_named() -> None:
    assert cause(SQUARE.T, SQUARE) == "transposed: axes 0 and 1 are swapped"


def test_a_transpose_that_was_reshaped_to_fit_is_named() -> None:
    assert cause(EXPECTED.T.reshape(N, C)) == (
        "transposed: axes 0 and 1 are swapped, then reshaped to fit"
    )
    found = HEADS.swapaxes(1, 2).reshape(HEADS.shape)
    assert cause(found, HEADS) == "transposed: axes 1 and 2 are swapped, then reshaped to fit"


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("shift", [1, -1])
def test_off_by_one_is_named(shift: int, axis: int) -> None:
    assert cause(np.roll(EXPECTED, shift, axis)) == (
        f"off by one: all values are shifted by {shift:+} along axis {axis}"
    )


def test_a_scatter_that_forgets_repeated_ids_is_named() -> None:
    drows = rng.standard_normal((len(IDS), C))
    expected, found = np.zeros((V, C)), np.zeros((V, C))
    np.add.at(expected, IDS, drows)
    found[IDS] = drows
    assert cause(found, expected) == (
        "right in 72 of 88 places; in the others perhaps not accumulated: "
        "a part lost, or counted twice"
    )


def test_places_that_were_never_filled_in_are_named() -> None:
    found = EXPECTED.copy()
    found[0] = 0
    assert cause(found) == "not filled in: right in 40 of 48 places, zero in the others"


def test_places_that_should_have_been_held_back_are_named() -> None:
    expected = np.where(np.arange(C) < 3, 0, EXPECTED)
    assert cause(EXPECTED, expected) == (
        "not masked: right in 30 of 48 places, and not zero where it should be"
    )


def test_a_factor_in_some_places_is_named() -> None:
    found = np.where(np.arange(C) < 2, -EXPECTED, EXPECTED)
    assert cause(found) == "right in 36 of 48 places; in the others the sign is wrong"


def layer_norm(x: np.ndarray, dy: np.ndarray, mean: bool, along: bool) -> np.ndarray:
    """The gradient of a layer norm, with or without its two sums."""
    centered = x - x.mean(axis=-1, keepdims=True)
    std = np.sqrt((centered**2).mean(axis=-1, keepdims=True))
    xhat = centered / std
    dx = dy - mean * dy.mean(axis=-1, keepdims=True)
    return (dx - along * xhat * (dy * xhat).mean(axis=-1, keepdims=True)) / std


def softmax(x: np.ndarray, dy: np.ndarray, whole: bool) -> np.ndarray:
    probs = np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)
    return probs * (dy - whole * (probs * dy).sum(axis=-1, keepdims=True))


X, DY = rng.standard_normal((2, N, C))
SUMMED = "a mean or sum is missing: the right gradient sums to zero along axis 1"


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (layer_norm(X, DY, mean=False, along=True), layer_norm(X, DY, mean=True, along=True)),
        (layer_norm(X, DY, mean=False, along=False), layer_norm(X, DY, mean=True, along=True)),
        (softmax(X, DY, whole=False), softmax(X, DY, whole=True)),
    ],
    ids=["layer norm without its mean", "layer norm without both", "softmax's diagonal"],
)
def test_a_gradient_that_should_sum_to_zero_and_does_not_is_named(
    found: np.ndarray, expected: np.ndarray
) -> None:
    assert cause(found, expected).startswith(SUMMED)


def test_a_layer_norm_without_its_second_sum_lacks_a_term() -> None:
    found, expected = (layer_norm(X, DY, mean=True, along=along) for along in (False, True))
    assert cause(found, expected).startswith("perhaps a term is missing, or one too many")


def test_an_error_that_is_the_same_all_along_an_axis_is_named() -> None:
    assert cause(EXPECTED + rng.standard_normal((N, 1))) == (
        "a sum or mean is missing: the error is constant along axis 1"
    )


def test_a_factor_for_each_row_is_named() -> None:
    assert cause(EXPECTED * rng.uniform(2, 3, (N, 1))) == (
        "a factor is missing: along axis 1 it is right up to a factor"
    )


def test_what_should_be_zero_is_named() -> None:
    assert cause(EXPECTED, np.zeros((N, C))).startswith("it should be zero")


# No names for what they do not fit


def noise(size: float) -> np.ndarray:
    return EXPECTED + size * rng.standard_normal((N, C))


@pytest.mark.parametrize("size", [1e-11, 1e-9, 1e-7])
def test_an_error_too_small_to_be_known_has_no_name(size: float) -> None:
    assert cause(noise(size)) == ""
    assert cause(EXPECTED * (1 + size)) == ""
    found = EXPECTED.copy()
    found[2, 3] += size
    assert cause(found) == ""


@pytest.mark.parametrize("size", [1e-5, 1e-3, 1e-1])
def test_noise_all_over_is_given_no_name_for_certain(size: float) -> None:
    assert cause(noise(size)).startswith("perhaps ")


def test_something_else_altogether_has_no_name() -> None:
    for seed in range(50):
        other = np.random.default_rng(seed).standard_normal((N, C))
        # Nearly at right angles, or pointing away.
        if float(np.vdot(other, EXPECTED)) < 0:
            assert cause(other) == ""


def test_an_error_larger_than_the_gradient_is_no_missing_term() -> None:
    found = noise(3)
    assert float(np.vdot(found, EXPECTED)) > 0
    assert cause(found) == ""


def test_small_errors_beside_one_large_element_are_not_the_same_along_an_axis() -> None:
    expected = EXPECTED.copy()
    expected[0, 0] = 1e3
    found = expected + 5e-4 * np.sign(EXPECTED)
    assert "is constant along" not in cause(found, expected)


@pytest.mark.parametrize("shape", [(1, 8), (8, 1), (8,), (1,), ()])
@pytest.mark.parametrize("power", [0, 3])
def test_an_axis_of_one_explains_nothing(shape: tuple[int, ...], power: int) -> None:
    expected = np.random.default_rng(1).standard_normal(shape)
    found = np.asarray(expected + expected**power)
    named = cause(found, expected)
    lonely = [axis for axis, length in enumerate(shape) if length == 1]
    assert not any(f"axis {axis}" in named for axis in lonely)
    assert "transposed" not in named


def test_a_length_of_one_is_no_factor() -> None:
    assert likely_cause(EXPECTED * (1 + 1e-9), EXPECTED, [1], 1e-12) == ""
    assert likely_cause(EXPECTED * 3, EXPECTED, [1], 1e-12) == "3 times the right one"
