"""The likely cause of a wrong gradient."""

import numpy as np
import pytest

from tinygpt_np.gradcheck.causes import MISTAKES, judged, likely_cause, named_mistakes
from tinygpt_np.gradcheck.mutations import KINDS

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
IGNORED = np.where(ROWS == 2, 0, RIGHT)


@pytest.mark.parametrize(
    ("found", "expected", "name"),
    [
        (2 * RIGHT, RIGHT, "too large by a factor of 2"),
        (2 * RIGHT + 1e-11 * X, RIGHT, "too large by a factor of 2"),
        (RIGHT / 2, RIGHT, "too small by a factor of 2"),
        (6 * RIGHT, RIGHT, "too large by a factor of 6, a length or a number of elements here"),
        (6**-0.5 * RIGHT, RIGHT, "too small by a factor of √6, a length or a number of elements"),
        (-RIGHT, RIGHT, "the sign is wrong"),
        (-2 * RIGHT, RIGHT, "the sign is wrong, and too large by a factor of 2"),
        (1.25 * RIGHT, RIGHT, "too large by a factor of 1.25"),
        (0 * RIGHT, RIGHT, "all zero: it is never computed, or a factor is zero"),
        (RIGHT, 0 * RIGHT, "it should be zero: a constant or a masked value lets a gradient"),
        (SQUARE.T, SQUARE, "transposed: axes 0 and 1 are swapped"),
        (HEADS_T, HEADS, "transposed: axes 1 and 2 are swapped, then reshaped to fit"),
        (np.roll(RIGHT, 1, 0), RIGHT, "off by one: all values are shifted by +1 along axis 0"),
        (np.roll(RIGHT, -1, 1), RIGHT, "off by one: all values are shifted by -1 along axis 1"),
        (RIGHT * (ROWS > 0), RIGHT, "not filled in: right in 40 of 48 places, zero in the others"),
        (RIGHT, RIGHT * (ROWS > 2), "not masked: 24 elements should be zero"),
        (
            IGNORED * 5 / 6 + (RIGHT - IGNORED), IGNORED,
            "not masked: 8 elements should be zero, as for ignored rows, and the mean is over all",
        ),
        (
            RIGHT * np.sign(ROWS - 0.5), RIGHT,
            "partly wrong: right in 40 of 48 places, the others: the sign is wrong",
        ),
        (NO_MEAN / STD, LAYER_NORM / STD, "a term is missing: subtract the mean along axis 1"),
    ],
)  # fmt: skip
def test_a_mistake_is_named(found: np.ndarray, expected: np.ndarray, name: str) -> None:
    assert cause(found, expected).startswith(name)
    assert named_mistakes(cause(found, expected))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (RIGHT + ROWS, RIGHT),
        (RIGHT * (2 + ROWS), RIGHT),
        (CENTERED / STD, LAYER_NORM / STD),
        (LAST, SCATTERED),
        (2 * RIGHT + 1e-7 * X, RIGHT),
    ],
    ids=["constant along rows", "a factor per row", "a term", "repeated", "nearly twice"],
)
def test_what_is_no_identity_is_no_cause(found: np.ndarray, expected: np.ndarray) -> None:
    assert cause(found, expected) == ""


def test_equal_lengths_that_explain_an_error_differently_are_both_named_or_none_is() -> None:
    assert likely_cause(2 * RIGHT, RIGHT, [4, 2, 8], 1e-12) == (
        "too large by a factor of 2 or √4, a length or a number of elements here"
    )
    # Swapping any two axes has the same effect.
    cube = rng.standard_normal((3, 3, 3))
    cyclic = cube + cube.transpose(1, 2, 0) + cube.transpose(2, 0, 1)
    assert cause(cyclic.swapaxes(0, 1), cyclic) == ""
    assert cause(cube.swapaxes(0, 1), cube).startswith("transposed: axes 0 and 1")


def test_the_causes_of_planted_bugs_are_judged_by_the_first_words() -> None:
    assert judged("", "sign") == "none"
    assert judged("the sign is wrong: leave out the minus sign", "sign") == "right"
    assert judged("the sign is wrong", "transpose") == "wrong"
    both = "a factor too many: leave out `/ 2`, or the wrong value: write `a` for `b`"
    assert [judged(both, kind) for kind in ("stale value", "axis")] == ["one of two", "wrong"]
    assert {kind for kinds in MISTAKES.values() for kind in kinds} <= {*KINDS, "path dropped"}


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
