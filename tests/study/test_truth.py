from typing import Any

import numpy as np
import pytest
from study_own import ARGS, FORWARD, W, X, edited, gradient_of, operation, truth

from tinygpt_np.study.source import StudyError
from tinygpt_np.study.trace import Value
from tinygpt_np.study.truth import DIRECTIONS, ELEMENTS, differ

Z = X @ W
A = np.tanh(Z)
ZVALUE = Value("z", 0)


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


def test_the_truth_of_each_value_is_its_gradient() -> None:
    true = truth(FORWARD)
    dy = true.doutput
    dz = dy * (1 + A + Z * (1 - A * A))
    for value, expected in [
        (Value("y", 3), dy), (Value("b", 2), dy), (Value("a", 1), dy * Z), (ZVALUE, dz),
        (Value("x", -1), dz @ W.T), (Value("w", -1), X.T @ dz),
    ]:  # fmt: skip
        close(true.total(value).gradient, expected)


def test_the_truth_of_a_use_is_the_part_that_comes_by_way_of_it() -> None:
    true = truth(FORWARD)
    dy = true.doutput
    for step, expected in [(3, dy), (2, dy * A), (1, dy * Z * (1 - A * A))]:
        close(true.use(ZVALUE, step).gradient, expected)


def test_the_parts_of_all_uses_add_up_to_the_whole() -> None:
    for name in ("layer_norm", "gelu", "cross_entropy", "attention"):
        true = operation(name).truth
        for value in sorted(true.flowing, key=lambda each: each.step):
            uses = true.trace.uses(value)
            if uses and value.name not in true.outputs:
                parts = [true.use(value, use) for use in uses]
                whole = parts[0]
                for part in parts[1:]:
                    whole = whole.plus(part)
                close(whole.gradient, true.total(value).gradient)


def test_a_value_that_is_returned_hears_of_the_output_too() -> None:
    text = "def forward(x):\n    y = x * 2\n    z = y.sum()\n    return y, z"
    true = truth(text, {"x": X})
    close(true.total(Value("y", 0)).gradient, true.doutput)
    close(true.use(Value("y", 0), 1).gradient, 0 * X)


def test_the_truth_of_a_name_set_twice_is_that_of_each_value() -> None:
    text = "def forward(x):\n    h = x * 2\n    h = h * h\n    y = 3 * h\n    return y, 0"
    true = truth(text, {"x": X})
    close(true.total(Value("h", 1)).gradient, 3 * true.doutput)
    close(true.total(Value("h", 0)).gradient, 3 * true.doutput * 4 * X)


def test_a_forward_that_changes_in_place_is_measured_as_it_runs() -> None:
    text = "def forward(x):\n    h = x * 2\n    h *= h\n    h += x\n    return h, 0"
    true = truth(text, {"x": X})
    close(true.total(Value("h", 0)).gradient, true.doutput * 4 * X)
    close(true.total(Value("x", -1)).gradient, true.doutput * (8 * X + 1))


# The upstream gradient


