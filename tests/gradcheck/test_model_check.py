"""Whole models: every parameter is checked, and an error planted in one of them is found there."""

import copy
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

import tinygpt_np as tg
from tinygpt_np.gradcheck import Report, check_model
from tinygpt_np.gradcheck.measure import METHODS, Method
from tinygpt_np.gradcheck.model_check import DIRECTIONS, ELEMENTS, KEY, ModelCheck
from tinygpt_np.gradcheck.suite import CONFIG, batch, generic_gpt
from tinygpt_np.storage.parameters import Tensors

# Small, because every element is checked.
SMALL = replace(CONFIG, vocab_size=5, block_size=3, n_layer=1, n_embd=4)
NAMES = tuple(generic_gpt(SMALL).params)
BIAS = "h.0.attn.c_attn.bias"
TOKENS, TARGETS = batch(SMALL.vocab_size, 2, 3, 0)


class Changed(tg.GPT):
    """A model that changes its gradients in place, or returns other results."""

    def __init__(self, change: Callable[[float, Tensors], Any]) -> None:
        vars(self).update(vars(generic_gpt(SMALL)))
        self.change = change

    def loss_and_grads(
        self, tokens: np.ndarray, targets: np.ndarray, masks: Tensors | None = None
    ) -> tuple[float, Tensors]:
        loss, grads = super().loss_and_grads(tokens, targets, masks)
        return self.change(loss, grads) or (loss, grads)


@cache
def model_check(directions: int | None = None) -> ModelCheck:
    model = generic_gpt(SMALL)
    return ModelCheck(model, TOKENS, TARGETS, None, "complex", directions, 0, "a model")


def of(change: Callable[[Tensors], Any], directions: int | None = None) -> Report:
    return model_check(directions).report(Changed(lambda _, grads: change(grads)))


def wrong(report: Report) -> dict[str, str]:
    return {row.name: "; ".join((*row.problems, row.cause)) for row in report.rows if not row.ok}


