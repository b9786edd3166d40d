import numpy as np
import pytest
from helpers.kernel_twins import normals, poisoned

from tinygpt_np.compiled.kernels import embedding

rng, normal = normals(16)


# The last has more ids and rows than fit in 16 bits.
@pytest.mark.parametrize(
    ("count", "size", "width"), [*((24, 11, c) for c in (1, 15, 16, 17, 769)), (65_541, 70_001, 3)]
)
def test_rows_are_copied_and_gradients_added_in_the_order_of_n(
    count: int, size: int, width: int
) -> None:
    ids, weight, drows = rng.integers(0, size, count), normal(size, width), normal(count, width)
    ids[:4] = size - 1, 0, size // 2, size - 1
    rows, saved = embedding.forward(ids, weight)
    np.testing.assert_array_equal(rows, weight[ids])
    dweight = np.zeros_like(weight)
    np.add.at(dweight, ids, drows)
    np.testing.assert_array_equal(embedding.backward(drows, saved), dweight)
    expected = dweight.copy()
    np.add.at(expected, ids, drows)
    embedding.add_rows(ids, drows, dweight)  # To what is there.
    np.testing.assert_array_equal(dweight, expected)


def test_tokens_of_sequences_are_embedded_with_their_positions() -> None:
    tokens, wte, wpe = rng.integers(0, 11, (4, 6)), normal(11, 17), normal(9, 17)
    x = poisoned(25, 17)
    embedding.embed(tokens, 2, wte, wpe, x)
    expected = (wte[tokens] + wpe[2:8]).reshape(24, 17)
    np.testing.assert_array_equal(x[:24], expected)
    assert np.isnan(x[24]).all()
