from collections.abc import Iterator

import numpy as np
import pytest
from study_own import BACKWARD, FORWARD, target

from tinygpt_np.gradcheck.cases import VARIANTS
from tinygpt_np.study import targets
from tinygpt_np.study.target import Target


def every() -> Iterator[Target]:
    yield from (targets.operation(variant) for variant in VARIANTS)
    yield from (targets.named(name) for name in targets.MODELS)
    yield target(FORWARD + BACKWARD)


@pytest.mark.parametrize("each", [*every()], ids=lambda each: each.name)
def test_a_target_is_all_that_a_study_needs(each: Target) -> None:
    assert {*each.wrt} <= {*each.args}
    assert {*each.forward.arguments} == {*each.args}
    assert each.backwards
    assert each.wrt or each.params
    assert (each.with_params is None) == (not each.params)
    assert len(each.functions) in (0, 1 + len(each.backwards))


@pytest.mark.parametrize("each", [*every()], ids=lambda each: each.name)
def test_what_is_differentiated_is_generic_and_of_order_one(each: Target) -> None:
    arrays = {**{name: each.args[name] for name in each.wrt}, **each.params}
    for name, array in arrays.items():
        assert array.dtype == np.float64, name
        assert array.size == len(np.unique(array)), f"{name} has a value twice"
        assert 1e-3 < np.abs(array).mean() < 10, name


def test_with_other_params_only_those_are_others() -> None:
    each = targets.block()
    assert each.with_params is not None
    name = next(iter(each.params))
    changed = each.with_params({name: each.params[name] + 1})
    assert {*changed} == {*each.args}
    assert changed["x"] is each.args["x"]
    model, other = each.args["self"], changed["self"]
    assert model is not other
    np.testing.assert_array_equal(other.params[name], each.params[name] + 1)
    assert model.params[name] is each.params[name]
    assert all(other.params[n] is model.params[n] for n in model.params if n != name)


def test_what_a_backward_is_given_besides_is_made_anew_for_each_run() -> None:
    each = targets.block()
    first, second = each.given(), each.given()
    assert first["grads"] is not second["grads"]
    assert first["grads"] == {}
    assert target(FORWARD + BACKWARD).given() == {}
