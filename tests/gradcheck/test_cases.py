"""The cases of the operations: generic values, and checks that detect an error in each gradient."""

import math
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tinygpt_np import backend as backends
from tinygpt_np import ops
from tinygpt_np.gradcheck import CheckError
from tinygpt_np.gradcheck.cases import CASES, SIZES, VARIANTS, case, check_operation
from tinygpt_np.gradcheck.measure import METHODS, Method

every_variant = pytest.mark.parametrize("name", VARIANTS)
STEPS = {"softmax", "cross_entropy", "layer_norm"}


def test_every_operation_has_a_case() -> None:
    assert {variant.operation for variant in VARIANTS.values()} == set(ops.__all__)
    assert [chosen.name for chosen in CASES] == list(VARIANTS)


@every_variant
def test_arguments_depend_on_the_seed_and_not_on_the_upstream_gradient(name: str) -> None:
    one, same, other = (case(name, seed).arrays for seed in (1, 1, 2))
    for argument in one:
        np.testing.assert_array_equal(one[argument], same[argument])
    assert any(not np.array_equal(one[argument], other[argument]) for argument in one)
    # With one generator, both would start with the same numbers, and a mix-up would be right.
    drawn = {value for array in case(name).as_dtype("float64").values() for value in array.flat}
    assert not drawn & set(case(name).check().doutput.flat)


@every_variant
def test_values_are_of_order_one(name: str) -> None:
    for array in case(name).as_dtype("float64").values():
        assert 0.3 < math.sqrt(float(np.mean(array**2))) < 4


@every_variant
def test_a_variant_depends_on_the_sizes_that_it_names(name: str) -> None:
    shapes = [array.shape for array in case(name).arrays.values()]
    for letter in VARIANTS[name].letters:
        larger = case(name, sizes={letter: SIZES[letter] + 20})
        changed = [array.shape for array in larger.arrays.values()]
        assert changed != shapes, letter


def test_ids_repeat_and_one_target_is_ignored() -> None:
    for seed in range(20):
        ids = case("embedding", seed).args["ids"]
        assert len(set(ids)) < len(ids)
        assert SIZES["V"] - 1 not in ids
        assert (case("cross_entropy", seed).args["targets"] == -1).sum() == 1


@pytest.mark.parametrize(
    ("name", "sizes", "message"),
    [
        ("gulu", {}, r"the operation must be one of embedding, linear, .*, not 'gulu'"),
        ("linear", {"V": 2}, "the sizes of linear are N, C, K, not V"),
        ("linear", {"N": 0}, "N must be positive, not 0"),
    ],
)
def test_an_unknown_operation_or_size_is_refused(
    name: str, sizes: dict[str, int], message: str
) -> None:
    with pytest.raises(CheckError, match=message):
        case(name, 0, sizes)


# The check of an operation


@every_variant
def test_each_form_of_the_backward_has_a_report_whose_title_names_what_is_unusual(
    name: str,
) -> None:
    letter = VARIANTS[name].letters[0]
    titles = [each.title for each in check_operation(name, dtype="float32", sizes={letter: 2})]
    forms = ("", ", in steps") if VARIANTS[name].operation in STEPS else ("",)
    assert titles == [f"{name}{form}, {letter}=2, float32" for form in forms]


@every_variant
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_check_detects_an_error_in_each_gradient(
    name: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = case(name)
    right = chosen.module.backward
    for number, argument in enumerate(chosen.differentiable):

        def backward(doutput: Any, saved: Any, number: int = number) -> Any:
            returned = right(doutput, saved)
            if not isinstance(returned, tuple):
                return returned * returned.dtype.type(1.002)
            parts: list[Any] = list(returned)  # pyright: ignore[reportUnknownArgumentType]
            parts[number] = parts[number] * parts[number].dtype.type(1.002)
            return tuple(parts)

        monkeypatch.setattr(chosen.module, "backward", backward)
        report = check_operation(name, dtype=dtype)[0]
        assert [row.name for row in report.rows if not row.ok] == [argument]


def test_another_backend_is_compared_with_ops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Kernel(ModuleType):
        @staticmethod
        def forward(x: np.ndarray) -> tuple[np.ndarray, Any]:
            return 2 * np.tanh(x), x

        @staticmethod
        def backward(dy: np.ndarray, x: Any) -> np.ndarray:
            return dy * 2 * (1 - np.tanh(x) ** 2)

    kernels = ModuleType("kernels")
    kernels.gelu = Kernel("gelu")  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(backends.BACKENDS, "kernels", "other_kernels")
    monkeypatch.setitem(sys.modules, "other_kernels", kernels)
    # Its backward is right for its own forward, which is not GELU.
    (report,) = check_operation("gelu", dtype="float32", backend="kernels")
    assert report.title == "gelu, float32, kernels"
    assert not report.ok


# Few elements, because there are many variants.
FEW = {"N": 3, "C": 4, "K": 2, "V": 5, "B": 2, "T": 2, "H": 2, "D": 2}


@every_variant
@pytest.mark.parametrize("method", METHODS)
def test_no_oracle_has_a_false_alarm(name: str, method: Method) -> None:
    sizes = {letter: FEW[letter] for letter in VARIANTS[name].letters}
    for seed, dtype in enumerate(("float64", "float32", "float64")):
        for report in check_operation(name, method=method, dtype=dtype, seed=seed, sizes=sizes):
            assert report.ok, report