def test_every_parameter_is_checked_and_only_the_key_bias_is_zero() -> None:
    report = model_check().report()
    assert {row.name: row.verdict for row in report.rows} == (
        dict.fromkeys([*NAMES, "loss"], "ok") | {BIAS + KEY: "zero"}
    )
    assert all(row.checked == np.prod(row.shape) for row in report.rows)
    assert report.notes == (
        "a bias of the keys shifts all scores of a row equally, so its gradient is exactly zero",
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_right_model_is_right_and_keeps_its_parameters(method: Method, dtype: str) -> None:
    model = generic_gpt(SMALL, 1, dtype)
    before = copy.deepcopy(model.params)
    # Parameters that cannot be written can be checked, too.
    model.params["wte.weight"].setflags(write=False)
    assert check_model(model, TOKENS, TARGETS, method=method, directions=1).ok
    for name, param in model.params.items():
        np.testing.assert_array_equal(param, before[name])


@pytest.mark.parametrize("name", NAMES)
def test_an_error_of_a_billionth_is_found_in_its_parameter(name: str) -> None:
    report = of(lambda grads: grads.update({name: np.asarray(grads[name] * (1 + 1e-9))}))
    assert [*wrong(report)] == [name]


@pytest.mark.parametrize("directions", [None, 4])
def test_a_gradient_of_the_key_bias_is_wrong(directions: int | None) -> None:
    def leak(grads: Tensors) -> None:
        grads[BIAS][SMALL.n_embd] += 1e-9

    problem = wrong(of(leak, directions))[BIAS + KEY]
    assert ("it should be zero" in problem) == (directions is None)


def test_a_missing_gradient_or_a_wrong_shape_or_dtype_is_wrong() -> None:
    missing = "there is no gradient; "
    assert wrong(of(lambda grads: [grads.pop(BIAS)][:0])) == {BIAS: missing, BIAS + KEY: missing}
    report = of(lambda grads: grads.update({BIAS: grads[BIAS][:-1]}))
    assert [*wrong(report)] == [BIAS, BIAS + KEY]
    report = of(lambda grads: grads.update({"ln_f.bias": grads["ln_f.bias"].astype(np.float32)}))
    assert [*wrong(report)] == ["ln_f.bias"]


def test_a_gradient_that_shares_memory_is_wrong() -> None:
    model = Changed(lambda _, grads: grads.update({"ln_f.bias": model.params["ln_f.bias"]}))
    assert "shares its memory with ln_f.bias" in str(model_check(1).report(model))
    report = of(lambda grads: grads.update({"ln_f.weight": grads["ln_f.bias"]}), 1)
    assert "shares its memory with the gradient of ln_f" in str(report)


def test_a_changed_parameter_is_wrong_and_restored() -> None:
    def change(loss: float, grads: Tensors) -> None:
        model.params["ln_f.bias"] += 1

    model = Changed(change)
    before = model.params["ln_f.bias"].copy()
    found = wrong(model_check(1).report(model))
    assert found == {"ln_f.bias": "loss_and_grads changes the parameter; "}
    np.testing.assert_array_equal(model.params["ln_f.bias"], before)


def test_a_large_model_is_checked_along_directions() -> None:
    model = tg.Bigram(50, dtype="float64")
    assert sum(p.size for p in model.params.values()) > ELEMENTS
    row, _ = check_model(model, *batch(50, 2, 3, 0)).rows
    assert (row.checked, row.by_element) == (DIRECTIONS, False)


def test_wrong_arguments_are_refused() -> None:
    none: Any = None
    with pytest.raises(ValueError, match="model must be a LanguageModel, not NoneType"):
        check_model(none, TOKENS, TARGETS)
    with pytest.raises(ValueError, match="targets must be"):
        check_model(generic_gpt(SMALL), TOKENS[:1], TARGETS)
    with pytest.raises(ValueError, match="directions must be a positive"):
        check_model(generic_gpt(SMALL), TOKENS, TARGETS, directions=0)


def test_a_wrong_loss_is_found_if_all_gradients_are_right() -> None:
    found = wrong(model_check(1).report(Changed(lambda loss, grads: (loss * TOKENS.size, grads))))
    assert [*found] == ["loss"]
    assert "too large by a factor of 6" in found["loss"]
    losses: list[Any] = [None, np.nan, np.ones(2), model_check().measured_loss.values[0] + 1e-9]
    for loss in losses:
        changed = Changed(lambda _, grads, loss=loss: (loss, grads))
        assert [*wrong(model_check(1).report(changed))] == ["loss"], loss


def test_a_loss_that_is_wrong_in_any_of_the_calls_is_found() -> None:
    for number in (1, 2, 3):
        calls: list[float] = []

        def change(loss: float, grads: Tensors, number: int = number) -> Any:
            calls.append(loss)  # noqa: B023
            return loss * (1 + 1e-9 * (len(calls) == number)), grads  # noqa: B023

        assert [*wrong(model_check(1).report(Changed(change)))] == ["loss"]


def test_gradients_that_are_not_set_to_zero_are_named() -> None:
    sums = {name: np.zeros_like(param) for name, param in generic_gpt(SMALL).params.items()}

    def add(loss: float, grads: Tensors) -> tuple[float, Tensors]:
        for name in sums:
            sums[name] += grads[name]
        return loss, sums

    found = wrong(model_check().report(Changed(add)))
    # The rounding errors at the other parameters may be larger.
    assert set(found) - {BIAS + KEY} == set(NAMES)
    assert "gradients are not set to zero" in found["wte.weight"]


def test_weights_packed_before_an_update_are_named() -> None:
    name = "h.0.mlp.c_fc.weight"

    def use_first(loss: float, grads: Tensors) -> tuple[float, Tensors]:
        packed.setdefault(name, model.params[name].copy())
        other = generic_gpt(SMALL)
        other.params = {**model.params, **packed}
        return other.loss_and_grads(TOKENS, TARGETS)

    model, packed = Changed(use_first), dict[str, np.ndarray]()
    found = wrong(model_check().report(model))
    assert {name, "loss"} <= set(found)
    assert "such as weights packed before an update" in found["loss"]


def doubled(names: Collection[str], from_call: int) -> dict[str, str]:
    """Return what is wrong if some gradients are doubled from a certain call on."""
    calls: list[float] = []

    def double(loss: float, grads: Tensors) -> tuple[float, Tensors]:
        calls.append(loss)
        late = len(calls) >= from_call
        return loss, grads | {name: grads[name] * 2 for name in names if late}

    found = wrong(model_check().report(Changed(double)))
    assert set(found) == set(names)
    return found


def test_gradients_that_are_wrong_only_in_the_second_call_are_wrong_and_called_stale() -> None:
    assert "in a second call: off by" in doubled(["ln_f.bias"], 3)["ln_f.bias"]
    assert "state survives from one call to the next" in doubled(NAMES, 3)["ln_f.bias"]
    assert "too large by a factor of 2" in doubled(["wte.weight"], 1)["wte.weight"]
