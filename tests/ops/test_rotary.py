import numpy as np
import pytest

from tinygpt_np.ops import rotary

# (T, H, 2P) = (3, 2, 10)
x, other, dy = np.random.default_rng(7).standard_normal((3, 3, 2, 10))
POSITIONS = np.array([0, 1, 7])
# Takes the channels (0, 1), (2, 3), … to the places of (0, 5), (1, 6), …
TO_HALVES = np.arange(10).reshape(5, 2).T.ravel()

both_pairings = pytest.mark.parametrize("interleaved", [False, True])


@both_pairings
def test_angles_are_those_of_the_definition(interleaved: bool) -> None:
    y, _ = rotary.forward(x, POSITIONS, 50.0, interleaved)
    for t, position in enumerate(POSITIONS):
        for i in range(5):
            pair = [2 * i, 2 * i + 1] if interleaved else [i, i + 5]
            turn = np.exp(1j * position * 50.0 ** (-i / 5))
            expected = (x[t][:, pair] @ [1, 1j]) * turn
            np.testing.assert_allclose(y[t][:, pair] @ [1, 1j], expected)


@both_pairings
def test_lengths_are_kept(interleaved: bool) -> None:
    y, _ = rotary.forward(x, POSITIONS, 50.0, interleaved)
    np.testing.assert_allclose(np.linalg.norm(y, axis=-1), np.linalg.norm(x, axis=-1))


@both_pairings
def test_dot_products_depend_on_the_distance_of_positions_only(interleaved: bool) -> None:
    def products(start: int) -> np.ndarray:
        q, _ = rotary.forward(x, POSITIONS + start, 50.0, interleaved)
        k, _ = rotary.forward(other, POSITIONS + start, 50.0, interleaved)
        return np.einsum("thd,shd->hts", q, k)

    np.testing.assert_allclose(products(40), products(0))
    assert np.abs(products(0) - np.einsum("thd,shd->hts", x, other)).max() > 0.1


@both_pairings
def test_position_0_is_the_identity(interleaved: bool) -> None:
    y, _ = rotary.forward(x, POSITIONS, interleaved=interleaved)
    np.testing.assert_array_equal(y[0], x[0])
    assert (y[1:] != x[1:]).all()


@both_pairings
def test_the_backward_rotates_by_minus_the_angle(interleaved: bool) -> None:
    _, saved = rotary.forward(x, POSITIONS, 50.0, interleaved)
    expected, _ = rotary.forward(dy, -POSITIONS, 50.0, interleaved)
    np.testing.assert_allclose(rotary.backward(dy, saved), expected)


def test_the_pairings_differ_by_a_permutation_of_the_channels() -> None:
    halves, _ = rotary.forward(x[..., TO_HALVES], POSITIONS, 50.0)
    pairs, _ = rotary.forward(x, POSITIONS, 50.0, True)
    np.testing.assert_array_equal(pairs[..., TO_HALVES], halves)
    assert np.abs(pairs - rotary.forward(x, POSITIONS, 50.0)[0]).max() > 0.1


def test_each_row_is_rotated_by_its_own_position() -> None:
    y, _ = rotary.forward(x, np.array([9, 4, 9]))
    for t, position in enumerate((9, 4, 9)):
        alone, _ = rotary.forward(x[t : t + 1], np.array([position]))
        np.testing.assert_array_equal(y[t : t + 1], alone)


def test_angles_of_late_positions_are_exact_in_float32() -> None:
    late = np.array([1_000_003])
    ones = np.ones((1, 1, 10), np.float32)
    y, _ = rotary.forward(ones, late)
    truth, _ = rotary.forward(ones.astype(np.float64), late)
    np.testing.assert_allclose(y, truth, atol=1e-6)


def test_a_head_of_an_odd_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"x must be \(\.\.\., T, H, 2P\)"):
        rotary.forward(np.ones((3, 2, 5)), POSITIONS)
