"""Operations refuse wrong arguments, and the error names the argument and what was expected."""

import copy
import inspect
import re
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from helpers.architecture import OPERATIONS
from helpers.processes import printed

import tinygpt_np as tg
from tinygpt_np.gradcheck.cases import CASES, Case
from tinygpt_np.ops import contract

FLOATS = "an array of float32, float64 or complex128"
ANY_RANK = {("gelu", "x"), ("gelu_exact", "x"), ("softmax", "x"), ("dropout", "x")}
LINEAR, ATTENTION, CROSS_ENTROPY = (
    next(case for case in CASES if case.name == name)
    for name in ("linear", "attention", "cross_entropy")
)
ONE = np.asarray(1.0)

every_backward = pytest.mark.parametrize(
    ("case", "backward"),
    [
        pytest.param(case, backward, id=f"{case.name}-{backward.__name__}")
        for case in CASES
        for backward in case.backwards()
    ],
)


def each_array(wanted: Callable[[Case, str], bool]) -> pytest.MarkDecorator:
    """Parametrize over the array arguments of all operations that satisfy a condition."""
    found = [(case, name) for case in CASES for name in case.arrays if wanted(case, name)]
    ids = [f"{case.name}-{name}" for case, name in found]
    return pytest.mark.parametrize(("case", "name"), found, ids=ids)


def is_float(case: Case, name: str) -> bool:
    return case.args[name].dtype == np.float64


def must_fit_another(case: Case, name: str) -> bool:
    # The values of ids must fit the table of an embedding, not their shape.
    return name != next(iter(case.args)) and case.operation != "embedding"


def refusal(error: type[Exception], call: Callable[[], Any]) -> str:
    with pytest.raises(error) as caught:
        call()
    return str(caught.value)


def forward(case: Case, **changed: Any) -> Callable[[], Any]:
    return lambda: case.module.forward(**(case.args | changed))


def output_and_saved(case: Case) -> tuple[np.ndarray, Any]:
    output, saved = case.module.forward(**case.args)
    return np.asarray(output), saved


def name_of(backward: Callable[..., Any]) -> str:
    """Return the name of the argument with the gradient of the output."""
    return next(iter(inspect.signature(backward).parameters))


# Arguments of a forward


@each_array(lambda case, name: True)
@pytest.mark.parametrize("dtype", ["int64", "float64", "float16"])
def test_an_array_refuses_other_dtypes_and_lists(case: Case, name: str, dtype: str) -> None:
    wanted = FLOATS if is_float(case, name) else "an array of integers"
    where = f"{case.operation}.forward: {name}"
    if dtype != case.args[name].dtype:
        other = np.ones(case.args[name].shape, dtype=dtype)
        said = refusal(TypeError, forward(case, **{name: other}))
        assert said == f"{where} must be {wanted}, not {dtype}"
    said = refusal(TypeError, forward(case, **{name: case.args[name].tolist()}))
    assert said == f"{where} must be {wanted}, not list"


@each_array(lambda case, name: (case.operation, name) not in ANY_RANK)
def test_an_array_refuses_an_axis_too_many(case: Case, name: str) -> None:
    value = case.args[name][None]
    said = refusal(ValueError, forward(case, **{name: value}))
    assert said.startswith(f"{case.operation}.forward: {name} must be (")
    assert said.endswith(f", not {value.shape}")