def test_the_upstream_gradient_is_random_and_that_of_the_seed() -> None:
    first, again, other = (truth(FORWARD, seed=seed).doutput for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()
    assert len(np.unique(first)) == first.size


def test_the_upstream_gradient_has_the_dtype_of_the_output() -> None:
    args = {"x": X.astype(np.float32), "w": W.astype(np.float32)}
    true = truth(FORWARD, args)
    assert (true.out.dtype, true.doutput.dtype) == (np.float32, np.float32)


def test_a_scalar_output_has_a_scalar_gradient() -> None:
    true = truth("def forward(x):\n    y = (x * x).sum()\n    return y, 0", {"x": X})
    assert true.doutput.shape == ()
    close(true.total(Value("x", -1)).gradient, 2 * X * true.doutput)


# Through what a gradient flows


def flowing(text: str, **args: Any) -> set[str]:
    return {value.name for value in truth(text, args).flowing}


def test_a_gradient_flows_through_what_moves_with_the_arguments() -> None:
    text = """
    def forward(x, n):
        size = x.shape[0]
        mask = x > 0
        constant = np.ones(n)
        z = np.where(mask, x, 0) * size
        unused = z * 2
        y = z + constant
        return y, 0
    """
    assert flowing(text, x=X, n=5) == {"x", "z", "unused", "y"}


def test_what_np_real_cuts_off_does_not_flow() -> None:
    text = """
    def forward(x, w):
        z = x @ w
        m = np.real(z).max(axis=1, keepdims=True)
        s = z - m
        y = np.exp(s)
        return y, m
    """
    # The real part of a complex product may be rounded otherwise than a real product.
    for size in range(2, 12):
        x, w = (np.random.default_rng(size).standard_normal((size, size)) for _ in range(2))
        assert flowing(text, x=x, w=w) == {"x", "w", "z", "s", "y"}


@pytest.mark.parametrize("name", ["softmax", "cross_entropy"])
def test_the_largest_logit_does_not_flow(name: str) -> None:
    names = {value.name for value in operation(name).truth.flowing}
    assert "shifted" in names
    assert "largest" not in names


def test_a_forward_that_takes_no_complex_numbers_is_read_instead() -> None:
    text = """
    def forward(x, w):
        z = x @ w
        m = np.real(z).max()
        count = int(x.sum() > 0)
        a = np.maximum(z, 0.1) - m
        y = a * float(a.sum()) + count
        return y, 0
    """
    assert flowing(text, **ARGS) == {"x", "w", "z", "a", "y"}


# How it is measured


def test_what_is_not_complex_safe_is_measured_by_richardson() -> None:
    true = truth(edited(FORWARD, ("np.tanh(z)", "np.abs(z)")))
    total = true.total(ZVALUE)
    assert total.measured.method == "richardson"
    expected = true.doutput * (1 + 2 * np.abs(Z))
    np.testing.assert_allclose(gradient_of(true, ZVALUE), expected, rtol=1e-8)


def test_a_large_tensor_is_looked_at_along_some_directions() -> None:
    x = np.random.default_rng(1).standard_normal(ELEMENTS + 1)
    true = truth("def forward(x):\n    y = x * x * x\n    return y, 0", {"x": x})
    total = true.total(Value("x", -1))
    assert total.gradient is None
    assert total.measured.probes.directions is not None
    assert total.measured.probes.directions.shape == (DIRECTIONS, ELEMENTS + 1)
    right = true.doutput * 3 * x * x
    assert total.judge(right).ok
    wrong = right.copy()
    wrong[7] += 1e-3
    assert not total.judge(wrong).ok


def test_the_curve_through_a_tensor_is_the_loss_along_a_direction() -> None:
    true = truth(FORWARD)
    u = np.random.default_rng(5).standard_normal(Z.shape)
    curve = true.total(ZVALUE).curve(u)
    z = Z + 0.3 * u
    close(curve(0.3), np.sum(true.doutput * (np.tanh(z) * z + z)))


def test_a_truth_is_measured_once() -> None:
    true = truth(FORWARD)
    assert true.total(ZVALUE) is true.total(ZVALUE)
    assert true.use(ZVALUE, 2) is true.use(ZVALUE, 2)
    assert true.use(Value("a", 1), 2) is true.total(Value("a", 1))


# One line alone


def test_a_line_alone_is_right_given_what_came_in_however_wrong_that_is() -> None:
    true = truth(FORWARD)
    da = np.random.default_rng(6).standard_normal(Z.shape)
    assert true.is_right_here(ZVALUE, 1, {"a": da}, da * (1 - A * A))
    assert not true.is_right_here(ZVALUE, 1, {"a": da}, da * (1 + A * A))
    assert not true.is_right_here(ZVALUE, 1, {"a": da}, (1 + 1e-6) * da * (1 - A * A))
    assert not true.is_right_here(ZVALUE, 1, {"a": da}, np.nan * da)


# What cannot be studied


@pytest.mark.parametrize("returned", ["y", "(y, 0, 1)", "[y, 0]"])
def test_a_forward_must_return_an_output_and_what_it_saved(returned: str) -> None:
    with pytest.raises(StudyError, match=r"^own.py, line 3: forward must return \(out, saved\)"):
        truth(f"def forward(x):\n    y = x\n    return {returned}", {"x": X})


def test_a_forward_that_takes_long_is_looked_at_along_directions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    patient = truth(FORWARD)
    assert patient.total(Value("x", -1)).measured.probes.directions is None
    monkeypatch.setattr("tinygpt_np.study.truth.PATIENCE", 0.0)
    hasty = truth(FORWARD)
    assert len(hasty.total(Value("x", -1)).measured.probes) == DIRECTIONS
    gradient = gradient_of(patient, Value("x", -1))
    assert hasty.total(Value("x", -1)).judge(gradient).ok
    assert not hasty.total(Value("x", -1)).judge(gradient * 1.001).ok


def test_only_arrays_and_numbers_of_numpy_are_said_to_differ() -> None:
    assert differ(X, X + 1)
    assert differ(np.float64(1), np.float64(2))
    assert not differ(X, X.copy())
    assert not differ(1.0, 2.0)
    assert not differ("a", "b")
