"""Operations refuse wrong arguments, and the error names the argument and what was expected."""

import copy
import inspect
import re
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from helpers.architecture import OPERATIONS
from helpers.processes import printed

import tinygpt_np as tg
from tinygpt_np.gradcheck.cases import CASES, Case
from tinygpt_np.ops import contract

FLOATS = "an array of float32, float64 or complex128"
REAL = "a float or an array of float32 or float64"
LINEAR, ATTENTION, GROUPED, CROSS_ENTROPY, ROTARY = (
    next(case for case in CASES if case.name == name)
    for name in ("linear", "attention", "attention-grouped", "cross_entropy", "rotary")
)
ONE = np.asarray(1.0)
cross_entropy: Any = tg.ops.cross_entropy
linear: Any = tg.ops.linear
Y, SAVED = linear.forward(**LINEAR.args)
LOSS, SAVED_LOSS = cross_entropy.forward(**CROSS_ENTROPY.args)

every_array = pytest.mark.parametrize(
    ("case", "name"),
    [pytest.param(case, name, id=f"{case.name}-{name}") for case in CASES for name in case.arrays],
)


def refusal(error: type[Exception], call: Callable[[], Any]) -> str:
    with pytest.raises(error) as caught:
        call()
    return str(caught.value)


def forward(case: Case, **changed: Any) -> Callable[[], Any]:
    return lambda: case.module.forward(**(case.args | changed))


# Arguments of a forward


