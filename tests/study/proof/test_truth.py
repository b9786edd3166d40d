from typing import Any

import numpy as np
import pytest
from helpers.study_targets import FORWARD, W, X, gradient_of, truth

from tinygpt_np.gradcheck.function_check import DIRECTIONS, MAX_ELEMENTS
from tinygpt_np.study.source.parse import StudyError
from tinygpt_np.study.source.trace import Value

Z = X @ W
A = np.tanh(Z)
ZVALUE = Value("z", 0)
rng = np.random.default_rng(6)


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


def test_the_gradient_of_each_value_and_the_term_from_each_use_are_measured() -> None:
    measured = truth(FORWARD)
    dy = measured.doutput
    dz = dy * (1 + A + Z * (1 - A * A))
    for value, expected in [
        (Value("y", 3), dy), (Value("b", 2), dy), (Value("a", 1), dy * Z), (ZVALUE, dz),
        (Value("x", -1), dz @ W.T), (Value("w", -1), X.T @ dz),
    ]:  # fmt: skip
        close(measured.total(value).gradient, expected)
    for step, expected in [(3, dy), (2, dy * A), (1, dy * Z * (1 - A * A))]:
        close(measured.use(ZVALUE, step).gradient, expected)


def test_the_gradient_of_a_returned_value_includes_the_upstream_gradient() -> None:
    text = "def forward(x):\n    y = x * 2\n    z = y.sum()\n    return y, z"
    measured = truth(text, {"x": X})
    close(measured.total(Value("y", 0)).gradient, measured.doutput)
    close(measured.use(Value("y", 0), 1).gradient, 0 * X)


def test_in_place_changes_in_forward_are_differentiated() -> None:
    text = "def forward(x):\n    h = x * 2\n    h *= h\n    h += x\n    return h, 0"
    measured = truth(text, {"x": X})
    close(measured.total(Value("h", 0)).gradient, measured.doutput * 4 * X)
    close(measured.total(Value("x", -1)).gradient, measured.doutput * (8 * X + 1))


# The lines of a forward of x and w, and the names through which a gradient flows.
FLOWS = [
    (
        "size = x.shape[0]; mask = x > 0; constant = np.ones(5); z = np.where(mask, x, 0) * size;"
        "unused = z * 2; y = (z + constant) @ w",
        "x w z unused y",
    ),
    ("z = x @ w; m = np.real(z).max(axis=1, keepdims=True); s = z - m; y = np.exp(s)", "x w z s y"),
    (  # Without complex numbers, the source determines it.
        "z = x @ w; m = np.real(z).max(); count = int(x.sum() > 0); a = np.maximum(z, 0.1) - m;"
        "y = a * float(a.sum()) + count",
        "x w z a y",
    ),
]


@pytest.mark.parametrize(("body", "names"), FLOWS)
def test_a_gradient_flows_through_the_values_that_depend_on_the_arguments(
    body: str, names: str
) -> None:
    # The real part of a complex product may be rounded otherwise than a real product.
    for size in range(2, 12):
        args = {"x": rng.standard_normal((size, 5)), "w": rng.standard_normal((5, size))}
        found = truth(f"def forward(x, w):\n    {body}\n    return y, 0", args)
        assert {value.name for value in found.differentiable} == {*names.split()}


def test_a_large_tensor_is_measured_along_random_directions() -> None:
    x = np.random.default_rng(1).standard_normal(MAX_ELEMENTS + 1)
    measured = truth("def forward(x):\n    y = x * x * x\n    return y, 0", {"x": x})
    total = measured.total(Value("x", -1))
    assert total.gradient is None
    assert len(total.measured.probes) == DIRECTIONS
    right = measured.doutput * 3 * x * x
    assert total.compare(right).ok
    wrong = right.copy()
    wrong[7] += 1e-3
    assert not total.compare(wrong).ok


@pytest.mark.parametrize("returned", ["(0, y)", "[y, 0]", "y"])
def test_forward_must_return_an_output_and_saved(returned: str) -> None:
    with pytest.raises(StudyError, match=r"^own.py, line 3: forward must return \(out, saved\)"):
        truth(f"def forward(x):\n    y = x\n    return {returned}", {"x": X})


def test_a_slow_forward_is_measured_along_random_directions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gradient = gradient_of(truth(FORWARD), Value("x", -1))
    monkeypatch.setattr("tinygpt_np.gradcheck.function_check.TIME_LIMIT", 0.0)
    slow = truth(FORWARD).total(Value("x", -1))
    assert len(slow.measured.probes) == DIRECTIONS
    assert slow.compare(gradient).ok
    assert not slow.compare(gradient * 1.001).ok