@each_array(must_fit_another)
def test_an_array_refuses_a_size_other_than_in_an_argument_before(case: Case, name: str) -> None:
    value = np.pad(case.args[name], [(0, 1)] * case.args[name].ndim)
    said = refusal(ValueError, forward(case, **{name: value}))
    pattern = rf"{case.operation}\.forward: {name} must be \(.*\) with .* as in \w+, not "
    assert re.fullmatch(pattern + re.escape(str(value.shape)), said)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (forward(LINEAR, weight=np.ones((9, 7))),
         "linear.forward: weight must be (C, K) with C = 8 as in x, not (9, 7)"),
        (forward(ATTENTION, mask=np.ones((2, 4, 3, 4))),
         "attention.forward: mask must be (B, H, T, T) with B = 2 as in batch, "
         "T = 3 as in N/B, H = 4 as in n_head, not (2, 4, 3, 4)"),
        (forward(ATTENTION, n_head=3),
         "attention.forward: n_head must divide C = 20 as in qkv, and 3 does not"),
        (lambda: tg.ops.dropout.forward(np.ones((6, 3)), np.ones(3)),
         "dropout.forward: mask must be (...) with ... = (6, 3) as in x, not (3,)"),
        (lambda: tg.ops.softmax.forward(ONE), "softmax.forward: x must be (..., V), not ()"),
        (lambda: tg.ops.softmax.forward(np.ones((3, 0))),
         "softmax.forward: x must be (..., V) with V ≥ 1, not (3, 0)"),
        (lambda: tg.ops.attention.split_heads(np.ones((6, 8)), 4, 2),
         "attention.split_heads: batch must divide N = 6 as in rows, and 4 does not"),
        (lambda: tg.ops.attention.merge_heads(np.ones((6, 8))),
         "attention.merge_heads: heads must be (B, H, T, D), not (6, 8)"),
        (forward(CROSS_ENTROPY, targets=np.array([0, -1, 10, 3, -2, 11])),
         "cross_entropy.forward: targets must be in [-1, 11), but targets[4] is -2"),
        # NumPy would take -1 for the last row.
        (lambda: tg.ops.embedding.forward(np.array([0, 10, 3, -1, -1]), np.ones((11, 4))),
         "embedding.forward: ids must be in [0, 11), but ids[3] is -1"),
        (lambda: tg.ops.embedding.forward(np.array([0, 10, 3, 11, -1]), np.ones((11, 4))),
         "embedding.forward: ids must be in [0, 11), but ids[3] is 11"),
    ],
)  # fmt: skip
def test_a_wrong_size_or_value_is_described(call: Callable[[], Any], message: str) -> None:
    assert refusal(ValueError, call) == message


@pytest.mark.parametrize("columns", [44, 2])
def test_queries_keys_and_values_must_have_one_size(columns: int) -> None:
    said = refusal(ValueError, forward(ATTENTION, qkv=np.ones((6, columns))))
    assert said.startswith("attention.forward: qkv must be (N, 3C)")


@pytest.mark.parametrize("dtype", ["int8", "int32", "uint8", "uint64"])
def test_ids_may_have_any_integer_dtype(dtype: str) -> None:
    ids, weight = np.array([3, 0, 2]), np.arange(20.0).reshape(5, 4)
    rows, _ = tg.ops.embedding.forward(ids.astype(dtype), weight)
    np.testing.assert_array_equal(rows, weight[ids])


@pytest.mark.parametrize(
    ("number", "error", "given"),
    [(0, ValueError, "0"), (2.0, TypeError, "float"), (True, TypeError, "bool")],
)
def test_a_number_of_parts_must_be_a_positive_integer(
    number: Any, error: type[Exception], given: str
) -> None:
    said = refusal(error, forward(ATTENTION, batch=number))
    assert said == f"attention.forward: batch must be a positive integer, not {given}"
    np.testing.assert_array_equal(forward(ATTENTION, batch=np.int64(2))()[0], ATTENTION.forward())


def test_none_is_refused_if_the_contract_does_not_allow_it() -> None:
    said = refusal(TypeError, forward(LINEAR, weight=None))
    assert said == f"linear.forward: weight must be {FLOATS}, not NoneType"


def test_too_few_or_too_many_arguments_are_refused() -> None:
    arrays = list(LINEAR.args.values())
    few = refusal(TypeError, lambda: LINEAR.module.forward(*arrays[:1]))
    many = refusal(TypeError, lambda: LINEAR.module.forward(*arrays, 1))
    assert few == "linear.forward: missing a required argument: 'weight'"
    assert many == "linear.forward: too many positional arguments"


# Arguments of a backward


@every_backward
def test_a_backward_refuses_saved_values_of_anything_else(
    case: Case, backward: Callable[..., Any]
) -> None:
    output, saved = output_and_saved(case)
    other = next(each for each in CASES if each.operation != case.operation)
    where = f"{case.operation}.{backward.__name__}"
    wanted = f"{where}: saved must be what {case.operation}.forward returned, not"
    said = refusal(ValueError, lambda: backward(output, output_and_saved(other)[1]))
    assert said == f"{wanted} what {other.operation}.forward returned"
    for kind in (tuple, list):
        assert refusal(TypeError, partial(backward, output, kind(saved))) == (
            f"{wanted} {kind.__name__}"
        )
    backward(**{name_of(backward): output, "saved": copy.deepcopy(saved)})
    said = refusal(TypeError, lambda: backward(**{name_of(backward): output, "saved": None}))
    assert said == f"{wanted} NoneType"


