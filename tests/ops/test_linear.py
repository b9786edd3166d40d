import numpy as np

from tinygpt_np.ops import linear

rng = np.random.default_rng(6)
N, C, K = 6, 8, 7
X, WEIGHT, BIAS, DY = (rng.standard_normal(shape) for shape in ((N, C), (C, K), (K,), (N, K)))


def test_the_output_is_the_sum_in_the_docstring() -> None:
    y, _ = linear.forward(X, WEIGHT, BIAS)
    for n, k in np.ndindex(N, K):
        expected = sum(X[n, c] * WEIGHT[c, k] for c in range(C)) + BIAS[k]
        np.testing.assert_allclose(y[n, k], expected, rtol=1e-12)


def test_without_a_bias_there_is_no_gradient_for_one() -> None:
    _, saved = linear.forward(X, WEIGHT)
    assert linear.backward(DY, saved)[2] is None
