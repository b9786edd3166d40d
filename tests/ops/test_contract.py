"""What an operation refuses; it names itself, the argument, what was expected and what given."""

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

every_case = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
every_backward = pytest.mark.parametrize(
    ("case", "backward"),
    [
        pytest.param(case, backward, id=f"{case.name}-{backward.__name__}")
        for case in CASES
        for backward in case.backwards()
    ],
)


def each_array(wanted: Callable[[Case, str], bool]) -> pytest.MarkDecorator:
    """The arrays among the arguments of all operations for which something holds."""
    found = [(case, name) for case in CASES for name in case.arrays if wanted(case, name)]
    ids = [f"{case.name}-{name}" for case, name in found]
    return pytest.mark.parametrize(("case", "name"), found, ids=ids)


def is_float(case: Case, name: str) -> bool:
    return case.args[name].dtype == np.float64


def must_fit_another(case: Case, name: str) -> bool:
    # The sizes of an embedding's table are its own; ids are held against them by their values.
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
    """The argument that holds the gradient of the output."""
    return next(iter(inspect.signature(backward).parameters))


# Arguments of a forward


@each_array(is_float)
@pytest.mark.parametrize("dtype", ["int64", "bool", "float16", "complex64", "object"])
def test_an_array_of_floats_refuses_other_dtypes(case: Case, name: str, dtype: str) -> None:
    other = np.ones(case.args[name].shape, dtype=dtype)
    said = refusal(TypeError, forward(case, **{name: other}))
    assert said == f"{case.operation}.forward: {name} must be {FLOATS}, not {dtype}"


@each_array(lambda case, name: not is_float(case, name))
@pytest.mark.parametrize("dtype", ["float64", "bool"])
def test_an_array_of_integers_refuses_other_dtypes(case: Case, name: str, dtype: str) -> None:
    other = np.ones(case.args[name].shape, dtype=dtype)
    said = refusal(TypeError, forward(case, **{name: other}))
    assert said == f"{case.operation}.forward: {name} must be an array of integers, not {dtype}"


@each_array(lambda case, name: True)
def test_an_array_refuses_a_list(case: Case, name: str) -> None:
    said = refusal(TypeError, forward(case, **{name: case.args[name].tolist()}))
    assert said.startswith(f"{case.operation}.forward: {name} must be an array of ")
    assert said.endswith(", not list")


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


def test_a_conflict_names_both_arguments() -> None:
    said = refusal(ValueError, forward(LINEAR, weight=np.ones((9, 7))))
    assert said == "linear.forward: weight must be (C, K) with C = 8 as in x, not (9, 7)"


def test_a_conflict_names_the_sizes_that_follow_from_numbers() -> None:
    said = refusal(ValueError, forward(ATTENTION, mask=np.ones((2, 4, 3, 4))))
    known = "B = 2 as in batch, T = 3 as in N/B, H = 4 as in n_head"
    assert said == f"attention.forward: mask must be (B, H, T, T) with {known}, not (2, 4, 3, 4)"


def test_a_mask_of_dropout_that_could_be_broadcast_is_refused() -> None:
    said = refusal(ValueError, lambda: tg.ops.dropout.forward(np.ones((6, 3)), np.ones(3)))
    assert said == "dropout.forward: mask must be (...) with ... = (6, 3) as in x, not (3,)"


def test_the_softmax_of_a_single_number_is_refused() -> None:
    said = refusal(ValueError, lambda: tg.ops.softmax.forward(ONE))
    assert said == "softmax.forward: x must be (..., V), not ()"


def test_the_softmax_of_nothing_is_refused() -> None:
    said = refusal(ValueError, lambda: tg.ops.softmax.forward(np.ones((3, 0))))
    assert said == "softmax.forward: x must be (..., V) with V ≥ 1, not (3, 0)"


@pytest.mark.parametrize("columns", [44, 2])
def test_queries_keys_and_values_must_be_of_one_size(columns: int) -> None:
    said = refusal(ValueError, forward(ATTENTION, qkv=np.ones((6, columns))))
    assert re.fullmatch(rf"attention.forward: qkv must be \(N, 3C\).*, not \(6, {columns}\)", said)


@pytest.mark.parametrize("wrong", [11, -1])
def test_an_id_out_of_range_is_refused_with_its_place(wrong: int) -> None:
    # NumPy would take -1 for the last row, and say nothing.
    ids = np.array([0, 10, 3, wrong, wrong])
    said = refusal(ValueError, lambda: tg.ops.embedding.forward(ids, np.ones((11, 4))))
    assert said == f"embedding.forward: ids must be in [0, 11), but ids[3] is {wrong}"


