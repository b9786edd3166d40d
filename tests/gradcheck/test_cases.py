"""The cases of the operations: generic values, and checks that detect an error in each gradient."""

import math
from typing import Any

import numpy as np
import pytest

from tinygpt_np.gradcheck import CheckError
from tinygpt_np.gradcheck.cases import SIZES, VARIANTS, as_tuple, case, check_operation
from tinygpt_np.gradcheck.measure import METHODS, Method

every_variant = pytest.mark.parametrize("name", VARIANTS)


@every_variant
def test_arguments_are_generic_and_depend_on_the_seed_and_on_the_sizes_named(name: str) -> None:
    one, same, other = (case(name, seed).arrays for seed in (1, 1, 2))
    for argument in one:
        np.testing.assert_array_equal(one[argument], same[argument])
    assert any(not np.array_equal(one[argument], other[argument]) for argument in one)
    floats = case(name).as_dtype("float64").values()
    assert all(0.3 < math.sqrt(float(np.mean(array**2))) < 4 for array in floats)
    # With one generator, both would start with the same numbers, and a mix-up would be right.
    upstream = set(case(name).check().upstream["out"].flat)
    assert not upstream & {value for array in floats for value in array.flat}
    for letter in VARIANTS[name].letters:
        larger = case(name, 1, {letter: SIZES[letter] + 20}).arrays
        assert any(larger[argument].shape != one[argument].shape for argument in one), letter


def test_ids_repeat_and_one_target_is_ignored() -> None:
    for seed in range(20):
        ids = case("embedding", seed).args["ids"]
        assert len(set(ids)) < len(ids)
        assert SIZES["V"] - 1 not in ids
        assert (case("cross_entropy", seed).args["targets"] == -1).sum() == 1


def test_an_unknown_operation_or_size_is_refused() -> None:
    with pytest.raises(CheckError, match=r"the operation must be one of embedding, .*, not 'gulu'"):
        case("gulu")
    with pytest.raises(CheckError, match="the sizes of linear are N, C, K, not V"):
        case("linear", 0, {"V": 2})
    with pytest.raises(CheckError, match="N must be positive, not 0"):
        case("linear", 0, {"N": 0})


def test_each_form_of_the_backward_has_a_report_whose_title_names_what_is_unusual() -> None:
    titles = [each.title for each in check_operation("softmax", dtype="float32", sizes={"B": 4})]
    assert titles == ["softmax, B=4, float32", "softmax, in steps, B=4, float32"]


@every_variant
def test_the_check_detects_an_error_in_each_gradient(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = case(name)
    right = chosen.module.backward
    for number, argument in enumerate(chosen.differentiable):

        def backward(doutput: np.ndarray, saved: Any, number: int = number) -> Any:
            parts = list(as_tuple(right(doutput, saved)))
            parts[number] = parts[number] * doutput.dtype.type(1.002)
            return tuple(parts)

        monkeypatch.setattr(chosen.module, "backward", backward)
        for dtype in ("float64", "float32"):
            report = check_operation(name, dtype=dtype)[0]
            assert [row.name for row in report.rows if not row.ok] == [argument]


# Few elements, because there are many variants.
FEW = dict.fromkeys("KBTHDJRP", 2) | {"N": 3, "C": 4, "V": 5, "F": 3}


@every_variant
@pytest.mark.parametrize("method", METHODS)
def test_no_oracle_has_a_false_alarm(name: str, method: Method) -> None:
    sizes = {letter: FEW[letter] for letter in VARIANTS[name].letters}
    for seed, dtype in enumerate(("float64", "float32")):
        for report in check_operation(name, method=method, dtype=dtype, seed=seed, sizes=sizes):
            assert report.ok, report
