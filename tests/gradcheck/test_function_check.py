"""A trial: how forward and backward are called, and whether backward has manners."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gradcheck.functions import (
    SCALE,
    W,
    X,
    cube,
    dcube,
    dlayer_norm,
    dlinear,
    drelu,
    layer_norm,
    linear,
)

from tinygpt_np.gradcheck import CheckError, Report
from tinygpt_np.gradcheck.function_check import LAYOUTS, FunctionCheck

Forward = Callable[[np.ndarray], tuple[np.ndarray, Any]]
Backward = Callable[[np.ndarray, Any], Any]


def problems(report: Report) -> dict[str, str]:
    """What is wrong, by tensor."""
    return {row.name: "; ".join(row.problems) for row in report.rows if not row.ok}


def judged(forward: Forward, backward: Backward, x: np.ndarray = X) -> Report:
    return FunctionCheck(forward, (x,)).report(backward)


def of_cube(backward: Backward) -> str:
    return problems(judged(cube, backward)).get("x", "")


def of_linear(backward: Backward) -> dict[str, str]:
    return problems(FunctionCheck(linear, (X, W)).report(backward))


def test_a_right_backward_has_no_problems() -> None:
    assert of_cube(dcube) == ""
    assert of_linear(dlinear) == {}
    assert FunctionCheck(layer_norm, (X, SCALE)).report(dlayer_norm).ok


def test_one_trial_judges_many_backwards() -> None:
    trial = FunctionCheck(cube, (X,))
    verdicts = [trial.report(backward).ok for backward in (dcube, drelu, dcube)]
    assert verdicts == [True, False, True]


def test_the_upstream_gradient_is_random_and_like_the_output() -> None:
    trial = FunctionCheck(linear, (X, W))
    assert trial.doutput.shape == (4, 5)
    assert len(set(trial.doutput.flat)) == 20


def test_the_upstream_gradient_can_be_given() -> None:
    def for_ones(dy: np.ndarray, x: Any) -> np.ndarray:
        return 3 * x * x

    assert FunctionCheck(cube, (X,), doutput=np.ones(X.shape)).report(for_ones).ok
    assert not FunctionCheck(cube, (X,)).report(for_ones).ok


# Manners: memory


def changes_the_upstream_gradient(dy: np.ndarray, x: Any) -> np.ndarray:
    dy *= 3 * x * x
    return dy.copy()


def changes_its_input(dy: np.ndarray, x: Any) -> np.ndarray:
    dx = dy * 3 * x * x
    x[:] = 0
    return dx


def changes_what_was_saved(dy: np.ndarray, saved: Any) -> np.ndarray:
    saved *= 3
    return dy * saved


def raises_the_second_time(dy: np.ndarray, saved: Any) -> np.ndarray:
    return dy * saved.pop()


buffer, kept = np.empty(X.shape), np.zeros(X.shape)


def reuses_a_buffer(dy: np.ndarray, x: Any) -> np.ndarray:
    return np.multiply(dy, 3 * x * x, out=buffer)


def adds_to_what_it_keeps(dy: np.ndarray, x: Any) -> np.ndarray:
    global kept
    kept = kept + dy * 3 * x * x
    return kept


def saves_in_a_buffer(x: np.ndarray) -> tuple[np.ndarray, Any]:
    # A complex buffer for the complex step, so that only the manners are wrong.
    saved = buffers.setdefault(x.dtype.char, np.empty(X.shape, x.dtype))
    saved[...] = x
    return x * x * x, saved


buffers: dict[str, np.ndarray] = {}


def test_a_backward_that_changes_the_upstream_gradient_is_noticed() -> None:
    assert "backward changes its input dout" in of_cube(changes_the_upstream_gradient)


def test_a_backward_that_changes_its_input_is_noticed() -> None:
    assert "backward changes its input x" in of_cube(changes_its_input)


def test_a_backward_that_changes_what_was_saved_is_noticed() -> None:
    report = judged(lambda x: (x * x * x, x * x), changes_what_was_saved)
    assert problems(report) == {"x": "a second backward differs: the first changed what was saved"}


def test_a_backward_that_cannot_run_twice_is_noticed() -> None:
    report = judged(lambda x: (x * x * x, [3 * x * x]), raises_the_second_time)
    assert "a second backward raises IndexError" in problems(report)["x"]


def test_a_backward_that_reuses_a_buffer_is_noticed() -> None:
    assert of_cube(reuses_a_buffer) == "a second backward overwrites the gradient of the first"


def test_a_backward_that_adds_to_what_it_keeps_is_noticed() -> None:
    kept[...] = 0
    assert "a second backward differs" in of_cube(adds_to_what_it_keeps)


def test_a_forward_that_saves_where_the_last_one_did_is_noticed() -> None:
    report = judged(saves_in_a_buffer, dcube)
    assert problems(report) == {
        "x": "after another forward it differs: that changed what was saved"
    }


def test_a_forward_that_changes_its_input_is_noticed() -> None:
    def forward(x: np.ndarray) -> tuple[np.ndarray, Any]:
        saved = x.copy()
        x *= 2
        return saved * saved * saved, saved

    assert "forward changes its input x" in problems(judged(forward, dcube))["x"]


def test_a_forward_that_changes_an_input_without_a_gradient_is_noticed() -> None:
    def forward(x: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, Any]:
        chosen, shape = ids.copy(), x.shape
        ids += 1
        return x[chosen], (chosen, shape)

    def backward(dy: np.ndarray, saved: Any) -> np.ndarray:
        dx = np.zeros(saved[1])
        np.add.at(dx, saved[0], dy)
        return dx

    report = FunctionCheck(forward, (X, np.array([0, 2, 0]))).report(backward)
    assert problems(report) == {"x": "forward changes its input ids"}


def add(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, Any]:
    out = a + b
    return out, (a, b, out)


SHARING: dict[str, tuple[str, Backward]] = {
    "dout": ("dout", lambda dy, saved: (dy, dy.copy())),
    "a view of dout": ("dout", lambda dy, saved: (dy[:, :], dy.copy())),
    "an input": ("a", lambda dy, saved: (saved[0], dy.copy())),
    "the other input": ("b", lambda dy, saved: (saved[1], dy.copy())),
    "the output": ("out", lambda dy, saved: (saved[2], dy.copy())),
}


@pytest.mark.parametrize("name", SHARING)
def test_a_gradient_in_the_memory_of_another_is_noticed(name: str) -> None:
    whose, backward = SHARING[name]
    found = problems(FunctionCheck(add, (X, 2 * X)).report(backward))
    assert f"the gradient shares its memory with {whose}" in found["a"]


def test_two_gradients_in_one_memory_are_noticed() -> None:
    def backward(dy: np.ndarray, saved: Any) -> tuple[np.ndarray, np.ndarray]:
        both = dy.copy()
        return both, both

    assert problems(FunctionCheck(add, (X, 2 * X)).report(backward)) == {
        "b": "the gradient shares its memory with the gradient of a"
    }


def test_the_arguments_of_the_caller_stay_as_they_are() -> None:
    x, dout = X.copy(), np.ones(X.shape)
    FunctionCheck(cube, (x,), doutput=dout).report(changes_its_input)
    FunctionCheck(cube, (x,), doutput=dout).report(changes_the_upstream_gradient)
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(dout, np.ones(X.shape))


# Manners: layouts


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_holds_the_same_numbers(layout: str) -> None:
    for array in (X, SCALE, np.array(2.0), np.arange(24).reshape(2, 3, 4)):
        changed = LAYOUTS[layout](array)
        np.testing.assert_array_equal(changed, array)
        assert changed.shape == array.shape
        assert not np.shares_memory(changed, array)


def test_the_layouts_are_what_they_are_called() -> None:
    assert LAYOUTS["strided"](X).strides == (96, 16)
    assert LAYOUTS["reversed"](X).strides == (-48, -8)
    assert LAYOUTS["Fortran-ordered"](X).strides == (8, 32)
    assert not LAYOUTS["read-only"](X).flags.writeable


def in_order_of_memory(dy: np.ndarray, x: Any) -> np.ndarray:
    # "K": as the elements lie in memory, which is theirs only in C order.
    return (dy.ravel("K") * 3 * x.ravel("K") ** 2).reshape(dy.shape)


def writes_to_its_input(dy: np.ndarray, x: Any) -> np.ndarray:
    before = x.copy()
    np.square(x, out=x)
    dx = dy * 3 * x
    x[...] = before
    return dx


def reads_raw_memory(dy: np.ndarray, x: Any) -> np.ndarray:
    raw = np.lib.stride_tricks.as_strided(x, x.shape, (8 * x.shape[1], 8))
    return dy * 3 * raw * raw


def test_elements_in_the_order_of_memory_are_noticed() -> None:
    assert "with Fortran-ordered inputs: off by" in of_cube(in_order_of_memory)


def test_a_write_to_a_read_only_input_is_noticed() -> None:
    assert "with read-only inputs: it raises ValueError" in of_cube(writes_to_its_input)


def test_raw_memory_is_noticed_wherever_it_is_not_in_order() -> None:
    found = of_cube(reads_raw_memory)
    assert "with strided inputs: off by" in found
    assert "with Fortran-ordered inputs: off by" in found


def test_a_forward_that_refuses_a_layout_is_noticed() -> None:
    def forward(x: np.ndarray) -> tuple[np.ndarray, Any]:
        if not x.flags.c_contiguous:
            raise TypeError("x must be contiguous")
        return cube(x)

    found = problems(judged(forward, dcube))["x"]
    assert "with strided inputs: it raises TypeError: x must be contiguous" in found


# How functions are called


def test_arguments_by_position_have_the_names_of_the_function() -> None:
    assert [row.name for row in FunctionCheck(linear, (X, W)).report(dlinear).rows] == ["x", "w"]


def test_arguments_of_a_function_without_names_are_numbered() -> None:
    def forward(*both: np.ndarray) -> tuple[np.ndarray, Any]:
        return linear(*both)

    assert FunctionCheck(forward, (X, W)).report(dlinear).rows[1].name == "arg1"


def test_arguments_by_name_are_given_by_name() -> None:
    def forward(*, w: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, Any]:
        return linear(x, w)

    assert FunctionCheck(forward, {"x": X, "w": W}).report(dlinear).ok


def test_gradients_may_come_by_name_in_any_order() -> None:
    def backward(dy: np.ndarray, saved: Any) -> dict[str, np.ndarray]:
        dx, dw = dlinear(dy, saved)
        return {"w": dw, "x": dx}

    assert of_linear(backward) == {}


def test_a_gradient_that_is_missing_by_name_is_wrong() -> None:
    assert of_linear(lambda dy, saved: {"x": dlinear(dy, saved)[0]}) == {
        "w": "there is no gradient"
    }


def test_a_gradient_of_none_is_missing() -> None:
    assert of_linear(lambda dy, saved: (None, dlinear(dy, saved)[1])) == {
        "x": "there is no gradient"
    }


def test_a_name_that_is_no_argument_is_refused() -> None:
    with pytest.raises(CheckError, match="a gradient of weigth, which is none of x, w"):
        of_linear(lambda dy, saved: {"weigth": dy})


@pytest.mark.parametrize("count", [1, 3])
def test_another_number_of_gradients_is_refused(count: int) -> None:
    message = rf"a gradient for each of x, w \(2 in all\), not {count}; wrt says"
    with pytest.raises(CheckError, match=message):
        of_linear(lambda dy, saved: (dy,) * count)


def test_an_argument_that_was_none_may_have_none_for_a_gradient() -> None:
    def forward(x: np.ndarray, w: np.ndarray, bias: Any = None) -> tuple[np.ndarray, Any]:
        return linear(x, w)

    def backward(dy: np.ndarray, saved: Any) -> tuple[Any, ...]:
        return (*dlinear(dy, saved), None)

    assert FunctionCheck(forward, (X, W, None)).report(backward).ok


def test_only_what_was_asked_for_is_checked() -> None:
    def backward(dy: np.ndarray, saved: Any) -> np.ndarray:
        return dlinear(dy, saved)[1]

    report = FunctionCheck(linear, (X, W), ("w",)).report(backward)
    assert [row.name for row in report.rows] == ["w"]
    assert report.ok


def test_one_name_may_be_given_as_it_is() -> None:
    assert FunctionCheck(linear, (X, W), "w").wrt == ("w",)


def test_a_generator_among_the_arguments_is_replayed() -> None:
    def dropout(x: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, Any]:
        mask = rng.random(x.shape) < 0.7
        return x * mask, mask

    rng = np.random.default_rng(0)
    before = rng.bit_generator.state

    def backward(dy: np.ndarray, mask: Any) -> np.ndarray:
        return dy * mask

    assert FunctionCheck(dropout, (X, rng)).report(backward).ok
    assert rng.bit_generator.state == before


def test_random_numbers_that_are_not_replayed_are_refused() -> None:
    rng = np.random.default_rng(0)

    def dropout(x: np.ndarray) -> tuple[np.ndarray, Any]:
        mask = rng.random(x.shape) < 0.7
        return x * mask, mask

    with pytest.raises(CheckError, match="the same output each time; if it draws random numbers"):
        FunctionCheck(dropout, (X,))


def test_outputs_that_differ_in_the_last_bits_are_refused() -> None:
    calls: list[int] = []

    def forward(x: np.ndarray) -> tuple[np.ndarray, Any]:
        calls.append(1)
        return x * (1 + 1e-15 * len(calls)), x

    with pytest.raises(CheckError, match="the same output each time"):
        FunctionCheck(forward, (X,))


def test_a_plain_function_of_many_numbers_is_refused() -> None:
    message = r"returns no \(out, saved\) must return a scalar, not \(4, 6\)"
    with pytest.raises(CheckError, match=message):
        FunctionCheck(np.cos, (X,))


def test_the_title_is_the_name_of_the_forward() -> None:
    assert FunctionCheck(linear, (X, W)).report(dlinear).title == "gradcheck.functions.linear"
    assert FunctionCheck(linear, (X, W), title="mine").report(dlinear).title == "mine"
    assert FunctionCheck(linear, (X, W)).report(dlinear, "this one").title == "this one"
