"""The likely cause of a wrong gradient."""

import numpy as np
import pytest

from tinygpt_np.gradcheck.causes import likely_cause

rng = np.random.default_rng(5)
N, C = 6, 8
RIGHT = rng.standard_normal((N, C))
SQUARE = rng.standard_normal((C, C))
HEADS = rng.standard_normal((2, 3, 4, 5))
HEADS_T = HEADS.swapaxes(1, 2).reshape(HEADS.shape)
ROWS = np.arange(N)[:, None]


def cause(found: np.ndarray, expected: np.ndarray) -> str:
    return likely_cause(found, expected, [*expected.shape, expected.size, 1, 0], 1e-12)


# A layer norm whose backward lacks one of its sums, and a scatter that forgets repeated ids.
X, DY = rng.standard_normal((2, N, C))
STD = X.std(axis=-1, keepdims=True)
XHAT = (X - X.mean(axis=-1, keepdims=True)) / STD
NO_MEAN = DY - XHAT * (DY * XHAT).mean(axis=-1, keepdims=True)
CENTERED = DY - DY.mean(axis=-1, keepdims=True)
LAYER_NORM = NO_MEAN - DY.mean(axis=-1, keepdims=True)
IDS = np.array([3, 0, 3, 9, 3, 0])
SCATTERED, LAST = np.zeros((2, 11, C))
np.add.at(SCATTERED, IDS, DY)
LAST[IDS] = DY
SUMMED = "a mean or sum is missing: the right gradient sums to zero along axis 1, this one does not"


@pytest.mark.parametrize(
    ("found", "expected", "name"),
    [
        (2 * RIGHT, RIGHT, "too large by a factor of 2: counted twice"),
        (2 * RIGHT + 1e-8 * X, RIGHT, "too large by a factor of 2: counted twice"),
        (RIGHT / 2, RIGHT, "half of it: a factor of 2 is missing"),
        (6 * RIGHT, RIGHT, "too large by a factor of 6, a length or a number of elements here"),
        (6**-0.5 * RIGHT, RIGHT, "too small by a factor of √6, a length"),
        (-RIGHT, RIGHT, "the sign is wrong"),
        (-2 * RIGHT, RIGHT, "the sign is wrong, and it is too large by a factor of 2"),
        (1.25 * RIGHT, RIGHT, "1.25 times the right one"),
        (0 * RIGHT, RIGHT, "all zero: never computed, or cut off on the way"),
        (RIGHT, 0 * RIGHT, "it should be zero: something constant or masked lets a gradient"),
        (SQUARE.T, SQUARE, "transposed: axes 0 and 1 are swapped"),
        (HEADS_T, HEADS, "transposed: axes 1 and 2 are swapped, then reshaped to fit"),
        (np.roll(RIGHT, 1, 0), RIGHT, "off by one: all values are shifted by +1 along axis 0"),
        (np.roll(RIGHT, -1, 1), RIGHT, "off by one: all values are shifted by -1 along axis 1"),
        (RIGHT * (ROWS > 0), RIGHT, "not filled in: right in 40 of 48 places, zero in the others"),
        (RIGHT, RIGHT * (ROWS > 2), "not masked: right in 24 of 48 places, and not zero"),
        (RIGHT * np.sign(ROWS - 0.5), RIGHT, "right in 40 of 48 places; in the others the sign is"),
        (LAST, SCATTERED, "right in 72 of 88 places; in the others perhaps not accumulated"),
        (RIGHT + ROWS, RIGHT, "a sum or mean is missing: the error is constant along axis 1"),
        (RIGHT * (2 + ROWS), RIGHT, "a factor is missing: along axis 1 it is right up to a factor"),
        (NO_MEAN / STD, LAYER_NORM / STD, SUMMED),
        (CENTERED / STD, LAYER_NORM / STD, "perhaps a term is missing, or one too many"),
    ],
)
def test_a_mistake_is_named(found: np.ndarray, expected: np.ndarray, name: str) -> None:
    assert cause(found, expected).startswith(name)


def test_an_error_too_small_to_recognise_or_an_unrelated_gradient_has_no_cause() -> None:
    for error in (1e-7 * X, 1e-9 * RIGHT, 1e-7 * (np.arange(C) == 3)):
        assert cause(RIGHT + error, RIGHT) == ""
    for seed in range(50):
        assert cause(np.random.default_rng(seed).standard_normal((N, C)), RIGHT) == ""


def test_small_errors_beside_one_large_element_are_not_the_same_along_an_axis() -> None:
    expected = RIGHT.copy()
    expected[0, 0] = 1e3
    assert "is constant along" not in cause(expected + 5e-4 * np.sign(RIGHT), expected)


@pytest.mark.parametrize("shape", [(1, 8), (8, 1), (1,), ()])
def test_an_axis_of_length_1_explains_nothing(shape: tuple[int, ...]) -> None:
    expected = np.random.default_rng(1).standard_normal(shape)
    for error in (1, expected**3):
        named = cause(np.asarray(expected + error), expected)
        single = [axis for axis, length in enumerate(shape) if length == 1]
        assert not any(f"axis {axis}" in named for axis in single)
        assert "transposed" not in named