@every_array
def test_an_array_refuses_another_dtype_rank_or_size(case: Case, name: str) -> None:
    value, where = case.args[name], f"{case.operation}.forward: {name}"
    wanted = FLOATS if value.dtype == np.float64 else "an array of integers"
    for dtype in {"int64", "float64", "float16"} - {value.dtype.name}:
        said = refusal(TypeError, forward(case, **{name: np.ones(value.shape, dtype=dtype)}))
        assert said == f"{where} must be {wanted}, not {dtype}"
    said = refusal(TypeError, forward(case, **{name: value.tolist()}))
    assert said == f"{where} must be {wanted}, not list"
    if f"{name} (..." not in str(case.module.forward.__doc__):
        said = refusal(ValueError, forward(case, **{name: value[None]}))
        assert said.startswith(f"{where} must be (")
        assert said.endswith(f", not {value[None].shape}")
    # The values of ids must fit the table of an embedding, not their shape.
    if name != next(iter(case.args)) and case.operation != "embedding":
        larger = np.pad(value, [(0, 1)] * value.ndim)
        said = refusal(ValueError, forward(case, **{name: larger}))
        pattern = rf"{re.escape(where)} must be \(.*\) with .* as in \w+, not "
        assert re.fullmatch(pattern + re.escape(str(larger.shape)), said)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (forward(ATTENTION, mask=np.ones((2, 4, 3, 4))),
         "attention.forward: mask must be (B, H, T, T) with B = 2 as in batch, "
         "T = 3 as in N/B, H = 4 as in n_head, not (2, 4, 3, 4)"),
        (forward(ATTENTION, n_head=3, mask=None),
         "attention.forward: qkv must have (H + 2J)·D columns with H = 3 as in n_head, "
         "J = 3 as in n_head, not 60"),
        (forward(GROUPED, n_kv_head=5),
         "attention.forward: n_kv_head must divide H = 24 as in n_head, and 5 does not"),
        (forward(GROUPED, n_kv_head=2),
         "attention.forward: qkv must have (H + 2J)·D columns with H = 24 as in n_head, "
         "J = 2 as in n_kv_head, not 160"),
        (forward(GROUPED, n_kv_head=None),
         "attention.forward: qkv must have (H + 2J)·D columns with H = 24 as in n_head, "
         "J = 24 as in n_head, not 160"),
        (forward(GROUPED, n_kv_head=0),
         "attention.forward: n_kv_head must be a positive integer, not 0"),
        (forward(ATTENTION, batch=0),
         "attention.forward: batch must be a positive integer, not 0"),
        (forward(ATTENTION, qkv=np.ones((6, 44))),
         "attention.forward: qkv must have (H + 2J)·D columns with H = 4 as in n_head, "
         "J = 4 as in n_head, not 44"),
        (lambda: tg.ops.dropout.forward(np.ones((6, 3)), np.ones(3)),
         "dropout.forward: mask must be (...) with ... = (6, 3) as in x, not (3,)"),
        (lambda: tg.ops.softmax.forward(ONE), "softmax.forward: x must be (..., V), not ()"),
        (lambda: tg.ops.softmax.forward(np.ones((3, 0))),
         "softmax.forward: x must be (..., V) with V ≥ 1, not (3, 0)"),
        (lambda: tg.ops.attention.split_heads(np.ones((6, 8)), 4, 2),
         "attention.split_heads: batch must divide N = 6 as in rows, and 4 does not"),
        (lambda: tg.ops.attention.group_heads(np.ones((2, 6, 3, 5)), 4),
         "attention.group_heads: n_kv_head must divide H = 6 as in heads, and 4 does not"),
        (lambda: tg.ops.attention.merge_heads(np.ones((6, 8))),
         "attention.merge_heads: heads must be (B, H, T, D), not (6, 8)"),
        (forward(CROSS_ENTROPY, targets=np.array([0, -1, 10, 3, -2, 11])),
         "cross_entropy.forward: targets must be in [-1, 11), but targets[4] is -2"),
        # NumPy would take -1 for the last row.
        (lambda: tg.ops.embedding.forward(np.array([0, 10, 3, -1, -1]), np.ones((11, 4))),
         "embedding.forward: ids must be in [0, 11), but ids[3] is -1"),
        (lambda: tg.ops.embedding.forward(np.array([0, 10, 3, 11, -1]), np.ones((11, 4))),
         "embedding.forward: ids must be in [0, 11), but ids[3] is 11"),
        (forward(ROTARY, positions=np.arange(4)),
         "rotary.forward: positions must be (T,) with T = 3 as in x, not (4,)"),
        *((forward(ROTARY, theta=theta),
           f"rotary.forward: theta must be a positive number, not {given}")
          for theta, given in ((0, "0"), (-1.5, "-1.5"), (np.inf, "inf"), (np.nan, "nan"))),
        (partial(linear.backward, Y, SAVED_LOSS),
         "linear.backward: saved must be what linear.forward returned, "
         "not what cross_entropy.forward returned"),
        # NumPy would broadcast another axis, and a size of 1.
        (partial(linear.backward, Y[None], SAVED),
         "linear.backward: dy must be (6, 7) like y, not (1, 6, 7)"),
        (partial(linear.backward, Y[:, :1], SAVED),
         "linear.backward: dy must be (6, 7) like y, not (6, 1)"),
        (partial(cross_entropy.backward, np.ones(1), SAVED_LOSS),
         "cross_entropy.backward: dloss must be () like loss, not (1,)"),
    ],
)  # fmt: skip
def test_a_wrong_size_or_value_is_described(call: Callable[[], Any], message: str) -> None:
    assert refusal(ValueError, call) == message


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (forward(ATTENTION, batch=2.0),
         "attention.forward: batch must be a positive integer, not float"),
        (forward(ATTENTION, batch=True),
         "attention.forward: batch must be a positive integer, not bool"),
        # A NumPy scalar would make float32 float64.
        *((forward(ROTARY, theta=theta),
           f"rotary.forward: theta must be a positive number, not {given}")
          for theta, given in ((np.float64(7), "float64"), ("7", "str"), (None, "NoneType"),
                               (True, "bool"))),
        *((forward(ROTARY, interleaved=flag),
           f"rotary.forward: interleaved must be True or False, not {given}")
          for flag, given in ((1, "int"), (None, "NoneType"))),
        (forward(LINEAR, weight=None), f"linear.forward: weight must be {FLOATS}, not NoneType"),
        (lambda: LINEAR.module.forward(LINEAR.args["x"]),
         "linear.forward: missing a required argument: 'weight'"),
        (lambda: LINEAR.module.forward(*LINEAR.args.values(), 1),
         "linear.forward: too many positional arguments"),
        *((partial(linear.backward, Y, saved),
           f"linear.backward: saved must be what linear.forward returned, not {given}")
          for saved, given in ((tuple(SAVED), "tuple"), (None, "NoneType"))),
        (partial(linear.backward, np.ones(Y.shape, np.int64), SAVED),
         f"linear.backward: dy must be {FLOATS}, not int64"),
        # float() would drop an imaginary part.
        *((partial(cross_entropy.backward, dloss, SAVED_LOSS),
           f"cross_entropy.backward: dloss must be {REAL}, not {given}")
          for dloss, given in ((1, "int"), (None, "NoneType"), (1j, "complex"),
                               (1j * ONE, "complex128"))),
    ],
)  # fmt: skip
def test_a_wrong_type_is_described(call: Callable[[], Any], message: str) -> None:
    assert refusal(TypeError, call) == message