@pytest.mark.parametrize("wrong", [11, -2])
def test_a_target_out_of_range_is_refused_with_its_place(wrong: int) -> None:
    targets = np.array([0, -1, 10, 3, wrong, wrong])
    said = refusal(ValueError, forward(CROSS_ENTROPY, targets=targets))
    assert said == f"cross_entropy.forward: targets must be in [-1, 11), but targets[4] is {wrong}"


@pytest.mark.parametrize("dtype", ["int8", "int32", "uint8", "uint64"])
def test_ids_may_be_of_any_integer_dtype(dtype: str) -> None:
    ids, weight = np.array([3, 0, 2]), np.arange(20.0).reshape(5, 4)
    rows, _ = tg.ops.embedding.forward(ids.astype(dtype), weight)
    np.testing.assert_array_equal(rows, weight[ids])


@pytest.mark.parametrize(("name", "count", "of"), [("batch", 4, "N = 6"), ("n_head", 3, "C = 20")])
def test_a_number_of_parts_must_divide_the_whole(name: str, count: int, of: str) -> None:
    said = refusal(ValueError, forward(ATTENTION, **{name: count}))
    assert said == f"attention.forward: {name} must divide {of} as in qkv, and {count} does not"


@pytest.mark.parametrize("name", ["batch", "n_head"])
@pytest.mark.parametrize(
    ("number", "error", "given"),
    [
        (0, ValueError, "0"),
        (-2, ValueError, "-2"),
        (2.0, TypeError, "float"),
        (True, TypeError, "bool"),
        (None, TypeError, "NoneType"),
    ],
)
def test_a_number_of_parts_must_be_a_positive_integer(
    name: str, number: Any, error: type[Exception], given: str
) -> None:
    said = refusal(error, forward(ATTENTION, **{name: number}))
    assert said == f"attention.forward: {name} must be a positive integer, not {given}"


def test_a_number_of_parts_may_be_one_of_numpys() -> None:
    np.testing.assert_array_equal(forward(ATTENTION, batch=np.int64(2))()[0], ATTENTION.forward())


def test_heads_are_split_and_merged_by_the_same_rules() -> None:
    split = refusal(ValueError, lambda: tg.ops.attention.split_heads(np.ones((6, 8)), 4, 2))
    assert split == "attention.split_heads: batch must divide N = 6 as in rows, and 4 does not"
    merge = refusal(ValueError, lambda: tg.ops.attention.merge_heads(np.ones((6, 8))))
    assert merge == "attention.merge_heads: heads must be (B, H, T, D), not (6, 8)"


def test_none_is_refused_where_it_is_not_offered() -> None:
    said = refusal(TypeError, forward(LINEAR, weight=None))
    assert said == f"linear.forward: weight must be {FLOATS}, not NoneType"


def test_arguments_by_position_are_held_as_those_by_name() -> None:
    x, weight, bias = LINEAR.args.values()
    said = refusal(ValueError, lambda: tg.ops.linear.forward(x, weight, bias[1:]))
    assert said == "linear.forward: bias must be (K,) with K = 7 as in weight, not (6,)"


def test_too_few_or_too_many_arguments_are_refused() -> None:
    arrays = list(LINEAR.args.values())
    few = refusal(TypeError, lambda: LINEAR.module.forward(*arrays[:1]))
    many = refusal(TypeError, lambda: LINEAR.module.forward(*arrays, 1))
    assert few == "linear.forward: missing a required argument: 'weight'"
    assert many == "linear.forward: too many positional arguments"


@every_case
@pytest.mark.parametrize("dtype", [np.float32, np.complex128])
def test_one_argument_may_be_of_another_float_dtype(case: Case, dtype: Any) -> None:
    for name in case.differentiable:
        output = case.forward(**{name: case.args[name].astype(dtype)})
        np.testing.assert_allclose(output, case.forward(), atol=1e-5)


# Arguments of a backward


@every_backward
def test_a_backward_refuses_what_another_operation_saved(
    case: Case, backward: Callable[..., Any]
) -> None:
    output, _ = output_and_saved(case)
    other = next(each for each in CASES if each.operation != case.operation)
    said = refusal(ValueError, lambda: backward(output, output_and_saved(other)[1]))
    wanted = f"saved must be what {case.operation}.forward returned"
    given = f"what {other.operation}.forward returned"
    assert said == f"{case.operation}.{backward.__name__}: {wanted}, not {given}"


@every_backward
@pytest.mark.parametrize("kind", [tuple, list])
def test_a_backward_refuses_what_no_forward_returned(
    case: Case, backward: Callable[..., Any], kind: type
) -> None:
    output, saved = output_and_saved(case)
    said = refusal(TypeError, lambda: backward(output, kind(saved)))
    wanted = f"saved must be what {case.operation}.forward returned"
    assert said == f"{case.operation}.{backward.__name__}: {wanted}, not {kind.__name__}"


