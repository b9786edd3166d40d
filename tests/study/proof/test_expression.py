"""Different ways to write an expression are read as the same one."""

import ast
import math
from typing import Any

import numpy as np
import pytest

from tinygpt_np.study.proof.expression import Reader, UnknownError, evaluated, parsed

X = np.arange(12.0).reshape(3, 4) + 1


def double(t: Any, factor: int = 2) -> Any:
    """Multiply."""
    return factor * t


NAMES: dict[str, Any] = {
    "x": X, "w": X[0], "np": np, "tanh": np.tanh, "math": math, "double": double, "T": 7,
    "params": {"W": X.T}, "n": 3, "rng": np.random.default_rng(0),
}  # fmt: skip


def reader(**stated: str) -> Reader:
    return Reader(
        NAMES, lambda name: name in ("x", "w", "W"), lambda name: stated.get(name, ""), {}
    )


def read(text: str) -> str:
    return ast.unparse(reader(x="(N, C)").read(parsed(text)))


SAME = {
    "x.sum(-1)": "np.sum(x, axis=1)", "x.mean(axis=0, keepdims=True)": "np.mean(x, 0, keepdims=1)",
    "x.max()": "np.amax(x)", "np.add(x, w)": "x + w", "np.matmul(x, x.T)": "x.dot(x.T)",
    "x.reshape(12)": "x.ravel()", "x.T": "np.transpose(x)", "x.swapaxes(0, 1)": "x.mT",
    "np.negative(x)": "-x", "np.square(x)": "x ** 2", "np.reciprocal(x)": "1 / x",
    "x[None, :]": "np.expand_dims(x, 0)", "x.clip(0, 1)": "np.clip(x, min=0, max=1)",
    "tanh(x)": "np.tanh(x)", "double(x)": "2 * x", "double(x, factor=n)": "n * x",
    "np.hstack([x, x])": "np.concatenate((x, x), axis=-1)", "len(x)": "x.shape[0]",
    "x if n > 2 else w": "x", "x.copy()": "np.array(x)",
    "np.einsum('ij,jk->ik', x, x.T)": "np.einsum('ij, jk -> ik', x, x.T)",
    "abs(x)": "np.absolute(x)",
}  # fmt: skip


@pytest.mark.parametrize("text", SAME)
def test_one_expression_has_one_form_and_its_value(text: str) -> None:
    assert read(text) == read(SAME[text])
    each = reader()
    np.testing.assert_array_equal(each.value(each.read(parsed(text))), eval(text, dict(NAMES)))


@pytest.mark.parametrize(
    "text",
    [
        "rng.standard_normal(3) * x", "np.random.rand(3, 1) * x", "lambda: x", "nosuch + x",
        "[t for t in x]", "print(x)", "x.sum(**{})", "math.exp(x[0, 0])", "np.where(x > 0)",
        "x.tolist()", "np.copyto(x, 0)",
    ],
)  # fmt: skip
def test_what_has_side_effects_or_is_not_known_is_refused(text: str) -> None:
    with pytest.raises(UnknownError):
        read(text)


def test_a_gradient_flows_through_values_and_not_through_conditions_and_shapes() -> None:
    for text, names in {
        "x * w": {"x", "w"}, "x * (w > 0)": {"x"}, "x / len(w)": {"x"}, "np.real(x) + w": {"w"},
        "x @ params['W']": {"x", "W"}, "np.sign(x) * n": set[str](),
        "w[x.astype(int)[:, 0]]": {"w"},
    }.items():  # fmt: skip
        each = reader()
        assert each.operands(each.read(parsed(text))) == names, text


def test_axes_have_the_letters_of_the_source_or_numbers() -> None:
    assert "'C'" in read("x.sum(axis=1)")
    assert "'N,C'" in read("x.sum()")
    each = reader()
    assert "'axis 1'" in ast.unparse(each.read(parsed("x.sum(axis=1)")))
    assert ast.unparse(each.read(parsed("x.shape[0]"))) == "3"
    # An axis of another array has the letter of the only axis of its length.
    each = reader(x="(N, C)")
    each.read(parsed("x"))
    assert each.letters(parsed("params['W']")) == ["C", "N"]


def test_a_name_of_the_user_is_not_mistaken_for_a_function_of_the_reader() -> None:
    assert read("T * x") == "T * x"
    with pytest.raises(UnknownError, match="np and op"):
        Reader({"op": 1}, lambda name: True, lambda name: "", {})
    assert evaluated(parsed("x + 1"), NAMES)[0, 0] == 2