@every_backward
def test_a_backward_refuses_a_gradient_unlike_the_output(
    case: Case, backward: Callable[..., Any]
) -> None:
    output, saved = output_and_saved(case)
    gradient, where = name_of(backward), f"{case.operation}.{backward.__name__}"
    # NumPy would broadcast another axis, and a size of 1.
    for wrong in (output[None], output[..., :1] if output.ndim else output.reshape(1, 1)):
        said = refusal(ValueError, partial(backward, wrong, saved))
        wanted = f"{gradient} must be {output.shape} like {gradient[1:]}, not {wrong.shape}"
        assert said == f"{where}: {wanted}"
    said = refusal(TypeError, lambda: backward(np.ones(output.shape, np.int64), saved))
    floats = FLOATS if output.ndim else "a float or an array of float32 or float64"
    assert said == f"{where}: {gradient} must be {floats}, not int64"


@pytest.mark.parametrize("dloss", [1.0, np.float32(1), np.float64(1), ONE])
def test_the_gradient_of_a_loss_may_be_any_real_number(dloss: Any) -> None:
    _, saved = output_and_saved(CROSS_ENTROPY)
    found = tg.ops.cross_entropy.backward(dloss, saved)
    np.testing.assert_array_equal(found, tg.ops.cross_entropy.backward(1.0, saved))


@pytest.mark.parametrize(
    ("dloss", "given"), [(1, "int"), (None, "NoneType"), (1j, "complex"), (1j * ONE, "complex128")]
)
def test_the_gradient_of_a_loss_may_be_nothing_else(dloss: Any, given: str) -> None:
    # float() would drop an imaginary part.
    _, saved = output_and_saved(CROSS_ENTROPY)
    said = refusal(TypeError, lambda: tg.ops.cross_entropy.backward(dloss, saved))
    wanted = "a float or an array of float32 or float64"
    assert said == f"cross_entropy.backward: dloss must be {wanted}, not {given}"


def test_arrays_of_shape_0_are_accepted() -> None:
    # NumPy turns results of shape () into scalars.
    y, saved = tg.ops.gelu.forward(np.asarray(0.3))
    _, saved_next = tg.ops.gelu.forward(y)
    dy = tg.ops.gelu.backward(ONE, saved_next)
    assert tg.ops.gelu.backward(dy, saved).shape == ()


# The whole model


def test_a_mask_that_does_not_fit_the_model_is_refused() -> None:
    model = tg.GPT(tg.GPTConfig(vocab_size=11, block_size=7, n_layer=1, n_head=3, n_embd=12))
    tokens, masks = np.zeros((2, 5), dtype=np.int64), {"drop": np.ones((10, 13))}
    said = refusal(ValueError, lambda: model.loss_and_grads(tokens, tokens, masks))
    wanted = "dropout.forward: mask must be (...) with ... = (10, 12) as in x"
    assert said == f"{wanted}, not (10, 13)"


# Reading contracts


@pytest.mark.parametrize("operation", OPERATIONS)
def test_guarded_functions_keep_their_source_and_docstring(operation: str) -> None:
    module = getattr(tg.ops, operation)
    for name in (name for name in contract.GUARDED if hasattr(module, name)):
        function = getattr(module, name)
        unguarded = inspect.unwrap(function)
        assert unguarded is not function
        assert inspect.getsource(function).startswith(f"def {name}(")
        assert function.__doc__ == unguarded.__doc__
        assert inspect.signature(function) == inspect.signature(unguarded)


@every_backward
def test_a_backward_takes_the_gradient_of_what_the_forward_returns(
    case: Case, backward: Callable[..., Any]
) -> None:
    gradient = (backward.__doc__ or "").partition(" -> ")[0]
    assert f" -> {gradient.removeprefix('d')}, saved." in case.module.forward.__doc__


@pytest.mark.parametrize(
    "docstring",
    [
        None,
        "x (N, C) -> y (N, C), saved.",
        "weight (C, C), x (N, C) -> y (N, C), saved.",
        "x (N, C), weight (C, C), or None -> y (N, C), saved.",
        "x (N, C), weight (c, C) -> y (N, C), saved.",
        "x (N, C), weight C -> y (N, C), saved.",
        "x (N, C), weight (C, C)",
    ],
)
def test_a_docstring_without_a_contract_is_refused(docstring: str | None) -> None:
    def forward(x: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, tuple[Any, ...]]:
        return x, (weight,)

    module = ModuleType("tinygpt_np.ops.odd")
    module.forward = forward  # pyright: ignore[reportAttributeAccessIssue]
    forward.__doc__ = docstring
    said = refusal(ValueError, lambda: contract.guard(module))
    assert said.startswith("odd.forward: the docstring must begin with x, weight in a form like ")


def test_without_docstrings_the_operations_still_run() -> None:
    code = "import numpy as np, tinygpt_np as tg; print(tg.ops.softmax.forward(np.zeros(4))[0][0])"
    assert printed(code, "-OO") == "0.25\n"