@every_backward
def test_a_backward_refuses_a_gradient_of_another_shape(
    case: Case, backward: Callable[..., Any]
) -> None:
    output, saved = output_and_saved(case)
    gradient = name_of(backward)
    # An axis too many, and a size of 1: NumPy would broadcast both.
    for wrong in (output[None], output[..., :1] if output.ndim else output.reshape(1, 1)):
        said = refusal(ValueError, partial(backward, wrong, saved))
        wanted = f"{gradient} must be {output.shape} like {gradient[1:]}, not {wrong.shape}"
        assert said == f"{case.operation}.{backward.__name__}: {wanted}"


@every_backward
def test_a_backward_refuses_a_gradient_of_integers(
    case: Case, backward: Callable[..., Any]
) -> None:
    output, saved = output_and_saved(case)
    said = refusal(TypeError, lambda: backward(np.ones(output.shape, np.int64), saved))
    floats = FLOATS if output.ndim else "a float or an array of float32 or float64"
    wanted = f"{name_of(backward)} must be {floats}, not int64"
    assert said == f"{case.operation}.{backward.__name__}: {wanted}"


@every_backward
def test_a_backward_takes_its_arguments_by_name(case: Case, backward: Callable[..., Any]) -> None:
    output, saved = output_and_saved(case)
    backward(**{name_of(backward): output, "saved": saved})
    said = refusal(TypeError, lambda: backward(**{name_of(backward): output, "saved": None}))
    assert said.endswith(f"saved must be what {case.operation}.forward returned, not NoneType")


@pytest.mark.parametrize("dloss", [1.0, np.float32(1), np.float64(1), ONE])
def test_the_gradient_of_a_loss_may_be_any_real_number(dloss: Any) -> None:
    _, saved = output_and_saved(CROSS_ENTROPY)
    found = tg.ops.cross_entropy.backward(dloss, saved)
    np.testing.assert_array_equal(found, tg.ops.cross_entropy.backward(1.0, saved))


@pytest.mark.parametrize(
    ("dloss", "given"), [(1, "int"), (None, "NoneType"), (1j, "complex"), (1j * ONE, "complex128")]
)
def test_the_gradient_of_a_loss_may_be_nothing_else(dloss: Any, given: str) -> None:
    # Of a complex one, float() would drop the imaginary part.
    _, saved = output_and_saved(CROSS_ENTROPY)
    said = refusal(TypeError, lambda: tg.ops.cross_entropy.backward(dloss, saved))
    wanted = "a float or an array of float32 or float64"
    assert said == f"cross_entropy.backward: dloss must be {wanted}, not {given}"


@every_case
def test_what_was_saved_can_be_copied(case: Case) -> None:
    output, saved = output_and_saved(case)
    for backward in case.backwards():
        backward(output, copy.deepcopy(saved))


def test_a_single_number_goes_both_ways() -> None:
    # Of an array of shape () NumPy makes a number of its own, and that may go on.
    y, saved = tg.ops.gelu.forward(np.asarray(0.3))
    _, saved_next = tg.ops.gelu.forward(y)
    dy = tg.ops.gelu.backward(ONE, saved_next)
    assert tg.ops.gelu.backward(dy, saved).shape == ()


# The whole model


@pytest.mark.parametrize(
    ("place", "shape", "message"),
    [
        ("drop", (10, 13), "dropout.forward: mask must be (...) with ... = (10, 12) as in x"),
        ("h.0.attn", (2, 3, 4, 4), "attention.forward: mask must be (B, H, T, T) with B = 2 as"),
    ],
)
def test_a_mask_that_does_not_fit_the_model_is_refused(
    place: str, shape: tuple[int, ...], message: str
) -> None:
    model = tg.GPT(tg.GPTConfig(vocab_size=11, block_size=7, n_layer=1, n_head=3, n_embd=12))
    tokens, masks = np.zeros((2, 5), dtype=np.int64), {place: np.ones(shape)}
    said = refusal(ValueError, lambda: model.loss_and_grads(tokens, tokens, masks))
    assert said.startswith(message)
    assert said.endswith(f", not {shape}")


# How the contracts are read


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
        "x (N, C), weight (C, C), bias (C,) -> y (N, C), saved.",
        "x (N, C), weight (C, C), or None -> y (N, C), saved.",
        "x (N, C), weight of the same shape -> y (N, C), saved.",
        "x (N, C), weight (c, C) -> y (N, C), saved.",
        "x (N, C), weight (C, ...) -> y (N, C), saved.",
        "x (N, C), weight C -> y (N, C), saved.",
        "x (N, C), weight (C, C)",
    ],
)
def test_a_docstring_that_is_no_contract_is_refused(docstring: str | None) -> None:
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