def test_integers_of_any_dtype_and_scalars_are_accepted() -> None:
    ids, weight = np.array([3, 0, 2]), np.arange(20.0).reshape(5, 4)
    for dtype in ("int8", "uint64"):
        rows, _ = tg.ops.embedding.forward(ids.astype(dtype), weight)
        np.testing.assert_array_equal(rows, weight[ids])
    np.testing.assert_array_equal(forward(ATTENTION, batch=np.int64(2))()[0], ATTENTION.forward())
    same = forward(ROTARY, positions=ROTARY.args["positions"].astype("uint8"), theta=50)()[0]
    np.testing.assert_array_equal(same, ROTARY.forward())
    expected = cross_entropy.backward(1.0, SAVED_LOSS)
    for dloss in (np.float32(1), np.float64(1), ONE):
        found = cross_entropy.backward(dloss=dloss, saved=copy.deepcopy(SAVED_LOSS))
        np.testing.assert_array_equal(found, expected)
    # NumPy turns results of shape () into scalars.
    y, saved = tg.ops.gelu.forward(np.asarray(0.3))
    dy = tg.ops.gelu.backward(ONE, tg.ops.gelu.forward(y)[1])
    assert tg.ops.gelu.backward(dy, saved).shape == ()


# Reading contracts


@pytest.mark.parametrize("operation", OPERATIONS)
def test_guarded_functions_keep_their_source_and_docstring(operation: str) -> None:
    module = getattr(tg.ops, operation)
    for name in (name for name in contract.GUARDED if hasattr(module, name)):
        function = getattr(module, name)
        unguarded = inspect.unwrap(function)
        assert unguarded is not function
        assert inspect.getsource(function).startswith(f"def {name}(")
        assert inspect.signature(function) == inspect.signature(unguarded)
        if "backward" in name:
            gradient = (function.__doc__ or "").partition(" -> ")[0]
            assert f" -> {gradient.removeprefix('d')}, saved." in module.forward.__doc__


@pytest.mark.parametrize(
    "docstring",
    [
        None,
        "x (N, C) -> y (N, C), saved.",
        "weight (C, C), x (N, C) -> y (N, C), saved.",
        "x (N, C), weight (C, C), or None -> y (N, C), saved.",
        "x (N, C), weight (c, C) -> y (N, C), saved.",
        "x (N, C), weight C -> y (N, C), saved.",
        "x (N, C), weight numbers -> y (N, C), saved.",
        "x (N, C), weight flag or None -> y (N, C), saved.",
        "x (N, C), weight (C, C)",
    ],
)
def test_a_docstring_without_a_contract_is_refused(docstring: str | None) -> None:
    def forward(x: np.ndarray, weight: np.ndarray) -> None: ...

    forward.__doc__ = docstring
    module = SimpleNamespace(__name__="tinygpt_np.ops.odd", forward=forward)
    said = refusal(ValueError, lambda: contract.guard(cast(Any, module)))
    assert said.startswith("odd.forward: the docstring must begin with x, weight in a form like ")


def test_without_docstrings_the_operations_still_run() -> None:
    code = "import numpy as np, tinygpt_np as tg; print(tg.ops.softmax.forward(np.zeros(4))[0][0])"
    assert printed(code, "-OO") == "0.25\n"
